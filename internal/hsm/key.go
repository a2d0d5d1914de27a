//go:build cgo

package hsm

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/ThalesGroup/crypto11"

	"github.com/certanchor/certanchor/internal/keyfile"
)

// minRSA is the least length of an RSA key in bits.
const minRSA = 2048

// Key is a key pair in a token. It is a crypto.Signer, safe for concurrent use.
type Key struct {
	field  string
	uri    *URI
	token  *token
	public crypto.PublicKey

	mu     sync.Mutex // guards what follows
	conn   *conn      // that signer belongs to
	signer crypto11.Signer
	wrap   func(crypto.Signer) crypto.Signer // of tests; nil: none
}

// Open finds the key that uri names, tries it with one signature, and returns it. field is the setting's name, for errors, which are *Error.
func Open(field, uri string) (*Key, error) {
	u, err := ParseURI(field, uri)
	if err != nil {
		return nil, err
	}
	return open(field, u)
}

func open(field string, u *URI) (*Key, error) {
	t, err := tokenOf(field, u)
	if err != nil {
		return nil, err
	}
	k := &Key{field: field, uri: u, token: t}
	done := make(chan error, 1)
	go func() {
		_, _, err := k.bind(nil)
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			return nil, err
		}
		return k, nil
	case <-time.After(u.Timeout):
		return nil, k.unavailable(fmt.Sprintf("no answer within %v", u.Timeout), nil)
	}
}

// OpenOrCreate is Open, and makes the key pair in the token if it is not there: with the URI's object as its label, which must be set, and its id or a
// random one. It can be used for signatures only, and cannot be taken out. created says that it was made.
func OpenOrCreate(field, uri string, a keyfile.Algorithm) (_ *Key, created bool, err error) {
	u, err := ParseURI(field, uri)
	if err != nil {
		return nil, false, err
	}
	k, err := open(field, u)
	if !errors.Is(err, ErrNotFound) {
		return k, false, err
	}
	if u.Object == "" {
		return nil, false, fault(field, "object", "", "must be the label of the key that is to be made")
	}
	id := u.ID
	if len(id) == 0 {
		id = make([]byte, 16)
		if _, err := rand.Read(id); err != nil {
			return nil, false, err
		}
	}
	t, err := tokenOf(field, u)
	if err != nil {
		return nil, false, err
	}
	c, err := t.connect(nil, u, field)
	if err != nil {
		return nil, false, err
	}
	made, err := generate(c, id, []byte(u.Object), a)
	if err != nil {
		return nil, false, &Error{Field: field, Value: u.String(), Rule: "couldn't make it in the token", Kind: ErrKey, Err: err}
	}
	if k, err = open(field, u); err != nil {
		return nil, false, errors.Join(err, made.Delete())
	}
	return k, true, nil
}

func generate(c *conn, id, label []byte, a keyfile.Algorithm) (crypto11.Signer, error) {
	switch a {
	case keyfile.P384:
		return c.ctx.GenerateECDSAKeyPairWithLabel(id, label, elliptic.P384())
	case keyfile.RSA2048:
		return c.ctx.GenerateRSAKeyPairWithLabel(id, label, 2048)
	case keyfile.RSA3072:
		return c.ctx.GenerateRSAKeyPairWithLabel(id, label, 3072)
	case keyfile.P256, "":
		return c.ctx.GenerateECDSAKeyPairWithLabel(id, label, elliptic.P256())
	}
	return nil, fmt.Errorf("key algorithm %q: must be p256, p384, rsa2048 or rsa3072", a)
}

// Ready returns why the token cannot sign now, nil if it can: it has it sign a fixed text that means nothing.
func (k *Key) Ready() error {
	_, err := k.Sign(nil, trial[:], crypto.SHA256)
	return err
}

// Destroy removes the key pair from its token.
func (k *Key) Destroy() error {
	if _, _, err := k.bind(nil); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.signer.Delete()
}

// Public returns the public key, an *ecdsa.PublicKey or *rsa.PublicKey.
func (k *Key) Public() crypto.PublicKey { return k.public }

// String names the key, without a PIN or where one is.
func (k *Key) String() string { return k.uri.String() }

type signature struct {
	value []byte
	err   error
}

// Sign implements crypto.Signer; the token has its own source of randomness. It returns within the URI's timeout. When the session is lost it is
// opened anew and the signature tried once more. Errors are *Error: ErrUnavailable when asking again later may help.
func (k *Key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), k.uri.Timeout)
	defer cancel()
	select {
	case k.token.busy <- struct{}{}:
	case <-ctx.Done():
		return nil, k.unavailable(fmt.Sprintf("all %d sessions were in use for %v", cap(k.token.busy), k.uri.Timeout), nil)
	}
	// A call into the module cannot be interrupted. One that is given up keeps its place, so that there are never more than the token has sessions.
	digest = slices.Clone(digest)
	done := make(chan signature, 1)
	go func() {
		defer func() { <-k.token.busy }()
		value, err := k.sign(ctx, digest, opts)
		done <- signature{value, err}
	}()
	select {
	case s := <-done:
		return s.value, s.err
	case <-ctx.Done():
		return nil, k.unavailable(fmt.Sprintf("no answer within %v", k.uri.Timeout), nil)
	}
}

