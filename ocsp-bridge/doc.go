// Package ocspbridge follows a ledger and answers for it: OCSP, checkpoints and inclusion proofs of the issuance logs, and the
// state of its own view.
//
// A Bridge derives everything from the blocks of its own organisation's peer (internal/index), and answers only while that
// view is whole and fresh. The two rules that everything here serves: "good" needs a record and a fresh view; and once a
// revocation's block is applied (WaitApplied), no request that comes after sees anything older.
//
// Over HTTP (Handler):
//
//	POST /ocsp                        RFC 6960 appendix A.1
//	GET  /ocsp/{base64}               the same; base64 in any form that clients send
//	GET  /logs                        the issuance logs: ca_id, origin, size, vkey
//	GET  /logs/{ca_id}/checkpoint     C2SP tlog-checkpoint, signed with the organisation's log key
//	GET  /logs/{ca_id}/proof?index=N  C2SP tlog-proof; or ?serial=HEX; extra is the leaf's timestamp
//	GET  /v1/status/{ca_id}/{serial}  what the ledger says, as JSON
//	GET  /v1/applied?block=N          answers once block N is applied, or 504 after ?timeout= (10s, at most 30s)
//	GET  /healthz                     the process is alive
//	GET  /readyz                      200 when answers are given, 503 with the reason when not
//
// Errors of OCSP are OCSP errors; all others are RFC 9457 problems.
//
// Reading order: settings.go, bridge.go, follow.go, fresh.go, answer.go, then the HTTP files.
package ocspbridge
