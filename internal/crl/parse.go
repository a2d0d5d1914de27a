package crl

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// List is a parsed CRL. It refers to the memory of the DER.
type List struct {
	Issuer         []byte // DER of the issuer's name
	AuthorityKeyID []byte
	Number, Base   uint64 // Base: 0 in a complete CRL
	ThisUpdate     time.Time
	NextUpdate     time.Time
	Scope          string // the one name in issuingDistributionPoint; "": none
	DeltaURL       string // of freshestCRL; "": none
	Indirect       bool
	// Groups are the entries, sorted; those of a CRL that is not indirect are in one group, without a name.
	Groups []Group

	TBS       []byte // what is signed
	Signature []byte
	Algorithm x509.SignatureAlgorithm

	entries cryptobyte.String // revokedCertificates, not read yet
}

// MaxBytes is the length of the longest CRL that Parse reads.
const MaxBytes = 1 << 30

const (
	maxExtensions = 16 << 10 // octets of crlExtensions
	maxShown      = 64       // octets of a value in an error
)

// shown is a value in an error: whoever sends it must not choose how long that gets.
func shown(b []byte) string {
	if len(b) > maxShown {
		return fmt.Sprintf("%x... (%d octets)", b[:maxShown], len(b))
	}
	return fmt.Sprintf("%x", b)
}

// Parse reads a CRL in strict DER that says nothing but what Build and BuildIndirect can say: version 2, authority key identifier by key,
// number, nextUpdate, and of entries reason and invalidity date. Anything else, other extensions that are not critical too, could not be
// compared with the ledger and is refused. The order of extensions and entries is free. It does not verify the signature: Verify does.
// Errors name field, value and rule.
func Parse(der []byte) (*List, error) {
	l, err := ParseHeader(der)
	if err != nil {
		return nil, err
	}
	if err := l.ReadEntries(); err != nil {
		return nil, err
	}
	return l, nil
}

// ParseHeader is Parse without the entries: what it costs does not grow with them, so that Verify can come first when anybody may have sent
// the CRL. ReadEntries reads the rest.
func ParseHeader(der []byte) (*List, error) {
	var (
		l               List
		body, tbs, alg  cryptobyte.String
		s               = cryptobyte.String(der)
		rest, signature cryptobyte.String
	)
	if len(der) > MaxBytes {
		return nil, malformed("CRL", strconv.Itoa(len(der))+" octets", "must have at most %d", MaxBytes)
	}
	if !s.ReadASN1(&body, sequence) || !s.Empty() || !body.ReadASN1Element(&tbs, sequence) {
		return nil, malformed("CertificateList", "", "must be one SEQUENCE that begins with tbsCertList (RFC 5280 section 5.1)")
	}
	if !body.ReadASN1Element(&alg, sequence) || !body.ReadASN1(&signature, cbasn1.BIT_STRING) || !body.Empty() || len(signature) < 2 || signature[0] != 0 {
		return nil, malformed("CertificateList", "", "must have a signatureAlgorithm and a BIT STRING of whole octets after tbsCertList, and nothing more")
	}
	a := algorithmOf(alg)
	if a == nil {
		return nil, malformed("signatureAlgorithm", shown(alg), "must be ECDSA, RSA (PKCS #1 or PSS) with SHA-256, SHA-384 or SHA-512, or Ed25519")
	}
	l.TBS, l.Signature, l.Algorithm = tbs, signature[1:], a.id
	if !tbs.ReadASN1(&rest, sequence) {
		return nil, malformed("tbsCertList", "", "must be a SEQUENCE")
	}
	if err := l.readTBS(rest, alg); err != nil {
		return nil, err
	}
	return &l, nil
}

