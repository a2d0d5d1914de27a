package keyfile

import (
	"bytes"
	"crypto"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

type publicKey interface{ Equal(crypto.PublicKey) bool }

func TestSavedKeyLoadsAndOpenSSLReadsIt(t *testing.T) {
	for _, a := range []Algorithm{P256, P384, RSA2048, RSA3072} {
		t.Run(string(a), func(t *testing.T) {
			key, err := Generate(a)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "ca.key")
			iterations := minIterations
			if a == P256 { // what users get
				iterations = Iterations
				err = Save(path, key, []byte("correct horse"))
			} else {
				err = SaveWith(path, key, []byte("correct horse"), iterations)
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := iterationsOf(t, path); got != iterations {
				t.Fatalf("%d iterations, want %d", got, iterations)
			}
			st, err := os.Stat(path)
			if err != nil || st.Mode().Perm() != 0o600 {
				t.Fatalf("mode %v, %v; want 0600", st.Mode(), err)
			}
			back, err := Load(path, []byte("correct horse"))
			if err != nil {
				t.Fatal(err)
			}
			if !key.Public().(publicKey).Equal(back.Public()) {
				t.Fatal("another key came back")
			}
			out, err := exec.Command("openssl", "pkey", "-in", path, "-passin", "pass:correct horse", "-noout", "-check").CombinedOutput()
			if err != nil {
				t.Fatalf("openssl pkey: %v\n%s", err, out)
			}
			if out, err := exec.Command("openssl", "pkey", "-in", path, "-passin", "pass:wrong", "-noout").CombinedOutput(); err == nil {
				t.Fatalf("openssl read it with a wrong passphrase:\n%s", out)
			}
		})
	}
}

// iterationsOf reads the count in a key file's PBKDF2 parameters (RFC 8018 appendix A.2).
func iterationsOf(t *testing.T, path string) int {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	type algorithm struct {
		ID     asn1.ObjectIdentifier
		Params asn1.RawValue
	}
	var file struct {
		Algorithm algorithm
		Data      []byte
	}
	var pbes2 struct{ KDF, Cipher algorithm }
	var kdf struct {
		Salt  []byte
		Count int
		PRF   asn1.RawValue
	}
	block, _ := pem.Decode(data)
	if _, err = asn1.Unmarshal(block.Bytes, &file); err == nil {
		_, err = asn1.Unmarshal(file.Algorithm.Params.FullBytes, &pbes2)
	}
	if err == nil {
		_, err = asn1.Unmarshal(pbes2.KDF.Params.FullBytes, &kdf)
	}
	if err != nil {
		t.Fatal(err)
	}
	return kdf.Count
}

func TestFewIterationsAreRefused(t *testing.T) {
	key, err := Generate(P256)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ca.key")
	if err := SaveWith(path, key, []byte("correct horse"), minIterations-1); err == nil || !strings.Contains(err.Error(), "999, must be at least 1000") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there is a file: %v", err)
	}
}

func TestWrongPassphraseIsNamed(t *testing.T) {
	path := savedKey(t)
	if _, err := Load(path, []byte("wrong horse")); !errors.Is(err, ErrPassphrase) || !strings.Contains(err.Error(), path) {
		t.Fatalf("got %v", err)
	}
	if _, err := Load(path, nil); err == nil || !strings.Contains(err.Error(), "empty") {
		t.Fatalf("got %v", err)
	}
}

func TestSaveNeverOverwrites(t *testing.T) {
	path := savedKey(t)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	key, err := Generate(P256)
	if err != nil {
		t.Fatal(err)
	}
	if err := SaveWith(path, key, []byte("correct horse"), minIterations); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("got %v, want fs.ErrExist", err)
	}
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(before, after) {
		t.Fatalf("the file changed (%v)", err)
	}
	if names, err := os.ReadDir(filepath.Dir(path)); err != nil || len(names) != 1 {
		t.Fatalf("left over: %v (%v)", names, err)
	}
}

func TestLoadRefuses(t *testing.T) {
	good, err := os.ReadFile(savedKey(t))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(good)
	short := pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes[:len(block.Bytes)-1]})
	// A ciphertext that is not a whole number of cipher blocks makes the library panic.
	var enc struct {
		Algorithm asn1.RawValue
		Data      []byte
	}
	if _, err := asn1.Unmarshal(block.Bytes, &enc); err != nil {
		t.Fatal(err)
	}
	enc.Data = enc.Data[:len(enc.Data)-1]
	ragged, err := asn1.Marshal(enc)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		data []byte
		mode fs.FileMode
		want string
	}{
		{"readable by the group", good, 0o640, "0600"},
		{"readable by all", good, 0o604, "0600"},
		{"not PEM", []byte("hello"), 0o600, "one PEM block"},
		{"empty", nil, 0o600, "one PEM block"},
		{"two blocks", append(append([]byte(nil), good...), good...), 0o600, "one PEM block"},
		{"unencrypted", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{1}}), 0o600, "kept encrypted"},
		{"cut short", short, 0o600, "key file"},
		{"ragged", pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: ragged}), 0o600, ErrPassphrase.Error()},
		{"too large", bytes.Repeat([]byte("x"), maxBytes+1), 0o600, "larger than"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "k")
			if err := os.WriteFile(path, tc.data, tc.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, tc.mode); err != nil {
				t.Fatal(err)
			}
			if _, err := Load(path, []byte("correct horse")); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want %q", err, tc.want)
			}
		})
	}
	if _, err := Load(filepath.Join(t.TempDir(), "none"), []byte("x")); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("got %v", err)
	}
	if _, err := Load(t.TempDir(), []byte("x")); err == nil {
		t.Fatal("loaded a directory")
	}
}

func TestParseAlgorithm(t *testing.T) {
	if a, err := ParseAlgorithm(""); a != P256 || err != nil {
		t.Fatal(a, err)
	}
	if _, err := Generate("rsa1024"); err == nil || !strings.Contains(err.Error(), `"rsa1024"`) {
		t.Fatalf("got %v", err)
	}
}

func FuzzDecrypt(f *testing.F) {
	// Low cost, so that the fuzzer gets somewhere: the KDF's parameters are part of the input.
	f.Add([]byte{0x30, 0x00})
	f.Add([]byte{0x30, 0x03, 0x02, 0x01, 0x00})
	f.Fuzz(func(t *testing.T, der []byte) {
		if len(der) > 64 { // long enough to carry an iteration count that takes minutes
			return
		}
		if key, err := decrypt(der, []byte("x")); (key == nil) == (err == nil) {
			t.Fatalf("key %v, err %v", key, err)
		}
	})
}

func savedKey(t *testing.T) string {
	t.Helper()
	key, err := Generate(P256)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ca.key")
	if err := SaveWith(path, key, []byte("correct horse"), minIterations); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestDefaultIsTheFullNumber: nothing but a test binary's own wish makes it less, and not in this one.
func TestDefaultIsTheFullNumber(t *testing.T) {
	if n := DefaultIterations(); n != Iterations {
		t.Fatalf("%d iterations", n)
	}
	defer func() { defaultIterations = Iterations }()
	if FewerIterations(); DefaultIterations() != minIterations {
		t.Errorf("%d iterations", DefaultIterations())
	}
}