func (k *Key) sign(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	c, signer, err := k.bind(nil)
	if err != nil {
		return nil, err
	}
	value, err := signOnce(signer, digest, opts)
	if err == nil || !c.lost(err) || ctx.Err() != nil {
		return value, k.failed(err)
	}
	if _, signer, err = k.bind(c); err != nil {
		return nil, err
	}
	value, err = signOnce(signer, digest, opts)
	return value, k.failed(err)
}

// signOnce cuts a digest for ECDSA to the curve's length, which crypto/ecdsa does by itself and PKCS #11 leaves to the module.
func signOnce(s crypto.Signer, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if public, ok := s.Public().(*ecdsa.PublicKey); ok {
		digest = digest[:min(len(digest), (public.Curve.Params().BitSize+7)/8)]
	}
	return s.Sign(nil, digest, opts)
}

func (k *Key) failed(err error) error {
	if err == nil {
		return nil
	}
	if requestFault(err) {
		return &Error{Field: k.field, Value: k.uri.String(), Rule: "the token must allow it this kind of signature", Kind: ErrKey, Err: err}
	}
	return k.unavailable("couldn't sign", err)
}

func (k *Key) unavailable(why string, err error) error {
	return &Error{Field: k.field, Value: k.uri.String(), Rule: why, Kind: ErrUnavailable, Err: err}
}

// bind returns the key's handle in a connection other than bad.
func (k *Key) bind(bad *conn) (*conn, crypto.Signer, error) {
	c, err := k.token.connect(bad, k.uri, k.field)
	if err != nil {
		return nil, nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.conn != c {
		signer, err := k.find(c)
		if err != nil {
			return nil, nil, err
		}
		k.conn, k.signer = c, signer
		if k.public == nil { // within open, before anybody else has k
			k.public = signer.Public()
		}
	}
	if k.wrap != nil {
		return c, k.wrap(k.signer), nil
	}
	return c, k.signer, nil
}

// find looks the key up and tries it. After a token came back it must be the same key as before.
func (k *Key) find(c *conn) (crypto11.Signer, error) {
	at := func(kind error, err error, rule string, args ...any) error {
		return &Error{Field: k.field, Value: k.uri.String(), Rule: fmt.Sprintf(rule, args...), Kind: kind, Err: err}
	}
	found, err := c.ctx.FindKeyPairs(k.uri.ID, labelOf(k.uri))
	switch {
	case err != nil && c.lost(err):
		return nil, at(ErrUnavailable, err, "couldn't look for it")
	case err != nil:
		return nil, at(ErrKey, err, "must be an ECDSA P-256 or P-384 or an RSA key pair")
	case len(found) == 0:
		return nil, at(ErrNotFound, nil, "the token must have a private and a public key with this label and id")
	case len(found) > 1:
		return nil, at(ErrKey, nil, "must name one key, it names %d: give object and id", len(found))
	}
	signer := found[0]
	if err := checkKind(signer.Public()); err != nil {
		return nil, at(ErrKey, err, "must be an ECDSA P-256 or P-384 or an RSA key pair of at least %d bits", minRSA)
	}
	if before, ok := k.public.(interface{ Equal(crypto.PublicKey) bool }); ok && !before.Equal(signer.Public()) {
		return nil, at(ErrKey, nil, "is another key than when this process began: the token was changed")
	}
	return signer, k.try(c, signer)
}

func labelOf(u *URI) []byte {
	if u.Object == "" {
		return nil
	}
	return []byte(u.Object)
}

func checkKind(public crypto.PublicKey) error {
	switch p := public.(type) {
	case *ecdsa.PublicKey:
		if p.Curve == elliptic.P256() || p.Curve == elliptic.P384() {
			return nil
		}
		return fmt.Errorf("is on curve %s", p.Curve.Params().Name)
	case *rsa.PublicKey:
		if p.N.BitLen() >= minRSA {
			return nil
		}
		return fmt.Errorf("is an RSA key of %d bits", p.N.BitLen())
	}
	return fmt.Errorf("is a %T", public)
}

// trial is what is signed to see whether a key signs.
var trial = sha256.Sum256([]byte("certanchor: does this key sign?"))

// try signs once: a token may hold a public key that is not the private one's, or a private key that must not sign.
func (k *Key) try(c *conn, signer crypto.Signer) error {
	digest := trial
	value, err := signOnce(signer, digest[:], crypto.SHA256)
	if err != nil && c.lost(err) {
		return k.unavailable("couldn't sign", err)
	}
	if err == nil {
		switch public := signer.Public().(type) {
		case *ecdsa.PublicKey:
			if !ecdsa.VerifyASN1(public, digest[:], value) {
				err = errors.New("its signature does not verify with its public key")
			}
		case *rsa.PublicKey:
			err = rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], value)
		}
	}
	if err != nil {
		return &Error{Field: k.field, Value: k.uri.String(), Rule: "must be a key pair that may sign", Kind: ErrKey, Err: err}
	}
	return nil
}
