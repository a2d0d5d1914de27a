// Package index is the bridge's own copy of what the ledger says, derived from blocks and from nothing else.
//
// Reading order: index.go (the store and its views), keys.go (its layout), apply.go (one block), trees.go (the Merkle trees),
// query.go (reads).
//
// The index believes no summary. It recomputes every leaf from the certificate in the transaction and every root from its own
// leaves, and compares them with what the contract recorded; it checks that each block names the one before, and that no
// record goes back from revoked. A block that fails a check is not applied, nor is any after it: Apply returns a
// *DivergenceError and keeps returning it.
//
// Position and data are one batch, so a crash leaves either all of a block or nothing of it. Batches are not synced: what a
// power failure takes away is read again from the ledger.
package index
