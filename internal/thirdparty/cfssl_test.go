package thirdparty

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/ca"
	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/internal/config"
)

const authKey = "0123456789abcdef0123456789abcdef"

// cfsslProfiles is a cfssl server's configuration with what this CA wants beside it.
const cfsslProfiles = `{
  "auth_keys": {"web": {"type": "standard", "key": "` + authKey + `"}},
  "signing": {
    "default": {"usages": ["signing", "server auth", "client auth"], "expiry": "168h", "crl_url": "http://crl.example.org/{ca}/full.crl",
      "CSRWhitelist": {"Subject": true, "PublicKey": true, "PublicKeyAlgorithm": true, "DNSNames": true, "IPAddresses": true}},
    "profiles": {
      "www": {"usages": ["signing", "server auth"], "expiry": "72h", "auth_key": "web", "new_key": true,
        "CSRWhitelist": {"Subject": true, "PublicKey": true, "PublicKeyAlgorithm": true, "DNSNames": true, "IPAddresses": true}},
      "ocsp-responder": {"usages": ["signing", "ocsp signing"], "expiry": "24h", "ocsp_no_check": true,
        "CSRWhitelist": {"Subject": true, "PublicKey": true, "PublicKeyAlgorithm": true}}
    }
  }
}`

// cfsslRun is what the stock program said.
type cfsslRun struct {
	Cert, CSR, Key string // of what it prints
	out, log       string
}

// cfssl runs the stock program, with stdin where an argument is "-".
func cfssl(t *testing.T, stdin string, args ...string) (cfsslRun, error) {
	t.Helper()
	if err := build(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(dir, "cfssl"), args...)
	var out, log bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Dir = strings.NewReader(stdin), &out, &log, t.TempDir()
	err := cmd.Run()
	r := cfsslRun{out: out.String(), log: log.String()}
	if err == nil && args[0] != "info" {
		err = json.Unmarshal(out.Bytes(), &r)
	}
	if err != nil {
		err = fmt.Errorf("cfssl %s: %w\n%s%s", strings.Join(args, " "), err, r.out, r.log)
	}
	return r, err
}

// cert is the certificate of a run that went well.
func (s *service) cert(t *testing.T, r cfsslRun, err error) *x509.Certificate {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	cert := parse(t, r.Cert)
	if err := cert.CheckSignatureFrom(s.ca.Cert); err != nil {
		t.Fatal(err)
	}
	if got, err := s.api.Get(t.Context(), hex.EncodeToString(cert.SerialNumber.Bytes())); err != nil || got.Status.State != "valid" || got.TxID == "" {
		t.Fatalf("on the ledger: %+v, %v", got, err)
	}
	return cert
}

func parse(t *testing.T, text string) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		t.Fatalf("no PEM: %q", text)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func newCSR(t *testing.T) string {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "host.example.org"}, DNSNames: []string{"host.example.org"}}, cctest.NewKey(t))
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// serveCFSSL starts everything with these profiles; change may be nil.
func serveCFSSL(t *testing.T, authority *cctest.CA, change func(*config.File)) *service {
	t.Helper()
	return serve(t, authority, func(c *config.File) {
		write(t, filepath.Join(c.CA.Dir, "profiles.json"), []byte(cfsslProfiles))
		if change != nil {
			change(c)
		}
	})
}

func open(c *config.File) { c.CA.CFSSL = &ca.CFSSLSettings{OpenProfiles: []string{"default"}} }

