//go:build race

package ocspbridge_test

// dropped is how many allocations a request may cost: under the race detector sync.Pool forgets some of what it is given, at random.
const dropped = 4
