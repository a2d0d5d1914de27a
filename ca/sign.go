package ca

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/cloudflare/cfssl/config"
	cflog "github.com/cloudflare/cfssl/log"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/certsig"
	"github.com/certanchor/certanchor/internal/hsm"
	"github.com/certanchor/certanchor/internal/problem"
)

// defaultBackdate lets clocks that are behind accept a certificate from its first minute on; cfssl's default.
const defaultBackdate = 5 * time.Minute

// issuer is the CA's key at work. Safe for concurrent use.
type issuer struct {
	cert   *x509.Certificate
	key    crypto.Signer
	chain  []*x509.Certificate // issuer of cert first; empty for a root
	id     wire.CAID
	policy *profiles
	linter *linter
	now    func() time.Time
}

func newIssuer(cert *x509.Certificate, chain []*x509.Certificate, key crypto.Signer, policy *profiles, now func() time.Time) (*issuer, error) {
	pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !pub.Equal(cert.PublicKey) {
		return nil, fmt.Errorf("the key does not belong to the CA certificate %q", cert.Subject)
	}
	if !cert.BasicConstraintsValid || !cert.IsCA || cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		return nil, fmt.Errorf("certificate %q: must be a CA certificate with keyCertSign (RFC 5280 section 4.2.1.9)", cert.Subject)
	}
	if err := checkLife(cert, key, now()); err != nil {
		return nil, err
	}
	quietCFSSL()
	l, err := newLinter(cert, plainPolicy(policy.Signing))
	if err != nil {
		return nil, fmt.Errorf("couldn't set up the signer: %w", err)
	}
	return &issuer{cert: cert, key: key, chain: chain, id: wire.CAIDOf(cert.RawSubjectPublicKeyInfo), policy: policy, linter: l, now: now}, nil
}

// profile finds a profile by name. cfssl itself would fall back to the default profile for a name it does not know.
func (i *issuer) profile(name string) (*config.SigningProfile, error) {
	p := i.policy.Profiles[name]
	if p == nil {
		return nil, invalid("profile", name, "must be one of the CA's profiles; GET /v1/ca lists them")
	}
	return p, nil
}

// validity returns the period of a certificate signed now. It refuses a period that would end after the CA's own instead of
// shortening it: whoever relies on 90 days must not find out on day 60. notBefore is what backdating makes of it, and at
// most as early as the CA's.
func (i *issuer) validity(name string, p *config.SigningProfile) (from, to time.Time, err error) {
	backdate := p.Backdate
	if backdate == 0 {
		backdate = min(defaultBackdate, p.Expiry/2)
	}
	now := i.now().UTC().Truncate(time.Second)
	from = now.Add(-backdate)
	to = from.Add(p.Expiry - time.Second) // both ends count (RFC 5280 section 4.1.2.5)
	if !p.NotAfter.IsZero() {
		to = p.NotAfter.UTC().Truncate(time.Second)
	}
	if !to.After(now) {
		return from, to, wire.Errorf(wire.FailedPrecondition, "profile", name, "its not_after, %s, has passed: the CA's operator must change the profile", to.Format(time.RFC3339))
	}
	if from.Before(i.cert.NotBefore) {
		from = i.cert.NotBefore.UTC()
	}
	if from.After(now) {
		return from, to, wire.Errorf(wire.FailedPrecondition, "ca.not_before", from.Format(time.RFC3339), "the CA certificate is not valid yet")
	}
	if to.After(i.cert.NotAfter) {
		return from, to, wire.Errorf(wire.FailedPrecondition, "profile", name,
			"its certificates would end after the CA certificate, at %s instead of %s: renew the CA or shorten the profile's expiry", to.Format(time.RFC3339), i.cert.NotAfter.Format(time.RFC3339))
	}
	return from, to, nil
}

