// Package revmap is the revocation map: a sparse Merkle tree over 256-bit keys. Its root commits whoever signed it to one answer
// for every key: absent, or present with one value. docs/revocation-map.md gives the exact hashing, the encoding of proofs, why
// they are sound, and test vectors.
//
// Reading order: hash.go (what a root is), proof.go and verify.go (all that a relying party needs), page.go (how subtrees are
// stored), store.go (reading them without trusting the disk), prove.go, update.go.
//
// It imports only the standard library, because package client imports it.
package revmap
