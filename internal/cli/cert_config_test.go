package cli

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// membersOnly serves what server does to clients with a certificate, and returns its URL. Its root, and a member's certificate and key,
// are in dir: tls.pem, me.pem and me-key.pem.
func membersOnly(t *testing.T, server *httptest.Server, dir string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	me, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	members := unstarted(server.Config.Handler)
	members.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: x509.NewCertPool()}
	members.TLS.ClientCAs.AddCert(me)
	members.StartTLS()
	t.Cleanup(members.Close)
	for name, data := range map[string][]byte{
		"tls.pem": pemOf(members.Certificate()), "me.pem": pemOf(me), "me-key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return members.URL
}

const tlsSection = "  tls: {ca: tls.pem, cert: me.pem, key: me-key.pem}\n"

func TestPolicyAndTLSComeFromTheClientSection(t *testing.T) {
	p := newParty(t)
	p.ticked()
	url := membersOnly(t, p.bridge(p.read("policy.txt")), p.dir)
	pin := p.Policy.Fingerprint()
	config := p.write("client.yaml", fmt.Appendf(nil, "client:\n  bridge_url: %s\n  issuer: ca.pem\n  policy: policy.txt\n  policy_fingerprint: %s\n%s", url, pin, tlsSection))
	wrong := p.write("wrong.yaml", fmt.Appendf(nil, "client:\n  policy: policy.txt\n  policy_fingerprint: %s\n", strings.Repeat("0f", 32)))
	half := p.write("half.yaml", []byte("client:\n  policy_fingerprint: "+pin+"\n"))
	other := p.write("other.txt", p.read("policy.txt"))
	verify := []string{"verify", "--cert", p.path("cert.pem"), "--bundle", p.path("cert.bundle"), "--config"}
	proof := []string{"proof", p.path("cert.pem"), "-o", p.path("new.bundle"), "--config", config}
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"verify":                              {append(verify, config), exitOK, ", pinned"},
		"verify, pinned to another":           {append(verify, wrong), exitFailure, "fingerprint"},
		"verify, flag for the fingerprint":    {append(verify, wrong, "--policy-fingerprint", pin), exitOK, ", pinned"},
		"verify, flag for the policy":         {append(verify, wrong, "--policy", other), exitOK, "not pinned"},
		"verify, a fingerprint of no file":    {append(verify, half), exitFailure, "client.policy_fingerprint"},
		"verify, no policy anywhere":          {verify[:5], exitUsage, `"policy" not set`},
		"proof":                               {proof, exitOK, ", pinned"},
		"proof, another bridge":               {append(proof, "--bridge", p.bridge(nil).URL), exitOK, ", pinned"},
		"proof, a stranger's certificate":     {append(proof, "--client-cert", p.path("me.pem")), exitUsage, "belong together"},
		"proof, another root":                 {append(proof, "--tls-ca", p.path("ca.pem")), exitFailure, "certificate"},
		"cert proof comes from there, too":    {[]string{"cert", "proof", "--cert", p.path("cert.pem"), "--config", config, "--timeout", "10s"}, exitFailure, "log has no such certificate"},
		"policy fetch comes from there, too":  {[]string{"policy", "fetch", "--config", config}, exitOK, pin},
		"policy fetch, without a certificate": {[]string{"policy", "fetch", "--bridge", url, "--tls-ca", p.path("tls.pem")}, exitFailure, "certificate required"},
	} {
		code, out, errs := runCLI(c.args...)
		if code != c.code || !strings.Contains(out+errs, c.says) {
			t.Errorf("%s: exit %d, want %d and %q\n%s%s", name, code, c.code, c.says, out, errs)
		}
	}
}

func (p *party) read(name string) []byte {
	p.t.Helper()
	data, err := os.ReadFile(p.path(name))
	if err != nil {
		p.t.Fatal(err)
	}
	return data
}

func TestMonitorTakesPolicyAndTLSFromTheClientSection(t *testing.T) {
	w := newWatched(t)
	w.issue("www.example.org")
	url := membersOnly(t, w.server, w.dir)
	write := func(name, text string) string {
		t.Helper()
		if err := os.WriteFile(w.file(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return w.file(name)
	}
	head := "client:\n  bridge_url: " + url + "\n" + tlsSection
	policy := write("policy.yaml", head+"  policy: policy\n  policy_fingerprint: "+w.Policy.Fingerprint()+"\n  log_keys: [nonsense]\n")
	keys := write("keys.yaml", head+"  log_keys: ["+w.Orgs[0].LogKey+"]\n")
	none := write("none.yaml", head)
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"policy":              {[]string{"--config", policy}, exitOK, "1 reported"},
		"keys":                {[]string{"--config", keys}, exitOK, "1 reported"},
		"keys and a policy":   {[]string{"--config", keys, "--policy", w.file("policy")}, exitOK, "1 reported"},
		"policy and a key":    {[]string{"--config", policy, "--log-key", w.Orgs[0].LogKey}, exitOK, "1 reported"},
		"neither":             {[]string{"--config", none}, exitUsage, "--policy, or --log-key"},
		"policy, another pin": {[]string{"--config", policy, "--policy-fingerprint", strings.Repeat("0", 64)}, exitFailure, "fingerprint"},
	} {
		code, out, errs := runCLI(append([]string{"monitor", "--match", "example.org", "--once", "--from-start"}, c.args...)...)
		if code != c.code || !strings.Contains(errs, c.says) {
			t.Errorf("%s: exit %d, want %d and %q\n%s%s", name, code, c.code, c.says, out, errs)
		}
	}
}
