package caroot

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/hsm/hsmtest"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/keystate"
)

const (
	testPass       = "correct horse battery"
	testIterations = 1000 // of PBKDF2: the key protects nothing
)

func pass() ([]byte, error) { return []byte(testPass), nil }

func yes(string) error { return nil }

func newRoot(t *testing.T, change func(*InitOptions)) *Root {
	t.Helper()
	o := InitOptions{Dir: filepath.Join(t.TempDir(), "root"), Subject: pkix.Name{CommonName: "Test Root", Organization: []string{"certanchor"}}, PathLen: 1,
		Passphrase: []byte(testPass), By: "alice", Iterations: testIterations}
	if change != nil {
		change(&o)
	}
	if _, err := Init(o); err != nil {
		t.Fatal(err)
	}
	return open(t, o.Dir)
}

func open(t *testing.T, dir string) *Root {
	t.Helper()
	r, err := Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() }) // a second time, perhaps
	return r
}

func request(t *testing.T, key crypto.Signer, change func(*x509.CertificateRequest)) []byte {
	t.Helper()
	if key == nil {
		var err error
		if key, err = keyfile.Generate(keyfile.P256); err != nil {
			t.Fatal(err)
		}
	}
	tmpl := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "Test Sub", Organization: []string{"certanchor"}, Country: []string{"DE"}}}
	if change != nil {
		change(tmpl)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, tmpl, key)
	if err != nil {
		t.Fatal(err)
	}
	return encode("CERTIFICATE REQUEST", der)
}

func options(t *testing.T) SignOptions {
	return SignOptions{CSR: request(t, nil, nil), By: "alice", Passphrase: pass, Confirm: yes}
}

// mustLint fails on what zlint finds under the requirements of the RFCs.
func mustLint(t *testing.T, der []byte) {
	t.Helper()
	c, err := zx509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	reg, err := lint.GlobalRegistry().Filter(lint.FilterOptions{ExcludeSources: lint.SourceList{
		lint.CABFBaselineRequirements, lint.CABFEVGuidelines, lint.MozillaRootStorePolicy, lint.AppleRootStorePolicy, lint.EtsiEsi,
	}})
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range zlint.LintCertificateEx(c, reg).Results {
		if r.Status >= lint.Warn {
			t.Errorf("zlint %s: %s %s", name, r.Status, r.Details)
		}
	}
}

func openssl(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "openssl", args...).CombinedOutput()
	return string(out), err
}

