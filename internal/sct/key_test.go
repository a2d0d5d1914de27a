package sct

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func newKey(t testing.TB) *Key {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k, err := New(private)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSignaturesAreThoseOfRFC6979(t *testing.T) {
	// RFC 6979 A.2.5, message "sample", SHA-256.
	scalar, err := hex.DecodeString("C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721")
	if err != nil {
		t.Fatal(err)
	}
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar)
	if err != nil {
		t.Fatal(err)
	}
	k, err := New(private)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := k.sign([]byte("sample"))
	if err != nil {
		t.Fatal(err)
	}
	const want = "04030048" + "3046" + // sha256, ecdsa; SEQUENCE of two INTEGERs
		"022100" + "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716" +
		"022100" + "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8"
	if got := hex.EncodeToString(signed); got != want {
		t.Errorf("signature is\n%s, want\n%s", got, want)
	}
	if !verify(k.Public(), []byte("sample"), signed) || verify(k.Public(), []byte("simple"), signed) || verify(k.Public(), []byte("sample"), append(signed, 0)) {
		t.Error("verify must accept this signature, and none of another message or with an octet after it")
	}
}

func TestKeyStaysTheSame(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys", "log.pem")
	ids := make([]LogID, 8)
	var group sync.WaitGroup
	for i := range ids {
		group.Go(func() {
			k, err := LoadOrCreate(path)
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = k.ID()
		})
	}
	group.Wait()
	k, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if id != k.ID() {
			t.Errorf("created at once: log ID %x, the file has %x", id, k.ID())
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the key file: %v, %v", info.Mode(), err)
	}
	if k.ID() != sha256.Sum256(k.SPKI()) {
		t.Error("the log ID is not the SHA-256 of the SubjectPublicKeyInfo")
	}
	if id, err := IDOf(k.SPKI()); err != nil || id != k.ID() {
		t.Errorf("IDOf: %x, %v", id, err)
	}
}

func TestLoadSaysWhatIsWrongWithAKeyFile(t *testing.T) {
	block := func(kind string, key any) []byte {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		text []byte
		mode fs.FileMode
		want string
	}{
		"open to others": {block(pemType, p256), 0o644, "0600"},
		"another curve":  {block(pemType, p384), 0o600, "P-256"},
		"another block":  {block("EC PRIVATE KEY", p256), 0o600, "PRIVATE KEY"},
		"two blocks":     {append(block(pemType, p256), block(pemType, p256)...), 0o600, "nothing after"},
		"no PEM":         {[]byte("hello"), 0o600, "PEM"},
		"no PKCS #8":     {pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: []byte{1}}), 0o600, "PKCS #8"},
		"too large":      {make([]byte, maxKeyFile+1), 0o600, "at most"},
	} {
		path := filepath.Join(t.TempDir(), "log.pem")
		if err := os.WriteFile(path, c.text, c.mode); err != nil {
			t.Fatal(err)
		}
		for _, load := range []func(string) (*Key, error){Load, LoadOrCreate} {
			if _, err := load(path); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("%s: %v, want it to name %q and the file", name, err, c.want)
			}
		}
	}
	if _, err := Load(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}
