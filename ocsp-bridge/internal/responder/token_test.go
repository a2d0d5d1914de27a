package responder

import (
	"crypto"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/internal/hsm"
	"github.com/certanchor/certanchor/internal/hsm/hsmtest"
	"github.com/certanchor/certanchor/internal/keyfile"
)

func TestResponderKeyInATokenIsFoundByItsURI(t *testing.T) {
	token := hsmtest.New(t)
	made, _, err := hsm.OpenOrCreate("key", token.URI("responder"), keyfile.P384)
	if err != nil {
		t.Fatal(err)
	}
	key, err := loadKey(token.URI("responder"))
	if err != nil || !key.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(made.Public()) {
		t.Fatalf("another key, or %v", err)
	}
	if _, err := loadKey(token.URI("none")); err == nil || !strings.Contains(err.Error(), "ocsp_bridge.responders") {
		t.Errorf("a key that is not there: %v", err)
	}
}

func TestEncryptedResponderKeyNeedsItsPassphrase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key.pem")
	made, err := keyfile.Generate(keyfile.P256)
	if err != nil {
		t.Fatal(err)
	}
	if err := keyfile.Save(path, made, []byte("correct horse")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("RESPONDER_PASS", "correct horse")
	t.Setenv("WRONG_PASS", "wrong horse")
	key, err := loadEncrypted(path, keyfile.Source{Env: "RESPONDER_PASS"})
	if err != nil || !key.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(made.Public()) {
		t.Fatalf("another key, or %v", err)
	}
	if _, err := loadPair(KeyPair{KeyFile: path, Passphrase: keyfile.Source{Env: "WRONG_PASS"}}); !errors.Is(err, keyfile.ErrPassphrase) {
		t.Errorf("wrong passphrase: %v", err)
	}
	if _, err := loadPair(KeyPair{KeyFile: path}); err == nil || !strings.Contains(err.Error(), "PRIVATE KEY") {
		t.Errorf("no passphrase: %v", err)
	}
}
