package keyfile

import "flag"

var defaultIterations = Iterations

// DefaultIterations is how many iterations of PBKDF2 what is written gets: Iterations, but in a test binary that has called FewerIterations.
func DefaultIterations() int { return defaultIterations }

// FewerIterations makes DefaultIterations the least there may be: keys of tests protect nothing, and a test binary makes and opens many. It is for
// TestMain, and panics in a program that is not a test binary.
func FewerIterations() {
	if flag.Lookup("test.v") == nil {
		panic("keyfile: fewer iterations are for tests")
	}
	defaultIterations = minIterations
}
