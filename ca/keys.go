package ca

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/keystate"
)

// custody is the CA's key behind its state: it signs what the state allows (package keystate), and a change of state is over when every
// signature that was begun before it is. As a crypto.Signer it signs certificates.
type custody struct {
	cert *x509.Certificate
	now  func() time.Time

	signing sync.RWMutex // held for reading during each signature, for writing while the state changes; guards what follows
	key     crypto.Signer
	states  *keystate.Store
	frozen  error // a suspension that could not be recorded; it holds all the same

	probe probe
}

// takeCustody opens the history of the key in cfg.Dir. A destroyed key that is still there, since the process died in between, is removed.
func takeCustody(cfg Config, cert *x509.Certificate, now func() time.Time) (*custody, error) {
	states, err := keystate.Open(filepath.Join(cfg.Dir, keystate.File), keyName(cert))
	if errors.Is(err, keystate.ErrLocked) {
		return nil, fmt.Errorf("another process is running this CA: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("%w (if another key was put into this directory on purpose, move its file %s away)", err, keystate.File)
	}
	c := &custody{cert: cert, now: now, key: cfg.Key, states: states}
	if states.Last().To == keystate.Destroyed {
		c.key = absentKey{cert.PublicKey}
		if err := eraseKey(cfg.Dir); err != nil {
			return nil, errors.Join(fmt.Errorf("the key is destroyed, and couldn't be removed: %w", err), c.close())
		}
	}
	if c.key == nil {
		return nil, errors.Join(errors.New("key: must be set"), c.close())
	}
	return c, nil
}

// keyName is what histories call the key of a certificate: the CA ID.
func keyName(cert *x509.Certificate) string {
	return wire.CAIDOf(cert.RawSubjectPublicKeyInfo).String()
}

func (c *custody) close() error {
	if c == nil {
		return nil
	}
	return c.states.Close()
}

// Public implements crypto.Signer.
func (c *custody) Public() crypto.PublicKey {
	c.signing.RLock()
	defer c.signing.RUnlock()
	return c.key.Public()
}

// Sign implements crypto.Signer for certificates.
func (c *custody) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return c.sign(keystate.Certificates, r, digest, opts)
}

func (c *custody) sign(u keystate.Use, r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	c.signing.RLock()
	defer c.signing.RUnlock()
	if err := c.allows(u); err != nil {
		return nil, err
	}
	return c.key.Sign(r, digest, opts)
}

// allows requires signing.
func (c *custody) allows(u keystate.Use) error {
	if c.frozen != nil {
		return c.frozen
	}
	last := c.states.Last()
	return last.Usable(u)
}

// usable returns why nothing may be signed for u now; a *wire.Error.
func (c *custody) usable(u keystate.Use) error {
	c.signing.RLock()
	defer c.signing.RUnlock()
	return c.allows(u)
}

func (c *custody) state() keystate.State {
	last := c.states.Last()
	return last.To
}

// change puts the key into another state. When it returns no signature is in progress that the new state does not allow. A suspension ends only by a change that was
// decided, by as many operators as it takes, about that one: ends is the number of its record. erase is called after a destruction is recorded.
func (c *custody) change(ch keystate.Change, ends uint64, erase func() error) (keystate.Record, error) {
	if err := c.states.Check(ch); err != nil { // before anybody has to wait
		return keystate.Record{}, err
	}
	c.signing.Lock()
	defer c.signing.Unlock()
	if last := c.states.Last(); resumes(last.To, ch.To) && last.Seq != ends {
		return keystate.Record{}, wire.Errorf(wire.FailedPrecondition, "ca.key", string(last.To), "%s, after the change to %s was asked for: ask again", last.String(), ch.To)
	}
	r, err := c.states.Change(ch)
	if we := new(wire.Error); err != nil && !errors.As(err, &we) && ch.To == keystate.Suspended {
		// Who suspends a key fears for it: until somebody restarts the CA it signs nothing.
		c.frozen = wire.Errorf(wire.FailedPrecondition, "ca.key", string(ch.To), "is so since %s by %s (%s), in this process only, since it couldn't be recorded: %v",
			ch.At.UTC().Format(time.RFC3339), ch.By, ch.Why, err)
	}
	if err != nil || ch.To != keystate.Destroyed {
		return r, err
	}
	c.key = absentKey{c.cert.PublicKey}
	return r, erase()
}

// useKey is the key for one kind of signature.
type useKey struct {
	*custody
	use keystate.Use
}

// Sign implements crypto.Signer.
func (k useKey) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.sign(k.use, r, digest, opts)
}

// signerFor is the key for certificates of a profile.
func signerFor(key crypto.Signer, profile string) crypto.Signer {
	if c, ok := key.(*custody); ok {
		return useKey{c, useOf(profile)}
	}
	return key
}

// promiseSigner is the key for a certificate whose precertificate is on the ledger, of any profile.
func promiseSigner(key crypto.Signer) crypto.Signer {
	if c, ok := key.(*custody); ok {
		return useKey{c, keystate.Promised}
	}
	return key
}

func useOf(profile string) keystate.Use {
	if profile == ResponderProfile {
		return keystate.Responders
	}
	return keystate.Certificates
}

// absentKey stands for a key that is destroyed.
type absentKey struct{ public crypto.PublicKey }

// Public implements crypto.Signer.
func (k absentKey) Public() crypto.PublicKey { return k.public }

// Sign implements crypto.Signer; it never does.
func (k absentKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, wire.Errorf(wire.FailedPrecondition, "ca.key", string(keystate.Destroyed), "the key is destroyed")
}

// mayIssue returns why no certificate of the profile is signed now.
func (s *Server) mayIssue(profile string) error {
	if err := s.keyUsable(); err != nil {
		return err
	}
	return s.custody.usable(useOf(profile))
}

// maySignCRLs returns why no CRL is signed now.
func (s *Server) maySignCRLs() error {
	if err := s.keyUsable(); err != nil {
		return err
	}
	return s.custody.usable(keystate.CRLs)
}

// checkLife refuses a CA certificate that has expired, unless its key issues nothing any more.
func checkLife(cert *x509.Certificate, key crypto.Signer, now time.Time) error {
	c, ok := key.(*custody)
	over := ok && (c.state() == keystate.Retired || c.state() == keystate.Destroyed)
	if now.After(cert.NotAfter) && !over {
		return fmt.Errorf("certificate %q: expired at %s", cert.Subject, cert.NotAfter.Format(time.RFC3339))
	}
	return nil
}
