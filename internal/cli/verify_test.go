package cli

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"go/parser"
	"go/token"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/client"
	"github.com/certanchor/certanchor/internal/bundle/bundletest"
	"github.com/certanchor/certanchor/internal/policy"
)

// party is a relying party's directory, about a world whose newest tick is of now.
type party struct {
	*bundletest.World
	t    *testing.T
	dir  string
	cert *x509.Certificate
}

func newParty(t *testing.T) *party {
	t.Helper()
	p := &party{World: bundletest.New(t, 3, "Org1MSP", "Org2MSP", "Org3MSP", "Org4MSP"), t: t, dir: t.TempDir()}
	p.Now = time.Now().Add(-20 * time.Second)
	p.cert = p.Issue()
	p.write("cert.pem", pemOf(p.cert))
	p.write("ca.pem", pemOf(p.CA.Cert))
	p.write("policy.txt", policyFile(t, &policy.Signed{Policy: p.Policy}))
	return p
}

func (p *party) path(name string) string { return filepath.Join(p.dir, name) }

func (p *party) write(name string, data []byte) string {
	p.t.Helper()
	if err := os.WriteFile(p.path(name), data, 0o600); err != nil {
		p.t.Fatal(err)
	}
	return p.path(name)
}

// ticked writes cert.bundle as of a tick of now.
func (p *party) ticked() {
	p.t.Helper()
	p.Tick()
	p.write("cert.bundle", p.Bundle(p.cert, false))
}

// verify runs certanchor verify with the usual files, and more flags.
func (p *party) verify(more ...string) (code int, out, errs string) {
	p.t.Helper()
	return runCLI(append([]string{"verify", "--policy", p.path("policy.txt"), "--cert", p.path("cert.pem"), "--bundle", p.path("cert.bundle")}, more...)...)
}

func pemOf(certs ...*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range certs {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return b.Bytes()
}

func policyFile(t *testing.T, all ...*policy.Signed) []byte {
	t.Helper()
	data, err := marshalPolicies(all)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func fieldsOf(t *testing.T, out string) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	return v
}

func contains(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s does not say %q:\n%s", what, part, text)
		}
	}
}

func TestVerifySaysWhatTheStatusIs(t *testing.T) {
	spki := func(p *party) []byte { sum := sha256.Sum256(p.cert.RawSubjectPublicKeyInfo); return sum[:] }
	for name, c := range map[string]struct {
		change func(p *party)
		code   int
		text   []string
		json   map[string]any
	}{
		"good": {func(*party) {}, exitOK, []string{"good\n", "index 0", "Org1MSP, Org2MSP, Org3MSP, Org4MSP", "3 of 4", "not pinned"}, map[string]any{"verdict": "good"}},
		"revoked": {
			func(p *party) { p.Set(p.cert, wire.CertRevoked, wire.KeyCompromise) }, exitRevoked,
			[]string{"revoked\n", ", keyCompromise", "the CA"}, map[string]any{"verdict": "revoked", "reason": "keyCompromise"},
		},
		"on hold": {
			func(p *party) { p.Set(p.cert, wire.CertHeld, wire.CertificateHold) }, exitRevoked,
			[]string{"on hold\n", ", certificateHold"}, map[string]any{"verdict": "on_hold", "reason": "certificateHold"},
		},
		"revoked by its holder": {
			func(p *party) {
				p.Change(wire.StatusLeaf{
					Kind: wire.LeafRevocation, Serial: cctest.Serial(t, p.cert), Change: 1, State: uint(wire.CertRevoked), Reason: wire.Superseded,
					Source: wire.SourceHolder, SPKIHash: spki(p), Invalidity: wire.MillisOf(bundletest.Start),
				})
			}, exitRevoked, []string{"the holder of its key", "invalid      since 2026-05-01T12:00:00Z"}, map[string]any{"verdict": "revoked", "invalidity_date": "2026-05-01T12:00:00Z"},
		},
		"revoked by a rule, CA suspended": {
			func(p *party) {
				p.Change(wire.StatusLeaf{Kind: wire.LeafCA, Change: 2, State: uint(wire.CASuspended)})
				p.Rule(p.Now.Add(-time.Hour), p.Now, wire.CACompromise)
			}, exitRevoked, []string{"rule 1 of a majority", "suspended: it may not issue"}, map[string]any{"verdict": "revoked", "ca_suspended": true},
		},
	} {
		p := newParty(t)
		c.change(p)
		p.ticked()
		code, out, errs := p.verify()
		if code != c.code {
			t.Errorf("%s: exit %d, %s", name, code, errs)
		}
		contains(t, name, out, c.text...)
		code, out, _ = p.verify("--json", "--policy-fingerprint", strings.ToUpper(p.Policy.Fingerprint()))
		got := fieldsOf(t, out)
		for k, v := range c.json {
			if code != c.code || got[k] != v {
				t.Errorf("%s: exit %d, %s is %v, want %v", name, code, k, got[k], v)
			}
		}
		if pol, ok := got["policy"].(map[string]any); !ok || pol["pinned"] != true {
			t.Errorf("%s: policy is %v", name, got["policy"])
		}
	}
}

