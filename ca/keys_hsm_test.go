package ca

import (
	"crypto/x509/pkix"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/internal/hsm"
	"github.com/certanchor/certanchor/internal/hsm/hsmtest"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/keystate"
	"github.com/certanchor/certanchor/network/embedded"
)

// tokenCA is a CA whose key is in a token.
func tokenCA(t *testing.T, token *hsmtest.Token) (dir string, open func() (*Server, error)) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "ca")
	made, err := Init(InitOptions{Dir: dir, Subject: pkix.Name{CommonName: "CA in a token"}, KeyURI: token.URI("ca")})
	if err != nil || !made.KeyMade {
		t.Fatal(made, err)
	}
	var node *embedded.Node
	if node, err = openNode(dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = node.Close() })
	register(t, node, dir)
	return dir, func() (*Server, error) {
		key, err := OpenKey(dir, nil)
		if err != nil {
			return nil, err
		}
		return New(Config{Dir: dir, Key: key, Log: slog.New(slog.DiscardHandler)}, node.Connect("operator"))
	}
}

func TestKeyInATokenIsDestroyedThere(t *testing.T) {
	token := hsmtest.New(t)
	dir, open := tokenCA(t, token)
	s, err := open()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Issue(t.Context(), Request{CSR: newCSR(t, nil), Profile: "server"}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []KeyChange{{To: keystate.Suspended}, {To: keystate.Destroyed, Confirm: s.CAID().String(), Force: true}} {
		c.By, c.How, c.Why = "alice", "test", "x"
		if err := s.ChangeKey(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, keyFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if _, err := hsm.Open("key", token.URI("ca")); !errors.Is(err, hsm.ErrNotFound) {
		t.Fatalf("the token still has it: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = open(); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Issue(t.Context(), Request{CSR: newCSR(t, nil), Profile: "server"}); err == nil || !strings.Contains(err.Error(), "destroyed") {
		t.Fatal(err)
	}
}

// What the token has under the key's name must be the certificate's key.
func TestAnotherKeyInTheTokenIsRefused(t *testing.T) {
	token := hsmtest.New(t)
	_, open := tokenCA(t, token)
	hsm.CloseAll()
	token.Delete(hsmtest.Label)
	token.Init(hsmtest.Label, hsmtest.PIN)
	other, err := keyfile.Generate(keyfile.P256)
	if err != nil {
		t.Fatal(err)
	}
	token.Import(hsmtest.Label, hsmtest.PIN, "ca", "07", other)
	hsm.CloseAll()
	if _, err := open(); err == nil || !strings.Contains(err.Error(), "does not belong to the CA certificate") {
		t.Fatal(err)
	}
}

// The next generation must not be the key that is there.
func TestRotationToTheSameKeyIsRefused(t *testing.T) {
	token := hsmtest.New(t)
	dir, _ := tokenCA(t, token)
	o := RotateOptions{Dir: dir, KeyURI: token.URI("ca")}
	if _, err := Rotate(o); err == nil || !strings.Contains(err.Error(), "another one than the present") {
		t.Fatal(err)
	}
	o.KeyURI = token.URI("ca2")
	if r, err := Rotate(o); err != nil || !r.Made {
		t.Fatalf("%+v, %v", r, err)
	}
}
