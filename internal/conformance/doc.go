// Package conformance has no code, only tests: a CA and OCSP bridges on the embedded ledger are asked everything that RFC 6960, RFC
// 5019 and RFC 9654 let a client ask, and OpenSSL, GnuTLS, nginx and curl judge the answers beside this project's own
// checks. What comes out is docs/ocsp-conformance.md.
package conformance
