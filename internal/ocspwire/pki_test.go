package ocspwire

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// pki is a CA with one leaf and one delegated responder.
type pki struct {
	caKey, key crypto.Signer
	ca, leaf   *x509.Certificate
	delegate   *x509.Certificate
	now        time.Time
}

func newPKI(t testing.TB, key crypto.Signer, tweak func(*x509.Certificate)) *pki {
	t.Helper()
	p := &pki{caKey: ecKey(t, elliptic.P256()), key: key, now: time.Now().Truncate(time.Second)}
	if key == nil {
		p.key = ecKey(t, elliptic.P256())
	}
	p.ca = p.sign(t, nil, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test CA"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}, p.caKey.Public())
	p.leaf = p.sign(t, p.ca, &x509.Certificate{SerialNumber: big.NewInt(0x1234567890), Subject: pkix.Name{CommonName: "leaf"}}, p.key.Public())
	spec := &x509.Certificate{
		SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: "responder"}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage:     []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning},
		ExtraExtensions: []pkix.Extension{{Id: OIDNoCheck, Value: []byte{5, 0}}},
	}
	if tweak != nil {
		tweak(spec)
	}
	p.delegate = p.sign(t, p.ca, spec, p.key.Public())
	return p
}

func (p *pki) sign(t testing.TB, parent, template *x509.Certificate, pub crypto.PublicKey) *x509.Certificate {
	t.Helper()
	if template.NotBefore.IsZero() {
		template.NotBefore, template.NotAfter = p.now.Add(-time.Hour), p.now.Add(time.Hour)
	}
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, p.caKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func (p *pki) id(t testing.TB, h crypto.Hash) CertID {
	t.Helper()
	id, err := NewCertID(h, p.ca, p.leaf.SerialNumber)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// response is a good answer about the leaf, by the delegate.
func (p *pki) response(t testing.TB) *Response {
	t.Helper()
	rid, err := ByKey(p.delegate)
	if err != nil {
		t.Fatal(err)
	}
	return &Response{
		Responder: rid, ProducedAt: p.now, Certs: [][]byte{p.delegate.Raw},
		Responses: []SingleResponse{{ID: p.id(t, crypto.SHA1), Status: Good, ThisUpdate: p.now, NextUpdate: p.now.Add(time.Minute)}},
	}
}

func (p *pki) signed(t testing.TB, r *Response) []byte {
	t.Helper()
	der, err := r.Sign(p.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func (p *pki) options(t testing.TB) VerifyOptions {
	return VerifyOptions{Issuer: p.ca, ID: p.id(t, crypto.SHA1), Now: p.now}
}

func parse(t testing.TB, der []byte) *Response {
	t.Helper()
	status, r, err := ParseResponse(der)
	if err != nil || status != Successful {
		t.Fatalf("status %v, error %v", status, err)
	}
	return r
}

func ecKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func keys(t testing.TB) map[string]crypto.Signer {
	t.Helper()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]crypto.Signer{
		"P-256": ecKey(t, elliptic.P256()), "P-384": ecKey(t, elliptic.P384()), "P-521": ecKey(t, elliptic.P521()), "RSA-2048": rsaKey, "Ed25519": edKey,
	}
}

// openssl runs the openssl command, which must be there: it is an independent judge, not an option.
func openssl(t testing.TB, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("openssl %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// write puts the PKI's files, and more, into a new directory.
func (p *pki) write(t testing.TB, more map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	key, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{
		"ca.pem":       toPEM("CERTIFICATE", p.ca.Raw),
		"leaf.pem":     toPEM("CERTIFICATE", p.leaf.Raw),
		"delegate.pem": toPEM("CERTIFICATE", p.delegate.Raw),
		"delegate.key": toPEM("PRIVATE KEY", key),
	}
	for name, data := range more {
		files[name] = data
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func toPEM(kind string, der []byte) []byte {
	var b bytes.Buffer
	if err := pem.Encode(&b, &pem.Block{Type: kind, Bytes: der}); err != nil {
		panic(err)
	}
	return b.Bytes()
}