func (l *List) readTBS(s, alg cryptobyte.String) error {
	var (
		version                   int64
		inner, issuer, list, exts cryptobyte.String
		err                       error
	)
	if !s.ReadASN1Integer(&version) || version != 1 {
		return malformed("version", strconv.FormatInt(version, 10), "must be 1, which is v2 (RFC 5280 section 5.1.2.1)")
	}
	// RFC 5280 section 5.1.1.2: both must be the same.
	if !s.ReadASN1Element(&inner, sequence) || !bytes.Equal(inner, alg) {
		return malformed("tbsCertList.signature", shown(inner), "must be signatureAlgorithm (RFC 5280 section 5.1.1.2)")
	}
	if !s.ReadASN1Element(&issuer, sequence) || len(issuer) == 2 {
		return malformed("issuer", "", "must be a Name that is not empty (RFC 5280 section 5.1.2.3)")
	}
	l.Issuer = issuer
	this, err := readTime(&s, "thisUpdate")
	if err != nil {
		return err
	}
	next, err := readTime(&s, "nextUpdate")
	if err != nil {
		return err
	}
	l.ThisUpdate, l.NextUpdate = this.Time(), next.Time()
	if next <= this {
		return malformed("nextUpdate", l.NextUpdate.Format(time.RFC3339), "must be after thisUpdate, %s", l.ThisUpdate.Format(time.RFC3339))
	}
	// RFC 5280 section 5.1.2.6: absent when there are no revoked certificates.
	if s.PeekASN1Tag(sequence) && (!s.ReadASN1(&list, sequence) || list.Empty()) {
		return malformed("revokedCertificates", "", "must be absent when it is empty (RFC 5280 section 5.1.2.6)")
	}
	if !s.ReadASN1(&exts, tag0Inside) || !s.Empty() || len(exts) > maxExtensions {
		return malformed("crlExtensions", "", "must be in [0], at most %d octets, with nothing after it (RFC 5280 section 5.1.2.7)", maxExtensions)
	}
	if err := l.readExtensions(exts); err != nil {
		return err
	}
	if err := l.checkExtensions(); err != nil {
		return err
	}
	l.entries = list
	return nil
}

// eachExtension calls fn for each of Extensions, DER, all of which must be below id-ce. None may occur twice (RFC 5280 section 4.2).
func eachExtension(s cryptobyte.String, field string, fn func(id byte, critical bool, value cryptobyte.String) error) error {
	var list, ext, value, id cryptobyte.String
	if !s.ReadASN1(&list, sequence) || !s.Empty() || list.Empty() {
		return malformed(field, "", "must be one SEQUENCE of at least one extension")
	}
	var seen [128]bool
	for !list.Empty() {
		if !list.ReadASN1(&ext, sequence) || !ext.ReadASN1(&id, cbasn1.OBJECT_IDENTIFIER) {
			return malformed(field, "", "must hold Extension SEQUENCEs that begin with an OBJECT IDENTIFIER")
		}
		if len(id) != 3 || id[0] != 0x55 || id[1] != 0x1d || id[2] >= 128 {
			return malformed(field, "OBJECT IDENTIFIER "+shown(id), "is not known here: what it says cannot be compared with the ledger")
		}
		critical := false
		if ext.PeekASN1Tag(cbasn1.BOOLEAN) && (!ext.ReadASN1Boolean(&critical) || !critical) {
			return malformed(field, extensionName(id[2]), "critical must be TRUE or absent (X.690 section 11.5)")
		}
		if !ext.ReadASN1(&value, octetString) || !ext.Empty() {
			return malformed(field, extensionName(id[2]), "must end with an OCTET STRING")
		}
		if seen[id[2]] {
			return malformed(field, extensionName(id[2]), "must not occur twice (RFC 5280 section 4.2)")
		}
		seen[id[2]] = true
		if err := fn(id[2], critical, value); err != nil {
			return err
		}
	}
	return nil
}

func extensionName(id byte) string { return "2.5.29." + strconv.Itoa(int(id)) }

func (l *List) readExtensions(s cryptobyte.String) error {
	return eachExtension(s, "crlExtensions", func(id byte, critical bool, value cryptobyte.String) error {
		var ok, mustBe bool
		switch id {
		case idAuthorityKeyID:
			ok = l.readAuthorityKeyID(value)
		case idNumber:
			ok = readNumber(value, &l.Number)
		case idDelta:
			ok, mustBe = readNumber(value, &l.Base), true
		case idIssuingPoint:
			ok, mustBe = l.readIssuingPoint(value), true
		case idFreshest:
			ok = l.readFreshest(value)
		default:
			return malformed("crlExtensions", extensionName(id), "is not known here: what it says cannot be compared with the ledger")
		}
		if critical != mustBe {
			return malformed("crlExtensions."+extensionName(id), strconv.FormatBool(critical), "critical must be %t (RFC 5280 section 5.2)", mustBe)
		}
		if !ok {
			return malformed("crlExtensions."+extensionName(id), shown(value), "must be as RFC 5280 section 5.2 and package crl have it")
		}
		return nil
	})
}

func (l *List) readAuthorityKeyID(s cryptobyte.String) bool {
	var body, id cryptobyte.String
	ok := s.ReadASN1(&body, sequence) && s.Empty() && body.ReadASN1(&id, tag0) && body.Empty() && len(id) > 0
	l.AuthorityKeyID = id
	return ok
}

