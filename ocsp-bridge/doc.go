// Package ocspbridge follows a ledger and answers for it: OCSP, the logs with their proofs, bundles, and the state of its own view.
//
// A Bridge derives everything from the blocks of its own organisation's peer (internal/index), and answers only while that
// view is whole and fresh. The rules that everything here serves: "good" needs a record and a fresh view; once a
// revocation's block is applied (WaitApplied), no request that comes after sees anything older; and no key of this organisation ever
// signs a second history, whatever becomes of the ledger behind it.
//
// Over HTTP (Handler):
//
//	POST /ocsp                        RFC 6960 appendix A.1
//	GET  /ocsp/{base64}               the same; base64 in any form that clients send
//	GET  /logs, /logs/{name}/...      the logs: docs/logs.md has all that is below
//	GET  /log_list.json               the issuance logs for certificate transparency clients
//	GET  /v1/bundle/{ca_id}/{serial}  what shows a certificate's status offline
//	GET  /policy                      the consortium's policy
//	POST /witness/add-checkpoint      C2SP tlog-witness, for the other organisations
//	GET  /v1/status/{ca_id}/{serial}  what the ledger says, as JSON
//	GET  /v1/heads                    the logs' cosigned heads, and the peers
//	GET  /v1/alarms                   evidence of split views
//	GET  /v1/applied?block=N          answers once block N is applied, or 504 after ?timeout= (10s, at most 30s)
//	GET  /metrics                     for Prometheus
//	GET  /healthz                     503 once halted or stale; the body tells why, and of alarms
//	GET  /readyz                      200 when answers are given, 503 with the reason when not
//
// Errors of OCSP are OCSP errors; all others are RFC 9457 problems.
//
// Signed OCSP answers are kept (internal/answers), and given only while nothing has changed that they say.
//
// Reading order: settings.go, profile.go, bridge.go, follow.go, changes.go, fresh.go, answer.go, verdict.go, sign.go; consortium.go, logs.go, watch.go, integrate.go, submit.go, bundle.go;
// then the HTTP files, of which http_ocsp.go and decode.go are OCSP's.
package ocspbridge