// sign makes a certificate, or the precertificate of one for a profile that has it so, for a request that passed the checks. The result is
// verified as a relying party would, so that a fault of key or signer never leaves this function.
func (i *issuer) sign(csr *x509.CertificateRequest, name string) (*x509.Certificate, error) {
	p, err := i.profile(name)
	if err != nil {
		return nil, err
	}
	if err := i.notSelf(csr); err != nil {
		return nil, err
	}
	from, to, err := i.validity(name, p)
	if err != nil {
		return nil, err
	}
	// It decides which shard's CRL the certificate names.
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	o := &order{csr: csr, profile: name, from: from, to: to, serial: serial, scts: i.policy.rules[name].scts}
	if o.point, err = i.policy.extension(name, i.id, serial); err != nil {
		return nil, err
	}
	d, err := i.linter.draft(o, p)
	if err != nil {
		return nil, err
	}
	cert, err := i.signDraft(d, signerFor(i.key, name))
	if err != nil {
		return nil, err
	}
	return cert, i.inspect(cert, csr)
}

// signDraft signs for real, and verifies what came of it.
func (i *issuer) signDraft(d *draft, key crypto.Signer) (*x509.Certificate, error) {
	der, err := d.sign(key)
	if err != nil {
		return nil, keyError(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("the signer gave a bad certificate: %w", err)
	}
	if err := certsig.Check(cert, i.cert); err != nil {
		return nil, fmt.Errorf("the signer gave a bad signature: %w", err)
	}
	return cert, checkSize(len(der))
}

// complete signs the certificate of a precertificate of this CA with an SCT list. A key that was retired since keeps the promise.
func (i *issuer) complete(precert, list []byte) (*x509.Certificate, error) {
	d, err := completed(precert, list)
	if err != nil {
		return nil, err
	}
	cert, err := i.signDraft(d, promiseSigner(i.key))
	if err != nil {
		return nil, err
	}
	return cert, isCertificateOf(cert.Raw, precert)
}

// notSelf keeps name and key of the CA to the CA: a certificate with one of them would look like another one of the CA's own.
func (i *issuer) notSelf(csr *x509.CertificateRequest) error {
	if csr.Subject.String() == i.cert.Subject.String() {
		return invalid("csr.subject", csr.Subject.String(), "must not be the CA's own name")
	}
	if pub, ok := i.cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || pub.Equal(csr.PublicKey) {
		return invalid("csr.public_key", "the CA's key", "must be the requester's own")
	}
	return nil
}

func (i *issuer) inspect(cert *x509.Certificate, csr *x509.CertificateRequest) error {
	pub, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !pub.Equal(csr.PublicKey) || cert.IsCA {
		return errors.New("the signer gave another certificate than the one asked for")
	}
	_, err := wire.SerialOf(cert.SerialNumber)
	return err
}

// keyError finds the part of a token in the errors of a key, and what the key's keeper says.
func keyError(err error) error {
	if we := new(wire.Error); errors.As(err, &we) {
		return we
	}
	if down := new(hsm.Error); errors.As(err, &down) {
		later := problem.New(http.StatusServiceUnavailable, problem.CodeUnavailable, "ca.key", "", "the token that has the CA's key must be able to sign; nothing was signed, ask again later")
		return fmt.Errorf("%w: %w", later, down)
	}
	if we := new(wire.Error); errors.As(err, &we) { // the key's state
		return we
	}
	return fmt.Errorf("couldn't sign: %w", err)
}

// quietCFSSL sends cfssl's own messages, which go to a process-wide logger, to slog's debug level.
var quietCFSSL = sync.OnceFunc(func() { cflog.SetLogger(cfsslLog{}) })

type cfsslLog struct{}

func (cfsslLog) log(msg string) { slog.Log(context.Background(), slog.LevelDebug, "cfssl: "+msg) }

func (l cfsslLog) Debug(m string)   { l.log(m) }
func (l cfsslLog) Info(m string)    { l.log(m) }
func (l cfsslLog) Warning(m string) { l.log(m) }
func (l cfsslLog) Err(m string)     { l.log(m) }
func (l cfsslLog) Crit(m string)    { l.log(m) }
func (l cfsslLog) Emerg(m string)   { l.log(m) }
