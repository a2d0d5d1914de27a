package crl

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// Form is what a CRL has beside its Contents.
type Form struct {
	// Issuer is the certificate of the key that signs: it needs a subject key identifier and the key usage cRLSign.
	Issuer *x509.Certificate
	// NextUpdate is when the next CRL will be there at the latest: whole seconds, after ThisUpdate.
	NextUpdate time.Time
	// DeltaURL is where the delta CRLs of a complete one are (freshestCRL, RFC 5280 section 5.2.6), in the form of a Scope; "": not told.
	DeltaURL string
}

// Build makes the CRL, DER (RFC 5280 section 5.1), and signs it: with SHA-256, or the hash that belongs to key's curve. The issuer's key must
// be that of c.CAID. It takes some 50 octets for each entry, once, and 1 to 2 seconds for a million. Errors: contents that Check refuses, a
// form that breaks a rule above, and what key.Sign returns.
func Build(c *Contents, f Form, key crypto.Signer) ([]byte, error) {
	if err := c.Check(); err != nil {
		return nil, fmt.Errorf("crl: %w", err)
	}
	if f.Issuer == nil || wire.CAIDOf(f.Issuer.RawSubjectPublicKeyInfo) != c.CAID {
		return nil, fmt.Errorf("crl: issuer: must be a certificate of the CA %s", c.CAID)
	}
	if f.DeltaURL != "" && c.Base != 0 {
		return nil, fmt.Errorf("crl: delta URL %q: must be empty in a delta CRL (RFC 5280 section 5.2.6)", f.DeltaURL)
	}
	if err := CheckScope(f.DeltaURL); err != nil {
		return nil, fmt.Errorf("crl: delta URL: %w", err)
	}
	p := plan{form: f, thisUpdate: c.ThisUpdate, groups: []Group{{Entries: c.Entries}}}
	p.extensions = func(b *cryptobyte.Builder) {
		addAuthorityKeyID(b, f.Issuer.SubjectKeyId)
		addNumber(b, idNumber, false, c.Number)
		if c.Base != 0 {
			addNumber(b, idDelta, true, c.Base)
		}
		if c.Scope != "" {
			addIssuingPoint(b, c.Scope, false)
		}
		if f.DeltaURL != "" {
			addFreshest(b, f.DeltaURL)
		}
	}
	return p.build(key)
}

// Group is the entries of one certificate issuer in an indirect CRL.
type Group struct {
	Name    []byte // DER of the certificates' issuer name; nil: the CRL's own issuer
	Entries []Entry
}

// BuildIndirect makes an indirect CRL (RFC 5280 section 5.2.5): f.Issuer signs for other CAs. Each group needs a Name of its own and is as
// Contents.Entries of a complete CRL. There is no delta.
func BuildIndirect(number uint64, thisUpdate time.Time, groups []Group, f Form, key crypto.Signer) ([]byte, error) {
	names := map[string]bool{}
	for _, g := range groups {
		c := Contents{Number: number, ThisUpdate: thisUpdate, Entries: g.Entries}
		if err := c.Check(); err != nil {
			return nil, fmt.Errorf("crl: indirect: %w", err)
		}
		if len(g.Name) == 0 || names[string(g.Name)] {
			return nil, fmt.Errorf("crl: indirect: issuer name %x: must be there, and no other group's", g.Name)
		}
		names[string(g.Name)] = true
	}
	if f.Issuer == nil || f.DeltaURL != "" {
		return nil, errors.New("crl: indirect: must have an issuer and no delta URL")
	}
	p := plan{form: f, thisUpdate: thisUpdate, groups: groups}
	p.extensions = func(b *cryptobyte.Builder) {
		addAuthorityKeyID(b, f.Issuer.SubjectKeyId)
		addNumber(b, idNumber, false, number)
		addIssuingPoint(b, "", true)
	}
	return p.build(key)
}

