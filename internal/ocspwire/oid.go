package ocspwire

import (
	"bytes"
	"crypto"
	_ "crypto/sha1" // CertIDs and byKey responder IDs are SHA-1 by RFC 6960 and RFC 5019
	_ "crypto/sha256"
	_ "crypto/sha512"
	"encoding/asn1"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Object identifiers of OCSP's extensions and certificate marks (RFC 6960 appendix B), and of the CRL entry extension that
// section 4.4.5 lets into responses.
var (
	OIDBasic          = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 1}
	OIDNonce          = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 2}
	OIDResponse       = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 4} // acceptable response types
	OIDNoCheck        = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}
	OIDArchiveCutoff  = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 6}
	OIDServiceLocator = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 7}
	OIDPrefSigAlgs    = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 8}
	OIDExtendedRevoke = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 9}
	OIDInvalidityDate = asn1.ObjectIdentifier{2, 5, 29, 24}
)

// knownOIDs are the identifiers that readOID returns without allocating, by their DER content.
var knownOIDs = func() (known []knownOID) {
	for _, oid := range []asn1.ObjectIdentifier{
		OIDNonce, OIDResponse, OIDPrefSigAlgs, OIDServiceLocator, OIDArchiveCutoff, OIDExtendedRevoke, OIDInvalidityDate, OIDBasic,
	} {
		known = append(known, knownOID{contentOf(oid), oid})
	}
	return known
}()

type knownOID struct {
	content []byte
	oid     asn1.ObjectIdentifier
}

// readOID reads an OBJECT IDENTIFIER. The caller must not write to it: known ones are shared.
func readOID(s *cryptobyte.String) (asn1.ObjectIdentifier, bool) {
	var content cryptobyte.String
	at := *s
	if !s.ReadASN1(&content, cbasn1.OBJECT_IDENTIFIER) {
		return nil, false
	}
	for _, k := range knownOIDs {
		if bytes.Equal(k.content, content) {
			return k.oid, true
		}
	}
	var oid asn1.ObjectIdentifier
	ok := at.ReadASN1ObjectIdentifier(&oid)
	return oid, ok
}

// contentOf is the DER content of an identifier that is written in this package or was read by it.
func contentOf(oid asn1.ObjectIdentifier) []byte {
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1ObjectIdentifier(oid)
	var content cryptobyte.String
	s := cryptobyte.String(b.BytesOrPanic())
	s.ReadASN1(&content, cbasn1.OBJECT_IDENTIFIER)
	return content
}

type certIDHash struct {
	hash    crypto.Hash
	oid     asn1.ObjectIdentifier
	content []byte
}

var certIDHashes = func() []certIDHash {
	hs := []certIDHash{
		{hash: crypto.SHA1, oid: asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}},
		{hash: crypto.SHA256, oid: asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}},
		{hash: crypto.SHA384, oid: asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}},
		{hash: crypto.SHA512, oid: asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}},
	}
	for i := range hs {
		hs[i].content = contentOf(hs[i].oid)
	}
	return hs
}()

// Hashes returns the hash algorithms that a CertID may use here.
func Hashes() []crypto.Hash {
	var hs []crypto.Hash
	for _, h := range certIDHashes {
		hs = append(hs, h.hash)
	}
	return hs
}

// readHashOID reads a hash algorithm's identifier; 0 for one that is not in the table.
func readHashOID(s *cryptobyte.String) (crypto.Hash, bool) {
	var content cryptobyte.String
	at := *s
	if !s.ReadASN1(&content, cbasn1.OBJECT_IDENTIFIER) {
		return 0, false
	}
	for i := range certIDHashes {
		if bytes.Equal(certIDHashes[i].content, content) {
			return certIDHashes[i].hash, true
		}
	}
	var oid asn1.ObjectIdentifier
	return 0, at.ReadASN1ObjectIdentifier(&oid)
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
