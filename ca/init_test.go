package ca

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"

	"github.com/certanchor/certanchor/internal/dual"
	"github.com/certanchor/certanchor/internal/keyfile"
)

func TestInitMakesAConformingCA(t *testing.T) {
	for _, a := range []keyfile.Algorithm{keyfile.P256, keyfile.P384, keyfile.RSA3072} {
		t.Run(string(a), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "deep", "ca")
			o := InitOptions{Dir: dir, Subject: testSubject, Algorithm: a, OCSPURL: testOCSP, Passphrase: []byte(testPassphrase), iterations: testIterations}
			if a == keyfile.P256 {
				o.iterations = 0 // what users get
			}
			res, err := Init(o)
			if err != nil {
				t.Fatal(err)
			}
			c := res.Certificate
			if c.SerialNumber.BitLen() < 64 || c.SerialNumber.Sign() <= 0 || len(c.SerialNumber.Bytes()) > 20 {
				t.Errorf("serial %x", c.SerialNumber)
			}
			if !c.IsCA || c.MaxPathLen != 0 || !c.MaxPathLenZero || len(c.SubjectKeyId) != 20 || c.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign {
				t.Errorf("%+v", c)
			}
			for _, e := range c.Extensions { // RFC 5280 4.2.1.3, 4.2.1.9
				if id := e.Id.String(); (id == "2.5.29.15" || id == "2.5.29.19") && !e.Critical {
					t.Errorf("extension %s is not critical", id)
				}
			}
			mustLint(t, c.Raw, nil)
			openssl(t, "", "verify", "-x509_strict", "-check_ss_sig", "-CAfile", filepath.Join(dir, certFile), filepath.Join(dir, certFile))
			checkModes(t, dir)
			key, err := LoadKey(dir, []byte(testPassphrase))
			if err != nil {
				t.Fatal(err)
			}
			policy, err := loadProfiles(filepath.Join(dir, profilesFile), (*dual.Policy)(nil).CheckProfiles)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := newIssuer(c, nil, key, policy, time.Now); err != nil {
				t.Error(err)
			}
		})
	}
}

func checkModes(t *testing.T, dir string) {
	t.Helper()
	for name, want := range map[string]fs.FileMode{".": 0o700, keyFile: 0o600, clientsFile: 0o600, OperatorTokenFile: 0o600, certFile: 0o644, profilesFile: 0o644} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().Perm() != want {
			t.Errorf("%s has mode %04o, want %04o", name, st.Mode().Perm(), want)
		}
	}
}

// mustLint fails on any error that zlint finds under the requirements of the RFCs.
func mustLint(t *testing.T, der []byte, except map[string]bool) {
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
		if r.Status >= lint.Warn && !except[name] {
			t.Errorf("zlint %s: %s %s", name, r.Status, r.Details)
		}
	}
}

func TestInitRefuses(t *testing.T) {
	existing, _ := newDir(t)
	good := func() InitOptions {
		return InitOptions{Dir: filepath.Join(t.TempDir(), "ca"), Subject: testSubject, Passphrase: []byte(testPassphrase), iterations: testIterations}
	}
	for _, tc := range []struct {
		name   string
		change func(*InitOptions)
		want   string
	}{
		{"existing CA", func(o *InitOptions) { o.Dir = existing }, "must not exist or be empty"},
		{"no directory", func(o *InitOptions) { o.Dir = "" }, "dir"},
		{"no common name", func(o *InitOptions) { o.Subject = pkix.Name{Organization: []string{"x"}} }, "common name"},
		{"long common name", func(o *InitOptions) { o.Subject.CommonName = strings.Repeat("x", 65) }, "subject.CN"},
		{"country", func(o *InitOptions) { o.Subject.Country = []string{"Germany"} }, "subject.C"},
		{"control character", func(o *InitOptions) { o.Subject.CommonName = "a\x00b" }, "control"},
		{"algorithm", func(o *InitOptions) { o.Algorithm = "dsa" }, `"dsa"`},
		{"short life", func(o *InitOptions) { o.Validity = time.Minute }, "validity"},
		{"long life", func(o *InitOptions) { o.Validity = 100 * 365 * 24 * time.Hour }, "validity"},
		{"path length", func(o *InitOptions) { o.PathLen = -1 }, "path length"},
		{"OCSP URL", func(o *InitOptions) { o.OCSPURL = "ldap://x" }, "ocsp_url"},
		{"passphrase", func(o *InitOptions) { o.Passphrase = []byte("short") }, "passphrase"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := good()
			tc.change(&o)
			if _, err := Init(o); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want %q", err, tc.want)
			}
			if o.Dir != existing && o.Dir != "" {
				if left, err := os.ReadDir(filepath.Dir(o.Dir)); err != nil || len(left) != 0 {
					t.Fatalf("left over: %v (%v)", left, err)
				}
			}
		})
	}
}

