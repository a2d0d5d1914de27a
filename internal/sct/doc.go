// Package sct makes what a CT log signs: signed certificate timestamps, signed tree heads (RFC 6962 section 3), and the
// checkpoints of C2SP static-ct-api, which carry a tree head's signature in a note.
//
// Every organisation has one ECDSA P-256 key for each issuance log that it serves. Signatures are deterministic (RFC 6979): for one
// leaf or head a key has one signature, whichever process makes it and however often. So a duplicate submission gets
// the same SCT byte for byte, without a record of what was signed before. Only a key in a PKCS #11 token, whose signatures are
// randomised, has such a record: see Kept.
package sct
