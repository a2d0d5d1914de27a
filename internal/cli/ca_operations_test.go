package cli

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/ca"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/dual"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/network/embedded"
)

// authority is a CA bridge with its directory, an administrator's token and the key files of alice and bob.
type authority struct {
	t        *testing.T
	dir, url string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: filepath.Join(t.TempDir(), "ca")}
	if _, err := ca.Init(ca.InitOptions{Dir: a.dir, Subject: pkix.Name{CommonName: "CA"}, Passphrase: []byte("long enough")}); err != nil {
		t.Fatal(err)
	}
	a.ok("ca", "client", "admin", "--dir", a.dir, "--role", "administrator")
	a.ok("ca", "client", "robot", "--dir", a.dir, "--role", "auditor", "--hmac", "--rate", "100/200")
	key, err := ca.LoadKey(a.dir, []byte("long enough"))
	if err != nil {
		t.Fatal(err)
	}
	node, err := embedded.Open(embedded.Options{Dir: a.dir + "-ledger", MSPID: "Org1MSP", TickInterval: 200 * time.Millisecond, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	cert, _, err := ca.LoadCertificate(a.dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ca.Register(t.Context(), node.Connect(wire.RoleAdministrator), cert.Raw, nil, "Org1MSP"); err != nil {
		t.Fatal(err)
	}
	server, err := ca.New(ca.Config{Dir: a.dir, Key: key, Log: slog.New(slog.DiscardHandler)}, node.Connect(wire.RoleOperator))
	if err != nil {
		t.Fatal(err)
	}
	hs := httptest.NewServer(server.Handler())
	a.url = hs.URL
	t.Cleanup(func() {
		hs.Close()
		if err := errors.Join(server.Close(), node.Close()); err != nil {
			t.Error(err)
		}
	})
	return a
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

// as adds the flags of a client that has a token.
func (a *authority) as(name string, args ...string) []string {
	return append(args, "--ca-url", a.url, "--token-file", a.path(name+".token"))
}

func (a *authority) ok(args ...string) string {
	a.t.Helper()
	code, out, errs := runCLI(args...)
	if code != exitOK {
		a.t.Fatalf("%v: exit status %d\n%s%s", args, code, out, errs)
	}
	return out + errs
}

func (a *authority) fails(want string, args ...string) {
	a.t.Helper()
	if code, out, errs := runCLI(args...); code == exitOK || !strings.Contains(out+errs, want) {
		a.t.Fatalf("%v: exit status %d, want %q\n%s%s", args, code, want, out, errs)
	}
}

func (a *authority) write(name string, data []byte) string {
	a.t.Helper()
	path := filepath.Join(a.t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// operatorKey makes a key file as openssl does, and the policy's entry for it.
func (a *authority) operatorKey(name string) (file, entry string) {
	a.t.Helper()
	key, err := keyfile.Generate(keyfile.P256)
	if err != nil {
		a.t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	file = a.write(name+".pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		a.t.Fatal(err)
	}
	text, err := json.Marshal(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})))
	if err != nil {
		a.t.Fatal(err)
	}
	return file, fmt.Sprintf(`{"name":%q,"role":"administrator","public_key":%s}`, name, text)
}

func policyOf(rules string, entries ...string) []byte {
	return []byte(`{"version":1,"need":2,"operators":[` + strings.Join(entries, ",") + `],"rules":` + rules + `}`)
}

var operationID = regexp.MustCompile(`certanchor ca approve ([0-9a-f]{64})`)

func TestOperatorsApproveOnTheCommandLine(t *testing.T) {
	a := newAuthority(t)
	alice, aliceEntry := a.operatorKey("alice")
	bob, bobEntry := a.operatorKey("bob")
	stranger, _ := a.operatorKey("stranger")
	policy := a.write("dual-control.json", policyOf(`{"revoke_more_than":0,"profiles":true}`, aliceEntry, bobEntry))

	if out := a.ok(a.as("admin", "ca", "dual-control", "show")...); !strings.Contains(out, "no dual control") {
		t.Error(out)
	}
	a.fails("role", a.as("operator", "ca", "dual-control", "apply", policy)...)
	if out := a.ok(a.as("admin", "ca", "dual-control", "apply", policy)...); !strings.Contains(out, "in force now") {
		t.Error(out)
	}
	if out := a.ok(a.as("admin", "ca", "dual-control", "show")...); !strings.Contains(out, "alice") || !strings.Contains(out, "2 operators must sign") {
		t.Error(out)
	}

	profiles, err := os.ReadFile(a.path("profiles.json"))
	if err != nil {
		t.Fatal(err)
	}
	next := a.write("profiles.json", []byte(strings.Replace(string(profiles), `"8760h"`, `"8000h"`, 1)))
	out := a.ok(a.as("admin", "ca", "profiles", "apply", next)...)
	found := operationID.FindStringSubmatch(out)
	if found == nil {
		t.Fatal(out)
	}
	id := found[1]
	// Reading goes with an HMAC key too.
	if out := a.ok("ca", "operations", "--ca-url", a.url, "--hmac-key-file", a.path("robot.hmac")); !strings.Contains(out, id) || !strings.Contains(out, "pending") {
		t.Error(out)
	}
	contents := filepath.Join(t.TempDir(), "contents")
	a.ok(a.as("admin", "ca", "operations", id, "--contents", contents)...)
	a.fails("nothing was signed", a.as("admin", "ca", "approve", id, "--key", alice)...) // standard input is empty
	a.fails("is the key of none", a.as("admin", "ca", "approve", id, "--key", stranger, "--yes")...)
	a.fails("--check", a.as("admin", "ca", "approve", id, "--key", alice, "--yes", "--check", policy)...)
	out = a.ok(a.as("admin", "ca", "approve", id, "--key", alice, "--yes", "--check", contents)...)
	if !strings.Contains(out, "change the profiles") || !strings.Contains(out, "1 of 2 operators have signed") || !strings.Contains(out, dual.Digest([]byte(strings.Replace(string(profiles), `"8760h"`, `"8000h"`, 1)))) {
		t.Error(out)
	}
	var op caapi.Operation
	code, stdout, errs := runCLI(a.as("admin", "ca", "approve", id, "--key", bob, "--yes", "--json")...)
	if code != exitOK || json.Unmarshal([]byte(stdout), &op) != nil || op.State != dual.Done {
		t.Fatal(code, stdout, errs)
	}
	if data, err := os.ReadFile(a.path("profiles.json")); err != nil || !strings.Contains(string(data), `"8000h"`) {
		t.Error(string(data), err)
	}

	// A revocation by cert revoke says that nothing is done yet, and one operator rejects it.
	code, _, errs = runCLI(a.as("operator", "cert", "revoke", "4711", "--reason", "superseded")...)
	found = operationID.FindStringSubmatch(strings.ReplaceAll(errs, "operation ", "certanchor ca approve "))
	if code != exitFailure || found == nil || !strings.Contains(errs, "nothing is done yet") {
		t.Fatal(code, errs)
	}
	if out := a.ok(a.as("operator", "ca", "approve", found[1], "--key", bob, "--yes", "--reject")...); !strings.Contains(out, "rejected by bob") {
		t.Error(out)
	}
}

// Without the server: the policy changes in the CA's directory, with approvals from machines that reach nothing.
func TestPolicyChangesInTheDirectory(t *testing.T) {
	a := newAuthority(t)
	alice, aliceEntry := a.operatorKey("alice")
	bob, bobEntry := a.operatorKey("bob")
	files := t.TempDir()
	file := func(name string) string { return filepath.Join(files, name) }
	first := a.write("first.json", policyOf(`{"export":true}`, aliceEntry, bobEntry))
	next := a.write("next.json", policyOf(`{}`, aliceEntry, bobEntry))
	a.ok("ca", "dual-control", "apply", first, "--dir", a.dir)
	a.fails("--operation must name a file", "ca", "dual-control", "apply", next, "--dir", a.dir)
	if out := a.ok("ca", "dual-control", "apply", next, "--dir", a.dir, "--operation", file("op.txt")); !strings.Contains(out, "nothing is changed yet") {
		t.Error(out)
	}
	for name, key := range map[string]string{"alice": alice, "bob": bob} {
		a.ok("ca", "approve", "--operation", file("op.txt"), "--operator", name, "--key", key, "--yes", "--check", next, "--out", file(name+".json"))
	}
	apply := []string{"ca", "dual-control", "apply", next, "--dir", a.dir, "--operation", file("op.txt"), "--approval", file("alice.json")}
	a.fails("at least 2 different operators", apply...)
	a.ok(append(apply, "--approval", file("bob.json"))...)
	p, err := dual.LoadPolicy(a.dir)
	if err != nil || p.Needs(dual.KindExport, 1) {
		t.Fatal(p, err)
	}
}

func TestApproveRefuses(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"ca", "approve", "--key", "k"}, "either an operation's ID or --operation"},
		{[]string{"ca", "approve", "x", "--operation", "y", "--key", "k"}, "either an operation's ID or --operation"},
		{[]string{"ca", "approve", "--operation", "y", "--key", "k"}, "--operation needs --operator and --out"},
		{[]string{"ca", "approve", "x", "--key", "k"}, "--token-file"},
		{[]string{"ca", "operations", "--contents", "f"}, "--contents needs"},
		{[]string{"ca", "operations", "--token-file", "a", "--hmac-key-file", "b"}, "must be one of them"},
		{[]string{"ca", "operations", "--operator-cert", "a"}, "must be https"},
		{[]string{"ca", "operations", "--operator-cert", "a", "--ca-url", "https://x"}, "belong together"},
	} {
		if code, out, errs := runCLI(c.args...); code == exitOK || !strings.Contains(out+errs, c.want) {
			t.Errorf("%v: exit status %d, %s%s, want %q", c.args, code, out, errs, c.want)
		}
	}
}
