package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/ca"
	"github.com/certanchor/certanchor/internal/hsm"
	"github.com/certanchor/certanchor/internal/hsm/hsmtest"
)

func TestCAInitMakesAndUsesAKeyInAToken(t *testing.T) {
	token := hsmtest.New(t)
	dir := t.TempDir()
	initialise := func(name string, more ...string) (code int, out, errs string) {
		return runCLI(append([]string{"ca", "init", "--dir", filepath.Join(dir, name), "--subject", "CN=" + name}, more...)...)
	}
	if code, _, errs := initialise("first", "--key", token.URI("ca"), "--key-algorithm", "p384"); code != exitOK || strings.Contains(errs, "already") {
		t.Fatalf("exit status %d: %s", code, errs)
	}
	if code, _, errs := initialise("second", "--key", token.URI("ca")); code != exitOK || !strings.Contains(errs, "the token had this key already") {
		t.Fatalf("exit status %d: %s", code, errs)
	}
	text, err := os.ReadFile(filepath.Join(dir, "first", "ca.key"))
	if err != nil || string(text) != token.URI("ca")+"\n" || strings.Contains(string(text), hsmtest.PIN) {
		t.Errorf("ca.key is %q, %v", text, err)
	}
	key, err := ca.OpenKey(filepath.Join(dir, "first"), func() ([]byte, error) { t.Error("asked for a passphrase"); return nil, nil })
	if err != nil {
		t.Fatal(err)
	}
	cert, _, err := ca.LoadCertificate(filepath.Join(dir, "first"))
	if err != nil || key.(*hsm.Key).Public() == nil || cert.SignatureAlgorithm.String() != "ECDSA-SHA384" {
		t.Errorf("%v, %v", cert.SignatureAlgorithm, err)
	}
	for _, c := range []struct {
		more []string
		code int
		want string
	}{
		{[]string{"--key", token.URI("new") + "&pin-value=1234"}, exitUsage, "pin-value"},
		{[]string{"--key", token.URI("new"), "--passphrase-env", "X"}, exitUsage, "--passphrase-file"},
		{[]string{"--key", token.URI("new"), "--key-algorithm", "ed25519"}, exitUsage, "--key-algorithm"},
		{[]string{"--key", strings.Replace(token.URI("new"), token.PINFile, "/no/pin", 1)}, exitFailure, "pin-source"},
	} {
		code, _, errs := initialise("refused", c.more...)
		if code != c.code || !strings.Contains(errs, c.want) || strings.Contains(errs, "1234") {
			t.Errorf("%v: exit status %d: %s", c.more, code, errs)
		}
	}
	// What fails after the key was made leaves none: the directory's place is taken while it is prepared.
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := initialise("file", "--key", token.URI("new")); code != exitFailure {
		t.Errorf("exit status %d: %s", code, errs)
	}
	if _, err := hsm.Open("key", token.URI("new")); err == nil {
		t.Error("the key of the CA that was not made is in the token")
	}
}
