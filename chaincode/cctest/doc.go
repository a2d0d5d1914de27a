// Package cctest helps to test the contract and everything that stands on it: certificate authorities and certificates made
// quickly, an in-memory ledger with Fabric's version checks, and a harness that executes every transaction twice.
//
// It is for tests only. Its keys and certificates protect nothing.
package cctest

// TB is what the helpers need of a test: a *testing.T, *testing.B or *rapid.T.
type TB interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}
