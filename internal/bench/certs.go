package bench

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/certanchor/certanchor/internal/keyfile"
)

// authority is a CA whose certificates are made in advance.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newAuthority(name string, algorithm keyfile.Algorithm) (*authority, error) {
	key, err := keyfile.Generate(algorithm)
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

// sign makes n certificates of about 1.2 kB: what a web server with an RSA key has, its two SCTs included. The moduli are random
// numbers that nobody can factor either: nothing looks at them, and making keys would take minutes. As in real life, what
// certificates of one CA do not share is mostly random and does not compress.
func (a *authority) sign(n int) ([][]byte, error) {
	certs := make([][]byte, n)
	var next atomic.Int64
	var group errgroup.Group
	for range runtime.GOMAXPROCS(0) { // an RSA signature takes more than a millisecond
		group.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return nil
				}
				var err error
				if certs[i], err = a.signOne(i); err != nil {
					return err
				}
			}
		})
	}
	return certs, group.Wait()
}

func (a *authority) signOne(i int) ([]byte, error) {
	random := make([]byte, 20+256+240)
	if _, err := rand.Read(random); err != nil {
		return nil, err
	}
	serial := new(big.Int).SetBytes(random[:16])
	modulus := new(big.Int).SetBytes(random[20:276])
	modulus.SetBit(modulus.SetBit(modulus, 2047, 1), 0, 1)
	host := fmt.Sprintf("host-%d.customers.example", i)
	template := &x509.Certificate{
		SerialNumber: serial.Add(serial, big.NewInt(2)), Subject: pkix.Name{CommonName: host},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().AddDate(0, 3, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		SubjectKeyId: random[:20], DNSNames: []string{host, "www." + host},
		OCSPServer: []string{"http://ocsp.certanchor.example/"}, IssuingCertificateURL: []string{"http://ca.certanchor.example/ca.crt"},
		CRLDistributionPoints: []string{"http://crl.certanchor.example/shard-17.crl"},
		PolicyIdentifiers:     []asn1.ObjectIdentifier{{2, 23, 140, 1, 2, 1}},
		// As long as a list of two SCTs, and as random.
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}, Value: append([]byte{4, 0x81, 240}, random[276:]...)}},
	}
	return x509.CreateCertificate(rand.Reader, template, a.cert, &rsa.PublicKey{N: modulus, E: 65537}, a.key)
}

// verify returns what verifying one of the CA's signatures takes, in microseconds of one core: the median of some.
func (a *authority) verify() (float64, error) {
	const samples = 200
	ders, err := a.sign(samples)
	if err != nil {
		return 0, err
	}
	took := make([]time.Duration, samples)
	for i, der := range ders {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return 0, err
		}
		begin := time.Now()
		if err := cert.CheckSignatureFrom(a.cert); err != nil {
			return 0, err
		}
		took[i] = time.Since(begin)
	}
	return 1000 * summarize(took).P50, nil
}
