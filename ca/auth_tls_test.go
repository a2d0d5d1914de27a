package ca

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/httpserve"
)

// organisation is an MSP that stock openssl runs, with people who have role attributes.
type organisation struct {
	t   testing.TB
	dir string
}

const organisationConf = `
[ca]
default_ca = org
[org]
database = index.txt
serial = serial
crlnumber = crlnumber
new_certs_dir = .
default_md = sha256
default_crl_days = 30
policy = any
[any]
commonName = supplied
[root]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign, digitalSignature
[tls]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
subjectAltName = IP:127.0.0.1
`

func newOrganisation(t testing.TB) *organisation {
	t.Helper()
	o := &organisation{t: t, dir: t.TempDir()}
	o.write("openssl.cnf", organisationConf)
	o.write("index.txt", "")
	o.write("index.txt.attr", "unique_subject = no\n")
	o.write("serial", "01\n")
	o.write("crlnumber", "01\n")
	for _, d := range []string{"cacerts", "crls"} {
		if err := os.MkdirAll(filepath.Join(o.dir, "msp", d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	o.run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "root.key", "-out", "msp/cacerts/root.pem",
		"-subj", "/CN=root", "-config", "openssl.cnf", "-extensions", "root", "-days", "100")
	o.issue("server", "tls")
	return o
}

func (o *organisation) write(name, text string) {
	o.t.Helper()
	if err := os.WriteFile(filepath.Join(o.dir, name), []byte(text), 0o600); err != nil {
		o.t.Fatal(err)
	}
}

func (o *organisation) run(args ...string) {
	o.t.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Dir = o.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		o.t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// issue makes name.key and name.pem.
func (o *organisation) issue(name, section string, more ...string) {
	o.t.Helper()
	o.run("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", name+".key", "-out", name+".csr", "-subj", "/CN="+name, "-config", "openssl.cnf")
	args := []string{"ca", "-batch", "-config", "openssl.cnf", "-in", name + ".csr", "-out", name + ".pem", "-notext", "-extensions", section, "-keyfile", "root.key", "-cert", "msp/cacerts/root.pem"}
	if more == nil {
		more = []string{"-days", "50"}
	}
	o.run(append(args, more...)...)
}

// person is somebody with attributes, in the JSON that fabric-ca writes.
func (o *organisation) person(name, attributes string, more ...string) {
	o.t.Helper()
	text := organisationConf + "[" + name + "]\nbasicConstraints = critical, CA:false\nkeyUsage = critical, digitalSignature\n"
	if attributes != "" {
		text += "1.2.3.4.5.6.7.8.1 = DER:" + hex.EncodeToString([]byte(attributes)) + "\n"
	}
	o.write("openssl.cnf", text)
	o.issue(name, name, more...)
}

func role(name string) string {
	return `{"attrs":{"certanchor.role":"` + name + `","hf.Type":"client"}}`
}

func (o *organisation) revoke(name string) {
	o.t.Helper()
	o.run("ca", "-config", "openssl.cnf", "-revoke", name+".pem", "-keyfile", "root.key", "-cert", "msp/cacerts/root.pem")
	o.run("ca", "-config", "openssl.cnf", "-gencrl", "-out", "crl.new", "-keyfile", "root.key", "-cert", "msp/cacerts/root.pem")
	if err := os.Rename(filepath.Join(o.dir, "crl.new"), filepath.Join(o.dir, "msp", "crls", "crl.pem")); err != nil {
		o.t.Fatal(err)
	}
}

// serveTLS serves a world's API as certanchor ca serve does, and returns its URL.
func (o *organisation) serveTLS(w *world) string {
	o.t.Helper()
	l, err := httpserve.Listen("ca", "127.0.0.1:0", httpserve.Options{
		TLS: &httpserve.TLS{Cert: filepath.Join(o.dir, "server.pem"), Key: filepath.Join(o.dir, "server.key")}, AskCertificate: true,
	}, w.server.Handler())
	if err != nil {
		o.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	o.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			o.t.Error(err)
		}
	})
	return "https://" + l.Addr()
}

// curl is the judge: it makes a request with a certificate of its own, or none, and returns the status and body.
func (o *organisation) curl(from *organisation, who, url string, more ...string) (int, string) {
	o.t.Helper()
	args := []string{"--silent", "--show-error", "--cacert", filepath.Join(o.dir, "msp/cacerts/root.pem"), "--write-out", "\n%{http_code}"}
	if who != "" {
		args = append(args, "--cert", filepath.Join(from.dir, who+".pem"), "--key", filepath.Join(from.dir, who+".key"))
	}
	out, err := exec.Command("curl", append(append(args, more...), url)...).Output()
	if err != nil {
		o.t.Fatalf("curl as %q: %v", who, err)
	}
	at := strings.LastIndex(string(out), "\n")
	var code int
	if _, err := fmt.Sscan(string(out[at:]), &code); err != nil {
		o.t.Fatal(err)
	}
	return code, string(out[:at])
}

func operatorsWorld(t *testing.T, roles map[string]Role) (*world, *organisation, string) {
	t.Helper()
	o := newOrganisation(t)
	w := newWorld(t, func(c *Config) {
		c.Settings.Operators = &OperatorSettings{MSP: filepath.Join(o.dir, "msp"), Roles: roles}
	})
	return w, o, o.serveTLS(w)
}

func TestCertificatesOfTheMSPDecideRoles(t *testing.T) {
	w, o, url := operatorsWorld(t, nil)
	foreign := newOrganisation(t)
	for name, attrs := range map[string]string{
		"olivia": role("operator"), "adam": role("administrator"), "aude": role("auditor"), "nobody": "", "chief": role("chief"), "twice": `{"attrs":{"certanchor.role":"auditor","certanchor.role":"operator"}}`,
	} {
		o.person(name, attrs)
	}
	o.person("old", role("operator"), "-startdate", "20200101000000Z", "-enddate", "20200102000000Z")
	foreign.person("olivia", role("operator"))
	// The root's key is here too, and it says that it is an operator.
	o.run("req", "-x509", "-new", "-key", "root.key", "-out", "root.pem", "-subj", "/CN=root", "-config", "openssl.cnf", "-extensions", "root", "-days", "100")
	if err := os.Link(filepath.Join(o.dir, "root.key"), filepath.Join(o.dir, "ca.key")); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(o.dir, "root.pem"), filepath.Join(o.dir, "ca.pem")); err != nil {
		t.Fatal(err)
	}
	release := []string{"--header", "Content-Type: application/json", "--data", `{"serial":"01"}`}
	for _, c := range []struct {
		from      *organisation
		who, path string
		more      []string
		code      int
		want      string
	}{
		{o, "olivia", caapi.PathReleases, release, 404, "not_found"}, // let in; there is no such certificate
		{o, "aude", caapi.PathReleases, release, 403, "role"},
		{o, "adam", caapi.PathReleases, release, 403, "role"},
		{o, "aude", caapi.PathOperations, nil, 200, "operations"},
		{o, "adam", caapi.PathProfiles, nil, 200, "signing"},
		{o, "nobody", caapi.PathCA, nil, 401, "gives no role here"},
		{o, "chief", caapi.PathCA, nil, 401, `gives no role here`},
		{o, "twice", caapi.PathCA, nil, 401, "must not occur twice"},
		{o, "old", caapi.PathCA, nil, 401, "has expired on 2020-01-02"},
		{o, "ca", caapi.PathCA, nil, 401, "is a CA's"},
		{o, "server", caapi.PathCA, nil, 401, "gives no role here"},
		{foreign, "olivia", caapi.PathCA, nil, 401, "is not one of this organisation's MSP"},
		{o, "", caapi.PathCA, nil, 401, "certificate of this organisation's MSP"},
		{o, "", caapi.PathCA, []string{"--oauth2-bearer", w.token("auditor")}, 200, "ca_id"},
		{o, "olivia", caapi.PathCA, []string{"--oauth2-bearer", w.token("auditor")}, 401, "must be one"},
		{foreign, "olivia", caapi.PathCA, []string{"--oauth2-bearer", w.token("auditor")}, 401, "must be one"},
	} {
		if code, body := o.curl(c.from, c.who, url+c.path, c.more...); code != c.code || !strings.Contains(body, c.want) {
			t.Errorf("%s at %s: %d %s, want %d and %q", c.who, c.path, code, body, c.code, c.want)
		}
	}
	// Without the setting a certificate is no credential, whatever the TLS layer makes of it.
	plain := newWorld(t, nil)
	if code, body := o.curl(o, "olivia", o.serveTLS(plain)+caapi.PathCA); code != 401 {
		t.Errorf("without operators.msp: %d %s", code, body)
	}
}

