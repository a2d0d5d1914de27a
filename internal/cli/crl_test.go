package cli

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/crl"
)

// crlFiles are a CA's certificate and CRLs in a directory.
type crlFiles struct {
	t    *testing.T
	dir  string
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newCRLFiles(t *testing.T) *crlFiles {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CRL \x1b[31mCA"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte{1, 2, 3},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	f := &crlFiles{t: t, dir: t.TempDir(), key: key}
	if f.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	f.write("ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return f
}

func (f *crlFiles) path(name string) string { return filepath.Join(f.dir, name) }

func (f *crlFiles) write(name string, data []byte) string {
	f.t.Helper()
	if err := os.WriteFile(f.path(name), data, 0o600); err != nil {
		f.t.Fatal(err)
	}
	return f.path(name)
}

// crl makes one that was made some time ago and is valid for an hour.
func (f *crlFiles) crl(age time.Duration, change func(*crl.Contents)) []byte {
	f.t.Helper()
	c := &crl.Contents{CAID: wire.CAIDOf(f.cert.RawSubjectPublicKeyInfo), Number: 42, ThisUpdate: time.Now().Add(-age).UTC().Truncate(time.Second), Entries: []crl.Entry{
		{Serial: wire.Serial{0x0a}, Time: 1_700_000_000, Reason: wire.KeyCompromise, Invalidity: 1_600_000_000},
		{Serial: wire.Serial{0x0b}, Time: 1_700_000_001, Reason: wire.CertificateHold},
	}}
	if change != nil {
		change(c)
	}
	der, err := crl.Build(c, crl.Form{Issuer: f.cert, NextUpdate: c.ThisUpdate.Add(time.Hour)}, f.key)
	if err != nil {
		f.t.Fatal(err)
	}
	return der
}

func TestCRLShowPrintsWhatACRLSays(t *testing.T) {
	f := newCRLFiles(t)
	der := f.crl(time.Minute, func(c *crl.Contents) {
		c.Base, c.Scope = 40, "http://x/1.crl"
		c.Entries = append(c.Entries, crl.Entry{Serial: wire.Serial{0x0c}, Time: 1_700_000_002, Remove: true})
	})
	files := []string{f.write("c.crl", der), f.write("c.pem", pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))}
	server := newServer(http.FileServer(http.Dir(f.dir)))
	t.Cleanup(server.Close)
	for _, from := range append(files, server.URL+"/c.crl") {
		code, out, errs := runCLI("crl", "show", from)
		if code != 0 {
			t.Fatalf("exit %d: %s", code, errs)
		}
		for _, want := range []string{"delta CRL of", "42, against 40", "http://x/1.crl", "not verified", "keyCompromise", "certificateHold", "removeFromCRL", "2023-11-14T22:13:20Z", "2020-09-13T12:26:40Z"} {
			if !strings.Contains(out, want) {
				t.Errorf("%s: no %q in\n%s", from, want, out)
			}
		}
		if strings.Contains(out, "\x1b") {
			t.Error("the issuer's name reaches the terminal")
		}
	}
	_, out, _ := runCLI("crl", "show", "--json", files[0])
	var s shownCRL
	if err := json.Unmarshal([]byte(out), &s); err != nil || s.Number != 42 || s.Kind != "delta" || len(s.Entries) != 3 || s.Verified || s.Size != len(der) {
		t.Errorf("%+v, %v", s, err)
	}
	if _, out, _ := runCLI("crl", "show", "--entries", "1", files[0]); !strings.Contains(out, "and 2 more") || strings.Contains(out, "certificateHold") {
		t.Errorf("--entries 1:\n%s", out)
	}
}

func TestCRLVerifyAcceptsOnlyTheCAsAndOnlyNow(t *testing.T) {
	f, other := newCRLFiles(t), newCRLFiles(t)
	good := f.crl(time.Minute, nil)
	damaged := append([]byte(nil), good...)
	damaged[len(damaged)-1] ^= 1
	for name, tc := range map[string]struct {
		der  []byte
		ca   string
		want string // empty: accepted
	}{
		"good":                {good, f.path("ca.pem"), ""},
		"another CA":          {good, other.path("ca.pem"), "signature"},
		"damaged":             {damaged, f.path("ca.pem"), "signature"},
		"run out":             {f.crl(2*time.Hour, nil), f.path("ca.pem"), "has run out"},
		"too early":           {f.crl(-time.Hour, nil), f.path("ca.pem"), "not valid yet"},
		"no CRL":              {[]byte("hello"), f.path("ca.pem"), "CertificateList"},
		"PEM of another kind": {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: good}), f.path("ca.pem"), "X509 CRL"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := runCLI("crl", "verify", "--ca", tc.ca, f.write("x.crl", tc.der))
			if tc.want == "" && (code != 0 || !strings.Contains(out, "verified with the certificate")) || tc.want != "" && (code != exitFailure || !strings.Contains(errs, tc.want)) {
				t.Errorf("exit %d\n%s%s", code, out, errs)
			}
		})
	}
	if code, _, errs := runCLI("crl", "verify", f.path("x.crl")); code != exitUsage || !strings.Contains(errs, `"ca"`) {
		t.Errorf("without --ca: exit %d, %s", code, errs)
	}
	if code, _, errs := runCLI("crl", "show", f.path("absent.crl")); code != exitFailure || !strings.Contains(errs, "absent.crl") {
		t.Errorf("absent: exit %d, %s", code, errs)
	}
}

