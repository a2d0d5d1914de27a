// Package ocspbridge follows a ledger and answers for it: OCSP, checkpoints and inclusion proofs of the issuance logs, and the
// state of its own view.
//
// A Bridge derives everything from the blocks of its own organisation's peer (internal/index), and answers only while that
// view is whole and fresh. The two rules that everything here serves: "good" needs a record and a fresh view; and once a
// revocation's block is applied (WaitApplied), no request that comes after sees anything older.
//
// Reading order: settings.go, bridge.go, follow.go, fresh.go, answer.go, then the HTTP files.
package ocspbridge
