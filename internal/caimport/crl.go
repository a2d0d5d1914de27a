package caimport

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ocspwire"
)

// MaxCRLBytes is the length of the longest CRL that is read.
const MaxCRLBytes = 1 << 30

// List is an outside CA's CRL. It refers to the memory of its DER; entries are read when they are asked for.
//
// Package crl reads CRLs too, but only such as certanchor makes; what a CA has published so far has other extensions, and sometimes none.
type List struct {
	Issuer     []byte // DER of the name
	ThisUpdate time.Time
	NextUpdate time.Time // zero: the CRL does not say
	Number     *big.Int  // RFC 5280 section 5.2.3; nil: none
	Base       *big.Int  // of a delta CRL, section 5.2.4; nil: complete
	Partial    bool      // it is for some certificates or reasons only, section 5.2.5: not to be in it says nothing
	Scope      []byte    // issuingDistributionPoint, DER; nil: none

	tbs, signature []byte
	algorithm      x509.SignatureAlgorithm
	entries        cryptobyte.String
}

var (
	oidNumber       = asn1.ObjectIdentifier{2, 5, 29, 20}
	oidReason       = asn1.ObjectIdentifier{2, 5, 29, 21}
	oidInvalidity   = asn1.ObjectIdentifier{2, 5, 29, 24}
	oidDelta        = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidIssuingPoint = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidCertIssuer   = asn1.ObjectIdentifier{2, 5, 29, 29}
)

func crlError(field, value, rule string, args ...any) error {
	b := bad(Where{}, field, value, rule, args...)
	return fmt.Errorf("CRL: %s %q: %s", b.Field, b.Value, b.Rule)
}

// ParseCRL reads a CRL in DER or PEM, but for its entries: what it costs does not grow with them. It does not verify the signature.
// Refused are indirect CRLs, CRLs of attribute certificates, and critical extensions that RFC 5280 does not have.
func ParseCRL(data []byte) (*List, error) {
	if !looksDER(data) {
		block, _ := pem.Decode(data)
		if block == nil || block.Type != "X509 CRL" {
			return nil, crlError("CRL", "", "must be DER, or PEM with the label X509 CRL (RFC 7468 section 7)")
		}
		data = block.Bytes
	}
	if len(data) > MaxCRLBytes {
		return nil, crlError("CRL", fmt.Sprintf("%d octets", len(data)), "must have at most %d", MaxCRLBytes)
	}
	var (
		body, tbs, alg cryptobyte.String
		s              = cryptobyte.String(data)
		l              List
	)
	if !s.ReadASN1(&body, cbasn1.SEQUENCE) || !s.Empty() || !body.ReadASN1Element(&tbs, cbasn1.SEQUENCE) ||
		!body.ReadASN1Element(&alg, cbasn1.SEQUENCE) || !body.ReadASN1BitStringAsBytes(&l.signature) || !body.Empty() {
		return nil, crlError("CertificateList", "", "must be a SEQUENCE of tbsCertList, signatureAlgorithm and signatureValue (RFC 5280 section 5.1)")
	}
	l.tbs = tbs
	var err error
	if l.algorithm, err = (&ocspwire.Response{SignatureAlg: alg}).Algorithm(); err != nil {
		return nil, crlError("signatureAlgorithm", hex.EncodeToString(alg), "must be ECDSA or RSA with SHA-256, SHA-384 or SHA-512, or Ed25519")
	}
	tbs.ReadASN1(&tbs, cbasn1.SEQUENCE)
	return &l, l.readTBS(tbs, alg)
}

func (l *List) readTBS(s, alg cryptobyte.String) error {
	var inner, issuer, wrapped, exts cryptobyte.String
	var version int64
	if s.PeekASN1Tag(cbasn1.INTEGER) && (!s.ReadASN1Integer(&version) || version != 1) {
		return crlError("version", fmt.Sprint(version), "must be 1, which is v2, or absent (RFC 5280 section 5.1.2.1)")
	}
	// RFC 5280 section 5.1.1.2: both must be the same.
	if !s.ReadASN1Element(&inner, cbasn1.SEQUENCE) || !bytes.Equal(inner, alg) {
		return crlError("tbsCertList.signature", hex.EncodeToString(inner), "must be signatureAlgorithm (RFC 5280 section 5.1.1.2)")
	}
	if !s.ReadASN1Element(&issuer, cbasn1.SEQUENCE) {
		return crlError("issuer", "", "must be a Name (RFC 5280 section 5.1.2.3)")
	}
	l.Issuer = issuer
	var ok bool
	if l.ThisUpdate, ok = readTime(&s); !ok {
		return crlError("thisUpdate", "", "must be UTCTime or GeneralizedTime in UTC with seconds (RFC 5280 section 5.1.2.4)")
	}
	if s.PeekASN1Tag(cbasn1.UTCTime) || s.PeekASN1Tag(cbasn1.GeneralizedTime) {
		if l.NextUpdate, ok = readTime(&s); !ok || l.NextUpdate.Before(l.ThisUpdate) {
			return crlError("nextUpdate", l.NextUpdate.Format(time.RFC3339), "must be a time after thisUpdate, %s (RFC 5280 section 5.1.2.5)", l.ThisUpdate.Format(time.RFC3339))
		}
	}
	if s.PeekASN1Tag(cbasn1.SEQUENCE) && !s.ReadASN1(&l.entries, cbasn1.SEQUENCE) {
		return crlError("revokedCertificates", "", "must be a SEQUENCE")
	}
	if s.Empty() {
		return nil
	}
	if !s.ReadASN1(&wrapped, cbasn1.Tag(0).Constructed().ContextSpecific()) || !s.Empty() || !wrapped.ReadASN1(&exts, cbasn1.SEQUENCE) || !wrapped.Empty() {
		return crlError("crlExtensions", "", "must be one SEQUENCE in [0], with nothing after it (RFC 5280 section 5.1.2.7)")
	}
	return eachExtension(exts, "crlExtensions", l.extension)
}