// TestVerifySaysWhatDoesNotHold: as text and as JSON, with a status that differs from that of a revoked certificate.
func TestVerifySaysWhatDoesNotHold(t *testing.T) {
	p := newParty(t)
	p.ticked()
	good, err := os.ReadFile(p.path("cert.bundle"))
	if err != nil {
		t.Fatal(err)
	}
	other := p.write("other.pem", pemOf(p.Issue()))
	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 1
	strangers := bundletest.New(t, 2, "Org1MSP", "Org9MSP")
	for name, c := range map[string]struct {
		flags []string
		fails string
		text  string
	}{
		"another certificate": {[]string{"--cert", other}, "not_issued", "not shown to be in its CA's issuance log"},
		"cut":                 {[]string{"--bundle", p.write("cut", good[:len(good)-1])}, "format", "malformed"},
		"text":                {[]string{"--bundle", p.write("text", []byte("good"))}, "format", "malformed"},
		"older than allowed":  {[]string{"--at", time.Now().Add(time.Hour).Format(time.RFC3339)}, "stale", "not of now"},
		"of the future":       {[]string{"--at", time.Now().Add(-time.Hour).Format(time.RFC3339)}, "stale", "not of now"},
		"another consortium":  {[]string{"--policy", p.write("strangers", policyFile(t, &policy.Signed{Policy: strangers.Policy}))}, "policy", "signed as the policy wants"},
		"not the pinned one":  {[]string{"--policy-fingerprint", strangers.Policy.Fingerprint()}, "policy_file", "pinned fingerprint"},
		"not a policy":        {[]string{"--policy", other}, "policy_file", "not to be trusted"},
		"no such policy":      {[]string{"--policy", p.path("none")}, "input", "--policy"},
		"no such bundle":      {[]string{"--bundle", p.path("none")}, "input", "--bundle"},
		"no certificate":      {[]string{"--cert", p.path("policy.txt")}, "input", "--cert"},
	} {
		code, _, errs := p.verify(c.flags...)
		if code != exitFailure || !strings.Contains(errs, "not proven: ") || !strings.Contains(errs, c.text) {
			t.Errorf("%s: exit %d, %s", name, code, errs)
		}
		code, out, _ := p.verify(append(c.flags, "--json")...)
		if got := fieldsOf(t, out); code != exitFailure || got["verdict"] != "not_proven" || got["fails"] != c.fails {
			t.Errorf("%s: exit %d, %v", name, code, got)
		}
	}
	if code, _, errs := p.verify("--bundle", p.path("cert.pem")); code != exitFailure || !strings.Contains(errs, "it is a PEM file (CERTIFICATE)") {
		t.Errorf("a certificate as bundle: exit %d, %s", code, errs)
	}
	if code, _, errs := runCLI("verify", p.path("policy.txt")); code != exitUsage || !strings.Contains(errs, "takes no arguments, it got") || !strings.Contains(errs, "use --policy, --cert, --bundle;") {
		t.Errorf("an argument: exit %d, %s", code, errs)
	}
	if code, _, errs := p.verify("--bundle", p.write("flipped", flipped)); code != exitFailure {
		t.Errorf("a flipped bit: exit %d, %s", code, errs)
	}
	for _, flags := range [][]string{{"--at", "yesterday"}, {"--policy-fingerprint", "abc"}, {"extra"}} {
		if code, _, errs := p.verify(flags...); code != exitUsage {
			t.Errorf("%v: exit %d, %s", flags, code, errs)
		}
	}
}

// TestVerifyStandsOnClientAlone: what the command line checks, any program that imports client can.
func TestVerifyStandsOnClientAlone(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "verify.go", nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range f.Imports {
		if path := strings.Trim(i.Path.Value, `"`); strings.Contains(path, "certanchor/") && !strings.HasSuffix(path, "/certanchor/client") {
			t.Errorf("verify.go imports %s", path)
		}
	}
}

