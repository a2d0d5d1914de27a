package ca

import (
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/weakkey"
)

// strictWorld is a registered CA whose profile server has further keys.
func strictWorld(t *testing.T, keys string, change func(*Config)) *world {
	t.Helper()
	dir, _ := newDir(t)
	if err := os.WriteFile(filepath.Join(dir, profilesFile), inServer(keys), 0o600); err != nil {
		t.Fatal(err)
	}
	w := startWorld(t, dir, change)
	register(t, w.node, dir)
	return w
}

type ruleCase struct{ name, csr, field, value, rule string }

// refuses says that each request is refused, that the answer names field, value and rule, and that nothing came of it.
func refuses(t *testing.T, w *world, cases []ruleCase) {
	t.Helper()
	before := w.fingerprint()
	for _, tc := range cases {
		code, _, b := w.call("POST", caapi.PathCertificates, body(t, caapi.IssueRequest{CSR: tc.csr, Profile: "server"}), nil)
		p := asProblem(t, b)
		if code != 400 || p.Code != "invalid_argument" || p.Field != tc.field || !strings.Contains(p.Value, tc.value) || !strings.Contains(p.Rule, tc.rule) || strings.Contains(string(b), "BEGIN CERTIFICATE-") {
			t.Errorf("%s: %d %s; want %s %q, %q", tc.name, code, b, tc.field, tc.value, tc.rule)
		}
	}
	if after := w.fingerprint(); after != before {
		t.Errorf("%s, then %s", before, after)
	}
}

