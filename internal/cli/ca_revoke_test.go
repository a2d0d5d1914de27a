package cli

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/ca"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/network/embedded"
)

// office is a CA that commands can talk to.
type office struct {
	t   *testing.T
	dir string // of files
	url string
	ca  string // its directory
}

func newOffice(t *testing.T) *office {
	t.Helper()
	o := &office{t: t, dir: t.TempDir()}
	o.ca = filepath.Join(o.dir, "ca")
	if _, err := ca.Init(ca.InitOptions{Dir: o.ca, Subject: pkix.Name{CommonName: "Office CA"}, Passphrase: []byte("correct horse")}); err != nil {
		t.Fatal(err)
	}
	node, err := embedded.Open(embedded.Options{Dir: filepath.Join(o.dir, "ledger"), MSPID: "Org1MSP", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	cert, _, err := ca.LoadCertificate(o.ca)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ca.Register(context.Background(), node.Connect(wire.RoleAdministrator), cert.Raw, nil, "Org1MSP"); err != nil {
		t.Fatal(err)
	}
	key, err := ca.LoadKey(o.ca, []byte("correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	server, err := ca.New(ca.Config{Dir: o.ca, Key: key, Log: slog.New(slog.DiscardHandler)}, node.Connect(wire.RoleOperator))
	if err != nil {
		t.Fatal(err)
	}
	hs := httptest.NewServer(server.Handler())
	o.url = hs.URL
	t.Cleanup(func() {
		hs.Close()
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if err := node.Close(); err != nil {
			t.Error(err)
		}
	})
	return o
}

// run runs certanchor ca as the operator.
func (o *office) run(args ...string) (code int, out, errs string) {
	return runCLI(append(append([]string{"ca"}, args...), "--ca-url", o.url, "--token-file", filepath.Join(o.ca, ca.OperatorTokenFile))...)
}

// must is run for what must succeed.
func (o *office) must(args ...string) string {
	o.t.Helper()
	code, out, errs := o.run(args...)
	if code != 0 {
		o.t.Fatalf("%v: exit %d\n%s%s", args, code, out, errs)
	}
	return out
}

func (o *office) path(name string) string { return filepath.Join(o.dir, name) }

func (o *office) write(name, text string) string {
	o.t.Helper()
	if err := os.WriteFile(o.path(name), []byte(text), 0o600); err != nil {
		o.t.Fatal(err)
	}
	return o.path(name)
}

// issued has a certificate with a new key issued, in NAME.pem with NAME.key.
func (o *office) issued(name string, more ...string) caapi.Certificate {
	o.t.Helper()
	out := o.must(append([]string{"issue", "--key-out", o.path(name + ".key"), "--name", name, "-o", o.path(name + ".pem"), "--json"}, more...)...)
	var c caapi.Certificate
	if err := json.Unmarshal([]byte(out), &c); err != nil {
		o.t.Fatal(err)
	}
	return c
}

func (o *office) state(serial string) string {
	o.t.Helper()
	var c caapi.Certificate
	code, out, errs := runCLI("cert", "show", serial, "--json", "--ca-url", o.url, "--token-file", filepath.Join(o.ca, ca.OperatorTokenFile))
	if err := json.Unmarshal([]byte(out), &c); err != nil || code != 0 {
		o.t.Fatalf("%s: exit %d, %v\n%s", serial, code, err, errs)
	}
	return strings.TrimSuffix(c.Status.State+" "+c.Status.Reason, " ")
}

func TestCAIssueRevokeAndStatus(t *testing.T) {
	o := newOffice(t)
	a, b := o.issued("a.shop.example"), o.issued("b.shop.example")
	if st, err := os.Stat(o.path("a.shop.example.key")); err != nil || st.Mode().Perm() != 0o600 {
		t.Fatal(st, err)
	}

	t.Run("one", func(t *testing.T) {
		c := o.issued("c.example")
		if out := o.must("revoke", "--cert", o.path("c.example.pem"), "--hold"); !strings.Contains(out, "is now held") || o.state(c.Serial) != "held certificateHold" {
			t.Fatal(out)
		}
		o.must("revoke", c.Serial, "--release")
		if out := o.must("revoke", c.Serial, "--reason", "superseded"); !strings.Contains(out, "is now revoked (superseded)") {
			t.Fatal(out)
		}
		if out := o.must("revoke", c.Serial, "--reason", "superseded"); !strings.Contains(out, "was already revoked") {
			t.Fatal(out)
		}
	})
	t.Run("query", func(t *testing.T) {
		out := o.must("revoke", "--query", "name=*.shop.example", "--query", "profile=server", "--reason", "cessationOfOperation", "--dry-run")
		for _, want := range []string{"revoke 2 certificates", a.Serial, b.Serial, "a.shop.example", "nothing is done"} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in\n%s", want, out)
			}
		}
		if o.state(a.Serial) != "valid" {
			t.Fatal("a dry run has revoked")
		}
		if code, _, errs := o.run("revoke", "--query", "name=*.shop.example", "--reason", "cessationOfOperation"); code != exitUsage || !strings.Contains(errs, "--yes") {
			t.Fatalf("exit %d, %s", code, errs)
		}
		var plan caapi.Bulk
		if err := json.Unmarshal([]byte(o.must("revoke", "--query", "name=*.shop.example", "--reason", "cessationOfOperation", "--dry-run", "--json")), &plan); err != nil || plan.Total != 2 {
			t.Fatal(plan, err)
		}
		out = o.must("revoke", "--bulk", plan.ID, "--yes")
		if !strings.Contains(out, "changed          2") || o.state(a.Serial) != "revoked cessationOfOperation" || o.state(b.Serial) != "revoked cessationOfOperation" {
			t.Fatal(out)
		}
	})
	t.Run("file", func(t *testing.T) {
		d := o.issued("d.example")
		list := o.write("list.csv", "serial,reason\n"+d.Serial+",superseded\n0badc0de,superseded\n")
		code, out, errs := o.run("revoke", "--file", list, "--yes")
		if code != exitFailure || !strings.Contains(out, "serial 0badc0de: must be the serial") || !strings.Contains(errs, "1 of 2 certificates could not be changed") {
			t.Fatalf("exit %d\n%s%s", code, out, errs)
		}
		if o.state(d.Serial) != "revoked superseded" {
			t.Fatal("the other one is not revoked")
		}
		lines := o.write("list.jsonl", `{"serial":"`+d.Serial+`"}`)
		var got struct{ caapi.Bulk }
		if err := json.Unmarshal([]byte(o.must("revoke", "--file", lines, "--reason", "superseded", "--yes", "--json")), &got); err != nil || got.Already != 1 || got.State != caapi.BulkDone {
			t.Fatal(got, err)
		}
	})
	t.Run("key", func(t *testing.T) {
		e := o.issued("e.example")
		if code, _, errs := o.run("revoke", "--spki", o.path("e.example.key"), "--reason", "keyCompromise", "--yes"); code != exitFailure || !strings.Contains(errs, "private key") {
			t.Fatalf("exit %d, %s", code, errs)
		}
		block, _ := pem.Decode([]byte(e.Certificate))
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		out := o.must("revoke", "--spki", fmt.Sprintf("%x", sha256.Sum256(cert.RawSubjectPublicKeyInfo)), "--reason", "keyCompromise", "--yes")
		if !strings.Contains(out, "blocked key") || o.state(e.Serial) != "revoked keyCompromise" {
			t.Fatal(out)
		}
	})
	t.Run("supersedes", func(t *testing.T) {
		old := o.issued("f.example")
		fresh := o.issued("g.example", "--supersedes", old.Serial, "--overlap", "24h")
		if fresh.Supersedes == nil || fresh.Supersedes.Serial != old.Serial || o.state(old.Serial) != "valid" {
			t.Fatalf("%+v", fresh.Supersedes)
		}
	})
	t.Run("status", func(t *testing.T) {
		out := o.must("status")
		for _, want := range []string{"CN=Office CA", "key         active since", "7 issued, 0 unresolved, 0 refused", "1 keys are blocked", "1 certificates will be superseded", "CRLs        none"} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in\n%s", want, out)
			}
		}
		var st caapi.CAStatus
		if err := json.Unmarshal([]byte(o.must("status", "--json")), &st); err != nil || st.Journal.Issued != 7 || st.Ledger == nil || st.Ledger.LogSize != 7 || st.Last == nil || st.BlockedKeys != 1 {
			t.Fatalf("%+v, %v", st, err)
		}
	})
}

