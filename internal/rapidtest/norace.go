//go:build !race

package rapidtest

// Raced says that the race detector looks on.
const Raced = false
