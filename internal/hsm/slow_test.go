//go:build cgo

package hsm

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/ThalesGroup/crypto11"
)

// slow is a key whose token answers when it is let to.
type slow struct {
	*ecdsa.PrivateKey
	answer chan struct{}
}

func (s slow) Delete() error { return nil }

func (s slow) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	<-s.answer
	return s.PrivateKey.Sign(rand.Reader, digest, opts)
}

var _ crypto11.Signer = slow{}

func TestSlowTokenIsGivenUpAndUsedAgain(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := slow{private, make(chan struct{})}
	token, c := &token{module: &module{}, busy: make(chan struct{}, 2)}, &conn{}
	token.conn.Store(c)
	k := &Key{field: "ca.key", uri: &URI{Token: "t", Object: "o", Timeout: 50 * time.Millisecond, Sessions: 2}, token: token, public: private.Public(), conn: c, signer: s}
	digest := sha256.Sum256([]byte("x"))
	for i, want := range []string{"no answer within 50ms", "no answer within 50ms", "all 2 sessions were in use"} {
		if _, err := k.Sign(nil, digest[:], crypto.SHA256); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), want) {
			t.Fatalf("signature %d: got %v, want %q", i, err, want)
		}
	}
	close(s.answer)
	k.uri.Timeout = time.Minute
	sig, err := k.Sign(nil, digest[:], crypto.SHA256)
	if err != nil || !ecdsa.VerifyASN1(&private.PublicKey, digest[:], sig) {
		t.Fatalf("after the token is back: %v", err)
	}
}
