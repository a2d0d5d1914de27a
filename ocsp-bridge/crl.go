package ocspbridge

import (
	"cmp"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/crl"
	"github.com/certanchor/certanchor/internal/hsm"
	"github.com/certanchor/certanchor/internal/ocspwire"
	"github.com/certanchor/certanchor/internal/pemcert"
	"github.com/certanchor/certanchor/internal/status"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/crls"
)

// CRLSettings are what an operator may tune about CRLs. The zero value takes and serves those that CAs publish.
type CRLSettings struct {
	// MaxAge is for how long an HTTP cache may keep a CRL, never past its nextUpdate. 0: one minute; at most 24 hours.
	MaxAge time.Duration `yaml:"max_age,omitempty"`
	// MaxBytes is the size of the largest CRL that is taken. 0: 128 MiB, which is two million entries or more; at most 1 GiB. Four such may be on disk,
	// in the bridge's directory, until it is known who has sent them.
	MaxBytes int64 `yaml:"max_bytes,omitempty"`
	// Indirect makes this organisation sign an indirect CRL. nil: no. Many clients refuse indirect CRLs.
	Indirect *IndirectCRL `yaml:"indirect,omitempty"`
}

// IndirectCRL says what an organisation signs an indirect CRL with, for CAs that are gone.
type IndirectCRL struct {
	Cert     string        `yaml:"cert"`               // PEM file: certificate with the key usage cRLSign
	Key      string        `yaml:"key"`                // PEM file: its key, PKCS #8, not open to group or others
	CAs      []string      `yaml:"cas"`                // IDs of the CAs
	Every    time.Duration `yaml:"every,omitempty"`    // between two without a change; default 1h, at most 24h
	Validity time.Duration `yaml:"validity,omitempty"` // default 24h
}

const (
	defaultCRLMaxAge   = time.Minute
	longestCRLMaxAge   = 24 * time.Hour
	defaultCRLMaxBytes = 128 << 20
	leastCRLMaxBytes   = 1 << 10
)

// complete fills in defaults and refuses what is out of range; errors name key, value and rule.
func (s *CRLSettings) complete() error {
	s.MaxAge, s.MaxBytes = cmp.Or(s.MaxAge, defaultCRLMaxAge), cmp.Or(s.MaxBytes, defaultCRLMaxBytes)
	if s.MaxAge < time.Second || s.MaxAge > longestCRLMaxAge {
		return fmt.Errorf("crl.max_age: %s: must be 1s to %s, or 0 for the default", s.MaxAge, longestCRLMaxAge)
	}
	if s.MaxBytes < leastCRLMaxBytes || s.MaxBytes > crl.MaxBytes {
		return fmt.Errorf("crl.max_bytes: %d: must be %d to %d, or 0 for the default", s.MaxBytes, leastCRLMaxBytes, crl.MaxBytes)
	}
	return nil
}

func (b *Bridge) openCRLs() (err error) {
	if err := b.cfg.CRL.complete(); err != nil {
		return err
	}
	b.crlMaker = crls.NewMaker(b.index)
	b.crls, err = crls.Open(crls.Config{
		Dir: filepath.Join(b.cfg.Dir, "crl"), Ledger: b.index, Maker: b.crlMaker, Changed: b.index.Changed, Decide: b.decideForCRL, Usable: b.haltReason,
		Tolerance: b.cfg.Settings.ClockTolerance, Now: b.cfg.Now, After: b.cfg.After, Metrics: b.cfg.Metrics, Log: b.log,
	})
	b.crlAsked, b.crlStray = make(chan struct{}, 1), make(chan struct{}, 1)
	b.crlSpool = newSpool(filepath.Join(b.cfg.Dir, "crl"), spooledCRLs*b.cfg.CRL.MaxBytes)
	if err == nil && b.cfg.CRL.Indirect != nil {
		b.indirect, err = b.openIndirect(b.cfg.CRL.Indirect)
	}
	return err
}