// An operator whom the organisation revoked is out a moment after the list is in the MSP folder, also on an open connection.
func TestRevokedOperatorIsOut(t *testing.T) {
	w, o, url := operatorsWorld(t, map[string]Role{"operator": RoleRevoker})
	o.person("olivia", role("operator"))
	o.person("oscar", role("operator"))
	client := func(who string) *caapi.Client {
		c, err := caapi.New(caapi.Config{URL: url, TLS: caapi.TLS{
			CA: filepath.Join(o.dir, "msp/cacerts/root.pem"), Cert: filepath.Join(o.dir, who+".pem"), Key: filepath.Join(o.dir, who+".key"),
		}})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	olivia, oscar := client("olivia"), client("oscar")
	cert, err := w.client("operator").Issue(t.Context(), caapi.IssueRequest{CSR: newCSR(t, nil), Profile: "server"}, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := olivia.Revoke(t.Context(), caapi.RevokeRequest{Serial: cert.Serial, Reason: "certificateHold"}); err != nil {
		t.Fatal(err)
	}
	// The mapping made a revoker of her.
	if _, err := olivia.Issue(t.Context(), caapi.IssueRequest{CSR: newCSR(t, nil), Profile: "server"}, ""); err == nil || !strings.Contains(err.Error(), "revoker") {
		t.Fatal(err)
	}
	o.revoke("olivia")
	waitFor(t, "the revocation", func() bool {
		_, _, err := olivia.Release(t.Context(), "00")
		return err != nil && strings.Contains(err.Error(), "is revoked")
	})
	if _, _, err := oscar.Release(t.Context(), cert.Serial); err != nil {
		t.Fatal(err)
	}
	// A folder that makes no sense changes nothing.
	o.write("msp/crls/bad.pem", "nonsense")
	waitFor(t, "refusal", func() bool { return metric(t, w, `certanchor_ca_auth_reloads_total{file="msp",outcome="refused"}`) > 0 })
	if _, err := oscar.CA(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := olivia.CA(t.Context()); err == nil {
		t.Fatal("the revocation is forgotten")
	}
}

func TestOperatorSettingsAreChecked(t *testing.T) {
	for want, o := range map[string]*OperatorSettings{"operators.msp": {}, "who has none": {MSP: "msp", Roles: map[string]Role{"": RoleAuditor}}, "operators.roles.x": {MSP: "msp", Roles: map[string]Role{"x": "chief"}}} {
		if err := (Settings{Operators: o}).Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	for want, r := range map[string]RateSettings{"rate.per_second": {PerSecond: 1e9}, "rate.burst": {Burst: -1}, "rate.failures_per_minute": {FailuresPerMinute: 1e9}} {
		if err := (Settings{Rate: r}).Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	dir, _ := newDir(t)
	if _, err := New(Config{Dir: dir, Key: prepared.key, Settings: Settings{Operators: &OperatorSettings{MSP: t.TempDir()}}}, nil); err == nil || !strings.Contains(err.Error(), "cacerts") {
		t.Errorf("a folder without roots: %v", err)
	}
}

// Names of those with certificates are nobody's in the clients file, and read well in logs.
func TestCertificateNames(t *testing.T) {
	for cn, want := range map[string]string{"olivia.org1": "msp:olivia.org1", "operator": "msp:operator", "evil\nname": "msp:sha256-", "": "msp:sha256-"} {
		got := certName(cn, []byte("subject"))
		if !strings.HasPrefix(got, want) || clientName.MatchString(got) {
			t.Errorf("%q: %s", cn, got)
		}
	}
}
