// Package wire is what crosses the contract's boundary: state keys, records, arguments, answers and errors.
//
// Everything is deterministic CBOR (RFC 8949 section 4.2.1), a map with integer keys whose key 0 is the format version; the
// CDDL is in docs/ledger.cddl. Decoding is strict: duplicate keys, unknown keys, indefinite lengths, tags and trailing bytes
// are errors, so that a value has one encoding and endorsers cannot disagree about it.
package wire