func (b *Bridge) openIndirect(c *IndirectCRL) (*crls.Indirect, error) {
	cfg := crls.IndirectConfig{
		Every: cmp.Or(c.Every, time.Hour), Validity: cmp.Or(c.Validity, 24*time.Hour), Ledger: b.index, Maker: b.crlMaker, Changed: b.index.Changed,
		Usable: func() error { _, err := b.fresh(b.index.View(), b.cfg.Now()); return err }, Now: b.cfg.Now, After: b.cfg.After, Log: b.log,
	}
	certs, err := pemcert.Read(c.Cert)
	if err != nil {
		return nil, fmt.Errorf("crl.indirect.cert: %w", err)
	}
	cfg.Cert = certs[0]
	if cfg.Key, err = readSigner(c.Key); err != nil {
		return nil, fmt.Errorf("crl.indirect.key: %w", err)
	}
	for _, text := range c.CAs {
		id, err := wire.ParseCAID(text)
		if err != nil {
			return nil, fmt.Errorf("crl.indirect.cas: %w", err)
		}
		cfg.CAs = append(cfg.CAs, id)
	}
	return crls.NewIndirect(cfg)
}

// readSigner reads a PKCS #8 key from a PEM file that nobody but its owner may read, or opens the one that a PKCS #11 URI names.
func readSigner(path string) (crypto.Signer, error) {
	if hsm.IsURI(path) {
		key, err := hsm.Open("crl.indirect.key", path)
		if err != nil {
			return nil, err
		}
		return key, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s: mode is %#o: must not be open to group or others (0600)", path, info.Mode().Perm())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("%s: must hold one PEM block, PRIVATE KEY (PKCS #8)", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%s: %T cannot sign", path, parsed)
	}
	return key, nil
}

// keepCRLs compares what is served with the ledger and with OCSP, and signs the indirect CRL, until ctx ends.
func (b *Bridge) keepCRLs(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		b.crls.Run(ctx)
		return nil
	})
	if b.indirect != nil {
		group.Go(func() error {
			b.indirect.Run(ctx)
			return nil
		})
	}
	return group.Wait()
}

// decideForCRL is what OCSP would answer now.
func (b *Bridge) decideForCRL(id wire.CAID, serial wire.Serial) (crls.Decision, error) {
	v, err := b.evaluate(&question{now: b.cfg.Now()}, b.index.View().CA(id), ocspwire.CertID{Serial: serial.Int()})
	if err != nil {
		return crls.Decision{}, err
	}
	if !v.issued { // there is no record, or nothing but a serial number that is in order, or it has expired for longer than OCSP tells of
		st, rec, err := b.index.Status(id, serial)
		return crls.Decision{Silent: rec != nil && st.State != status.Unknown}, err
	}
	d := crls.Decision{Revoked: v.status == ocspwire.Revoked, Time: v.revokedAt, Invalidity: v.invalidity}
	if v.reason != ocspwire.NoReason {
		d.Reason = wire.Reason(v.reason)
	}
	return d, nil
}

// CRLContents computes what a CRL of a CA must say now: of all its certificates, or of those with the distribution point scope; complete, or, with
// base not 0, what has changed since the complete CRL of that number. Errors: a view that is not fresh, for a CRL must not be older than its
// date; what OCSP contradicts; and those of crls.Maker.Contents.
func (b *Bridge) CRLContents(id wire.CAID, scope string, base uint64) (*crl.Contents, error) {
	if _, err := b.fresh(b.index.View(), b.cfg.Now()); err != nil {
		return nil, unavailable(err)
	}
	r := b.crlMaker.Newest(id, scope, base)
	r.Fresh = base != 0 && !b.crls.HasBase(id, scope, base) // whoever asks must not choose what is remembered
	c, err := b.crlMaker.Contents(r)
	if err != nil {
		return nil, err
	}
	return c, b.crls.Agrees(c)
}
