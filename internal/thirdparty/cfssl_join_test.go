package thirdparty

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/ca"
	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/internal/httpserve"
)

// memberFiles makes a certificate with its key for either side of a connection; role is the attribute that an MSP's certificates have.
func memberFiles(t *testing.T, issuer *cctest.CA, name, role string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 80))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if role != "" {
		attrs := fmt.Appendf(nil, `{"attrs":{"certanchor.role":%q}}`, role)
		template.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4, 5, 6, 7, 8, 1}, Value: attrs}}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer.Cert, private.Public(), issuer.Key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	tmp := t.TempDir()
	cert, key = filepath.Join(tmp, "cert.pem"), filepath.Join(tmp, "key.pem")
	write(t, cert, encode(der))
	write(t, key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: secret}))
	return cert, key
}

func TestStockCFSSLClientsAuthenticateWithCertificates(t *testing.T) {
	members, strangers := newCA(t), newCA(t)
	mspDir := t.TempDir()
	if err := os.Mkdir(filepath.Join(mspDir, "cacerts"), 0o700); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(mspDir, "cacerts", "root.pem")
	write(t, root, encode(members.Chain[0]))
	if err := os.Mkdir(filepath.Join(mspDir, "intermediatecerts"), 0o700); err != nil {
		t.Fatal(err)
	}
	intermediate := filepath.Join(mspDir, "intermediatecerts", "ca.pem")
	write(t, intermediate, encode(members.DER))
	serverCert, serverKey := memberFiles(t, members, "ca.example.org", "")
	s := serveCFSSL(t, newCA(t), func(c *config.File) {
		c.CA.TLS = &httpserve.TLS{Cert: serverCert, Key: serverKey}
		c.CA.Operators = &ca.OperatorSettings{MSP: mspDir}
	})
	sign := func(more ...string) (cfsslRun, error) {
		return cfssl(t, newCSR(t), append(append([]string{"sign", "-remote", s.caURL, "-tls-remote-ca", intermediate, "-profile", "www"}, more...), "-")...)
	}
	cert, key := memberFiles(t, members, "web-1", "operator")
	r, err := sign("-mutual-tls-client-cert", cert, "-mutual-tls-client-key", key, "-hostname", "web-1.example.org")
	if c := s.cert(t, r, err); !slices.Equal(c.DNSNames, []string{"web-1.example.org"}) {
		t.Error(c.DNSNames)
	}
	r, err = cfssl(t, `{"CN": "b.example.org", "hosts": ["b.example.org"]}`, "gencert", "-remote", s.caURL, "-tls-remote-ca", intermediate,
		"-mutual-tls-client-cert", cert, "-mutual-tls-client-key", key, "-")
	s.cert(t, r, err)
	if r, err := cfssl(t, "", "info", "-remote", s.caURL, "-tls-remote-ca", intermediate, "-mutual-tls-client-cert", cert, "-mutual-tls-client-key", key); err != nil || !strings.Contains(r.out, "BEGIN CERTIFICATE") {
		t.Error(err)
	}
	// A key beside a certificate that is nobody's here: the key says who asks.
	strangeCert, strangeKey := memberFiles(t, strangers, "web-1", "operator")
	conf := clientConfig(t, s.caURL, authKey)
	r, err = cfssl(t, newCSR(t), "sign", "-config", conf, "-tls-remote-ca", intermediate, "-mutual-tls-client-cert", strangeCert, "-mutual-tls-client-key", strangeKey, "-profile", "www", "-")
	s.cert(t, r, err)

	auditorCert, auditorKey := memberFiles(t, members, "web-1", "auditor")
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"no certificate": {nil, "Authorization"},
		"a stranger's":   {[]string{"-mutual-tls-client-cert", strangeCert, "-mutual-tls-client-key", strangeKey}, "client certificate"},
		"an auditor's":   {[]string{"-mutual-tls-client-cert", auditorCert, "-mutual-tls-client-key", auditorKey}, "issue certificates"},
	} {
		if r, err := sign(tc.args...); err == nil || !strings.Contains(r.log, tc.want) {
			t.Errorf("%s: %v %s", name, err, r.log)
		}
	}
}

// TestACFSSLCAJoins is docs/walkthrough-cfssl-ca.md: the clients' commands and files are the same before and after.
func TestACFSSLCAJoins(t *testing.T) {
	state := t.TempDir()
	at := func(name string) string { return filepath.Join(state, name) }
	made, err := cfssl(t, `{"CN": "Old CA", "key": {"algo": "ecdsa", "size": 256}, "names": [{"O": "Example"}]}`, "gencert", "-initca", "-")
	if err != nil {
		t.Fatal(err)
	}
	write(t, at("ca.pem"), []byte(made.Cert))
	write(t, at("ca-key.pem"), []byte(made.Key))
	write(t, at("config.json"), []byte(`{
  "signing": {
    "default": {"expiry": "168h"},
    "profiles": {"www": {"usages": ["signing", "server auth"], "expiry": "72h", "auth_key": "web"}}
  },
  "auth_keys": {"web": {"type": "standard", "key": "`+authKey+`"}}
}`))
	address := freeAddress(t)
	client := clientConfig(t, "http://"+address, authKey)
	enrol := func() (*x509.Certificate, error) {
		r, err := cfssl(t, `{"CN": "a.example.org", "hosts": ["a.example.org"]}`, "gencert", "-config", client, "-profile", "www", "-")
		if err != nil {
			return nil, err
		}
		return parse(t, r.Cert), nil
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	old := exec.CommandContext(t.Context(), filepath.Join(dir, "cfssl"), "serve", "-address", "127.0.0.1", "-port", port, "-ca", at("ca.pem"), "-ca-key", at("ca-key.pem"), "-config", at("config.json"))
	old.Dir = state
	if err := old.Start(); err != nil {
		t.Fatal(err)
	}
	var before *x509.Certificate
	eventually(t, func() (err error) { before, err = enrol(); return err })
	if err := old.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = old.Wait() // killed

	cert := parse(t, made.Cert)
	key, err := ca.ReadPlainKey(at("ca-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	profiles, err := os.ReadFile(at("config.json"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ca.Adopt(ca.AdoptOptions{Dir: at("ca"), Chain: []*x509.Certificate{cert}, Key: key, Passphrase: []byte(passphrase), Profiles: profiles}); err != nil {
		t.Fatal(err)
	}
	s := serve(t, &cctest.CA{DER: cert.Raw, Cert: cert, Key: key, ID: wire.CAIDOf(cert.RawSubjectPublicKeyInfo)}, func(c *config.File) { c.CA.Dir, c.CA.Listen = at("ca"), address })
	after, err := enrol()
	if err != nil {
		t.Fatal(err)
	}
	if after.CheckSignatureFrom(cert) != nil || !bytes.Equal(after.AuthorityKeyId, before.AuthorityKeyId) || !slices.Equal(after.ExtKeyUsage, before.ExtKeyUsage) {
		t.Errorf("%v, then %v", before.ExtKeyUsage, after.ExtKeyUsage)
	}
	if got, err := s.api.Get(t.Context(), hex.EncodeToString(after.SerialNumber.Bytes())); err != nil || got.TxID == "" {
		t.Errorf("on the ledger: %+v, %v", got, err)
	}
}
