// Package served compares what organisations serve with what audited blocks say: checkpoints and their signatures, every stored octet of
// the tiles, and for a sample of certificates the OCSP answers and bundles.
//
// Nothing that a bridge says is believed. Each head that is found anywhere, now or at an earlier audit, is a claim; one pass over each
// log, as the audit derived it from the blocks, computes the roots for all of them and the tiles to compare with.
//
// Reading order: report.go (what comes out), served.go (the order of things), heads.go and signatures.go (claims), seen.go (what is
// remembered between audits), walk.go and files.go (roots and tiles), sample.go, ask.go and status.go (certificates).
package served
