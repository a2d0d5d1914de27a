// Package ctapi is the HTTP face of one issuance log as certificate transparency clients know it: RFC 6962's /ct/v1/, and the static
// files of C2SP static-ct-api, both under one organisation's own prefix and key.
//
// A log takes the certificates and precertificates of one CA, the one it is the log of. Every entry is in the tree before its SCT exists,
// so there is no merge delay, and an SCT names the entry's index. Signatures are deterministic: a duplicate gets
// the same SCT byte for byte, from every server that has the key.
//
// Answers other than 200 are problem details (RFC 9457), which carry the message that RFC 6962 section 4 asks for.
package ctapi
