package ca

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"

	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/crl"
	"github.com/certanchor/certanchor/internal/keyfile"
)

// lintCRL refuses a CRL in which zlint finds an error.
func lintCRL(der []byte) error {
	list, err := zx509.ParseRevocationList(der)
	if err != nil {
		return fmt.Errorf("zlint cannot read the CRL: %w", err)
	}
	results := zlint.LintRevocationList(list).Results
	for _, name := range slices.Sorted(maps.Keys(results)) {
		if results[name].Status >= lint.Error {
			return fmt.Errorf("zlint lint %s: %s", name, explainLint(name, results[name]))
		}
	}
	return nil
}

// maxLinted is how many entries zlint reads at once: of a million it would make 800 MB of objects, and take several times as long as all else.
const maxLinted = 4096

// crlSampler makes what zlint reads of a CRL that is too long for it: the same CRL with every nth entry, signed with a key that is thrown away.
// With the CA's own it would be a CRL that leaves revocations out.
type crlSampler struct {
	issuer *x509.Certificate
	key    crypto.Signer
}

func newCRLSampler(ca *x509.Certificate) (*crlSampler, error) {
	key, err := keyfile.Generate(keyfile.P256)
	if err != nil {
		return nil, err
	}
	issuer := *ca
	issuer.PublicKey, issuer.PublicKeyAlgorithm = key.Public(), x509.ECDSA
	issuer.RawSubjectPublicKeyInfo, err = x509.MarshalPKIXPublicKey(key.Public())
	return &crlSampler{issuer: &issuer, key: key}, err
}

// of returns what is to be linted of a CRL.
func (s *crlSampler) of(c *crl.Contents, form crl.Form, der []byte) ([]byte, error) {
	if len(c.Entries) <= maxLinted {
		return der, nil
	}
	sample := *c
	sample.CAID, sample.Entries = wire.CAIDOf(s.issuer.RawSubjectPublicKeyInfo), nil
	for i := 0; i < len(c.Entries); i += (len(c.Entries) + maxLinted - 1) / maxLinted {
		sample.Entries = append(sample.Entries, c.Entries[i])
	}
	form.Issuer = s.issuer
	return crl.Build(&sample, form, s.key)
}
