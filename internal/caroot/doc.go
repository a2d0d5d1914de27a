// Package caroot is an offline root: a CA on a machine without a network that certifies other CAs. It reads and writes files and nothing else.
//
// # The directory
//
//	root.pem    the root's self-signed certificate
//	root.key    its key, encrypted PKCS#8, mode 0600; or one line, the RFC 7512 URI of a key in a PKCS #11 token
//	key.states  the key's life (package keystate)
//	register    what was signed: one JSON object a line, numbered, each with the hash of the line before
//
// # The order of steps
//
//	check -> show and ask -> register "reserved" with the serial number (fsync) -> sign -> verify -> register "signed" with the certificate (fsync) -> give out
//
// A serial number is in the register before the signature exists: killed at any point, none is used twice. A certificate is in the register before
// anybody gets it; Issued gives it out again.
//
// Reading order: root.go (the directory), sign.go (a subordinate CA), crl.go (the root's CRL), register.go (the file).
package caroot
