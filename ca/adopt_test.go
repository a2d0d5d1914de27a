package ca

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/internal/caapi"
)

// cfsslServerConfig is what `cfssl print-defaults config` prints, with a profile that has a key for its clients.
const cfsslServerConfig = `{
  "signing": {
    "default": {"expiry": "168h"},
    "profiles": {
      "www": {"expiry": "168h", "usages": ["signing", "key encipherment", "server auth"], "auth_key": "web"},
      "client": {"expiry": "168h", "usages": ["signing", "client auth"], "ocsp_url": "http://old.example.org/", "name_whitelist": ".*"}
    }
  },
  "auth_keys": {"web": {"type": "standard", "key": "` + cfsslKey + `"}}
}`

func adoption(t *testing.T, authority *cctest.CA) AdoptOptions {
	t.Helper()
	chain := []*x509.Certificate{authority.Cert}
	for _, der := range authority.Chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		chain = append(chain, c)
	}
	return AdoptOptions{
		Dir: filepath.Join(t.TempDir(), "ca"), Chain: chain, Key: authority.Key, Passphrase: []byte(testPassphrase), Profiles: []byte(cfsslServerConfig),
		OCSPURL: testOCSP, CRLURLs: []string{"http://crl.example.org/{ca}/full.crl"}, iterations: testIterations,
	}
}

func TestAnAdoptedCAIssues(t *testing.T) {
	authority := cctest.NewCA(t, cctest.WithParent(cctest.NewCA(t)))
	o := adoption(t, authority)
	res, err := Adopt(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"signing.profiles.www.CSRWhitelist", "signing.profiles.client.crl_url", "signing.profiles.ocsp-responder", "key encipherment", "name_whitelist", "signing.default has no usages"} {
		if !slices.ContainsFunc(res.Notes, func(n string) bool { return strings.Contains(n, want) }) {
			t.Errorf("no note about %q in %q", want, res.Notes)
		}
	}
	if slices.ContainsFunc(res.Notes, func(n string) bool { return strings.Contains(n, "client.ocsp_url") }) {
		t.Errorf("an ocsp_url was replaced: %q", res.Notes)
	}
	key, err := LoadKey(o.Dir, []byte(testPassphrase))
	if err != nil {
		t.Fatal(err)
	}
	w := startWorld(t, o.Dir, func(c *Config) { c.Key = key })
	if _, err := Register(t.Context(), w.node.Connect("administrator"), authority.DER, authority.Chain, testMSP); err != nil {
		t.Fatal(err)
	}
	rsaCSR := newCSR(t, rsaKey(t, 2048))
	_, r := w.cfssl("authsign", authenticated(t, cfsslKey, map[string]any{"certificate_request": rsaCSR, "profile": "www"}), noCredential)
	cert := w.signed(r)
	if err := cert.CheckSignatureFrom(authority.Cert); err != nil || !slices.Equal(cert.OCSPServer, []string{testOCSP}) || len(cert.CRLDistributionPoints) != 1 {
		t.Fatalf("%v %v %v", err, cert.OCSPServer, cert.CRLDistributionPoints)
	}
	got, err := w.client("operator").Issue(t.Context(), caapi.IssueRequest{CSR: newCSR(t, nil), Profile: "client"}, "")
	if err != nil || len(got.Chain) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	if code, r := w.cfssl("sign", map[string]any{"certificate_request": newCSR(t, nil), "profile": "www"}, nil); code != 400 || !strings.Contains(r.Errors[0].Message, "RFC 8813") {
		t.Errorf("an EC key: %d %+v", code, r.Errors)
	}
}