// plan is a CRL about to be written.
type plan struct {
	form       Form
	thisUpdate time.Time
	groups     []Group
	extensions func(*cryptobyte.Builder)
}

func (p *plan) check(key crypto.Signer) (*algorithm, error) {
	issuer := p.form.Issuer
	if issuer.KeyUsage&x509.KeyUsageCRLSign == 0 {
		return nil, fmt.Errorf("crl: issuer %q: must have the key usage cRLSign (RFC 5280 section 4.2.1.3)", issuer.Subject)
	}
	if len(issuer.SubjectKeyId) == 0 {
		return nil, fmt.Errorf("crl: issuer %q: must have a subject key identifier (RFC 5280 section 5.2.1)", issuer.Subject)
	}
	if pub, ok := issuer.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(key.Public()) {
		return nil, fmt.Errorf("crl: key: must be that of the issuer %q", issuer.Subject)
	}
	if t := p.form.NextUpdate; t.Nanosecond() != 0 || !t.After(p.thisUpdate) || Seconds(t.Unix()) > MaxSeconds {
		return nil, fmt.Errorf("crl: next update %s: must be whole seconds after this update, %s", t.UTC().Format(time.RFC3339Nano), p.thisUpdate.UTC().Format(time.RFC3339))
	}
	return algorithmFor(key)
}

// headroom is space in front of tbsCertList for the CRL's own tag and length, which are known after signing.
const headroom = 8

// build writes tbsCertList into one buffer of the right size, signs it there, and puts the rest around it.
func (p *plan) build(key crypto.Signer) ([]byte, error) {
	alg, err := p.check(key)
	if err != nil {
		return nil, err
	}
	before, err := p.before(alg)
	if err != nil {
		return nil, err
	}
	after, err := p.after()
	if err != nil {
		return nil, err
	}
	entries := 0
	for _, g := range p.groups {
		entries += groupSize(g)
	}
	size := len(before) + len(after)
	if entries > 0 {
		size += headSize(entries) + entries
	}
	const tail = 2 << 10 // signatureAlgorithm and signature
	b := make([]byte, headroom, headroom+headSize(size)+size+tail)
	b = append(appendTag(b, tagSequence, size), before...)
	if entries > 0 { // RFC 5280 section 5.1.2.6: absent when there are none
		b = appendTag(b, tagSequence, entries)
		for _, g := range p.groups {
			b = appendGroup(b, g)
		}
	}
	b = append(b, after...)
	tbs := b[headroom:]
	if len(tbs) != headSize(size)+size {
		return nil, fmt.Errorf("crl: internal error: tbsCertList is %d octets, planned %d", len(tbs), headSize(size)+size)
	}
	signature, err := alg.sign(key, tbs)
	if err != nil {
		return nil, fmt.Errorf("crl: sign: %w", err)
	}
	// A signer that erred, for example a faulty HSM, must not bring a CRL into the world.
	if err := p.form.Issuer.CheckSignature(alg.id, tbs, signature); err != nil {
		return nil, fmt.Errorf("crl: sign: the key made a signature that does not verify: %w", err)
	}
	b = append(b, alg.der...)
	b = append(append(appendTag(b, tagBitString, len(signature)+1), 0), signature...)
	head := appendTag(nil, tagSequence, len(b)-headroom)
	at := headroom - len(head)
	copy(b[at:], head)
	return b[at:], nil
}

// before is what precedes revokedCertificates.
func (p *plan) before(alg *algorithm) ([]byte, error) {
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1Int64(1) // v2
	b.AddBytes(alg.der)
	b.AddBytes(p.form.Issuer.RawSubject)
	b.AddBytes(appendTime(nil, Seconds(p.thisUpdate.Unix())))
	b.AddBytes(appendTime(nil, Seconds(p.form.NextUpdate.Unix())))
	return b.Bytes()
}

func (p *plan) after() ([]byte, error) {
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1(cbasn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, p.extensions)
	})
	return b.Bytes()
}
