package msp

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pki is an MSP folder, made with openssl.
type pki struct {
	t   testing.TB
	dir string // beside the MSP's own
}

const opensslConf = `
[ca]
default_ca = org
[org]
database = index.txt
serial = serial
new_certs_dir = .
default_md = sha256
default_crl_days = 30
policy = any
crlnumber = crlnumber
[any]
commonName = supplied
[root]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign
[bare]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
[server]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
[encipher]
basicConstraints = critical, CA:false
keyUsage = critical, keyEncipherment
`

func newPKI(t testing.TB) *pki {
	t.Helper()
	p := &pki{t: t, dir: t.TempDir()}
	for name, text := range map[string]string{"openssl.cnf": opensslConf, "index.txt": "", "serial": "01\n", "crlnumber": "01\n"} {
		p.write(name, text)
	}
	for _, d := range []string{rootsDir, intermediatesDir, crlsDir} {
		if err := os.MkdirAll(filepath.Join(p.dir, "msp", d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	p.run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "root.key", "-out", "msp/cacerts/root.pem",
		"-subj", "/CN=root", "-config", "openssl.cnf", "-extensions", "root", "-days", "100")
	return p
}

func (p *pki) write(name, text string) {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pki) run(args ...string) {
	p.t.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Dir = p.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		p.t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// person issues a certificate with the given section of the configuration, by the root or another authority.
func (p *pki) person(name, section, by, byCert string) *x509.Certificate {
	p.t.Helper()
	p.run("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", name+".key", "-out", name+".csr", "-subj", "/CN="+name, "-config", "openssl.cnf")
	p.run("ca", "-batch", "-config", "openssl.cnf", "-in", name+".csr", "-out", name+".pem", "-notext", "-extensions", section, "-days", "50", "-keyfile", by, "-cert", byCert)
	return p.cert(name + ".pem")
}

func (p *pki) cert(name string) *x509.Certificate {
	p.t.Helper()
	data, err := os.ReadFile(filepath.Join(p.dir, name))
	if err != nil {
		p.t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		p.t.Fatal(err)
	}
	return cert
}

func (p *pki) load() *MSP {
	p.t.Helper()
	m, err := Load(filepath.Join(p.dir, "msp"))
	if err != nil {
		p.t.Fatal(err)
	}
	return m
}

const rootCert = "msp/cacerts/root.pem"

func TestMembersOfTheOrganisation(t *testing.T) {
	p, foreign := newPKI(t), newPKI(t)
	m := p.load()
	alice := p.person("alice", "bare", "root.key", rootCert)
	now := alice.NotBefore.Add(time.Hour)
	if err := m.Verify(alice, now); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		cert *x509.Certificate
		when time.Time
		want string
	}{
		"expired":               {alice, alice.NotAfter.Add(time.Second), "has expired"},
		"not valid yet":         {alice, alice.NotBefore.Add(-time.Second), "is valid from"},
		"foreign":               {foreign.person("alice", "bare", "root.key", rootCert), now, "is not one of this organisation's MSP"},
		"the root itself":       {p.cert(rootCert), now, "is a CA's"},
		"a server's":            {p.person("server", "server", "root.key", rootCert), now, "is not one of"},
		"one to encipher":       {p.person("encipher", "encipher", "root.key", rootCert), now, "digitalSignature"},
		"after the root's time": {alice, now.Add(200 * 24 * time.Hour), "has expired"},
	} {
		if err := m.Verify(c.cert, c.when); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestIntermediatesAreTheFolders(t *testing.T) {
	p := newPKI(t)
	sub := p.person("sub", "root", "root.key", rootCert)
	bob := p.person("bob", "bare", "sub.key", "sub.pem")
	if err := p.load().Verify(bob, bob.NotBefore.Add(time.Hour)); err == nil {
		t.Fatal("through an intermediate that the MSP does not have")
	}
	text, err := os.ReadFile(filepath.Join(p.dir, "sub.pem"))
	if err != nil {
		t.Fatal(err)
	}
	p.write("msp/intermediatecerts/sub.pem", string(text))
	if err := p.load().Verify(bob, bob.NotBefore.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	// An intermediate that its root revoked takes its people with it.
	p.run("ca", "-config", "openssl.cnf", "-revoke", "sub.pem", "-keyfile", "root.key", "-cert", rootCert)
	p.run("ca", "-config", "openssl.cnf", "-gencrl", "-out", "msp/crls/root.pem", "-keyfile", "root.key", "-cert", rootCert)
	if err := p.load().Verify(bob, bob.NotBefore.Add(time.Hour)); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%x of CN=sub", sub.SerialNumber)) {
		t.Fatal(err)
	}
}

func TestRevokedAreRefused(t *testing.T) {
	p := newPKI(t)
	alice, bob := p.person("alice", "bare", "root.key", rootCert), p.person("bob", "bare", "root.key", rootCert)
	before := p.load()
	p.run("ca", "-config", "openssl.cnf", "-revoke", "alice.pem", "-keyfile", "root.key", "-cert", rootCert)
	p.run("ca", "-config", "openssl.cnf", "-gencrl", "-out", "msp/crls/root.pem", "-keyfile", "root.key", "-cert", rootCert)
	after := p.load()
	if before.Fingerprint == after.Fingerprint {
		t.Error("the folder's fingerprint is the same")
	}
	now := bob.NotBefore.Add(time.Hour)
	if err := before.Verify(alice, now); err != nil {
		t.Fatal(err)
	}
	if err := after.Verify(alice, now); err == nil || !strings.Contains(err.Error(), "is revoked") {
		t.Fatal(err)
	}
	if err := after.Verify(bob, now); err != nil {
		t.Fatal(err)
	}
	if _, stale := after.Stale(now); stale {
		t.Error("a fresh list is stale")
	}
	if _, stale := after.Stale(now.Add(31 * 24 * time.Hour)); !stale {
		t.Error("an old list is not stale")
	}
	if err := after.Verify(alice, now.Add(31*24*time.Hour)); err == nil {
		t.Error("a stale list counts no more")
	}
	// A list of somebody else stands in the way of starting: it was meant to say something.
	foreign := newPKI(t)
	foreign.run("ca", "-config", "openssl.cnf", "-gencrl", "-out", "foreign.pem", "-keyfile", "root.key", "-cert", rootCert)
	text, err := os.ReadFile(filepath.Join(foreign.dir, "foreign.pem"))
	if err != nil {
		t.Fatal(err)
	}
	p.write("msp/crls/foreign.pem", string(text))
	if _, err := Load(filepath.Join(p.dir, "msp")); err == nil || !strings.Contains(err.Error(), "foreign.pem") {
		t.Fatal(err)
	}
}

func TestFoldersThatAreNone(t *testing.T) {
	if _, err := Load(t.TempDir()); err == nil || !strings.Contains(err.Error(), "cacerts") {
		t.Error(err)
	}
	p := newPKI(t)
	p.person("alice", "bare", "root.key", rootCert)
	for name, file := range map[string]string{"a person's": "alice.pem", "a key": "root.key"} {
		text, err := os.ReadFile(filepath.Join(p.dir, file))
		if err != nil {
			t.Fatal(err)
		}
		p.write("msp/cacerts/x.pem", string(text))
		if _, err := Load(filepath.Join(p.dir, "msp")); err == nil || !strings.Contains(err.Error(), "x.pem") {
			t.Errorf("%s: %v", name, err)
		}
	}
	p.write("msp/cacerts/x.pem", "0\x80garbage")
	if _, err := Load(filepath.Join(p.dir, "msp")); err == nil {
		t.Error("garbage is taken")
	}
}

func TestAttributesAreReadOneWay(t *testing.T) {
	attrs, err := parseAttributes([]byte(`{"attrs":{"certanchor.role":"operator","hf.Type":"client"}}`))
	if err != nil || attrs["certanchor.role"] != "operator" || len(attrs) != 2 {
		t.Fatal(attrs, err)
	}
	for _, bad := range []string{
		``, `null`, `[]`, `{"attrs":[]}`, `{"attrs":{"a":1}}`, `{"attrs":{"a":null}}`, `{"attrs":{"a":"1","a":"2"}}`, `{"attrs":{"a":"1"},"attrs":{"a":"2"}}`,
		`{"Attrs":{"a":"1"}}`, `{"attrs":{}} {}`, `{"attrs":{"a":"1"}`, `{"attrs":{"a":{"b":"c"}}}`, "{\"attrs\":{\"a\":\"\xff\"}}", `{"attrs":{},"more":1}`,
	} {
		if attrs, err := parseAttributes([]byte(bad)); err == nil {
			t.Errorf("%q: %v", bad, attrs)
		}
	}
}

func FuzzAttributes(f *testing.F) {
	f.Add([]byte(`{"attrs":{"certanchor.role":"operator"}}`))
	f.Add([]byte(`{"attrs":{}}`))
	f.Add([]byte(`{"attrs":{"a":"1","a":"2"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		attrs, err := parseAttributes(data)
		if err != nil {
			return
		}
		// The chaincode's library must not read another role.
		if role := chaincodeRole(data); role != attrs["certanchor.role"] {
			t.Fatalf("%q: %q here, %q there", data, attrs["certanchor.role"], role)
		}
	})
}