func (l *List) extension(id asn1.ObjectIdentifier, critical bool, value cryptobyte.String) error {
	number := func(n **big.Int) error {
		*n = new(big.Int)
		if !value.ReadASN1Integer(*n) || !value.Empty() || (*n).Sign() < 0 || (*n).BitLen() > 160 {
			return crlError("crlExtensions."+id.String(), hex.EncodeToString(value), "must be an INTEGER of at most 20 octets, not negative (RFC 5280 section 5.2.3)")
		}
		return nil
	}
	switch {
	case id.Equal(oidNumber):
		return number(&l.Number)
	case id.Equal(oidDelta):
		return number(&l.Base)
	case id.Equal(oidIssuingPoint):
		return l.issuingPoint(value)
	case critical:
		return crlError("crlExtensions", id.String(), "is critical and not known here (RFC 5280 section 5.2)")
	}
	return nil
}

// issuingPoint: RFC 5280 section 5.2.5.
func (l *List) issuingPoint(value cryptobyte.String) error {
	l.Partial, l.Scope = true, value
	var body, field cryptobyte.String
	var tag cbasn1.Tag
	if !value.ReadASN1(&body, cbasn1.SEQUENCE) || !value.Empty() {
		return crlError("issuingDistributionPoint", "", "must be a SEQUENCE (RFC 5280 section 5.2.5)")
	}
	for !body.Empty() {
		if !body.ReadAnyASN1(&field, &tag) {
			return crlError("issuingDistributionPoint", "", "must be as RFC 5280 section 5.2.5 has it")
		}
		isTrue := len(field) == 1 && field[0] != 0
		switch {
		case tag == cbasn1.Tag(4).ContextSpecific() && isTrue:
			return crlError("issuingDistributionPoint", "indirectCRL", "must be absent: an indirect CRL is of several CAs, here it must be of one")
		case tag == cbasn1.Tag(5).ContextSpecific() && isTrue:
			return crlError("issuingDistributionPoint", "onlyContainsAttributeCerts", "must be absent: the ledger has no attribute certificates")
		}
	}
	return nil
}

// eachExtension calls fn for each of Extensions. None may occur twice (RFC 5280 section 4.2).
func eachExtension(s cryptobyte.String, field string, fn func(id asn1.ObjectIdentifier, critical bool, value cryptobyte.String) error) error {
	var seen []asn1.ObjectIdentifier
	for !s.Empty() {
		var ext, value cryptobyte.String
		var id asn1.ObjectIdentifier
		var critical bool
		if !s.ReadASN1(&ext, cbasn1.SEQUENCE) || !ext.ReadASN1ObjectIdentifier(&id) ||
			ext.PeekASN1Tag(cbasn1.BOOLEAN) && !ext.ReadASN1Boolean(&critical) || !ext.ReadASN1(&value, cbasn1.OCTET_STRING) || !ext.Empty() {
			return crlError(field, "", "must be Extensions (RFC 5280 section 4.1)")
		}
		for _, other := range seen {
			if other.Equal(id) {
				return crlError(field, id.String(), "must not occur twice (RFC 5280 section 4.2)")
			}
		}
		if seen = append(seen, id); len(seen) > 64 {
			return crlError(field, "more than 64", "must be at most 64")
		}
		if err := fn(id, critical, value); err != nil {
			return err
		}
	}
	return nil
}

// readTime: RFC 5280 section 5.1.2.4, UTCTime or GeneralizedTime, with seconds, in UTC.
func readTime(s *cryptobyte.String) (t time.Time, ok bool) {
	if s.PeekASN1Tag(cbasn1.UTCTime) {
		ok = s.ReadASN1UTCTime(&t)
	} else {
		ok = s.ReadASN1GeneralizedTime(&t)
	}
	return t.UTC(), ok
}

