package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"maps"
	"slices"

	"github.com/cloudflare/cfssl/config"
	"github.com/cloudflare/cfssl/signer"
	"github.com/cloudflare/cfssl/signer/local"
	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"
)

// linter looks at what would be signed before the CA's key signs it: the same request, signed by the same code with a key that is
// thrown away. cfssl can do this itself but not with Go 1.26: crypto/x509 refuses a signing key that is not the issuer's, so
// here the issuer gets the other key too.
type linter struct {
	signer *local.Signer
}

func newLinter(ca *x509.Certificate, plain *config.Signing) (*linter, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	issuer := *ca
	issuer.PublicKey = key.Public()
	issuer.PublicKeyAlgorithm = x509.ECDSA
	s, err := local.NewSigner(key, &issuer, x509.ECDSAWithSHA256, plain)
	return &linter{signer: s}, err
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

// check refuses a request whose certificate would be worse than the profile's lint_error_level. It means what it means to
// cfssl: findings above that level are errors; none given, no linting.
func (l *linter) check(req signer.SignRequest, p *config.SigningProfile) error {
	if p.LintErrLevel == lint.Reserved {
		return nil
	}
	out, err := l.signer.Sign(req)
	if err != nil {
		return signError(err, req.Profile)
	}
	block, _ := pem.Decode(out)
	if block == nil {
		return errors.New("the signer gave no certificate to lint")
	}
	cert, err := zx509.ParseCertificate(block.Bytes)
	if err != nil {
		return invalid("csr", "", "the certificate could not be read by zlint: %v", err)
	}
	results := zlint.LintCertificateEx(cert, p.LintRegistry).Results
	for _, name := range slices.Sorted(maps.Keys(results)) {
		if results[name].Status > p.LintErrLevel {
			return invalid("csr", name, "the certificate would not pass this zlint lint of the profile %s: %s", req.Profile, explainLint(name, results[name]))
		}
	}
	return nil
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
