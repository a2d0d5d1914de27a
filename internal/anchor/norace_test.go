//go:build !race

package anchor

const raced = false
