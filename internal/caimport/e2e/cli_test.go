package e2e

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caimport"
	"github.com/certanchor/certanchor/internal/caimport/importtest"
)

// desk is where somebody imports: a directory with the CA's certificate and a configuration, and a ledger that has the CA.
type desk struct {
	t   *testing.T
	dir string
}

func newDesk(t *testing.T, der []byte) *desk {
	t.Helper()
	d := &desk{t: t, dir: t.TempDir()}
	d.write("ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	d.write("ca.yaml", []byte("ledger:\n  engine: embedded\n  embedded: {dir: ledger}\n"))
	if code, out, errs := d.run(nil, "ca", "register", "--config", "ca.yaml", "--ca-cert", "ca.pem", "--operating-msp", "LocalMSP"); code != 0 {
		t.Fatalf("%d %s %s", code, out, errs)
	}
	return d
}

func (d *desk) write(name string, data ...[]byte) {
	d.t.Helper()
	check(d.t, os.WriteFile(filepath.Join(d.dir, name), slices.Concat(data...), 0o600))
}

func (d *desk) run(stdin []byte, args ...string) (code int, out, errs string) {
	d.t.Helper()
	cmd := certanchor(d.t, d.t.Context(), d.dir, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	err := cmd.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		d.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()
}

func (d *desk) importing(stdin []byte, args ...string) (code int, s summary, errs string) {
	d.t.Helper()
	code, out, errs := d.run(stdin, append([]string{"ca", "import", "--config", "ca.yaml", "--ca-cert", "ca.pem", "--json"}, args...)...)
	if out != "" {
		check(d.t, json.Unmarshal([]byte(out), &s))
	}
	return code, s, errs
}

func TestStandardInputAndACRLAreImported(t *testing.T) {
	ca := importtest.NewOpenSSL(t)
	ca.Issue(3)
	ca.Revoke("02", "-crl_reason", "superseded")
	crl, err := os.ReadFile(ca.CRL("-crldays", "1"))
	check(t, err)
	d := newDesk(t, ca.Cert.Raw)
	d.write("ca.crl", crl)
	var stdin []byte
	for _, serial := range []string{"01", "02", "03"} {
		data, err := os.ReadFile(ca.Path("newcerts/" + serial + ".pem"))
		check(t, err)
		stdin = append(stdin, data...)
	}
	code, s, errs := d.importing(stdin, "--crl", "ca.crl", "-")
	if code != 0 || !s.Complete || s.Valid != 2 || s.Revoked != 1 || s.Changed != 3 {
		t.Errorf("exit status %d, %+v, %s", code, s, errs)
	}
	code, s, errs = d.importing(stdin, "--crl", "ca.crl", "-") // the state is of what standard input had
	if code != 0 || s.Resumed != 3 || s.Imported != 0 {
		t.Errorf("again: exit status %d, %+v, %s", code, s, errs)
	}
}

func TestFaultsAreReportedAndNothingIsWritten(t *testing.T) {
	ca, other := cctest.NewCA(t), cctest.NewCA(t)
	d := newDesk(t, ca.DER)
	d.write("certs.der", append(ca.IssueMany(t, 3), other.IssueMany(t, 25)...)...)
	args := []string{"--assume-valid", "--report", "report", "certs.der"}

	code, s, errs := d.importing(nil, args...)
	if code != 1 || s.Complete || s.Changed != 0 || s.Bad != 25 || !strings.Contains(errs, "nothing was written") || !strings.Contains(errs, "and 5 more") {
		t.Errorf("exit status %d, %+v, %s", code, s, errs)
	}
	report, err := os.ReadFile(filepath.Join(d.dir, "report"))
	check(t, err)
	lines := strings.Split(strings.TrimSpace(string(report)), "\n")
	var b caimport.Bad
	check(t, json.Unmarshal([]byte(lines[0]), &b))
	if len(lines) != 25 || !strings.HasPrefix(b.Where, "certs.der, offset ") || b.Field != "certificate.issuer" || b.Value == "" || b.Rule == "" {
		t.Errorf("%d lines, the first %+v", len(lines), b)
	}
	if code, s, errs = d.importing(nil, append(args, "--dry-run")...); code != 1 || s.Changed != 3 {
		t.Errorf("dry run: exit status %d, %+v, %s", code, s, errs)
	}
	if code, s, errs = d.importing(nil, append(args, "--keep-going")...); code != 1 || !s.Complete || s.Changed != 3 || s.Valid != 3 {
		t.Errorf("keeping on: exit status %d, %+v, %s", code, s, errs)
	}
	if code, s, _ = d.importing(nil, append(args, "--keep-going")...); code != 1 || s.Changed != 0 || s.Resumed != 3 {
		t.Errorf("keeping on again: exit status %d, %+v", code, s)
	}
}

func TestWrongUsageSaysWhatIsMeant(t *testing.T) {
	ca, other := cctest.NewCA(t), cctest.NewCA(t)
	d := newDesk(t, ca.DER)
	d.write("other.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: other.DER}))
	d.write("text", []byte("hello"))
	id := wire.CAIDOf(ca.Cert.RawSubjectPublicKeyInfo).String()
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"ca", "import", "--config", "ca.yaml", "x"}, 2, "ca-cert"},
		{[]string{"ca", "import", "--config", "ca.yaml", "--ca", id}, 1, "at least one source"},
		{[]string{"ca", "import", "--config", "ca.yaml", "--ca", id, "nowhere"}, 1, "nowhere"},
		{[]string{"ca", "import", "--config", "ca.yaml", "--ca", id, "text"}, 1, "file of another kind"},
		{[]string{"ca", "import", "--config", "ca.yaml", "--ca", id, "-", "-"}, 2, "once"},
		{[]string{"ca", "import", "--config", "ca.yaml", "--ca", "zz", "text"}, 1, "--ca"},
		{[]string{"ca", "import", "--config", "ca.yaml", "--ca", id, "--batch", "1001", "text"}, 2, "--batch"},
		{[]string{"ca", "import", "--config", "ca.yaml", "--ca-cert", "other.pem", "text"}, 1, "register it first"},
		{[]string{"ca", "mirror", "--config", "ca.yaml", "--ca", id, "--dir", "m"}, 2, "crl"},
		{[]string{"ca", "mirror", "--config", "ca.yaml", "--ca", id, "--dir", "m", "--crl", "ftp://x/y", "--once"}, 1, "http:// or https:// or file://"},
		{[]string{"ca", "mirror", "--config", "ca.yaml", "--ca", id, "--dir", "m", "--crl", "file:///nowhere/ca.crl", "--once"}, 1, "/nowhere/ca.crl"},
	} {
		if code, out, errs := d.run(nil, c.args...); code != c.code || !strings.Contains(errs, c.want) {
			t.Errorf("%v: exit status %d, want %d with %q: %s%s", c.args, code, c.code, c.want, out, errs)
		}
	}
}