func TestAdoptRefusesAndLeavesNothing(t *testing.T) {
	root := cctest.NewCA(t)
	authority := cctest.NewCA(t, cctest.WithParent(root))
	leafDER, _ := authority.Issue(t)
	leaf, err := x509.ParseCertificate(leafDER)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		change func(*AdoptOptions)
		want   string
	}{
		"no certificate":   {func(o *AdoptOptions) { o.Chain = nil }, "certificate: must be given"},
		"chain cut":        {func(o *AdoptOptions) { o.Chain = o.Chain[:1] }, "must follow it in the file"},
		"wrong order":      {func(o *AdoptOptions) { slices.Reverse(o.Chain) }, "must be issued by the next"},
		"no CA":            {func(o *AdoptOptions) { o.Chain = append([]*x509.Certificate{leaf}, o.Chain...) }, "key"},
		"another's key":    {func(o *AdoptOptions) { o.Key = root.Key }, "the key does not belong to the CA certificate"},
		"short passphrase": {func(o *AdoptOptions) { o.Passphrase = []byte("x") }, "passphrase"},
		"remotes": {func(o *AdoptOptions) {
			o.Profiles = []byte(strings.Replace(cfsslServerConfig, `"auth_keys"`, `"remotes": {"a": "b"}, "auth_keys"`, 1))
		}, "remotes.a"},
		"CA profile": {func(o *AdoptOptions) {
			o.Profiles = []byte(strings.Replace(cfsslServerConfig, `"client auth"`, `"cert sign"`, 1))
		}, "signing.profiles.client.ca_constraint"},
		"no profiles": {func(o *AdoptOptions) { o.Profiles = []byte(`{"signing": {"default": {"expiry": "1h"}}}`) }, "signing.profiles"},
		"not JSON":    {func(o *AdoptOptions) { o.Profiles = []byte(`x`) }, "cfssl configuration"},
		"OCSP URL":    {func(o *AdoptOptions) { o.OCSPURL = "x" }, "ocsp_url"},
		"no dir":      {func(o *AdoptOptions) { o.Dir = "" }, "dir"},
	} {
		o := adoption(t, authority)
		parent := filepath.Dir(o.Dir)
		tc.change(&o)
		if _, err := Adopt(o); err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), cfsslKey) {
			t.Errorf("%s: %v; want %q", name, err, tc.want)
		}
		if left, err := os.ReadDir(parent); err != nil || len(left) != 0 {
			t.Errorf("%s: %v left, %v", name, left, err)
		}
	}
	o := adoption(t, authority)
	if _, err := Adopt(o); err != nil {
		t.Fatal(err)
	}
	if _, err := Adopt(o); !errors.Is(err, fs.ErrExist) {
		t.Errorf("twice: %v", err)
	}
	for _, name := range []string{keyFile, profilesFile, clientsFile} {
		if st, err := os.Stat(filepath.Join(o.Dir, name)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
}

func TestReadPlainKey(t *testing.T) {
	dir := t.TempDir()
	save := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ec := openssl(t, "", "ecparam", "-name", "prime256v1", "-genkey")
	if !strings.Contains(ec, "EC PARAMETERS") {
		t.Fatal("openssl has no parameters before the key any more")
	}
	pkcs8 := openssl(t, ec, "pkcs8", "-topk8", "-nocrypt")
	pkcs1 := openssl(t, "", "genrsa", "-traditional", "2048")
	for name, text := range map[string]string{"ec": ec, "pkcs8": pkcs8, "pkcs1": pkcs1} {
		key, err := ReadPlainKey(save(name, text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		switch key.(type) {
		case *ecdsa.PrivateKey, *rsa.PrivateKey:
		default:
			t.Errorf("%s: %T", name, key)
		}
	}
	for name, tc := range map[string]struct{ text, want string }{
		"encrypted":        {openssl(t, ec, "pkcs8", "-topk8", "-passout", "pass:x"), "openssl pkey"},
		"encrypted, older": {openssl(t, pkcs1, "rsa", "-aes128", "-traditional", "-passout", "pass:xxxx"), "openssl pkey"},
		"certificate":      {"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n", "CERTIFICATE"},
		"empty":            {"", "private key in PEM"},
		"X25519":           {openssl(t, "", "genpkey", "-algorithm", "X25519"), "cannot sign"},
	} {
		if key, err := ReadPlainKey(save("bad", tc.text)); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %T, %v", name, key, err)
		}
	}
	if _, err := ReadPlainKey(filepath.Join(dir, "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func FuzzAmendProfiles(f *testing.F) {
	for _, s := range []string{cfsslServerConfig, cfsslProfilesText, `{"signing":{"profiles":{"a":{}}}}`, `{"signing":[]}`, `{}`, `null`, `{"signing":{"default":null,"profiles":{"a":null,"b":1}}}`} {
		f.Add([]byte(s))
	}
	f.Setenv("CERTANCHOR_TEST_AUTH_KEY", cfsslOther)
	f.Fuzz(func(t *testing.T, data []byte) {
		o := &InitOptions{Validity: DefaultValidity, OCSPURL: testOCSP}
		once, _, err := amendProfiles(data, o)
		if err != nil {
			return
		}
		if _, err := parseProfiles(once); err != nil {
			return
		}
		// What is good needs nothing more.
		again, _, err := amendProfiles(once, o)
		if err != nil {
			t.Fatal(err)
		}
		var a, b any
		if json.Unmarshal(once, &a) != nil || json.Unmarshal(again, &b) != nil || body(t, a) != body(t, b) {
			t.Fatalf("%s\nbecame\n%s", once, again)
		}
	})
}