// TestStockCFSSLClientsWork: without authentication, as with a cfssl server whose profiles have no auth_key.
func TestStockCFSSLClientsWork(t *testing.T) {
	s := serveCFSSL(t, newCA(t), open)
	r, err := cfssl(t, newCSR(t), "sign", "-remote", s.caURL, "-")
	if c := s.cert(t, r, err); !slices.Equal(c.DNSNames, []string{"host.example.org"}) || c.Subject.CommonName != "host.example.org" {
		t.Errorf("sign: %v %v", c.Subject, c.DNSNames)
	}
	subject := filepath.Join(t.TempDir(), "subject.json")
	write(t, subject, []byte(`{"CN": "a.example.org", "names": [{"C": "DE", "O": "Example"}]}`))
	r, err = cfssl(t, newCSR(t), "sign", "-remote", s.caURL, "-hostname", "a.example.org,192.0.2.1", "-label", s.ca.Cert.Subject.CommonName, "-", subject)
	if c := s.cert(t, r, err); !slices.Equal(c.DNSNames, []string{"a.example.org"}) || len(c.IPAddresses) != 1 || c.Subject.String() != "CN=a.example.org,O=Example,C=DE" {
		t.Errorf("sign -hostname: %v %v %v", c.Subject, c.DNSNames, c.IPAddresses)
	}
	for _, key := range []string{`{"algo": "ecdsa", "size": 256}`, `{"algo": "rsa", "size": 2048}`} {
		request := fmt.Sprintf(`{"CN": "b.example.org", "hosts": ["b.example.org"], "names": [{"C": "DE", "L": "Berlin"}], "key": %s}`, key)
		r, err = cfssl(t, request, "gencert", "-remote", s.caURL, "-")
		if c := s.cert(t, r, err); !slices.Equal(c.DNSNames, []string{"b.example.org"}) || !strings.Contains(r.Key, "PRIVATE KEY") {
			t.Errorf("gencert: %v %v", c.Subject, c.DNSNames)
		}
	}
	for _, args := range [][]string{{}, {"-profile", "www"}, {"-label", s.ca.ID.String()}} {
		r, err = cfssl(t, "", append([]string{"info", "-remote", s.caURL}, args...)...)
		var info struct{ Certificate, Expiry string }
		if err == nil {
			err = json.Unmarshal([]byte(r.out), &info)
		}
		if err != nil || !parse(t, info.Certificate).Equal(s.ca.Cert) || info.Expiry == "" {
			t.Errorf("info %v: %v %s", args, err, r.out)
		}
	}
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"unknown profile": {[]string{"-profile", "root"}, "Authorization"},
		"closed profile":  {[]string{"-profile", "www"}, "Authorization"},
		"hostile host":    {[]string{"-hostname", "a.*.example.org"}, `hosts[0]`},
		"mail host":       {[]string{"-hostname", "root@example.org"}, `hosts[0]`},
		"unknown label":   {[]string{"-label", "primary"}, `label`},
	} {
		if r, err := cfssl(t, newCSR(t), append(append([]string{"sign", "-remote", s.caURL}, tc.args...), "-")...); err == nil || !strings.Contains(r.log, tc.want) {
			t.Errorf("%s: %v %s", name, err, r.log)
		}
	}
}

// clientConfig is what a cfssl client has that authenticates with a key.
func clientConfig(t *testing.T, url, key string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "client.json")
	write(t, path, fmt.Appendf(nil, `{
  "signing": {"default": {"auth_remote": {"remote": "ca", "auth_key": "web"}}},
  "auth_keys": {"web": {"type": "standard", "key": %q}},
  "remotes": {"ca": %q}
}`, key, url))
	return path
}

func TestStockCFSSLClientsAuthenticateWithAKey(t *testing.T) {
	s := serveCFSSL(t, newCA(t), nil)
	conf := clientConfig(t, s.caURL, authKey)
	csr := newCSR(t)
	first, err := cfssl(t, csr, "sign", "-config", conf, "-profile", "www", "-hostname", "a.example.org", "-")
	if c := s.cert(t, first, err); !slices.Equal(c.DNSNames, []string{"a.example.org"}) {
		t.Error(c.DNSNames)
	}
	// cfssl's token says nothing but who asks for what: the same question has the same answer.
	again, err := cfssl(t, csr, "sign", "-config", conf, "-profile", "www", "-hostname", "a.example.org", "-")
	if err != nil || again.Cert != first.Cert {
		t.Errorf("%v: another certificate for the same request", err)
	}
	r, err := cfssl(t, `{"CN": "b.example.org", "hosts": ["b.example.org"]}`, "gencert", "-config", conf, "-profile", "www", "-")
	s.cert(t, r, err)
	for name, tc := range map[string]struct{ key, profile, want string }{
		"wrong key": {strings.Repeat("ab", 16), "www", "token"}, "other profile": {authKey, "default", "auth_key"}, "unknown profile": {authKey, "root", "must be one of default, www"},
	} {
		wrong := clientConfig(t, s.caURL, tc.key)
		if r, err := cfssl(t, newCSR(t), "sign", "-config", wrong, "-profile", tc.profile, "-"); err == nil || !strings.Contains(r.log, tc.want) {
			t.Errorf("%s: %v %s", name, err, r.log)
		}
	}
	if r, err := cfssl(t, newCSR(t), "sign", "-remote", s.caURL, "-profile", "www", "-"); err == nil || !strings.Contains(r.log, "Authorization") {
		t.Errorf("without a key: %v %s", err, r.log)
	}
}

