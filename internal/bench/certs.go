package bench

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"
)

// authority is a CA whose certificates are made in advance.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &authority{cert: cert, key: key}, err
}

// sign makes n certificates of about 1.2 kB, the size of a web server's with an RSA key.
func (a *authority) sign(n int) ([][]byte, error) {
	leaf, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	certs := make([][]byte, n)
	for i := range certs {
		serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
		if err != nil {
			return nil, err
		}
		template := &x509.Certificate{
			SerialNumber: serial.Add(serial, big.NewInt(2)), Subject: pkix.Name{CommonName: fmt.Sprintf("host-%d.example", i)},
			NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().AddDate(0, 3, 0),
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
			OCSPServer: []string{"http://ocsp.example/"},
		}
		for j := range 28 {
			template.DNSNames = append(template.DNSNames, fmt.Sprintf("name-%02d.host-%d.example", j, i))
		}
		if certs[i], err = x509.CreateCertificate(rand.Reader, template, a.cert, leaf.Public(), a.key); err != nil {
			return nil, err
		}
	}
	return certs, nil
}
