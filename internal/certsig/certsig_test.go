package certsig_test

import (
	"crypto/x509"
	"sync"
	"testing"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/internal/certsig"
)

func TestCheckSaysWhatCryptoX509SaysHoweverOften(t *testing.T) {
	ca, other := cctest.NewCA(t), cctest.NewCA(t)
	_, good := ca.Issue(t)
	for range 3 {
		if err := certsig.Check(good, ca.Cert); err != nil {
			t.Fatal(err)
		}
		if certsig.Check(good, other.Cert) == nil {
			t.Fatal("a signature of another CA is believed")
		}
	}
	// One octet of the signature is another: nothing that is remembered is about it.
	der := append([]byte(nil), good.Raw...)
	der[len(der)-1] ^= 1
	bad, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if certsig.Check(bad, ca.Cert) == nil {
			t.Fatal("a changed signature is believed")
		}
	}
}

func TestCheckMayBeCalledByMany(t *testing.T) {
	ca := cctest.NewCA(t)
	certs := make([]*x509.Certificate, 8)
	for i := range certs {
		_, certs[i] = ca.Issue(t)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for _, c := range certs {
				if err := certsig.Check(c, ca.Cert); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkCheckKnown(b *testing.B) {
	ca := cctest.NewCA(b)
	_, cert := ca.Issue(b)
	for b.Loop() {
		if err := certsig.Check(cert, ca.Cert); err != nil {
			b.Fatal(err)
		}
	}
}
