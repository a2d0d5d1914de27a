// Package index is the bridge's own copy of what the ledger says, derived from blocks and from nothing else.
//
// Reading order: index.go (the store), view.go and moment.go (what reads see), keys.go (its layout), apply.go (one block) and what it
// is made of: trees.go, applyissue.go, applystatus.go, applypending.go, applytick.go. Then the reads: logs.go, query.go, mapproof.go.
//
// The index believes no summary. It recomputes every leaf from the certificate in the transaction, every root from its own
// leaves, and the revocation map from the status log, and compares them with what the contract recorded; it checks that each block
// names the one before, that no record goes back from revoked, and that changes of status and status leaves say the same. A
// block that fails a check is not applied, nor is any after it: Apply returns a *DivergenceError and keeps returning it.
//
// Nor does it believe its own store: hashes are checked against their parents or children when they are read, entries against
// their leaf hashes, map values against the map's root. What fails is an error, and never part of an answer.
//
// Position and data are one batch, so a crash leaves either all of a block or nothing of it. Batches are not synced: what a
// power failure takes away is read again from the ledger.
package index