// A failure late in the preparation, here that somebody else's files appear in the place, leaves those and nothing else.
func TestInitLeavesNothingBehindWhenItsPlaceIsTaken(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "ca")
	o := InitOptions{Dir: dir, Subject: testSubject, Passphrase: []byte(testPassphrase), iterations: testIterations, Now: func() time.Time {
		if err := os.MkdirAll(filepath.Join(dir, "taken"), 0o700); err != nil {
			t.Error(err)
		}
		return time.Now()
	}}
	if _, err := Init(o); err == nil {
		t.Fatal("Init took a place that was taken")
	}
	left, err := os.ReadDir(parent)
	if err != nil || len(left) != 1 || left[0].Name() != "ca" {
		t.Fatalf("left over: %v (%v)", left, err)
	}
}

func TestShortLivedCAGetsProfilesThatFit(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	if _, err := Init(InitOptions{Dir: dir, Subject: testSubject, Validity: 30 * time.Hour, Passphrase: []byte(testPassphrase), iterations: testIterations}); err != nil {
		t.Fatal(err)
	}
	key, err := LoadKey(dir, []byte(testPassphrase))
	if err != nil {
		t.Fatal(err)
	}
	cert, chain, err := LoadCertificate(dir)
	if err != nil {
		t.Fatal(err)
	}
	policy, err := loadProfiles(filepath.Join(dir, profilesFile), (*dual.Policy)(nil).CheckProfiles)
	if err != nil {
		t.Fatal(err)
	}
	i, err := newIssuer(cert, chain, key, policy, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range policy.Profiles {
		if _, _, err := i.validity(name, p); err != nil {
			t.Error(err)
		}
	}
}

func TestProfilesRefused(t *testing.T) {
	def := string(defaultProfiles(&InitOptions{OCSPURL: testOCSP}, DefaultValidity))
	edit := func(old, repl string) string {
		if !strings.Contains(def, old) {
			t.Fatalf("the default profiles have no %q", old)
		}
		return strings.Replace(def, old, repl, 1)
	}
	for _, tc := range []struct{ name, text, want string }{
		{"not JSON", "profiles", "cfssl configuration"},
		{"two values", def + "{}", "one JSON value"},
		{"unknown key", edit(`"ocsp_url"`, `"ocsp_uri"`), "ocsp_uri"},
		{"wrong type", edit(`"ocsp_no_check": true`, `"ocsp_no_check": "yes"`), "bool"},
		{"no profiles", `{"signing":{"default":{"expiry":"1h"},"profiles":{}}}`, "signing.profiles"},
		{"responder profile missing", edit(`"ocsp-responder"`, `"other"`), "only the profile ocsp-responder"},
		{"responder lives long", edit(`"48h"`, `"49h"`), `signing.profiles.ocsp-responder.expiry "49h": must be at most 48h`},
		{"responder without nocheck", edit(`"ocsp_no_check": true,`, ""), "ocsp_no_check"},
		{"responder with another usage", edit(`"ocsp signing"`, `"ocsp signing", "server auth"`), "usages"},
		{"server signs OCSP", edit(`"server auth"`, `"server auth", "ocsp signing"`), "signing.profiles.server.usages"},
		{"any usage", edit(`"server auth"`, `"any"`), "any"},
		{"unknown usage", edit(`"server auth"`, `"server oauth"`), `"server oauth"`},
		{"CA", edit(`"usages": ["digital signature", "server auth"]`, `"ca_constraint": {"is_ca": true}, "usages": ["server auth"]`), "ca_constraint"},
		{"cert sign", edit(`"server auth"`, `"cert sign"`), "ca_constraint"},
		{"no whitelist", edit(`"CSRWhitelist": { "Subject": true, "PublicKeyAlgorithm": true, "PublicKey": true, "DNSNames": true, "IPAddresses": true, "EmailAddresses": true, "URIs": true },`, ""), "CSRWhitelist"},
		{"no key taken over", edit(`"PublicKey": true, "DNSNames"`, `"DNSNames"`), "PublicKey"},
		{"negative expiry", edit(`"2160h"`, `"-1h"`), "expiry"},
		{"backdate", edit(`"expiry": "2160h",`, `"expiry": "2160h", "backdate": "2161h",`), "backdate"},
		{"fixed beginning", edit(`"expiry": "2160h",`, `"expiry": "2160h", "not_before": "2030-01-01T00:00:00Z",`), "not_before"},
		{"responder with a fixed end", edit(`"expiry": "48h",`, `"expiry": "48h", "not_after": "2030-01-01T00:00:00Z",`), "signing.profiles.ocsp-responder.not_after"},
		{"copies extensions", edit(`"expiry": "2160h",`, `"expiry": "2160h", "copy_extensions": true,`), "copy_extensions"},
		{"takes extensions", edit(`"expiry": "2160h",`, `"expiry": "2160h", "allowed_extensions": ["1.2.3"],`), "allowed_extensions"},
		{"client's serial", edit(`"expiry": "2160h",`, `"expiry": "2160h", "ClientProvidesSerialNumbers": true,`), "ClientProvidesSerialNumbers"},
		{"CT", edit(`"expiry": "2160h",`, `"expiry": "2160h", "ct_log_servers": ["http://ct"],`), "ct_log_servers"},
		{"OCSP URL", edit(testOCSP, "ftp://x"), "ocsp_url"},
		{"CRL URL", edit(`"expiry": "2160h",`, `"expiry": "2160h", "crl_url": "x",`), "crl_url"},
		{"auth key", `{"auth_keys":{"k":{"type":"standard","key":"00"}},` + strings.TrimPrefix(strings.TrimSpace(def), "{"), "auth_keys"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := parseProfiles([]byte(tc.text)); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want %q", err, tc.want)
			}
		})
	}
	if _, err := parseProfiles([]byte(def)); err != nil {
		t.Fatal(err)
	}
}

func TestClientsFile(t *testing.T) {
	dir, _ := newDir(t)
	if _, err := AddClient(dir, "operator", RoleOperator); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a name twice: %v", err)
	}
	for _, bad := range []struct{ name, role string }{{"../x", "auditor"}, {"", "auditor"}, {"x y", "auditor"}, {"x", "root"}} {
		if _, err := AddClient(dir, bad.name, Role(bad.role)); err == nil {
			t.Errorf("%q as %q was taken", bad.name, bad.role)
		}
	}
	h := strings.Repeat("00", 32)
	for text, want := range map[string]string{
		"a operator " + h + "\na auditor " + h: "line 2", "a operator": "line 1", "a operator zz": "hash", "a chief " + h: "role", "\x00 operator " + h: "name",
	} {
		if _, err := parseClients([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if cs, err := parseClients([]byte("# who\n\n a operator " + h + " \n")); err != nil || len(cs) != 1 {
		t.Errorf("%v, %v", cs, err)
	}
}
