package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cloudflare/cfssl/config"
	"github.com/cloudflare/cfssl/signer"
	"github.com/cloudflare/cfssl/signer/local"
	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctleaf"
	"github.com/certanchor/certanchor/internal/sct"
)

// linter makes what would be signed, with cfssl and a key that is thrown away with the process, and looks at it before the CA's key signs the very
// same octets. cfssl can lint itself but not with Go 1.26: crypto/x509 refuses a signing key that is not the issuer's, so here
// the issuer gets the other key too.
type linter struct {
	signer *local.Signer
	key    crypto.Signer
	sct    *sct.SCT // nobody's, in the place of those that a certificate will have
}

func newLinter(ca *x509.Certificate, plain *config.Signing) (*linter, error) {
	l := new(linter)
	var err error
	if l.key, err = throwaway(ca.PublicKey); err != nil {
		return nil, err
	}
	if l.sct, err = specimen(); err != nil {
		return nil, err
	}
	issuer := *ca
	issuer.PublicKey = l.key.Public()
	l.signer, err = local.NewSigner(l.key, &issuer, signer.DefaultSigAlgo(l.key), plain)
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

// plainPolicy is policy without what this package does itself: linting, serial numbers and CRL distribution points.
func plainPolicy(policy *config.Signing) *config.Signing {
	plain := &config.Signing{Profiles: map[string]*config.SigningProfile{}}
	if policy.Default != nil {
		d := *policy.Default
		d.CRL = ""
		plain.Default = &d
	}
	for name, p := range policy.Profiles {
		c := *p
		c.LintErrLevel, c.CRL, c.ClientProvidesSerialNumbers = lint.Reserved, "", true
		c.ExtensionWhitelist = map[string]bool{oidCRLPoint: true}
		plain.Profiles[name] = &c
	}
	return plain
}

// draft has cfssl make the certificate, or the precertificate of one that will have scts SCTs, and lints it: with a precertificate, the
// certificate too, while nothing is promised yet. Findings above the profile's lint_error_level are errors, as they are to cfssl; none
// given, no linting.
func (l *linter) draft(req signer.SignRequest, p *config.SigningProfile, scts int) (*draft, error) {
	req.ReturnPrecert = scts > 0
	out, err := l.signer.Sign(req)
	if err != nil {
		return nil, signError(err, req.Profile)
	}
	block, _ := pem.Decode(out)
	if block == nil {
		return nil, errors.New("the signer gave no certificate")
	}
	d, err := draftOf(block.Bytes)
	if err != nil {
		return nil, err
	}
	if err := l.check(block.Bytes, req.Profile, p); err != nil {
		return nil, err
	}
	if scts == 0 {
		return d, nil
	}
	list, err := sct.MarshalList(slices.Repeat([]*sct.SCT{l.sct}, scts))
	if err != nil {
		return nil, err
	}
	final, err := completed(block.Bytes, list)
	if err != nil {
		return nil, err
	}
	der, err := final.sign(l.key)
	if err != nil {
		return nil, err
	}
	if err := checkSize(len(der) + scts*sctSlack); err != nil {
		return nil, err
	}
	return d, l.check(der, req.Profile, p)
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
