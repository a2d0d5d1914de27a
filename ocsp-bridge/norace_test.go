//go:build !race

package ocspbridge_test

// dropped: see race_test.go.
const dropped = 0
