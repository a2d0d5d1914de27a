package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/cloudflare/cfssl/config"
	cferr "github.com/cloudflare/cfssl/errors"
	"github.com/cloudflare/cfssl/signer"
	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctleaf"
	"github.com/certanchor/certanchor/internal/sct"
)

// linter makes what would be signed, by cfssl's profiles and with a key that is thrown away with the process, and looks at it before the CA's key signs
// the very same octets.
type linter struct {
	issuer *x509.Certificate // the CA, with the throwaway key
	key    crypto.Signer
	plain  *config.Signing
	sct    *sct.SCT // nobody's, in the place of those that a certificate will have
}

func newLinter(ca *x509.Certificate, plain *config.Signing) (*linter, error) {
	l := &linter{issuer: new(x509.Certificate), plain: plain}
	if !plain.Valid() {
		return nil, cferr.New(cferr.PolicyError, cferr.InvalidPolicy)
	}
	var err error
	if l.key, err = throwaway(ca.PublicKey); err != nil {
		return nil, err
	}
	*l.issuer = *ca
	l.issuer.PublicKey = l.key.Public()
	l.sct, err = specimen()
	return l, err
}

// specimen is an SCT as any other, of a log that does not exist.
func specimen() (*sct.SCT, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	key, err := sct.New(private)
	if err != nil {
		return nil, err
	}
	leaf, err := ctleaf.Precert(0, wire.MillisOf(time.Now()), digest{}, []byte{0x30, 0})
	if err != nil {
		return nil, err
	}
	return key.SignSCT(leaf)
}

// plainPolicy is policy without what this package does itself: linting and CRL distribution points.
func plainPolicy(policy *config.Signing) *config.Signing {
	plain := &config.Signing{Profiles: map[string]*config.SigningProfile{}}
	if policy.Default != nil {
		d := *policy.Default
		d.CRL = ""
		plain.Default = &d
	}
	for name, p := range policy.Profiles {
		c := *p
		c.LintErrLevel, c.CRL = lint.Reserved, ""
		plain.Profiles[name] = &c
	}
	return plain
}

// order is what a certificate is made from: a request that passed the checks, and what the CA adds.
type order struct {
	csr      *x509.CertificateRequest
	profile  string
	from, to time.Time
	serial   *big.Int
	point    []pkix.Extension // CRL distribution point
	scts     int              // that it will have; 0: it has no precertificate
}

// draft makes the certificate, or the precertificate of one that will have SCTs, and lints it: with a precertificate, the certificate too, while
// nothing is promised yet. Findings above the profile's lint_error_level are errors, as they are to cfssl; none given, no linting.
//
// It does what cfssl's signer does (signer/local), with its profiles, but for what is done before: parsing the request and verifying its signature.
func (l *linter) draft(o *order, p *config.SigningProfile) (*draft, error) {
	t, err := l.template(o)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, t, l.issuer, t.PublicKey, l.key)
	if err != nil {
		return nil, fmt.Errorf("couldn't make the certificate: %w", err)
	}
	d, err := draftOf(der)
	if err != nil {
		return nil, err
	}
	if err := l.check(der, o.profile, p); err != nil {
		return nil, err
	}
	if o.scts == 0 {
		return d, nil
	}
	return d, l.checkCompleted(der, o, p)
}

// checkCompleted lints the certificate that a precertificate promises.
func (l *linter) checkCompleted(precert []byte, o *order, p *config.SigningProfile) error {
	list, err := sct.MarshalList(slices.Repeat([]*sct.SCT{l.sct}, o.scts))
	if err != nil {
		return err
	}
	final, err := completed(precert, list)
	if err != nil {
		return err
	}
	der, err := final.sign(l.key)
	if err != nil {
		return err
	}
	if err := checkSize(len(der) + o.scts*sctSlack); err != nil {
		return err
	}
	return l.check(der, o.profile, p)
}

// template is the certificate as the profile has it, with those fields of the request that CSRWhitelist lets through.
func (l *linter) template(o *order) (*x509.Certificate, error) {
	p := l.plain.Profiles[o.profile]
	t := &x509.Certificate{PublicKey: o.csr.PublicKey, SerialNumber: o.serial, ExtraExtensions: slices.Clone(o.point)}
	w := p.CSRWhitelist
	if w.Subject {
		t.Subject = subjectOf(o.csr)
	}
	if w.DNSNames {
		t.DNSNames = o.csr.DNSNames
	}
	if w.IPAddresses {
		t.IPAddresses = o.csr.IPAddresses
	}
	if w.EmailAddresses {
		t.EmailAddresses = o.csr.EmailAddresses
	}
	if w.URIs {
		t.URIs = o.csr.URIs
	}
	if err := signer.FillTemplate(t, l.plain.Default, p, o.from, o.to); err != nil {
		return nil, fmt.Errorf("profile %s: %w", o.profile, err)
	}
	if o.scts > 0 {
		t.ExtraExtensions = append(t.ExtraExtensions, pkix.Extension{Id: ctleaf.OIDPoison, Critical: true, Value: []byte{5, 0}})
	}
	return t, nil
}

// subjectOf is a request's subject in the form in which cfssl writes subjects: attributes that pkix.Name has no field for follow the others.
func subjectOf(csr *x509.CertificateRequest) pkix.Name {
	s := csr.Subject
	s.ExtraNames = nil
	for _, a := range s.Names {
		if id := a.Type; len(id) != 4 || !id[:3].Equal(asn1.ObjectIdentifier{2, 5, 4}) || id[3] != 3 && (id[3] < 5 || id[3] > 11) && id[3] != 17 {
			s.ExtraNames = append(s.ExtraNames, a)
		}
	}
	return s
}

// sctSlack is by how much SCTs differ in length: their signatures do.
const sctSlack = 8

func checkSize(n int) error {
	if n > wire.MaxCertDER {
		return invalid("csr", fmt.Sprintf("certificate of %d bytes", n), "the certificate must have at most %d bytes", wire.MaxCertDER)
	}
	return nil
}

func (l *linter) check(der []byte, profile string, p *config.SigningProfile) error {
	if p.LintErrLevel == lint.Reserved {
		return nil
	}
	cert, err := zx509.ParseCertificate(der)
	if err != nil {
		return invalid("csr", "", "the certificate could not be read by zlint: %v", err)
	}
	results := zlint.LintCertificateEx(cert, p.LintRegistry).Results
	worst := ""
	for name, r := range results {
		if r.Status > p.LintErrLevel && (worst == "" || name < worst) {
			worst = name
		}
	}
	if worst == "" {
		return nil
	}
	return invalid("csr", worst, "the certificate would not pass this zlint lint of the profile %s: %s", profile, explainLint(worst, results[worst]))
}

func explainLint(name string, r *lint.LintResult) string {
	if r.Details != "" {
		return r.Details
	}
	if l := lint.GlobalRegistry().ByName(name); l != nil { //nolint:staticcheck // the name may be of any kind of lint
		return l.Description + " (" + l.Citation + ")"
	}
	return r.Status.String()
}
