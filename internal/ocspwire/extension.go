package ocspwire

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"strconv"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Limits of a nonce, RFC 9654 section 2.1.
const (
	MinNonce     = 1
	MaxNonce     = 128
	DefaultNonce = 32 // what clients should send
)

// maxExtensions bounds one list of them: each is compared with those before it.
const maxExtensions = 64

// readExtensions reads Extensions ::= SEQUENCE SIZE (1..MAX) OF Extension, into the memory of exts.
func readExtensions(s *cryptobyte.String, exts []pkix.Extension) ([]pkix.Extension, error) {
	var list cryptobyte.String
	exts = exts[:0]
	if !s.ReadASN1(&list, cbasn1.SEQUENCE) || !s.Empty() {
		return nil, malformed("", "", "must be one SEQUENCE OF Extension (RFC 5280 section 4.1)")
	}
	if list.Empty() {
		return nil, malformed("", "empty", "must hold at least one extension, or be absent (RFC 5280 section 4.1)")
	}
	for !list.Empty() {
		ext, err := readExtension(&list)
		if err != nil {
			return nil, err
		}
		// RFC 5280 section 4.2: not more than one instance of a particular extension.
		if _, dup := findExtension(exts, ext.Id); dup {
			return nil, malformed("", ext.Id.String(), "must not occur twice (RFC 5280 section 4.2)")
		}
		if len(exts) == maxExtensions {
			return nil, malformed("", "longer than "+strconv.Itoa(maxExtensions), "must not hold more extensions than are read here")
		}
		exts = append(exts, ext)
	}
	return exts, nil
}

func readExtension(list *cryptobyte.String) (pkix.Extension, error) {
	var (
		ext         pkix.Extension
		body, value cryptobyte.String
		ok          bool
	)
	if !list.ReadASN1(&body, cbasn1.SEQUENCE) {
		return ext, malformed("", "", "must hold Extension SEQUENCEs")
	}
	if ext.Id, ok = readOID(&body); !ok {
		return ext, malformed("", "", "must hold Extension SEQUENCEs that begin with an OBJECT IDENTIFIER")
	}
	if body.PeekASN1Tag(cbasn1.BOOLEAN) {
		// X.690 section 11.5: a component equal to its default (critical FALSE) is not encoded.
		if !body.ReadASN1Boolean(&ext.Critical) || !ext.Critical {
			return ext, malformed(ext.Id.String()+".critical", "", "must be TRUE in one DER octet, or absent (X.690 section 11.5)")
		}
	}
	if !body.ReadASN1(&value, cbasn1.OCTET_STRING) || !body.Empty() {
		return ext, malformed(ext.Id.String()+".extnValue", "", "must be an OCTET STRING, with nothing after it")
	}
	ext.Value = value
	return ext, nil
}

func addExtensions(b *cryptobyte.Builder, exts []pkix.Extension) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, ext := range exts {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(ext.Id)
				if ext.Critical {
					b.AddASN1Boolean(true)
				}
				b.AddASN1OctetString(ext.Value)
			})
		}
	})
}

func findExtension(exts []pkix.Extension, id asn1.ObjectIdentifier) (pkix.Extension, bool) {
	for _, e := range exts {
		if e.Id.Equal(id) {
			return e, true
		}
	}
	return pkix.Extension{}, false
}

// readNonce returns the nonce among exts, nil if there is none.
func readNonce(exts []pkix.Extension) ([]byte, error) {
	ext, ok := findExtension(exts, OIDNonce)
	if !ok {
		return nil, nil
	}
	var nonce cryptobyte.String
	s := cryptobyte.String(ext.Value)
	if !s.ReadASN1(&nonce, cbasn1.OCTET_STRING) || !s.Empty() {
		return nil, malformed("nonce", "", "must be an OCTET STRING inside the extension's value (RFC 9654 section 2.1)")
	}
	// RFC 9654 section 2.1: Nonce ::= OCTET STRING(SIZE(1..128)); anything else is answered malformedRequest.
	if len(nonce) < MinNonce || len(nonce) > MaxNonce {
		return nil, malformed("nonce", strconv.Itoa(len(nonce))+" octets", "must be 1 to 128 octets (RFC 9654 section 2.1)")
	}
	return nonce, nil
}

// nonceExtension wraps a nonce. RFC 9654 section 2.1: it is not critical.
func nonceExtension(nonce []byte) pkix.Extension {
	b := cryptobyte.NewBuilder(make([]byte, 0, len(nonce)+3))
	b.AddASN1OctetString(nonce)
	return pkix.Extension{Id: OIDNonce, Value: b.BytesOrPanic()}
}
