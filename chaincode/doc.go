// Package chaincode is the contract: the rules that every organisation executes, and the only code that decides what the
// ledger accepts.
//
// It is a deterministic state machine over a narrow State. It reads no clock, draws no random numbers, starts no goroutines
// and iterates over no maps; parsing and verifying certificates is crypto/x509, whose strictness differs between Go versions,
// so go.mod pins the toolchain and the godebug defaults: endorsers must build it alike.
//
// A transaction either writes everything it decided or nothing: writes are collected and reach the State only after every
// check has passed. Reading order: contract.go, transaction.go, clock.go, then one file per function.
package chaincode
