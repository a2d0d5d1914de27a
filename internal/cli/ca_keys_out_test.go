package cli

import (
	"bytes"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/ca"
	"github.com/certanchor/certanchor/internal/keystate"
)

// TestRotationOfASuspendedKeySaysWhatEndsIt: every request is refused meanwhile, so it is not over.
func TestRotationOfASuspendedKeySaysWhatEndsIt(t *testing.T) {
	p := newParty(t)
	cert, err := readCertificate("ca", p.path("ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	other := &x509.Certificate{RawSubjectPublicKeyInfo: []byte("other")}
	for _, c := range []struct {
		old, fresh keystate.State
		want       string
	}{
		{keystate.Suspended, keystate.Active, "the old key is suspended; certanchor ca key resume --ca-id " + idOf(cert)},
		{keystate.Active, keystate.Suspended, "the new key is suspended; certanchor ca key resume --ca-id " + idOf(other)},
		{keystate.Retired, keystate.Suspended, "certanchor ca key retire --ca-id " + idOf(other)},
		{keystate.Retired, keystate.Retired, "makes another one"},
		{keystate.Retired, keystate.Active, "the rotation is over"},
	} {
		var out bytes.Buffer
		cmd := &cobra.Command{}
		cmd.SetOut(&out)
		r := &ca.Rotation{Dir: "next", Certificate: other, State: c.fresh, Old: cert, OldState: c.old}
		if err := printRotation(cmd, &subordinateFlags{}, "ca", r, false); err != nil || !strings.Contains(out.String(), c.want) {
			t.Errorf("%s, %s: %v\n%s", c.old, c.fresh, err, out.String())
		}
	}
}

// TestRootSignsNothingThatCannotBeWritten: what is signed is in the register, for good.
func TestRootSignsNothingThatCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(at("pass"), []byte("long enough\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	must := func(args ...string) string {
		t.Helper()
		code, out, errs := runCLI(args...)
		if code != 0 {
			t.Fatalf("%v: exit %d, %s", args, code, errs)
		}
		return out
	}
	must("ca", "root", "init", "--dir", at("root"), "--subject", "CN=Root", "--passphrase-file", at("pass"))
	must("ca", "init", "--dir", at("sub"), "--subject", "CN=Sub", "--passphrase-file", at("pass"), "--csr-out", at("sub.csr"))
	before := must("ca", "root", "show", "--dir", at("root"), "--json")
	for _, out := range []string{at("pass"), at("nowhere/x.pem")} {
		for _, args := range [][]string{{"sign", "--csr", at("sub.csr")}, {"crl"}} {
			code, _, errs := runCLI(append([]string{"ca", "root"}, append(args, "--dir", at("root"), "--out", out, "--passphrase-file", at("pass"), "--yes")...)...)
			if code != exitFailure || !strings.Contains(errs, "nothing was signed") {
				t.Errorf("%v to %s: exit %d, %s", args, out, code, errs)
			}
		}
	}
	if after := must("ca", "root", "show", "--dir", at("root"), "--json"); after != before {
		t.Errorf("the register was\n%s\nand is\n%s", before, after)
	}
	must("ca", "root", "sign", "--dir", at("root"), "--csr", at("sub.csr"), "--out", at("sub.pem"), "--passphrase-file", at("pass"), "--yes")
}
