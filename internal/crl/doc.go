// Package crl is certificate revocation lists: what is in one (Contents), and its form as RFC 5280 section 5 has it.
//
// Contents follow from the ledger alone, so every organisation computes the same for the same CA, scope and number; whoever has the
// CA's key builds and signs the list with Build, and the others compare it with Parse and Contents.Compare. Nothing here decides what a
// certificate's status is, and nothing reads a clock.
//
// The encoder is the package's own: of a million entries crypto/x509 makes a CRL in some twenty times the time, and with some forty times the
// memory (BenchmarkMillion). Where both can express a CRL, tests compare them octet by octet.
package crl