func file(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// leaf is a certificate of the subordinate CA.
func leaf(t *testing.T, sub *x509.Certificate, key crypto.Signer, name string) []byte {
	t.Helper()
	own, err := keyfile.Generate(keyfile.P256)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := newSerial()
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, sub, own.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return encode("CERTIFICATE", der)
}

func TestRootAndSubordinateAreWhatOthersExpect(t *testing.T) {
	for _, a := range []keyfile.Algorithm{keyfile.P256, keyfile.P384, keyfile.RSA3072} {
		t.Run(string(a), func(t *testing.T) {
			r := newRoot(t, func(o *InitOptions) { o.Algorithm = a })
			mustLint(t, r.Certificate.Raw)
			_, ip, err := net.ParseCIDR("192.0.2.0/24")
			if err != nil {
				t.Fatal(err)
			}
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			o := options(t)
			o.CSR = request(t, key, nil)
			o.PermitDNS, o.ExcludeDNS, o.PermitIP = []string{"example.org"}, []string{"secret.example.org"}, []*net.IPNet{ip}
			o.Policies = []asn1.ObjectIdentifier{{2, 23, 140, 1, 2, 1}}
			o.CRLURL, o.IssuerURL = "http://pki.example.org/root.crl", "http://pki.example.org/root.cer"
			var shown string
			o.Confirm = func(plan string) error { shown = plan; return nil }
			sub, err := r.Sign(o)
			if err != nil {
				t.Fatal(err)
			}
			mustLint(t, sub.Raw)
			for _, part := range []string{"CN=Test Sub", caID(sub), sub.SerialNumber.Text(16), "path length      0", "DNS below example.org", "not DNS below secret.example.org",
				"IP in 192.0.2.0/24", "2.23.140.1.2.1", o.CRLURL, o.IssuerURL, sub.NotAfter.Format(time.RFC3339)} {
				if !strings.Contains(shown, part) {
					t.Errorf("the plan does not have %q:\n%s", part, shown)
				}
			}
			rootPEM, subPEM := filepath.Join(r.dir, CertFile), file(t, encode("CERTIFICATE", sub.Raw))
			if out, err := openssl(t, "verify", "-x509_strict", "-check_ss_sig", "-CAfile", rootPEM, subPEM); err != nil {
				t.Fatal(out)
			}
			for name, ok := range map[string]bool{"www.example.org": true, "x.secret.example.org": false, "www.example.net": false} {
				out, err := openssl(t, "verify", "-x509_strict", "-CAfile", rootPEM, "-untrusted", subPEM, file(t, leaf(t, sub, key, name)))
				if (err == nil) != ok {
					t.Errorf("%s: %s", name, out)
				}
			}
		})
	}
}

func TestRevokedSubordinateIsOnTheCRL(t *testing.T) {
	r := newRoot(t, nil)
	o := options(t)
	sub, err := r.Sign(o)
	if err != nil {
		t.Fatal(err)
	}
	other, err := r.Sign(o) // certified again
	if err != nil {
		t.Fatal(err)
	}
	rootPEM := filepath.Join(r.dir, CertFile)
	number := int64(0)
	check := func(want map[*x509.Certificate]bool) {
		t.Helper()
		der, err := r.CRL(CRLOptions{By: "alice", Passphrase: pass, Confirm: yes})
		if err != nil {
			t.Fatal(err)
		}
		crl, err := x509.ParseRevocationList(der)
		if err != nil {
			t.Fatal(err)
		}
		if number++; crl.Number.Int64() != number {
			t.Errorf("CRL number %d, want %d", crl.Number, number)
		}
		crlPEM := file(t, encode("X509 CRL", der))
		for cert, good := range want {
			out, err := openssl(t, "verify", "-x509_strict", "-crl_check", "-CAfile", rootPEM, "-CRLfile", crlPEM, file(t, encode("CERTIFICATE", cert.Raw)))
			if (err == nil) != good || !good && !strings.Contains(out, "revoked") {
				t.Errorf("good: %t, want %t: %s", err == nil, good, out)
			}
		}
	}
	check(map[*x509.Certificate]bool{sub: true, other: true})
	if err := r.Revoke(sub.SerialNumber, wire.KeyCompromise, "alice"); err != nil {
		t.Fatal(err)
	}
	check(map[*x509.Certificate]bool{sub: false, other: true})
	for name, err := range map[string]error{
		"again": r.Revoke(sub.SerialNumber, wire.KeyCompromise, "alice"), "the root": r.Revoke(r.Certificate.SerialNumber, wire.KeyCompromise, "alice"),
		"a hold": r.Revoke(other.SerialNumber, wire.CertificateHold, "alice"),
	} {
		if we := new(wire.Error); !errors.As(err, &we) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, r.dir)
	if got, err := again.Issued(sub.SerialNumber); err != nil || !bytes.Equal(got.Raw, sub.Raw) {
		t.Fatal(err)
	}
	r = again
	check(map[*x509.Certificate]bool{sub: false, other: true})
}

func TestRequestsThatAreRefused(t *testing.T) {
	r := newRoot(t, nil)
	weak, err := rsa.GenerateKey(rand.Reader, 1024) //nolint:gosec // that is the test
	if err != nil {
		t.Fatal(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rootKey, err := r.key(keystate.Certificates, pass)
	if err != nil {
		t.Fatal(err)
	}
	other := request(t, nil, func(c *x509.CertificateRequest) { c.Subject.CommonName = "Other" })
	damaged := bytes.Clone(other)
	damaged[len(damaged)/2] ^= 1
	before := len(r.Entries())
	for name, tc := range map[string]struct {
		change func(*SignOptions)
		want   string
	}{
		"no PEM":     {func(o *SignOptions) { o.CSR = []byte("x") }, "csr"},
		"two":        {func(o *SignOptions) { o.CSR = append(o.CSR, o.CSR...) }, "csr"},
		"large":      {func(o *SignOptions) { o.CSR = make([]byte, maxCSR+1) }, "octets"},
		"damaged":    {func(o *SignOptions) { o.CSR = damaged }, "csr"},
		"RSA 1024":   {func(o *SignOptions) { o.CSR = request(t, weak, nil) }, "2048 bits"},
		"P-224":      {func(o *SignOptions) { o.CSR = request(t, p224, nil) }, "P-256"},
		"root's key": {func(o *SignOptions) { o.CSR = request(t, rootKey, nil) }, "the subordinate's own"},
		"root's name": {func(o *SignOptions) {
			o.CSR = request(t, nil, func(c *x509.CertificateRequest) { c.RawSubject = r.Certificate.RawSubject })
		}, "root's own name"},
		"no name": {func(o *SignOptions) {
			o.CSR = request(t, nil, func(c *x509.CertificateRequest) { c.Subject = pkix.Name{} })
		}, "common name"},
		"control": {func(o *SignOptions) {
			o.CSR = request(t, nil, func(c *x509.CertificateRequest) { c.Subject.CommonName = "a\nb" })
		}, "control"},
		"beyond root":    {func(o *SignOptions) { o.Validity = 30 * 365 * 24 * time.Hour }, "root's own life"},
		"short":          {func(o *SignOptions) { o.Validity = time.Minute }, "validity"},
		"path length":    {func(o *SignOptions) { o.PathLen = 1 }, "less than the root's"},
		"negative":       {func(o *SignOptions) { o.PathLen = -1 }, "path length"},
		"not confirmed":  {func(o *SignOptions) { o.Confirm = func(string) error { return errors.New("no") } }, "no"},
		"wrong password": {func(o *SignOptions) { o.Passphrase = func() ([]byte, error) { return []byte("wrong"), nil } }, "wrong passphrase"},
	} {
		o := options(t)
		tc.change(&o)
		if _, err := r.Sign(o); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
	if len(r.Entries()) != before {
		t.Error("the register has grown")
	}
}

func TestSuspendedRootSignsNothing(t *testing.T) {
	r := newRoot(t, nil)
	states, err := keystate.Open(filepath.Join(r.dir, keystate.File), caID(r.Certificate))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := states.Change(keystate.Change{To: keystate.Suspended, By: "bob", How: "command line", Why: "lost", At: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if err := states.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Sign(options(t)); err == nil || !strings.Contains(err.Error(), "by bob (lost)") {
		t.Error(err)
	}
	if _, err := r.CRL(CRLOptions{Passphrase: pass, Confirm: yes}); err == nil || !strings.Contains(err.Error(), "suspended") {
		t.Error(err)
	}
}

var errKilled = errors.New("killed")

// Killed after any step: no serial number occurs in two certificates, and what was given out is in the register.
func TestNoSerialIsUsedTwice(t *testing.T) {
	r := newRoot(t, nil)
	burnt := map[string]bool{}
	for _, at := range []string{stepReserved, stepSigned, stepKept} {
		func() {
			defer func() {
				if e := recover(); e != nil && e != any(errKilled) {
					panic(e)
				}
			}()
			r.step = func(s string) {
				if s == at {
					panic(errKilled)
				}
			}
			if _, err := r.Sign(options(t)); err != nil {
				t.Error(err)
			}
		}()
		last := r.Entries()[len(r.Entries())-1]
		if burnt[last.Serial] {
			t.Fatalf("%s: serial %s was used before", at, last.Serial)
		}
		burnt[last.Serial] = true
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		r = open(t, r.dir)
		if !r.reg.used(last.Serial) || (r.reg.find(KindSigned, last.Serial) != nil) != (at == stepKept) {
			t.Fatalf("%s: the register has %+v", at, r.Entries())
		}
	}
	// A number of a CRL is not used twice either.
	func() {
		defer func() { _ = recover() }()
		r.step = func(string) { panic(errKilled) }
		_, _ = r.CRL(CRLOptions{Passphrase: pass, Confirm: yes})
	}()
	r.step = nil
	der, err := r.CRL(CRLOptions{Passphrase: pass, Confirm: yes})
	if err != nil {
		t.Fatal(err)
	}
	if crl, err := x509.ParseRevocationList(der); err != nil || crl.Number.Int64() != 2 {
		t.Fatal(crl.Number, err)
	}
}

func TestRegisterThatWasChangedIsRefused(t *testing.T) {
	r := newRoot(t, nil)
	for range 2 {
		if _, err := r.Sign(options(t)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(r.dir, nil); err == nil {
		t.Fatal("opened twice")
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(r.dir, registerFile)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(data, []byte("\n"))
	for name, bad := range map[string][]byte{
		"changed":   bytes.Replace(data, []byte(`"by":"alice"`), []byte(`"by":"mallo"`), 1),
		"taken out": slices.Concat(append(slices.Clone(lines[:2]), lines[3:]...)...),
		"no root":   slices.Concat(lines[1:]...),
		"empty":     nil,
	} {
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := Open(r.dir, nil); err == nil {
			t.Errorf("%s: opened with %d entries", name, len(got.Entries()))
		}
	}
	// Cut off while the last entry was written: that one never counted.
	if err := os.WriteFile(path, data[:len(data)-5], 0o600); err != nil {
		t.Fatal(err)
	}
	if got := open(t, r.dir); len(got.Entries()) != 4 {
		t.Fatalf("%d entries", len(got.Entries()))
	}
}

func TestClockThatWentBackIsNoticed(t *testing.T) {
	r := newRoot(t, nil)
	r.now = func() time.Time { return time.Now().Add(-30 * time.Minute) }
	if _, err := r.Sign(options(t)); err == nil || !strings.Contains(err.Error(), "set the clock") {
		t.Fatal(err)
	}
}

func TestRootInAToken(t *testing.T) {
	token := hsmtest.New(t)
	r := newRoot(t, func(o *InitOptions) { o.KeyURI, o.Passphrase = token.URI("root"), nil })
	o := options(t)
	o.Passphrase = func() ([]byte, error) { return nil, errors.New("asked for a passphrase") }
	sub, err := r.Sign(o)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := openssl(t, "verify", "-x509_strict", "-CAfile", filepath.Join(r.dir, CertFile), file(t, encode("CERTIFICATE", sub.Raw))); err != nil {
		t.Fatal(out)
	}
	// Another key under that label is not the root's.
	token.Delete(hsmtest.Label)
	token.Init(hsmtest.Label, hsmtest.PIN)
	key, err := keyfile.Generate(keyfile.P384)
	if err != nil {
		t.Fatal(err)
	}
	token.Import(hsmtest.Label, hsmtest.PIN, "root", "07", key)
	if _, err := r.Sign(o); err == nil {
		t.Fatal("signed with another key")
	}
}

// The root's machine has no network, and its code no need of one.
func TestNoNetworkIsUsed(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, dep := range strings.Fields(string(out)) {
		for _, banned := range []string{"net/http", "net/rpc", "net/smtp", "google.golang.org/grpc", "golang.org/x/net/http2", "github.com/certanchor/certanchor/network", "github.com/certanchor/certanchor/ca"} {
			if dep == banned || strings.HasPrefix(dep, banned+"/") {
				t.Errorf("depends on %s", dep)
			}
		}
	}
	// In the middle of everything, no socket is open that was not before.
	before := sockets(t)
	r := newRoot(t, nil)
	looked := 0
	o := options(t)
	o.Confirm = func(string) error { looked++; sameSockets(t, before); return nil }
	r.step = func(string) { looked++; sameSockets(t, before) }
	if _, err := r.Sign(o); err != nil {
		t.Fatal(err)
	}
	if _, err := r.CRL(CRLOptions{Passphrase: pass, Confirm: o.Confirm}); err != nil {
		t.Fatal(err)
	}
	if sameSockets(t, before); looked != 6 {
		t.Errorf("looked %d times", looked)
	}
}

func sameSockets(t *testing.T, before []string) {
	t.Helper()
	if now := sockets(t); !slices.Equal(now, before) {
		t.Errorf("sockets %v, before %v", now, before)
	}
}

func sockets(t *testing.T) (found []string) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil // not Linux
	}
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(to, "socket:") {
			found = append(found, to)
		}
	}
	slices.Sort(found)
	return found
}

func FuzzParseRegister(f *testing.F) {
	f.Add([]byte(""))
	f.Add([]byte("{}\n"))
	f.Add([]byte(`{"n":1,"time":"2026-05-04T03:02:01Z","by":"alice","kind":"signed","serial":"7f","subject":"CN=x","spki":"00","cert":"AA==","prev":""}` + "\n"))
	f.Add([]byte(`{"n":1,"time":"2026-05-04T03:02:01Z","by":"a","kind":"crl","number":1,"prev":""}` + "\n" + `{"n":2,`))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, whole, err := ParseRegister(data)
		if err != nil {
			return
		}
		again, n, err := ParseRegister(data[:whole])
		if err != nil || n != whole || fmt.Sprint(again) != fmt.Sprint(entries) {
			t.Fatalf("%v, then %v: %v", entries, again, err)
		}
	})
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if csr, err := parseCSR(data); err == nil && csr.Subject.CommonName == "" {
			t.Fatal("a request without a name")
		}
	})
}