func takes(t *testing.T, w *world, csrs map[string]string) {
	t.Helper()
	for name, csr := range csrs {
		if _, err := w.client("operator").Issue(t.Context(), caapi.IssueRequest{CSR: csr, Profile: "server"}, ""); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// named makes a request with the common name cn and alternative names of all kinds, told apart as cfssl does.
func named(t testing.TB, cn string, names ...string) string {
	return newCSR(t, nil, func(r *x509.CertificateRequest) {
		r.Subject, r.DNSNames = pkix.Name{CommonName: cn}, nil
		for _, n := range names {
			u, err := url.Parse(n)
			switch {
			case net.ParseIP(n) != nil:
				r.IPAddresses = append(r.IPAddresses, net.ParseIP(n))
			case strings.Contains(n, "://") && err == nil:
				r.URIs = append(r.URIs, u)
			case strings.Contains(n, "@"):
				r.EmailAddresses = append(r.EmailAddresses, n)
			default:
				r.DNSNames = append(r.DNSNames, n)
			}
		}
	})
}

// TestWholeNamesMatchTheWhitelist: cfssl looks for a match anywhere in CN, DNS names, mail addresses and URIs, and not at addresses.
func TestWholeNamesMatchTheWhitelist(t *testing.T) {
	w := strictWorld(t, `"name_whitelist": "([a-z0-9-]+\\.)*good\\.example|192\\.0\\.2\\.1|.+@good\\.example|https://good\\.example/.*"`, nil)
	refuses(t, w, []ruleCase{
		{"CN", named(t, "evil.example", "good.example"), "csr.subject.CN", "evil.example", "name_whitelist of the profile server as a whole"},
		{"suffix", named(t, "", "good.example.evil.example"), "csr.dns_names[0]", "good.example.evil.example", "as a whole"},
		{"prefix", named(t, "", "a.good.example", "notgood.example"), "csr.dns_names[1]", "notgood.example", "as a whole"},
		{"URI that has it in its path", named(t, "", "https://evil.com/good.example"), "csr.uris[0]", "https://evil.com/good.example", "as a whole"},
		{"URI that has it as its user", named(t, "", "https://good.example@evil.com/"), "csr.uris[0]", "evil.com", "as a whole"},
		{"mail address", named(t, "", "a@good.example.evil.com"), "csr.email_addresses[0]", "a@good.example.evil.com", "as a whole"},
		{"address", named(t, "", "192.0.2.2"), "csr.ip_addresses[0]", "192.0.2.2", "as a whole"},
		{"wildcard", named(t, "", "*.good.example"), "csr.dns_names[0]", "*.good.example", "as a whole"},
	})
	takes(t, w, map[string]string{"all good": named(t, "good.example", "a.b.good.example", "192.0.2.1", "me@good.example", "https://good.example/x")})
}

func TestWhitelistThatCannotBeAnchoredIsRefused(t *testing.T) {
	for _, re := range []string{`(`, `a)|(b`} {
		if _, err := parseProfiles(inServer(`"name_whitelist": "` + re + `"`)); err == nil {
			t.Errorf("%s is taken", re)
		}
	}
	p, err := parseProfiles(inServer(`"name_whitelist": "a\\.example|b\\.example"`))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"a.example": true, "b.example": true, "xa.example": false, "b.examplex": false, "a.example\nb": false, "x\na.example": false} {
		if got := p.rules["server"].names.MatchString(name); got != want {
			t.Errorf("%q: %t", name, got)
		}
	}
}

func TestProfileDecidesAboutNames(t *testing.T) {
	w := strictWorld(t, `"wildcards": false, "private_names": false, "max_names": 4`, nil)
	const private, wild = "private_names of the profile server", "wildcards of the profile server"
	cases := []ruleCase{
		{"wildcard", named(t, "", "*.certanchor.org"), "csr.dns_names[0]", "*.certanchor.org", wild},
		{"wildcard as CN", named(t, "*.certanchor.org", "a.certanchor.org"), "csr.subject.CN", "*.certanchor.org", wild},
		{"too many", named(t, "", "a.certanchor.org", "b.certanchor.org", "c.certanchor.org", "d.certanchor.org", "e.certanchor.org"), "csr.subject_alt_name", "5 names", "max_names"},
		{"one label", named(t, "", "intranet"), "csr.dns_names[0]", "intranet", private},
		{"capitals", named(t, "", "A.LOCAL"), "csr.dns_names[0]", "A.LOCAL", private},
		{"as CN", named(t, "host.internal", "a.certanchor.org"), "csr.subject.CN", "host.internal", private},
		{"address as CN", named(t, "10.0.0.1", "a.certanchor.org"), "csr.subject.CN", "10.0.0.1", private},
		{"mail", named(t, "", "a@mail.corp"), "csr.email_addresses[0]", "a@mail.corp", private},
		{"URI", named(t, "", "https://localhost/x"), "csr.uris[0]", "localhost", private},
		{"URI with an address", named(t, "", "https://[::1]/x"), "csr.uris[0]", "::1", private},
	}
	for _, name := range []string{"a.local", "a.test", "a.example", "a.invalid", "x.localhost", "a.home.arpa", "a.lan", "abc.onion", "www.example.com", "a.alt"} {
		cases = append(cases, ruleCase{name, named(t, "", name), "csr.dns_names[0]", name, private})
	}
	for _, ip := range []string{"10.1.2.3", "172.16.0.1", "192.168.1.1", "127.0.0.1", "169.254.1.1", "100.64.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "240.0.0.1",
		"::1", "::", "fe80::1", "fc00::1", "2001:db8::1", "ff02::1", "::ffff:10.0.0.1", "2002:a00:1::1"} {
		cases = append(cases, ruleCase{ip, named(t, "", ip), "csr.ip_addresses[0]", "", private})
	}
	refuses(t, w, cases)
	takes(t, w, map[string]string{"public": named(t, "a.certanchor.org", "a.certanchor.org", "9.9.9.9", "2620:fe::fe", "me@certanchor.org"), "a person": named(t, "Alice", "alice@certanchor.org")})

	w = strictWorld(t, `"ip_addresses": false`, nil)
	refuses(t, w, []ruleCase{
		{"address", named(t, "", "9.9.9.9"), "csr.ip_addresses[0]", "9.9.9.9", "ip_addresses of the profile server"},
		{"address as CN", named(t, "2620:fe::fe", "a.certanchor.org"), "csr.subject.CN", "2620:fe::fe", "ip_addresses"},
		{"address in a URI", named(t, "", "https://9.9.9.9/"), "csr.uris[0]", "9.9.9.9", "ip_addresses"},
	})
	takes(t, w, map[string]string{"private and wildcard, as before": named(t, "host.internal", "*.host.internal", "localhost")})
}

func TestProfileDecidesAboutKeys(t *testing.T) {
	w := strictWorld(t, `"allowed_keys": ["rsa-3072", "ecdsa-p384"]`, nil)
	refuses(t, w, []ruleCase{
		{"P-256", newCSR(t, nil), "csr.public_key", "ecdsa-p256", "rsa-3072, ecdsa-p384"},
		{"RSA-2048", newCSR(t, rsaKey(t, 2048)), "csr.public_key", "rsa-2048", "must be one of the profile server"},
	})
	takes(t, w, map[string]string{"P-384": newCSR(t, ecKey(t, elliptic.P384())), "RSA-3072": newCSR(t, rsaKey(t, 3072))})
	for keys, want := range map[string]string{
		`"allowed_keys": []`:                             `server.allowed_keys "[]": must not be empty`,
		`"allowed_keys": "rsa"`:                          `server.allowed_keys "rsa": must be a list of`,
		`"allowed_keys": ["rsa", "dsa"]`:                 `server.allowed_keys "dsa": must be one of`,
		`"allowed_keys": ["ecdsa-p521"]`:                 `server.allowed_keys "ecdsa-p521": must be one of`,
		`"wildcards": "no"`:                              `server.wildcards "no": must be true or false`,
		`"private_names": 0`:                             `server.private_names 0: must be true or false`,
		`"ip_addresses": []`:                             `server.ip_addresses []: must be true or false`,
		`"max_names": 0`:                                 `server.max_names "0": must be a number of 1 to 1000`,
		`"max_names": 1001`:                              `server.max_names "1001": must be a number of 1 to 1000`,
		`"max_names": -5`:                                `server.max_names "-5": must be a number`,
		`"max_names": "many"`:                            `server.max_names "many": must be a number`,
		`"wildcard": false`:                              `wildcard`,
		`"allowed_keys": ["rsa-2048 "]`:                  `allowed_keys "rsa-2048 "`,
		`"policies": [{"id": "2.5.29.32.0"}]`:            `policies[0].id "2.5.29.32.0": must not be anyPolicy`,
		`"policies": [{"id": "1.2.3"}, {"id": "1.2.3"}]`: `policies[1].id "1.2.3": must not occur twice`,
		`"policies": [{"id": "1"}]`:                      `policies[0].id "1": must be an object identifier`,
		`"policies": [{"id": "3.1"}]`:                    `policies[0].id "3.1": must be an object identifier`,
		`"policies": [{"id": "1.40"}]`:                   `policies[0].id "1.40": must be an object identifier`,
		`"policies": [{}]`:                               `policies[0].id`,
		`"policies": [{"id": "1.2.3", "qualifiers": [{"type": "id-qt-cps", "value": "cps"}]}]`:                                  `policies[0].qualifiers[0].value "cps"`,
		`"policies": [{"id": "1.2.3", "qualifiers": [{"type": "id-qt-cps", "value": ""}]}]`:                                     `qualifiers[0].value "": must be the URI`,
		`"policies": [{"id": "1.2.3", "qualifiers": [{"type": "id-qt-cps", "value": "http://ü/"}]}]`:                            `must be in ASCII`,
		`"policies": [{"id": "1.2.3", "qualifiers": [{"type": "id-qt-unotice", "value": "` + strings.Repeat("x", 201) + `"}]}]`: `1 to 200 characters`,
		`"policies": [{"id": "1.2.3", "qualifiers": [{"type": "id-qt-unotice", "value": "a\u0000"}]}]`:                          `control characters`,
		`"policies": [{"id": "1.2.3", "qualifiers": [{"value": "x"}]}]`:                                                         `qualifiers[0].type "": must be id-qt-cps or id-qt-unotice`,
	} {
		if _, err := parseProfiles(inServer(keys)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", keys, err, want)
		}
	}
}

// TestPoliciesAndAIAStandInCertificates: as openssl reads them.
func TestPoliciesAndAIAStandInCertificates(t *testing.T) {
	w := strictWorld(t, `"ocsp_url": "http://ocsp.certanchor.org/ocsp", "issuer_urls": ["http://ca.certanchor.org/ca.cer"],
		"policies": [{"id": "2.23.140.1.2.1"}, {"id": "1.3.6.1.4.1.99999.1", "qualifiers": [{"type": "id-qt-cps", "value": "http://cps.certanchor.org/"}, {"type": "id-qt-unotice", "value": "Nur für Tests"}]}]`, nil)
	got, err := w.client("operator").Issue(t.Context(), caapi.IssueRequest{CSR: newCSR(t, nil), Profile: "server"}, "")
	if err != nil {
		t.Fatal(err)
	}
	text := openssl(t, got.Certificate, "x509", "-noout", "-text", "-nameopt", "utf8")
	for _, want := range []string{
		"Policy: 2.23.140.1.2.1", "Policy: 1.3.6.1.4.1.99999.1", "CPS: http://cps.certanchor.org/", "Explicit Text: Nur f",
		"OCSP - URI:http://ocsp.certanchor.org/ocsp", "CA Issuers - URI:http://ca.certanchor.org/ca.cer",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestProfileThatHasExpiredIssuesNothing(t *testing.T) {
	for name, tc := range map[string]struct{ notAfter, rule string }{
		"past":          {"2020-01-01T00:00:00Z", "its not_after, 2020-01-01T00:00:00Z, has passed"},
		"now":           {time.Now().UTC().Format(time.RFC3339), "has passed"},
		"beyond the CA": {"2999-01-01T00:00:00Z", "would end after the CA certificate"},
	} {
		w := strictWorld(t, fmt.Sprintf(`"not_after": %q`, tc.notAfter), nil)
		before := w.fingerprint()
		code, _, b := w.call("POST", caapi.PathCertificates, body(t, caapi.IssueRequest{CSR: newCSR(t, nil), Profile: "server"}), nil)
		if p := asProblem(t, b); code != 409 || p.Field != "profile" || p.Value != "server" || !strings.Contains(p.Rule, tc.rule) || w.fingerprint() != before {
			t.Errorf("%s: %d %s", name, code, b)
		}
	}
	end := time.Now().Add(36 * time.Hour).UTC().Truncate(time.Second)
	w := strictWorld(t, fmt.Sprintf(`"not_after": %q`, end.Format(time.RFC3339)), nil)
	got, err := w.client("operator").Issue(t.Context(), caapi.IssueRequest{CSR: newCSR(t, nil), Profile: "server"}, "")
	if err != nil || !parsePEM(t, got.Certificate).NotAfter.Equal(end) {
		t.Errorf("%+v, %v; want its end at %s", got, err, end)
	}
}

// TestInternationalisedNamesAreALabels: as RFC 5280 section 7.2 and IDNA2008 have them.
func TestInternationalisedNamesAreALabels(t *testing.T) {
	w := newWorld(t, nil)
	ulabel := newCSR(t, nil, func(r *x509.CertificateRequest) {
		r.DNSNames = nil
		name := "bücher.example.org"
		r.ExtraExtensions = []pkix.Extension{{Id: oidSubjectAltName, Value: append([]byte{0x30, byte(len(name) + 2), 0x82, byte(len(name))}, name...)}}
	})
	cases := []ruleCase{
		{"U-label", ulabel, "csr.subject_alt_name", "a name", "as A-labels"},
		{"U-label as CN", named(t, "bücher.example.org", "a.example.org"), "csr.subject.CN", "bücher.example.org", "as A-labels"},
		{"reserved label", named(t, "", "ab--c.example.org"), "csr.dns_names[0]", "ab--c.example.org", "RFC 5890 section 2.3.1"},
		{"in a mail address", named(t, "", "a@xn--a.example.org"), "csr.email_addresses[0]", "a@xn--a.example.org", "mailbox"},
		{"in a URI", named(t, "", "https://xn--zzzzzz99999999.example.org/"), "csr.uris[0]", "xn--zzzzzz99999999", "host"},
		{"wildcard in a URI", named(t, "", "https://*.example.org/"), "csr.uris[0]", "*.example.org", "host"},
	}
	for _, label := range []string{
		"xn--a", "xn--zzzzzz99999999", "xn--0", // no punycode, or of what is no character
		"xn--bcher-kva9",    // damaged
		"xn--a-ecp",         // of what would be mapped
		"xn--a-yoc",         // of two directions
		"xn--53h", "xn--9a", // of symbols
	} {
		cases = append(cases, ruleCase{label, named(t, "", label+".example.org"), "csr.dns_names[0]", label, "A-label"})
	}
	refuses(t, w, cases)
	takes(t, w, map[string]string{
		"A-labels": named(t, "", "xn--zca.example.org", "xn--fsq.example.org", "xn--ab-0ea.example.org"),
		"A-label":  named(t, "", "xn--bcher-kva.example.org", "*.xn--bcher-kva.example.org"), "capitals": named(t, "", "XN--BCHER-KVA.example.org"),
		"hyphens elsewhere": named(t, "", "a--b.example.org", "abc--d.example.org"), "a person's name": named(t, "Jördis Ünal", "a.example.org"),
	})
}

// TestThousandsOfNamesAreRefusedAtOnce: by size before anything is parsed, and by number.
func TestThousandsOfNamesAreRefusedAtOnce(t *testing.T) {
	w := newWorld(t, nil)
	many := func(n int) string {
		return newCSR(t, nil, func(r *x509.CertificateRequest) {
			for i := range n {
				r.DNSNames = append(r.DNSNames, fmt.Sprintf("h%d.io", i))
			}
		})
	}
	refuses(t, w, []ruleCase{
		{"10,000", many(10_000), "csr", "bytes", "at most 65536 bytes"},
		{"2,000", many(2_000), "csr.subject_alt_name", "2001 names", "at most 1000 names"},
		{"500", many(500), "csr.subject_alt_name", "501 names", "at most 100 names"},
	})
	w = strictWorld(t, `"max_names": 300`, nil)
	refuses(t, w, []ruleCase{{"301", many(300), "csr.subject_alt_name", "301 names", "at most 300 names"}})
	takes(t, w, map[string]string{"300": many(299)})
}

func TestKeysOnListsAreNotCertified(t *testing.T) {
	key := rsaKey(t, 2048)
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	list := new(weakkey.List)
	if err := list.Read(strings.NewReader(fmt.Sprintf("%x\n", sha256.Sum256(spki)))); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(c *Config) { c.WeakKeys = list })
	refuses(t, w, []ruleCase{{"listed", newCSR(t, key), "csr.public_key", "a key", "ca.weak_keys"}})
	takes(t, w, map[string]string{"another": newCSR(t, nil)})
}