// Verify tells whether one of the CA's certificates has signed l: same name, key usage cRLSign if there is a key usage (RFC 5280 section
// 6.3.3 f), and a signature that verifies.
func (l *List) Verify(issuers []*x509.Certificate) error {
	err := crlError("issuer", nameText(l.Issuer), "must be the CA, %q", issuers[0].Subject.String())
	for _, cert := range issuers {
		if !bytes.Equal(cert.RawSubject, l.Issuer) {
			continue
		}
		if cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageCRLSign == 0 {
			err = crlError("issuer", cert.Subject.String(), "must have the key usage cRLSign (RFC 5280 section 6.3.3)")
			continue
		}
		if sigErr := cert.CheckSignature(l.algorithm, l.tbs, l.signature); sigErr != nil {
			err = crlError("signature", l.algorithm.String(), "must be of the CA's key: %v", sigErr)
			continue
		}
		return nil
	}
	return err
}

// TBS is what is signed.
func (l *List) TBS() []byte { return l.tbs }

// Each calls fn for each entry, with its place from 1. An entry that is wrong is an error for fn, which may go on by returning nil; fn's
// own error ends it. Errors: fn's, and of what is no list of entries.
func (l *List) Each(fn func(n int, serial wire.Serial, st Status, err error) error) error {
	list := l.entries
	for n := 1; !list.Empty(); n++ {
		var body cryptobyte.String
		if !list.ReadASN1(&body, cbasn1.SEQUENCE) {
			return crlError("revokedCertificates", fmt.Sprintf("entry %d", n), "must be a SEQUENCE; what follows was not read")
		}
		serial, st, err := l.entry(body)
		if err := fn(n, serial, st, err); err != nil {
			return err
		}
	}
	return nil
}

func (l *List) entry(s cryptobyte.String) (serial wire.Serial, st Status, err error) {
	var octets []byte
	if !s.ReadASN1Integer(&octets) || wire.Serial(octets).Check() != nil {
		return nil, st, crlError("userCertificate", hex.EncodeToString(octets), "must be a positive INTEGER of at most 20 octets (RFC 5280 section 4.1.2.2)")
	}
	serial = octets
	at, ok := readTime(&s)
	if !ok || at.UnixMilli() <= 0 {
		return serial, st, crlError("revocationDate", at.Format(time.RFC3339), "must be UTCTime or GeneralizedTime in UTC with seconds, after 1970")
	}
	st = Status{State: wire.CertRevoked, Revoked: wire.MillisOf(at)}
	if s.Empty() {
		return serial, st, nil
	}
	var exts cryptobyte.String
	if !s.ReadASN1(&exts, cbasn1.SEQUENCE) || !s.Empty() {
		return serial, st, crlError("crlEntryExtensions", "", "must be one SEQUENCE (RFC 5280 section 5.1)")
	}
	err = eachExtension(exts, "crlEntryExtensions", func(id asn1.ObjectIdentifier, critical bool, value cryptobyte.String) error {
		return l.entryExtension(&st, id, critical, value)
	})
	if st.State == wire.CertHeld || st.Removed {
		st.Invalidity = 0 // of a hold there is none that the ledger keeps
	}
	return serial, st, err
}

// entryExtension: RFC 5280 section 5.3.
func (l *List) entryExtension(st *Status, id asn1.ObjectIdentifier, critical bool, value cryptobyte.String) error {
	switch {
	case id.Equal(oidReason):
		var reason int
		if !value.ReadASN1Enum(&reason) || !value.Empty() || reason < 0 {
			return crlError("reasonCode", hex.EncodeToString(value), "must be an ENUMERATED (RFC 5280 section 5.3.1)")
		}
		if reason == removeFromCRL && l.Base != nil {
			*st = Status{State: wire.CertValid, Removed: true}
			return nil
		}
		if st.Reason = wire.Reason(reason); !st.Reason.Known() {
			return crlError("reasonCode", fmt.Sprint(reason), "must be a reason of RFC 5280 section 5.3.1, and removeFromCRL (8) only in a delta CRL")
		}
		st.State = stateOf(st.Reason)
	case id.Equal(oidInvalidity):
		var since time.Time
		if !value.ReadASN1GeneralizedTime(&since) || !value.Empty() {
			return crlError("invalidityDate", hex.EncodeToString(value), "must be a GeneralizedTime (RFC 5280 section 5.3.2)")
		}
		if since.UnixMilli() > 0 { // what is older says no more than 1970
			st.Invalidity = wire.MillisOf(since)
		}
	case id.Equal(oidCertIssuer):
		return crlError("certificateIssuer", "", "must be absent in a CRL that is not indirect (RFC 5280 section 5.3.3)")
	case critical:
		return crlError("crlEntryExtensions", id.String(), "is critical and not known here (RFC 5280 section 5.3)")
	}
	return nil
}

func nameText(der []byte) string {
	var name pkix.RDNSequence
	if _, err := asn1.Unmarshal(der, &name); err != nil {
		return hex.EncodeToString(der)
	}
	return name.String()
}
