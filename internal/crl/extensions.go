package crl

import (
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Extensions of a CRL, its entries and certificates, RFC 5280 sections 4.2 and 5.2: the last part of their object identifiers below id-ce,
// 2.5.29.
const (
	idReason         = 21
	idInvalidity     = 24
	idIssuer         = 29
	idNumber         = 20
	idDelta          = 27
	idIssuingPoint   = 28
	idPoints         = 31 // cRLDistributionPoints
	idAuthorityKeyID = 35
	idFreshest       = 46
)

// oid is the DER of an object identifier below id-ce.
func oid(id byte) []byte { return []byte{6, 3, 0x55, 0x1d, id} }

// Context-specific tags.
const (
	tag0        = cbasn1.Tag(0x80)
	tag4        = cbasn1.Tag(0x84)
	tagURI      = cbasn1.Tag(0x86) // GeneralName [6]
	tag0Inside  = cbasn1.Tag(0xa0)
	tagDirName  = cbasn1.Tag(tagDirectory)
	octetString = cbasn1.OCTET_STRING
	sequence    = cbasn1.SEQUENCE
)

func addExtension(b *cryptobyte.Builder, id byte, critical bool, value func(*cryptobyte.Builder)) {
	b.AddASN1(sequence, func(b *cryptobyte.Builder) {
		b.AddBytes(oid(id))
		if critical {
			b.AddASN1Boolean(true)
		}
		b.AddASN1(octetString, value)
	})
}

func addAuthorityKeyID(b *cryptobyte.Builder, id []byte) {
	addExtension(b, idAuthorityKeyID, false, func(b *cryptobyte.Builder) {
		b.AddASN1(sequence, func(b *cryptobyte.Builder) {
			b.AddASN1(tag0, func(b *cryptobyte.Builder) { b.AddBytes(id) })
		})
	})
}

func addNumber(b *cryptobyte.Builder, id byte, critical bool, n uint64) {
	addExtension(b, id, critical, func(b *cryptobyte.Builder) { b.AddASN1Uint64(n) })
}

// addIssuingPoint adds issuingDistributionPoint, which is critical (RFC 5280 section 5.2.5).
func addIssuingPoint(b *cryptobyte.Builder, url string, indirect bool) {
	addExtension(b, idIssuingPoint, true, func(b *cryptobyte.Builder) {
		b.AddASN1(sequence, func(b *cryptobyte.Builder) {
			if url != "" {
				addPointName(b, url)
			}
			if indirect {
				b.AddASN1(tag4, func(b *cryptobyte.Builder) { b.AddUint8(0xff) })
			}
		})
	})
}

func addFreshest(b *cryptobyte.Builder, url string) {
	addExtension(b, idFreshest, false, func(b *cryptobyte.Builder) { addPoints(b, url) })
}

// addPoints adds CRLDistributionPoints with one name.
func addPoints(b *cryptobyte.Builder, url string) {
	b.AddASN1(sequence, func(b *cryptobyte.Builder) {
		b.AddASN1(sequence, func(b *cryptobyte.Builder) { addPointName(b, url) })
	})
}

// addPointName adds distributionPoint [0] with fullName [0], one URI.
func addPointName(b *cryptobyte.Builder, url string) {
	b.AddASN1(tag0Inside, func(b *cryptobyte.Builder) {
		b.AddASN1(tag0Inside, func(b *cryptobyte.Builder) {
			b.AddASN1(tagURI, func(b *cryptobyte.Builder) { b.AddBytes([]byte(url)) })
		})
	})
}

// readPointName undoes addPointName: distributionPoint is what lies in its [0].
func readPointName(point cryptobyte.String) (urls []string, ok bool) {
	var names, uri cryptobyte.String
	if !point.ReadASN1(&names, tag0Inside) || !point.Empty() {
		return nil, false
	}
	for !names.Empty() {
		if !names.ReadASN1(&uri, tagURI) {
			return nil, false
		}
		urls = append(urls, string(uri))
	}
	return urls, len(urls) > 0
}