// cfsslPost sends what cfssl's documentation sends with curl.
func (s *service) cfsslPost(t *testing.T, endpoint string, body any) (result map[string]any, err error) {
	t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.caURL+"/api/v1/cfssl/"+endpoint, bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded") // curl -d
	req.Header.Set("Authorization", "Bearer "+s.token)
	b, err := answer(http.DefaultClient.Do(req))
	var r struct {
		Success bool
		Result  map[string]any
	}
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err == nil && !r.Success {
		err = fmt.Errorf("%s", b)
	}
	return r.Result, err
}

func TestRevocationsOverCFSSLsAPIAreInItsCRL(t *testing.T) {
	s := serveCFSSL(t, newCA(t), open)
	made, err := s.cfsslPost(t, "newcert", map[string]any{"profile": "www", "request": map[string]any{"CN": "c.example.org", "hosts": []string{"c.example.org"}}})
	if err != nil {
		t.Fatal(err)
	}
	cert := parse(t, made["certificate"].(string))
	if pair, err := tls.X509KeyPair([]byte(made["certificate"].(string)), []byte(made["private_key"].(string))); err != nil || len(pair.Certificate) != 1 {
		t.Fatalf("key and certificate: %v", err)
	}
	if _, err := s.cfsslPost(t, "revoke", map[string]any{"serial": cert.SerialNumber.String(), "authority_key_id": hex.EncodeToString(cert.AuthorityKeyId), "reason": "superseded"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		b, err := get(s.caURL + "/api/v1/cfssl/crl")
		var r struct{ Result string }
		if err == nil {
			err = json.Unmarshal(b, &r)
		}
		if err != nil {
			return err
		}
		der, err := base64.StdEncoding.DecodeString(r.Result)
		if err != nil {
			return err
		}
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			return err
		}
		if err := list.CheckSignatureFrom(s.ca.Cert); err != nil {
			return err
		}
		for _, e := range list.RevokedCertificateEntries {
			if e.SerialNumber.Cmp(cert.SerialNumber) == 0 && e.ReasonCode == 4 {
				return nil
			}
		}
		return fmt.Errorf("%d entries", len(list.RevokedCertificateEntries))
	})
	if b, err := get(s.caURL + "/api/v1/cfssl/health"); err != nil || !bytes.Contains(b, []byte(`"healthy":true`)) {
		t.Errorf("health: %v %s", err, b)
	}
}

// TestStockCFSSLLogsItsPrecertificatesHere: a CA of cfssl's that keeps its key and its software, and has this CA's log in ct_log_servers.
func TestStockCFSSLLogsItsPrecertificatesHere(t *testing.T) {
	s := serveCFSSL(t, newCA(t), nil)
	state := t.TempDir()
	key, err := x509.MarshalECPrivateKey(s.ca.Key.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(state, name) }
	write(t, at("ca.pem"), encode(s.ca.DER))
	write(t, at("ca-key.pem"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: key}))
	write(t, at("config.json"), fmt.Appendf(nil, `{"signing": {"default": {"usages": ["signing", "server auth"], "expiry": "72h", "ct_log_servers": [%q]}}}`, s.prefix()))
	before := s.listed(t, s.ca.ID.String()).Size
	r, err := cfssl(t, newCSR(t), "sign", "-ca", at("ca.pem"), "-ca-key", at("ca-key.pem"), "-config", at("config.json"), "-")
	if err != nil {
		t.Fatal(err)
	}
	cert := parse(t, r.Cert)
	serial := hex.EncodeToString(cert.SerialNumber.Bytes())
	if got, err := s.api.Get(t.Context(), serial); err != nil || !got.Precertificate || got.LogIndex != before || got.Status.State != "valid" {
		t.Fatalf("the precertificate on the ledger: %+v, %v", got, err)
	}
	if scts := slices.IndexFunc(cert.Extensions, func(e pkix.Extension) bool { return e.Id.String() == "1.3.6.1.4.1.11129.2.4.2" }); scts < 0 {
		t.Fatal("the certificate has no SCT")
	}
	if err := s.add(t.Context(), "add-chain", cert.Raw); err != nil {
		t.Fatalf("the final certificate: %v", err)
	}
	if got, err := s.api.Get(t.Context(), serial); err != nil || got.Precertificate || got.LogIndex != before+1 {
		t.Fatalf("the certificate on the ledger: %+v, %v", got, err)
	}
	// It is revoked here as any other.
	s.revoke(t, []*x509.Certificate{cert})
	if got, err := s.api.Get(t.Context(), serial); err != nil || got.Status.State != "revoked" {
		t.Fatalf("%+v, %v", got, err)
	}
}
