package chaincode

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/certsig"
)

// Object identifiers that the rules look for.
var (
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidPrecertSigning   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 4} // RFC 6962 section 3.1
	oidOCSPNoCheck      = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}    // RFC 6960 section 4.2.2.2.1
)

// maxResponderLife is how long a delegated responder certificate may live: it cannot be revoked in effect, because
// id-pkix-ocsp-nocheck tells clients not to ask (invariant 9, docs/invariants.md).
const maxResponderLife = wire.MaxResponderLife

// parseCertificate reads one DER certificate of X.509 version 3. Errors name field.
func parseCertificate(field string, der []byte) (*x509.Certificate, error) {
	if len(der) == 0 || len(der) > wire.MaxCertDER {
		return nil, invalid(field, fmt.Sprintf("%d bytes", len(der)), "must be 1 to %d bytes of DER", wire.MaxCertDER)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, invalid(field, hexPrefix(der), "must be a DER X.509 certificate (RFC 5280 section 4.1): %v", err)
	}
	if !exact(der) {
		return nil, invalid(field, hexPrefix(der), "must be what RFC 5280 section 4.1 defines and no more: it has data after a last field, or a signature of broken octets")
	}
	// RFC 5280 4.1.2.1: with extensions, and both kinds here have some, the version is 3.
	if cert.Version != 3 {
		return nil, invalid(field+".version", fmt.Sprint(cert.Version), "must be 3 (RFC 5280 section 4.1.2.1)")
	}
	return cert, nil
}

// exact looks for data that crypto/x509 skips: after the signature inside the Certificate, after the extensions inside the
// TBSCertificate, and after their list inside the tag [3] around it. The signature must be whole octets. Requires DER that
// x509.ParseCertificate has accepted.
func exact(der []byte) bool {
	var cert, tbs, skip, wrapped cryptobyte.String
	var present bool
	var signature []byte
	input := cryptobyte.String(der)
	if !input.ReadASN1(&cert, cbasn1.SEQUENCE) || !input.Empty() ||
		!cert.ReadASN1(&tbs, cbasn1.SEQUENCE) ||
		!cert.ReadASN1(&skip, cbasn1.SEQUENCE) ||
		!cert.ReadASN1BitStringAsBytes(&signature) || !cert.Empty() {
		return false
	}
	version, issuerUID, subjectUID, extensions := cbasn1.Tag(0), cbasn1.Tag(1), cbasn1.Tag(2), cbasn1.Tag(3)
	return tbs.SkipOptionalASN1(version.ContextSpecific().Constructed()) &&
		tbs.SkipASN1(cbasn1.INTEGER) && // serialNumber
		tbs.SkipASN1(cbasn1.SEQUENCE) && // signature
		tbs.SkipASN1(cbasn1.SEQUENCE) && // issuer
		tbs.SkipASN1(cbasn1.SEQUENCE) && // validity
		tbs.SkipASN1(cbasn1.SEQUENCE) && // subject
		tbs.SkipASN1(cbasn1.SEQUENCE) && // subjectPublicKeyInfo
		tbs.SkipOptionalASN1(issuerUID.ContextSpecific()) &&
		tbs.SkipOptionalASN1(subjectUID.ContextSpecific()) &&
		tbs.ReadOptionalASN1(&wrapped, &present, extensions.ContextSpecific().Constructed()) &&
		tbs.Empty() &&
		(!present || wrapped.SkipASN1(cbasn1.SEQUENCE) && wrapped.Empty())
}

// checkIssuedBy says whether issuer's name and key are the ones that signed cert.
func checkIssuedBy(field string, cert, issuer *x509.Certificate) error {
	// RFC 5280 6.1.3 (a)(4). Octet by octet: a CA copies its subject, so endorsers need no name comparison rules.
	if !bytes.Equal(cert.RawIssuer, issuer.RawSubject) {
		return invalid(field+".issuer", cert.Issuer.String(), "must be the subject of the issuing CA, %q, octet by octet", issuer.Subject.String())
	}
	// RFC 5280 4.2.1.1
	if len(cert.AuthorityKeyId) > 0 && len(issuer.SubjectKeyId) > 0 && !bytes.Equal(cert.AuthorityKeyId, issuer.SubjectKeyId) {
		return invalid(field+".authority_key_id", hex.EncodeToString(cert.AuthorityKeyId), "must be the issuing CA's subject key identifier, %x", issuer.SubjectKeyId)
	}
	// RFC 5280 6.1.3 (a)(1). Refuses MD5 and SHA-1 too.
	if err := certsig.Check(cert, issuer); err != nil {
		return invalid(field+".signature", cert.SignatureAlgorithm.String(), "must verify with the key of the issuing CA: %v", err)
	}
	return nil
}

// hasExtension reports whether cert has the extension id, and whether it is critical.
func hasExtension(cert *x509.Certificate, id asn1.ObjectIdentifier) (present, critical bool) {
	for _, e := range cert.Extensions {
		if e.Id.Equal(id) {
			return true, e.Critical
		}
	}
	return false, false
}

func mayBeResponder(cert *x509.Certificate) bool {
	for _, usage := range cert.ExtKeyUsage {
		if usage == x509.ExtKeyUsageOCSPSigning {
			return true
		}
	}
	return false
}

func invalid(field, value, rule string, args ...any) error {
	return wire.Errorf(wire.InvalidArgument, field, value, rule, args...)
}

// hexPrefix shows the beginning of a value that could not be parsed.
func hexPrefix(b []byte) string {
	const most = 16
	if len(b) <= most {
		return hex.EncodeToString(b)
	}
	return hex.EncodeToString(b[:most]) + "..."
}

func timeText(t time.Time) string { return t.UTC().Format(time.RFC3339) }
