package ctleaf

import (
	"encoding/asn1"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Extensions that tell a precertificate from its certificate.
var (
	OIDPoison  = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 3} // RFC 6962 section 3.1
	OIDSCTList = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2} // RFC 6962 section 3.3
)

// PrecertTBS returns the TBSCertificate of a precertificate without its poison extension, as RFC 6962 section 3.2 logs it.
// Errors: der is no certificate, or does not have exactly one poison extension.
func PrecertTBS(der []byte) ([]byte, error) {
	tbs, n, err := without(der, OIDPoison)
	if err == nil && n != 1 {
		err = fmt.Errorf("ctleaf: a precertificate must have exactly one poison extension, this one has %d (RFC 6962 section 3.1)", n)
	}
	return tbs, err
}

// FinalTBS returns the TBSCertificate of a certificate without its SCT list: PrecertTBS of the precertificate it was made from.
// A certificate without SCT list keeps its TBSCertificate. Errors: der is no certificate, or has several SCT lists.
func FinalTBS(der []byte) ([]byte, error) {
	tbs, n, err := without(der, OIDSCTList)
	if err == nil && n > 1 {
		err = fmt.Errorf("ctleaf: a certificate must have at most one SCT list, this one has %d (RFC 6962 section 3.3)", n)
	}
	return tbs, err
}

// IsPrecert reports whether a certificate has a poison extension. Errors: der is no certificate.
func IsPrecert(der []byte) (bool, error) {
	_, n, err := without(der, OIDPoison)
	return n > 0, err
}

var errNoCertificate = errors.New("ctleaf: not a DER certificate with extensions in their place (RFC 5280 section 4.1)")

// without returns the TBSCertificate of der with every extension id left out, and how many there were. All else is kept octet
// for octet; a list of extensions that becomes empty is left out, since it must not be empty.
func without(der []byte, id asn1.ObjectIdentifier) (tbs []byte, removed int, err error) {
	var cert, body, head cryptobyte.String
	input := cryptobyte.String(der)
	if !input.ReadASN1(&cert, cbasn1.SEQUENCE) || !cert.ReadASN1(&body, cbasn1.SEQUENCE) {
		return nil, 0, errNoCertificate
	}
	extensionsTag := cbasn1.Tag(3).ContextSpecific().Constructed()
	var before [][]byte
	for !body.Empty() && !body.PeekASN1Tag(extensionsTag) {
		var tag cbasn1.Tag
		if !body.ReadAnyASN1Element(&head, &tag) {
			return nil, 0, errNoCertificate
		}
		before = append(before, head)
	}
	kept, had, removed, err := keep(body, extensionsTag, id)
	if err != nil {
		return nil, 0, err
	}
	b := cryptobyte.NewBuilder(make([]byte, 0, len(der)))
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, e := range before {
			b.AddBytes(e)
		}
		if !had || removed > 0 && len(kept) == 0 {
			return
		}
		b.AddASN1(extensionsTag, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				for _, e := range kept {
					b.AddBytes(e)
				}
			})
		})
	})
	tbs, err = b.Bytes()
	return tbs, removed, err
}

// keep reads what follows the fixed fields of a TBSCertificate and returns all extensions but id.
func keep(body cryptobyte.String, tag cbasn1.Tag, id asn1.ObjectIdentifier) (kept [][]byte, had bool, removed int, err error) {
	if body.Empty() {
		return nil, false, 0, nil
	}
	var wrapped, list cryptobyte.String
	if !body.ReadASN1(&wrapped, tag) || !body.Empty() || !wrapped.ReadASN1(&list, cbasn1.SEQUENCE) || !wrapped.Empty() {
		return nil, false, 0, errNoCertificate
	}
	for !list.Empty() {
		var element, fields cryptobyte.String
		var oid asn1.ObjectIdentifier
		if !list.ReadASN1Element(&element, cbasn1.SEQUENCE) {
			return nil, false, 0, errNoCertificate
		}
		whole := element
		if !element.ReadASN1(&fields, cbasn1.SEQUENCE) || !fields.ReadASN1ObjectIdentifier(&oid) {
			return nil, false, 0, errNoCertificate
		}
		if oid.Equal(id) {
			removed++
			continue
		}
		kept = append(kept, whole)
	}
	return kept, true, removed, nil
}
