// Package bundle is the one file that shows, offline, what the ledger says about a certificate: that it was issued, and what its status
// was at the newest Tick. docs/bundle.md has the format. Reading order: bundle.go (the file), verify.go and status.go (what it proves),
// make.go (how a bridge builds one).
//
// No byte of a bundle is unauthenticated: each is hashed towards a root that a quorum has signed, is part of those signatures, or
// decides which hash is compared. So a bundle that verifies has no second form.
package bundle
