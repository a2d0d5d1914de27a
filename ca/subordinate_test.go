package ca

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io/fs"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/internal/caroot"
	"github.com/certanchor/certanchor/internal/keystate"
)

// testRoot is an offline root.
func testRoot(t *testing.T) *caroot.Root {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "root")
	_, err := caroot.Init(caroot.InitOptions{Dir: dir, Subject: pkix.Name{CommonName: "Test Root"}, PathLen: 1, Passphrase: []byte(testPassphrase), By: "alice", Iterations: testIterations})
	if err != nil {
		t.Fatal(err)
	}
	root, err := caroot.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return root
}

func certify(t *testing.T, root *caroot.Root, dir string) *x509.Certificate {
	t.Helper()
	csr, err := os.ReadFile(filepath.Join(dir, RequestFile))
	if err != nil {
		t.Fatal(err)
	}
	pass := func() ([]byte, error) { return []byte(testPassphrase), nil }
	cert, err := root.Sign(caroot.SignOptions{CSR: csr, By: "alice", Passphrase: pass, Confirm: func(string) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func newSubordinate(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "ca")
	res, err := Init(InitOptions{Dir: dir, Subject: testSubject, Request: true, OCSPURL: testOCSP, Passphrase: []byte(testPassphrase), iterations: testIterations})
	if err != nil || res.Certificate != nil {
		t.Fatal(res, err)
	}
	return dir
}

// A CA below an offline root, on the ledger with its chain; and the next generation of its key.
func TestSubordinateCA(t *testing.T) {
	root := testRoot(t)
	dir := newSubordinate(t)
	cert := certify(t, root, dir)
	chain := []*x509.Certificate{root.Certificate}
	for range 2 { // repeated, it changes nothing
		if err := Finish(FinishOptions{Dir: dir, Cert: cert, Chain: chain, By: "alice"}); err != nil {
			t.Fatal(err)
		}
	}
	w := startWorld(t, dir, func(c *Config) {
		var err error
		if c.Key, err = openTestKey(dir); err != nil {
			t.Fatal(err)
		}
		c.OpenKey = openTestKey
	})
	if history := w.server.custody.states.History(); len(history) != 2 || history[1].To != keystate.Active || history[1].By != "alice" {
		t.Fatalf("%+v", history)
	}
	w.registerCert(cert, root.Certificate.Raw)
	got := w.issueOne("")
	leaf := parsePEM(t, got.Certificate)
	if len(got.Chain) != 2 {
		t.Fatalf("%d certificates above it", len(got.Chain))
	}
	rootFile := filepath.Join(t.TempDir(), "root.pem")
	if err := os.WriteFile(rootFile, encodeCert(root.Certificate.Raw), 0o600); err != nil {
		t.Fatal(err)
	}
	openssl(t, string(encodeCert(leaf.Raw)), "verify", "-x509_strict", "-CAfile", rootFile, "-untrusted", filepath.Join(dir, certFile))

	o := rotateOptions(dir)
	o.Request = true
	r, err := Rotate(o)
	if err != nil || !r.Made || r.Certificate != nil {
		t.Fatalf("%+v, %v", r, err)
	}
	if again, err := Rotate(o); err != nil || again.Made || again.Request != r.Request {
		t.Fatalf("%+v, %v", again, err)
	}
	next := certify(t, root, r.Dir)
	for range 2 {
		if err := FinishRotation(FinishOptions{Dir: dir, Cert: next, Chain: chain}); err != nil {
			t.Fatal(err)
		}
	}
	w.await(keystate.Active, keystate.Generated)
	w.registerCert(next, root.Certificate.Raw)
	w.await(keystate.Retired, keystate.Active)
	if got := w.issueOne(""); got.CAID != keyName(next) {
		t.Fatal(got.CAID)
	}
}

func TestCertificatesThatDoNotFinishACA(t *testing.T) {
	root := testRoot(t)
	dir := newSubordinate(t)
	good := certify(t, root, dir)
	other := certify(t, root, newSubordinate(t))
	key, err := openTestKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(Config{Dir: dir, Key: key, Log: slog.New(slog.DiscardHandler)}, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("started without a certificate: %v", err)
	}
	self := func(change func(*x509.Certificate)) *x509.Certificate {
		tmpl := &x509.Certificate{SerialNumber: big.NewInt(7), RawSubject: good.RawSubject, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true, SubjectKeyId: []byte{1}}
		change(tmpl)
		der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	chain := []*x509.Certificate{root.Certificate}
	for name, tc := range map[string]struct {
		cert  *x509.Certificate
		chain []*x509.Certificate
		want  string
	}{
		"another key":  {other, chain, "for the key of the request"},
		"another name": {self(func(c *x509.Certificate) { c.RawSubject, c.Subject = nil, pkix.Name{CommonName: "x"} }), chain, "request's subject"},
		"no CA":        {self(func(c *x509.Certificate) { c.IsCA = false }), chain, "keyCertSign"},
		"expired":      {self(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), chain, "valid now"},
		"no chain":     {good, nil, "up to the root"},
		"wrong chain":  {good, []*x509.Certificate{other}, "must have issued"},
		"no root":      {good, slices.Concat(chain, []*x509.Certificate{other}), "must have issued"},
	} {
		if err := Finish(FinishOptions{Dir: dir, Cert: tc.cert, Chain: tc.chain}); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
		if _, err := os.Stat(filepath.Join(dir, certFile)); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("%s: there is a certificate", name)
		}
	}
	// Killed between the chain and the certificate.
	if err := writeSame(filepath.Join(dir, chainFile), encodeCert(root.Certificate.Raw)); err != nil {
		t.Fatal(err)
	}
	if err := Finish(FinishOptions{Dir: dir, Cert: good, Chain: chain}); err != nil {
		t.Fatal(err)
	}
}
