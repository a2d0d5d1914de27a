// Package hsmtest makes SoftHSM tokens for tests: a real PKCS #11 module, whose tokens are files.
package hsmtest

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/internal/hsm"
)

// Label and PINs of a new token.
const (
	Label = "certanchor test"
	PIN   = "31415926"
	soPIN = "27182818"
)

// Token is a token of its own SoftHSM installation in a temporary directory.
type Token struct {
	t       testing.TB
	Module  string // path of the library
	PINFile string
	dir     string
}

// New makes a token. It sets SOFTHSM2_CONF, so tests that use it cannot be parallel. Without SoftHSM the test fails.
func New(t testing.TB) *Token {
	t.Helper()
	dir := t.TempDir()
	k := &Token{t: t, Module: module(t), PINFile: filepath.Join(dir, "pin"), dir: dir}
	tokens := filepath.Join(dir, "tokens")
	if err := os.Mkdir(tokens, 0o700); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "softhsm2.conf")
	k.write(conf, fmt.Sprintf("directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n", tokens))
	k.SetPIN(PIN)
	t.Setenv("SOFTHSM2_CONF", conf)
	hsm.CloseAll() // the module reads its configuration when it is initialised
	t.Cleanup(hsm.CloseAll)
	k.Init(Label, PIN)
	return k
}

// module finds the library where distributions have it.
func module(t testing.TB) string {
	t.Helper()
	if _, err := exec.LookPath("softhsm2-util"); err != nil {
		t.Fatal("softhsm2-util is missing: the package softhsm2 has it and the PKCS #11 module that this test needs")
	}
	places := []string{
		os.Getenv("SOFTHSM2_MODULE"), "/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so", "/usr/lib64/softhsm/libsofthsm2.so",
		"/usr/local/lib/softhsm/libsofthsm2.so", "/opt/homebrew/lib/softhsm/libsofthsm2.so",
	}
	for _, path := range places {
		if _, err := os.Stat(path); path != "" && err == nil {
			return path
		}
	}
	t.Fatal("libsofthsm2.so is missing: install the package softhsm2, or say in SOFTHSM2_MODULE where it is")
	return ""
}

func (k *Token) write(path, text string) {
	k.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		k.t.Fatal(err)
	}
}

// SetPIN changes what PINFile has, not the token.
func (k *Token) SetPIN(pin string) { k.t.Helper(); k.write(k.PINFile, pin+"\n") }

// Init makes another token in a free slot, in a process of its own.
func (k *Token) Init(label, pin string) {
	k.t.Helper()
	k.util("--init-token", "--free", "--label", label, "--so-pin", soPIN, "--pin", pin)
}

// Delete removes a token with all its keys, in a process of its own.
func (k *Token) Delete(label string) { k.t.Helper(); k.util("--delete-token", "--token", label) }

// Import puts a key into the token, in a process of its own.
func (k *Token) Import(label, pin, object, id string, key crypto.Signer) {
	k.t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		k.t.Fatal(err)
	}
	path := filepath.Join(k.t.TempDir(), "key.pem")
	k.write(path, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	k.util("--import", path, "--token", label, "--pin", pin, "--label", object, "--id", id)
}

func (k *Token) util(args ...string) {
	k.t.Helper()
	out, err := exec.CommandContext(k.t.Context(), "softhsm2-util", append(args, "--module", k.Module)...).CombinedOutput()
	if err != nil {
		k.t.Fatalf("softhsm2-util %s: %v\n%s", args[0], err, out)
	}
}

// URI names a key of the token Label.
func (k *Token) URI(object string) string {
	return fmt.Sprintf("pkcs11:token=%s;object=%s?module-path=%s&pin-source=file:%s", strings.ReplaceAll(Label, " ", "%20"), object, k.Module, k.PINFile)
}

// Unplug takes all tokens away until Plug.
func (k *Token) Unplug() { k.t.Helper(); k.rename("tokens", "unplugged") }

// Plug brings the tokens back.
func (k *Token) Plug() { k.t.Helper(); k.rename("unplugged", "tokens") }

func (k *Token) rename(from, to string) {
	k.t.Helper()
	if err := os.Rename(filepath.Join(k.dir, from), filepath.Join(k.dir, to)); err != nil {
		k.t.Fatal(err)
	}
}
