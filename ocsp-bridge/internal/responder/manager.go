package responder

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/ocspwire"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/index"
)

// Enroller asks a CA for a delegated responder certificate.
type Enroller interface {
	// EnrollResponder returns a certificate for the DER PKCS #10 request, in DER or PEM, once it is on the ledger. It may
	// be called again after any error.
	EnrollResponder(ctx context.Context, caID wire.CAID, csr []byte) (cert []byte, err error)
}

// KeyPair names PEM files with a responder certificate and its PKCS #8 key. The key may be a PKCS #11 URI instead.
type KeyPair struct {
	CertFile string `yaml:"cert"`
	KeyFile  string `yaml:"key"`

	// Passphrase is the key file's, if it is encrypted (package keyfile): File or Env.
	Passphrase keyfile.Source `yaml:"passphrase,omitempty"`
}

// Config of a Manager.
type Config struct {
	Dir       string // for keys and certificates
	MSPID     string // goes into the request's subject
	Index     *index.Index
	Enrollers func(wire.CAID) Enroller // nil for a CA: this responder does not ask it
	Files     []KeyPair
	Key       crypto.Signer   // in a token, which certificates are obtained for; nil: a new one for each certificate
	Seal      *keyfile.Sealer // of keys in Dir
	Now       func() time.Time
	After     func(time.Duration) <-chan time.Time
	Log       *slog.Logger
}

// Manager holds the responder identities. Its methods are safe for concurrent use.
type Manager struct {
	cfg   Config
	files atomic.Pointer[[]*fileIdentity] // configured ones; replaced by Reload

	mu  sync.RWMutex
	cas map[wire.CAID]*caState // CAs with an enroller
}

// caState is one CA's identity. loaded, pending, since and fails are owned by the CA's rotation goroutine.
type caState struct {
	id      wire.CAID
	loaded  bool      // what an earlier run left has been looked at
	pending *Identity // obtained, not yet seen on the ledger
	since   time.Time // when pending was obtained
	fails   int       // attempts in a row that came to nothing
	current atomic.Pointer[Identity]
	problem atomic.Pointer[string] // why there is no usable certificate, for people
}

// fileIdentity is a configured identity; it serves the CA that issued it.
type fileIdentity struct {
	*Identity
	issuer atomic.Pointer[index.CA] // the trust list entry that it was last verified under; nil: none yet
}

// serves reports whether ca issued the certificate. The signature is verified once for each version of the trust list entry.
func (f *fileIdentity) serves(ca *index.CA) bool {
	if f.issuer.Load() == ca {
		return true
	}
	for _, c := range ca.Certs {
		if bytes.Equal(c.RawSubject, f.Cert.RawIssuer) && ocspwire.CheckDelegate(f.Cert, c, f.Cert.NotBefore, 0) == nil {
			f.issuer.Store(ca)
			return true
		}
	}
	return false
}

// Identity is a key with its responder certificate.
type Identity struct {
	Key    crypto.Signer
	Cert   *x509.Certificate
	Serial wire.Serial          // of Cert
	ID     ocspwire.ResponderID // by key

	valid atomic.Pointer[index.View] // the newest view in which the certificate was found on the ledger, with the status valid
}

func newIdentity(key crypto.Signer, cert *x509.Certificate) (*Identity, error) {
	if err := checkOwn(cert, key); err != nil {
		return nil, err
	}
	serial, err := wire.SerialOf(cert.SerialNumber)
	if err != nil {
		return nil, fmt.Errorf("responder certificate: %w", err)
	}
	id, err := ocspwire.ByKey(cert)
	return &Identity{Key: key, Cert: cert, Serial: serial, ID: id}, err
}

// New reads the configured files and refuses those that cannot be a responder's.
func New(cfg Config) (*Manager, error) {
	m := &Manager{cfg: cfg, cas: map[wire.CAID]*caState{}}
	return m, m.Reload()
}

// Reload reads the configured files again: a certificate that was renewed is used from now on. After an error everything is as it was.
func (m *Manager) Reload() error {
	var files []*fileIdentity
	for _, f := range m.cfg.Files {
		id, err := loadPair(f)
		if err != nil {
			return err
		}
		files = append(files, &fileIdentity{Identity: id})
	}
	m.files.Store(&files)
	return nil
}

