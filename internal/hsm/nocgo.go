//go:build !cgo

package hsm

import (
	"crypto"
	"io"

	"github.com/certanchor/certanchor/internal/keyfile"
)

// Key is a key pair in a token; this program can have none.
type Key struct{}

// Open fails: ErrNoSupport, or what is wrong with uri.
func Open(field, uri string) (*Key, error) {
	u, err := ParseURI(field, uri)
	if err != nil {
		return nil, err
	}
	return nil, &Error{Field: field, Value: u.String(), Rule: "needs a program that was built with cgo: CGO_ENABLED=1 and a C compiler (make build)", Kind: ErrNoSupport}
}

// OpenOrCreate fails as Open does.
func OpenOrCreate(field, uri string, _ keyfile.Algorithm) (*Key, bool, error) {
	k, err := Open(field, uri)
	return k, false, err
}

// CloseAll does nothing.
func CloseAll() {}

// Destroy implements the other Key's method.
func (*Key) Destroy() error { return ErrNoSupport }

// Public implements crypto.Signer.
func (*Key) Public() crypto.PublicKey { return nil }

// Sign implements crypto.Signer.
func (*Key) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return nil, ErrNoSupport }

// Ready implements the other Key's method.
func (*Key) Ready() error { return ErrNoSupport }