// TestCAIssueOfADirectory: repeated after a failure it asks for what is missing only.
func TestCAIssueOfADirectory(t *testing.T) {
	o := newOffice(t)
	if err := os.Mkdir(o.path("requests"), 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		csr, err := newRequest(o.path(fmt.Sprintf("%d.key", i)), []string{fmt.Sprintf("host%d.example.org", i)})
		if err != nil {
			t.Fatal(err)
		}
		o.write(fmt.Sprintf("requests/%d.csr", i), csr)
	}
	o.write("requests/bad.csr", "hello")
	args := []string{"issue", "--csr-dir", o.path("requests"), "--out-dir", o.path("certs"), "--parallel", "4"}
	code, out, errs := o.run(args...)
	if code != exitFailure || !strings.Contains(out, "issued         5") || !strings.Contains(out, "bad.csr: ") || !strings.Contains(errs, "1 of 6 requests failed") {
		t.Fatalf("exit %d\n%s%s", code, out, errs)
	}
	if err := os.Remove(o.path("requests/bad.csr")); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(o.path("certs/3.crt"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(o.path("certs/3.crt")); err != nil { // as if killed before it was written
		t.Fatal(err)
	}
	if out := o.must(args...); !strings.Contains(out, "issued         1\nthere already  4\nfailed         0") {
		t.Fatal(out)
	}
	if again, err := os.ReadFile(o.path("certs/3.crt")); err != nil || string(again) != string(first) {
		t.Fatalf("another certificate than before: %v", err)
	}
}

func TestCARevokeRefusesWrongUsage(t *testing.T) {
	for _, args := range []string{
		"", "01", "01 --reason superseded --cert x.pem", "--file a --query name=b --reason superseded", "01 --hold --release", "01 --hold --reason superseded",
		"--bulk 01 --reason superseded", "--query name --reason superseded", "--query name=a --query name=b --reason superseded", "--query issuer=a --reason superseded",
	} {
		code, _, errs := runCLI(append(append([]string{"ca", "revoke"}, strings.Fields(args)...), "--token-file", writeToken(t))...)
		if code != exitUsage {
			t.Errorf("%q: exit %d, %s", args, code, errs)
		}
	}
}

func writeToken(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte("token"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
