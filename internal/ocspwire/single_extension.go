package ocspwire

import (
	"crypto/x509/pkix"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// ArchiveCutoff is the single extension of RFC 6960 section 4.4.4: producedAt minus the time for which the responder keeps the
// status of certificates that have expired.
func ArchiveCutoff(t time.Time) pkix.Extension { return timeExtension(OIDArchiveCutoff, t) }

// InvalidityDate is the CRL entry extension of RFC 5280 section 5.3.2, which RFC 6960 section 4.4.5 allows as a single extension: the
// key is known or suspected to have been compromised since then.
func InvalidityDate(t time.Time) pkix.Extension { return timeExtension(OIDInvalidityDate, t) }

// ExtendedRevoke is the response extension of RFC 6960 section 4.4.8: this responder may say "revoked" of a certificate that was never
// issued. It must be in a response that does.
func ExtendedRevoke() pkix.Extension {
	return pkix.Extension{Id: OIDExtendedRevoke, Value: []byte{0x05, 0x00}}
}

// NeverIssued is the "revoked" of a certificate that was never issued. RFC 6960 section 2.2: on hold since 1970, with no CRL
// entry extensions; and the response must have ExtendedRevoke.
func NeverIssued(id CertID) SingleResponse {
	return SingleResponse{ID: id, Status: Revoked, RevokedAt: time.Unix(0, 0).UTC(), Reason: 6}
}

// ArchiveCutoff returns the time that the extension of that name gives; zero if there is none.
func (s *SingleResponse) ArchiveCutoff() time.Time { return timeIn(s.Extensions, OIDArchiveCutoff) }

// InvalidityDate returns the time that the extension of that name gives; zero if there is none.
func (s *SingleResponse) InvalidityDate() time.Time { return timeIn(s.Extensions, OIDInvalidityDate) }

// ExtendedRevoke tells whether the response has the extension of that name.
func (r *Response) ExtendedRevoke() bool {
	_, ok := findExtension(r.Extensions, OIDExtendedRevoke)
	return ok
}

func timeExtension(oid []int, t time.Time) pkix.Extension {
	b := cryptobyte.NewBuilder(make([]byte, 0, 17))
	addTime(b, t)
	der, err := b.Bytes()
	if err != nil {
		der = nil // a year beyond 9999; Sign refuses the empty value
	}
	return pkix.Extension{Id: oid, Value: der}
}

func timeIn(exts []pkix.Extension, oid []int) time.Time {
	ext, ok := findExtension(exts, oid)
	if !ok {
		return time.Time{}
	}
	s := cryptobyte.String(ext.Value)
	t, _ := readTime(&s) // ParseResponse refuses what cannot be read
	return t
}

// checkTimes checks the contents of the single extensions that hold a time.
func checkTimes(exts []pkix.Extension) error {
	for i := range exts {
		e := &exts[i]
		if !e.Id.Equal(OIDArchiveCutoff) && !e.Id.Equal(OIDInvalidityDate) {
			continue
		}
		s := cryptobyte.String(e.Value)
		if _, err := readTime(&s); err != nil {
			return within(e.Id.String(), err)
		}
		if !s.Empty() {
			return malformed(e.Id.String(), "", "must be one GeneralizedTime (RFC 6960 section 4.4.4, RFC 5280 section 5.3.2)")
		}
	}
	return nil
}

// ServiceLocator is a single request extension: where the request is to be routed (RFC 6960 section 4.4.6).
type ServiceLocator struct {
	Issuer  []byte // DER of the Name of the certificate's issuer
	Locator []byte // DER of the AuthorityInfoAccessSyntax; nil if absent
}

// ServiceLocator returns the item's, nil if it has none.
func (it *RequestItem) ServiceLocator() (*ServiceLocator, error) {
	ext, ok := findExtension(it.Extensions, OIDServiceLocator)
	if !ok {
		return nil, nil
	}
	var (
		s               = cryptobyte.String(ext.Value)
		body, name, aia cryptobyte.String
	)
	ok = s.ReadASN1(&body, cbasn1.SEQUENCE) && s.Empty() && body.ReadASN1Element(&name, cbasn1.SEQUENCE) && isName(name) &&
		(body.Empty() || body.ReadASN1Element(&aia, cbasn1.SEQUENCE) && body.Empty() && isAccess(aia))
	if !ok {
		return nil, malformed("serviceLocator", "", "must be a Name and an AuthorityInfoAccessSyntax (RFC 6960 section 4.4.6)")
	}
	return &ServiceLocator{Issuer: name, Locator: aia}, nil
}

// isAccess: AuthorityInfoAccessSyntax ::= SEQUENCE SIZE (1..MAX) OF SEQUENCE { OBJECT IDENTIFIER, GeneralName } (RFC 5280 section 4.2.2.1).
func isAccess(s cryptobyte.String) bool {
	var list, one cryptobyte.String
	if !s.ReadASN1(&list, cbasn1.SEQUENCE) || list.Empty() {
		return false
	}
	for !list.Empty() {
		if !list.ReadASN1(&one, cbasn1.SEQUENCE) {
			return false
		}
		if _, ok := readOID(&one); !ok {
			return false
		}
		if _, err := ParseGeneralName(one); err != nil {
			return false
		}
	}
	return true
}

// Extension is the service locator as a single request extension. Requires DER in the fields.
func (l *ServiceLocator) Extension() pkix.Extension {
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(l.Issuer)
		b.AddBytes(l.Locator)
	})
	return pkix.Extension{Id: OIDServiceLocator, Value: b.BytesOrPanic()}
}
