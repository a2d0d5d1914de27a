package node

import (
	"crypto/x509/pkix"
	"os"
	"path/filepath"
	"testing"

	"github.com/certanchor/certanchor/ca"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/internal/sct"
)

// TestKeyOfTheNextLogIsBesideTheFirst: made where the OCSP bridge looks for it, and not elsewhere.
func TestKeyOfTheNextLogIsBesideTheFirst(t *testing.T) {
	dir := t.TempDir()
	res, err := ca.Init(ca.InitOptions{Dir: filepath.Join(dir, "ca"), Subject: pkix.Name{CommonName: "T"}, Passphrase: []byte("correct horse battery")})
	if err != nil {
		t.Fatal(err)
	}
	own, next := wire.CAIDOf(res.Certificate.RawSubjectPublicKeyInfo).String(), wire.CAID{7}
	open := func(keyFile string) (*sct.Key, error) {
		return nextLogKeys(&config.CA{Dir: filepath.Join(dir, "ca"), CT: &config.CTSubmission{KeyFile: keyFile}})(next)
	}
	sibling := filepath.Join(dir, "ct", next.String()+".pem")
	for _, keyFile := range []string{"pkcs11:token=t;object=log?module-path=/m.so", filepath.Join(dir, "ct", "log.pem")} {
		if key, err := open(keyFile); key != nil || err != nil {
			t.Errorf("%s: %v, %v", keyFile, key, err)
		}
	}
	if _, err := os.Stat(sibling); !os.IsNotExist(err) {
		t.Fatalf("it was made: %v", err)
	}
	made, err := open(filepath.Join(dir, "ct", own+".pem"))
	if err != nil {
		t.Fatal(err)
	}
	there, err := sct.Load(sibling)
	if err != nil || there.ID() != made.ID() {
		t.Fatalf("%v: not the key that the OCSP bridge will find", err)
	}
	if key, err := open(filepath.Join(dir, "ct", "log.pem")); err != nil || key.ID() != made.ID() {
		t.Errorf("one that was put there: %v", err)
	}
	if err := os.WriteFile(sibling, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open(filepath.Join(dir, "ct", own+".pem")); err == nil {
		t.Error("a file that is no key was taken")
	}
}
