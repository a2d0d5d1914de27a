package ocspwire

import (
	"crypto"
	_ "crypto/sha1" // CertIDs and byKey responder IDs are SHA-1 by RFC 6960 and RFC 5019
	_ "crypto/sha256"
	_ "crypto/sha512"
	"encoding/asn1"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Object identifiers of OCSP's extensions and certificate marks.
var (
	OIDBasic          = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 1}
	OIDNonce          = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 2}
	OIDResponse       = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 4} // acceptable response types
	OIDNoCheck        = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}
	OIDServiceLocator = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 7}
	OIDPrefSigAlgs    = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 8}
)

var certIDHashes = []struct {
	hash crypto.Hash
	oid  asn1.ObjectIdentifier
}{
	{crypto.SHA1, asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}},
	{crypto.SHA256, asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}},
	{crypto.SHA384, asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}},
	{crypto.SHA512, asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}},
}

// Hashes returns the hash algorithms that a CertID may use here.
func Hashes() []crypto.Hash {
	var hs []crypto.Hash
	for _, h := range certIDHashes {
		hs = append(hs, h.hash)
	}
	return hs
}

// hashOf returns 0 for an algorithm that is not in the table.
func hashOf(oid asn1.ObjectIdentifier) crypto.Hash {
	for _, h := range certIDHashes {
		if h.oid.Equal(oid) {
			return h.hash
		}
	}
	return 0
}

func oidOf(hash crypto.Hash) asn1.ObjectIdentifier {
	for _, h := range certIDHashes {
		if h.hash == hash {
			return h.oid
		}
	}
	return nil
}

// Context-specific tags as they appear on the wire: implicit primitive and explicit (constructed).
const (
	implicit0 = cbasn1.Tag(0x80)
	implicit2 = cbasn1.Tag(0x82)

	explicit0 = cbasn1.Tag(0xa0)
	explicit1 = cbasn1.Tag(0xa1)
	explicit2 = cbasn1.Tag(0xa2)
)

// addNull is the absent-or-NULL parameter in its NULL form.
func addNull(b *cryptobyte.Builder) { b.AddASN1(cbasn1.NULL, func(*cryptobyte.Builder) {}) }
