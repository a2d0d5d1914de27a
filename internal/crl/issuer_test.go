package crl

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// issuer is a CA.
type issuer struct {
	key  crypto.Signer
	cert *x509.Certificate
}

var kinds = []string{"p256", "p384", "p521", "rsa", "ed25519"}

func newKey(t testing.TB, kind string) (key crypto.Signer) {
	t.Helper()
	var err error
	switch kind {
	case "p256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "p384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "p521":
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "rsa":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		err = fmt.Errorf("no such kind of key: %s", kind)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newIssuer(t testing.TB, kind string) *issuer {
	t.Helper()
	return newIssuerNamed(t, kind, "Test CA")
}

func newIssuerNamed(t testing.TB, kind, name string) *issuer {
	t.Helper()
	p := &issuer{key: newKey(t, kind)}
	p.cert = p.certify(t, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name, Country: []string{"DE"}, Organization: []string{"Test"}}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCRLSign | x509.KeyUsageCertSign, SubjectKeyId: []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20},
	})
	return p
}

// certify signs a certificate for the issuer's own key.
func (p *issuer) certify(t testing.TB, template *x509.Certificate) *x509.Certificate {
	t.Helper()
	template.NotBefore, template.NotAfter = Seconds(someTime).Time().Add(-time.Hour*24*400), Seconds(someTime).Time().Add(time.Hour*24*400)
	der, err := x509.CreateCertificate(rand.Reader, template, template, p.key.Public(), p.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func (p *issuer) id() wire.CAID { return wire.CAIDOf(p.cert.RawSubjectPublicKeyInfo) }

func (p *issuer) form(c *Contents) Form {
	return Form{Issuer: p.cert, NextUpdate: c.ThisUpdate.Add(time.Hour)}
}

func (p *issuer) build(t testing.TB, c *Contents) []byte {
	t.Helper()
	c.CAID = p.id()
	der, err := Build(c, p.form(c), p.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func invalidityExtension(s Seconds) pkix.Extension {
	der, err := asn1.MarshalWithParams(s.Time(), "generalized")
	if err != nil {
		panic(err)
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 24}, Value: der}
}
