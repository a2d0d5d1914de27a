package logkey

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/internal/keyfile"
)

func sealer(t *testing.T, phrase string) *keyfile.Sealer {
	t.Helper()
	t.Setenv("CERTANCHOR_TEST_SEAL", phrase)
	s, err := keyfile.NewSealer(keyfile.Source{Env: "CERTANCHOR_TEST_SEAL"}, "the test", 1000)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Keys that are made are encrypted, those that were not before are when somebody says so, and all are the same keys as before.
func TestEncryptedKeys(t *testing.T) {
	seal, wrong := sealer(t, "correct horse"), sealer(t, "another one")
	dir := t.TempDir()
	log := func(path string, s *keyfile.Sealer) (string, error) {
		k, err := LoadOrCreateSealed(path, "example/Org", s)
		if err != nil {
			return "", err
		}
		return k.VKey, nil
	}
	cosigner := func(path string, s *keyfile.Sealer) (string, error) {
		k, err := LoadOrCreateCosignerSealed(path, "example/Org/cosigner", time.Now, s)
		if err != nil {
			return "", err
		}
		return k.VKey(), nil
	}
	for name, load := range map[string]func(string, *keyfile.Sealer) (string, error){"log": log, "cosigner": cosigner} {
		for _, first := range []*keyfile.Sealer{nil, seal} {
			path := filepath.Join(dir, name)
			if first != nil {
				path += " encrypted"
			}
			want, err := load(path, first)
			if err != nil {
				t.Fatal(err)
			}
			if done, err := Encrypt(path, seal); err != nil || done != (first == nil) {
				t.Fatalf("%t, %v", done, err)
			}
			text, err := os.ReadFile(path)
			if err != nil || !keyfile.IsSealed(text) || bytes.Contains(text, []byte("PRIVATE+KEY")) {
				t.Fatalf("%s, %v", text, err)
			}
			if got, err := load(path, seal); err != nil || got != want {
				t.Errorf("%s: %s, %v, want %s", name, got, err, want)
			}
			if _, err := load(path, nil); !errors.Is(err, keyfile.ErrSealed) {
				t.Errorf("%s without a passphrase: %v", name, err)
			}
			if _, err := load(path, wrong); !errors.Is(err, keyfile.ErrPassphrase) {
				t.Errorf("%s with another passphrase: %v", name, err)
			}
			if got, err := Name(text); (err == nil) != (name == "log") || !strings.HasPrefix(want, got+"+") {
				t.Errorf("%s: name %q, %v", name, got, err)
			}
			// The headers are not encrypted, and not to be changed either.
			for _, change := range [][2]string{{"Name: example", "Name: exbmple"}, {"Signature-Type: ", "Signature-Type: 1"}, {"Key-Hash: ", "Key-Hash: 0"}} {
				bad := filepath.Join(dir, "bad")
				if err := os.WriteFile(bad, bytes.Replace(text, []byte(change[0]), []byte(change[1]), 1), 0o600); err != nil {
					t.Fatal(err)
				}
				if _, err := load(bad, seal); err == nil {
					t.Errorf("%s: taken with %s", name, change[1])
				}
			}
		}
	}
	// A log key is no cosigner key, encrypted or not.
	if _, err := cosigner(filepath.Join(dir, "log encrypted"), seal); err == nil {
		t.Error("a log key is taken for a cosigner key")
	}
}
