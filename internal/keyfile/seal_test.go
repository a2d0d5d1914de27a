package keyfile

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// sealerFor has a passphrase of an environment variable.
func sealerFor(t *testing.T, phrase string) *Sealer {
	t.Helper()
	t.Setenv("CERTANCHOR_TEST_SEAL", phrase)
	s, err := NewSealer(Source{Env: "CERTANCHOR_TEST_SEAL"}, "the test", 1000)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSealedKeys(t *testing.T) {
	right, wrong := sealerFor(t, "correct horse"), sealerFor(t, "another one")
	_, ed, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := Generate(P256)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []crypto.Signer{ed, ec} {
		for name, tc := range map[string]struct {
			with, open *Sealer
			want       error
		}{
			"sealed": {right, right, nil}, "plain, none configured": {nil, nil, nil}, "plain, one configured": {nil, right, nil},
			"wrong passphrase": {right, wrong, ErrPassphrase}, "none configured": {right, nil, ErrSealed},
		} {
			block, err := tc.with.Seal(key)
			if err != nil {
				t.Fatal(err)
			}
			got, err := tc.open.Open("file", block)
			if !errors.Is(err, tc.want) || err == nil && !got.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(key.Public()) {
				t.Errorf("%T, %s: %v", key, name, err)
			}
		}
	}
	if _, err := right.Open("file", nil); err == nil {
		t.Error("no block is a key")
	}
	t.Setenv("CERTANCHOR_TEST_SEAL", "short")
	if _, err := NewSealer(Source{Env: "CERTANCHOR_TEST_SEAL"}, "the test", 0); err == nil {
		t.Error("a short passphrase is taken")
	}
}

func TestSealFileKeepsWhatFollowsTheKey(t *testing.T) {
	seal := sealerFor(t, "correct horse")
	key, err := Generate(P256)
	if err != nil {
		t.Fatal(err)
	}
	block, err := (*Sealer)(nil).Seal(key)
	if err != nil {
		t.Fatal(err)
	}
	rest := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})
	path := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(path, append(pem.EncodeToMemory(block), rest...), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, want := range []bool{true, false} {
		if done, err := SealFile(path, seal); err != nil || done != want {
			t.Fatalf("%t, %v", done, err)
		}
		data, err := os.ReadFile(path)
		if err != nil || !IsSealed(data) || !bytes.HasSuffix(data, rest) || bytes.Contains(data, []byte("BEGIN PRIVATE KEY")) {
			t.Fatalf("%s, %v", data, err)
		}
		sealed, _ := pem.Decode(data)
		if got, err := seal.Open(path, sealed); err != nil || !got.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(key.Public()) {
			t.Fatal(err)
		}
	}
}