// bridge serves the newest bundle of any certificate, the policy and the list of logs.
func (p *party) bridge(file []byte) *httptest.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /logs/"+p.CA.ID.String()+"/bundle", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("serial") != cctest.Serial(p.t, p.cert).String() {
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"detail":"no such certificate"}`)
			return
		}
		w.Header().Set("Content-Type", client.BundleContentType)
		_, _ = w.Write(p.Bundle(p.cert, true))
	})
	mux.HandleFunc("GET /policy", func(w http.ResponseWriter, _ *http.Request) {
		if file == nil {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = w.Write(file)
	})
	server := newServer(mux)
	p.t.Cleanup(server.Close)
	return server
}

func TestProofIsWhatVerifyTakes(t *testing.T) {
	p := newParty(t)
	p.Set(p.cert, wire.CertRevoked, wire.Superseded)
	p.Tick()
	bridge := p.bridge(nil)
	out := p.path("cert.bundle")
	code, text, errs := runCLI("proof", p.path("cert.pem"), "--issuer", p.path("ca.pem"), "--bridge", bridge.URL, "-o", out)
	if code != exitOK {
		t.Fatalf("exit %d, %s", code, errs)
	}
	contains(t, "proof", text, out, "not verified")
	if code, _, errs := p.verify(); code != exitRevoked {
		t.Errorf("verify: exit %d, %s", code, errs)
	}
	// Verified at once, with a chain in DER's and PEM's place.
	chain, der := p.write("chain.pem", pemOf(p.cert, p.CA.Cert)), p.write("cert.der", p.cert.Raw)
	for _, args := range [][]string{{chain}, {der, "--issuer", p.write("ca.der", p.CA.Cert.Raw)}} {
		args = append([]string{"proof", "--bridge", bridge.URL, "-o", out, "--policy", p.path("policy.txt"), "--policy-fingerprint", p.Policy.Fingerprint()}, args...)
		code, text, errs = runCLI(args...)
		if code != exitOK {
			t.Errorf("%v: exit %d, %s", args, code, errs)
		}
		contains(t, "proof", text, "revoked\n", ", superseded", ", pinned", "bytes\n")
	}
	code, text, _ = runCLI("proof", chain, "--bridge", bridge.URL, "-o", out, "--policy", p.path("policy.txt"), "--json")
	if got := fieldsOf(t, text); code != exitOK || got["verdict"] != "revoked" || got["verified"] != true || got["bundle"] != out {
		t.Errorf("JSON: exit %d, %v", code, got)
	}
}

func TestProofWritesNothingThatDoesNotHold(t *testing.T) {
	p := newParty(t)
	p.Tick()
	bridge := p.bridge(nil)
	lying := newServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", client.BundleContentType)
		_, _ = w.Write(p.Bundle(p.cert, false)[1:])
	}))
	defer lying.Close()
	unknown := p.write("unknown.pem", pemOf(p.Cert(), p.CA.Cert))
	config := p.write("client.yaml", []byte("ledger: {engine: embedded, embedded: {dir: x}}\nclient: {bridge_url: \""+bridge.URL+"\", issuer: ca.pem}\n"))
	out := p.path("new.bundle")
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"lie":        {[]string{p.path("cert.pem"), "--issuer", p.path("ca.pem"), "--bridge", lying.URL, "--policy", p.path("policy.txt")}, exitFailure, "not written"},
		"not logged": {[]string{unknown, "--bridge", bridge.URL}, exitFailure, "no such certificate"},
		"no issuer":  {[]string{p.path("cert.pem"), "--bridge", bridge.URL}, exitUsage, "--issuer"},
		"not issuer": {[]string{p.path("cert.pem"), "--issuer", p.path("cert.pem"), "--bridge", bridge.URL}, exitFailure, "not issued by the given issuer"},
		"pin alone":  {[]string{p.path("cert.pem"), "--config", config, "--policy-fingerprint", p.Policy.Fingerprint()}, exitUsage, "needs --policy"},
		"no CERT":    {nil, exitUsage, "one argument"},
		"no file":    {[]string{p.path("none")}, exitFailure, "CERT"},
		"not a URL":  {[]string{p.path("cert.pem"), "--issuer", p.path("ca.pem"), "--bridge", "bridge"}, exitFailure, "absolute http or https URL"},
	} {
		code, _, errs := runCLI(append([]string{"proof", "-o", out}, c.args...)...)
		if code != c.code || !strings.Contains(errs, c.want) {
			t.Errorf("%s: exit %d, %s", name, code, errs)
		}
		if _, err := os.Stat(out); err == nil {
			t.Fatalf("%s: the file was written", name)
		}
	}
	if code, _, errs := runCLI("proof", p.path("cert.pem"), "--config", config, "-o", out); code != exitOK {
		t.Errorf("defaults of the configuration: exit %d, %s", code, errs)
	}
}

// TestVerifySaysOfWhenTheStatusIs: what came after the tick, and what to do about a bundle that is too old.
func TestVerifySaysOfWhenTheStatusIs(t *testing.T) {
	p := newParty(t)
	p.Tick()
	p.Set(p.cert, wire.CertRevoked, wire.KeyCompromise)
	p.write("cert.bundle", p.Bundle(p.cert, true))
	code, out, errs := p.verify()
	if code != exitRevoked {
		t.Fatalf("exit %d, %s", code, errs)
	}
	contains(t, "newer", out, "Z and 1 newer entry of the status log; the tick is ")
	old := newParty(t)
	old.Now = time.Now().Add(-time.Hour)
	old.ticked()
	code, _, errs = old.verify()
	if code != exitFailure || strings.Contains(errs, "+0000") {
		t.Errorf("stale: exit %d, %s", code, errs)
	}
	contains(t, "stale", errs, "its status is of "+old.Now.UTC().Format(time.RFC3339)+", and it is ", "get a new one (certanchor proof)")
}