// TestCACRLTellsWhetherEveryBridgeServesTheNewest by its exit status, and shows who does not and why.
func TestCACRLTellsWhetherEveryBridgeServesTheNewest(t *testing.T) {
	st := &caapi.CRLs{
		CAID: "aa", Made: true, Contents: "http://a", Problems: []caapi.CRLProblem{},
		Lists:   []caapi.CRL{{Kind: "complete", Number: 7, NextUpdate: "2030-01-01T00:00:00Z"}, {Kind: "delta", Number: 9, Base: 7}},
		Targets: []caapi.CRLTarget{{URL: "http://a", State: caapi.TargetCurrent, Number: 7, Delta: 9}},
	}
	server := newServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != caapi.PathCRLs || r.Header.Get("Authorization") != "Bearer secret" {
			t.Errorf("%s %s", r.URL, r.Header)
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(st); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ask := func(more ...string) (int, string, string) {
		return runCLI(append([]string{"ca", "crl", "--ca-url", server.URL, "--token-file", token}, more...)...)
	}
	if code, out, errs := ask(); code != 0 || !strings.Contains(out, "9 against 7") || !strings.Contains(out, "current") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	var got caapi.CRLs
	if code, out, _ := ask("--json"); code != 0 || json.Unmarshal([]byte(out), &got) != nil || len(got.Lists) != 2 {
		t.Errorf("exit %d\n%s", code, out)
	}
	st.Targets = append(st.Targets, caapi.CRLTarget{URL: "http://b", State: caapi.TargetRefuses, Detail: "0a is missing"})
	if code, out, errs := ask(); code != exitFailure || !strings.Contains(out, "0a is missing") || !strings.Contains(errs, "http://b does not serve") {
		t.Errorf("a target refuses: exit %d\n%s%s", code, out, errs)
	}
	st.Problems = []caapi.CRLProblem{{Stage: "ledger", Detail: "the CA is suspended"}}
	if code, out, errs := ask(); code != exitFailure || !strings.Contains(out, "suspended") || !strings.Contains(errs, "cannot be made") {
		t.Errorf("a problem: exit %d\n%s%s", code, out, errs)
	}
	st.Made = false
	if code, _, errs := ask(); code != exitFailure || !strings.Contains(errs, "makes no CRLs") {
		t.Errorf("no CRLs: exit %d, %s", code, errs)
	}
}