func loadPair(f KeyPair) (*Identity, error) {
	var (
		key crypto.Signer
		err error
	)
	if f.Passphrase.File != "" || f.Passphrase.Env != "" {
		key, err = loadEncrypted(f.KeyFile, f.Passphrase)
	} else {
		key, err = loadKey(f.KeyFile)
	}
	if err != nil {
		return nil, err
	}
	cert, err := loadCert(f.CertFile)
	if err != nil {
		return nil, err
	}
	id, err := newIdentity(key, cert)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.CertFile, err)
	}
	// Everything about the certificate but who issued it and whether it is on the ledger is known now.
	if err := ocspwire.CheckMarks(cert); err != nil {
		return nil, fmt.Errorf("%s: %w", f.CertFile, err)
	}
	return id, nil
}

// Signer returns the identity that may sign for a CA now: its certificate is valid, issued by the CA, and on the ledger
// with the status valid. The error says why there is none.
func (m *Manager) Signer(ca *index.CA, now time.Time) (*Identity, error) {
	var found *Identity
	err := m.each(ca, now, func(id *Identity) bool {
		found = id
		return false
	})
	if found != nil {
		err = nil
	}
	return found, err
}

// Signers returns all identities that Signer could return, that one first.
func (m *Manager) Signers(ca *index.CA, now time.Time) (ids []*Identity, err error) {
	err = m.each(ca, now, func(id *Identity) bool {
		ids = append(ids, id)
		return true
	})
	if len(ids) > 0 {
		err = nil
	}
	return ids, err
}

// each calls fn with every usable identity until fn says that it is enough. The error says why there is none, or no other one.
func (m *Manager) each(ca *index.CA, now time.Time, fn func(*Identity) bool) error {
	var reason error
	for _, f := range *m.files.Load() {
		if !f.serves(ca) {
			continue
		}
		if reason = m.Usable(ca, f.Identity, now); reason == nil && !fn(f.Identity) {
			return nil
		}
	}
	m.mu.RLock()
	st := m.cas[ca.ID]
	m.mu.RUnlock()
	if st == nil {
		if reason == nil {
			reason = fmt.Errorf("CA %s: no responder certificate is configured", ca.ID)
		}
		return reason
	}
	if id := st.current.Load(); id != nil {
		if reason = m.Usable(ca, id, now); reason == nil {
			fn(id)
		}
		return reason
	}
	if p := st.problem.Load(); p != nil {
		return fmt.Errorf("CA %s: %s", ca.ID, *p)
	}
	return fmt.Errorf("CA %s: no responder certificate yet", ca.ID)
}

// Keys returns the keys that are in use.
func (m *Manager) Keys() (keys []crypto.Signer) {
	if m.cfg.Key != nil {
		keys = append(keys, m.cfg.Key)
	}
	for _, f := range *m.files.Load() {
		keys = append(keys, f.Key)
	}
	return keys
}

// Problems returns, for each CA this responder is configured to answer for and cannot now, why.
func (m *Manager) Problems(cas []*index.CA, now time.Time) map[string]string {
	out := map[string]string{}
	for _, ca := range cas {
		if !m.configured(ca) {
			continue
		}
		if _, err := m.Signer(ca, now); err != nil {
			out[ca.ID.String()] = err.Error()
		}
	}
	return out
}

func (m *Manager) configured(ca *index.CA) bool {
	for _, f := range *m.files.Load() {
		if f.serves(ca) {
			return true
		}
	}
	return m.cfg.Enrollers != nil && m.cfg.Enrollers(ca.ID) != nil
}

// Usable checks what time or a transaction can change about an accepted identity, as of the newest blocks.
func (m *Manager) Usable(ca *index.CA, id *Identity, now time.Time) error {
	if now.Before(id.Cert.NotBefore) || now.After(id.Cert.NotAfter) {
		return fmt.Errorf("responder certificate %x is valid from %s to %s only", id.Cert.SerialNumber, id.Cert.NotBefore, id.Cert.NotAfter)
	}
	// Taken before the record is read, so that the memo cannot outlive a change that comes in between.
	view := m.cfg.Index.View()
	if id.valid.Load() == view {
		return nil
	}
	if err := m.onLedger(ca.ID, id.Cert); err != nil {
		return err
	}
	id.valid.Store(view)
	return nil
}

func (m *Manager) identityPath(id wire.CAID) string {
	return filepath.Join(m.cfg.Dir, id.String()+".pem")
}