func readNumber(s cryptobyte.String, n *uint64) bool {
	return s.ReadASN1Integer(n) && s.Empty() && *n > 0
}

// readIssuingPoint: what it may say beside distributionPoint and indirectCRL would make a scope that Contents do not know.
func (l *List) readIssuingPoint(s cryptobyte.String) bool {
	var body, point, indirect cryptobyte.String
	if !s.ReadASN1(&body, sequence) || !s.Empty() || body.Empty() {
		return false
	}
	var named bool
	if !body.ReadOptionalASN1(&point, &named, tag0Inside) {
		return false
	}
	if named {
		// The name is a CHOICE, whose tag is explicit: fullName is [0] within [0].
		urls, ok := readPointName(point)
		if !ok || len(urls) != 1 || urls[0] == "" || CheckScope(urls[0]) != nil {
			return false
		}
		l.Scope = urls[0]
	}
	return body.ReadOptionalASN1(&indirect, &l.Indirect, tag4) && body.Empty() && (!l.Indirect || bytes.Equal(indirect, []byte{0xff}))
}

func (l *List) readFreshest(s cryptobyte.String) bool {
	urls, err := readPoints(s)
	if err != nil || len(urls) != 1 || urls[0] == "" || CheckScope(urls[0]) != nil {
		return false
	}
	l.DeltaURL = urls[0]
	return true
}

// checkExtensions: which must be there, and which go together.
func (l *List) checkExtensions() error {
	switch {
	case l.AuthorityKeyID == nil:
		return malformed("crlExtensions", "no authorityKeyIdentifier", "must be there (RFC 5280 section 5.2.1)")
	case l.Number == 0:
		return malformed("crlExtensions", "no cRLNumber", "must be there (RFC 5280 section 5.2.3)")
	case l.Base >= l.Number:
		return malformed("deltaCRLIndicator", strconv.FormatUint(l.Base, 10), "must be below cRLNumber, %d", l.Number)
	case l.Base != 0 && l.DeltaURL != "":
		return malformed("freshestCRL", l.DeltaURL, "must be absent in a delta CRL (RFC 5280 section 5.2.6)")
	case l.Indirect && (l.Base != 0 || l.Scope != "" || l.DeltaURL != ""):
		return malformed("issuingDistributionPoint", "indirectCRL", "goes with no delta and no distribution point here")
	}
	return nil
}

// Contents are what a CRL that is not indirect says about the CA whose key has signed it. Errors: it is indirect, or Contents.Check refuses.
func (l *List) Contents(id wire.CAID) (*Contents, error) {
	if l.Indirect {
		return nil, malformed("issuingDistributionPoint", "indirectCRL", "must be absent: an indirect CRL has entries of several CAs")
	}
	c := &Contents{CAID: id, Scope: l.Scope, Number: l.Number, Base: l.Base, ThisUpdate: l.ThisUpdate}
	if len(l.Groups) > 0 {
		c.Entries = l.Groups[0].Entries
	}
	return c, c.Check()
}

// Verify tells whether one of the certificates has signed the CRL: same name and key identifier, key usage cRLSign (RFC 5280 section 6.3.3 f),
// and a signature that verifies. It returns that certificate.
func (l *List) Verify(issuers []*x509.Certificate) (*x509.Certificate, error) {
	err := malformed("issuer", shown(l.Issuer), "must be the subject of one of the CA's certificates")
	for _, cert := range issuers {
		if !bytes.Equal(cert.RawSubject, l.Issuer) {
			continue
		}
		switch {
		case !bytes.Equal(cert.SubjectKeyId, l.AuthorityKeyID):
			err = malformed("authorityKeyIdentifier", shown(l.AuthorityKeyID), "must be the CA's subject key identifier, %x", cert.SubjectKeyId)
		case cert.KeyUsage&x509.KeyUsageCRLSign == 0:
			err = malformed("issuer", cert.Subject.String(), "must have the key usage cRLSign (RFC 5280 section 6.3.3)")
		default:
			if sigErr := cert.CheckSignature(l.Algorithm, l.TBS, l.Signature); sigErr == nil {
				return cert, nil
			}
			err = malformed("signature", "", "must be that of the CA's key")
		}
	}
	return nil, err
}

func malformed(field, value, rule string, args ...any) error {
	return fmt.Errorf("crl: %w", refused(field, value, rule, args...))
}
