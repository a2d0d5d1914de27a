package bench

import (
	"crypto/x509"
	"math"
	"testing"

	"github.com/certanchor/certanchor/internal/keyfile"
)

func TestBoundIsWhatSignaturesLeave(t *testing.T) {
	noop := &NoopResult{Rate: 3000, CPU: CPU{"peer": 300, "orderer": 300}}
	if b := newBound(noop, 100, 4); math.Abs(b.Ratio-0.6) > 1e-9 || math.Abs(b.Rate-1800) > 1e-6 || b.Noop != 600 {
		t.Errorf("%+v", b)
	}
	if b := newBound(&NoopResult{Rate: 3000}, 0, 4); b.Ratio != 0 || b.Rate != 0 { // where processor time is not known
		t.Errorf("%+v", b)
	}
}

func TestCertificatesAreTheCAsAndDiffer(t *testing.T) {
	for _, algorithm := range []keyfile.Algorithm{keyfile.P256, keyfile.P384, keyfile.RSA2048} {
		a, err := newAuthority("CA", algorithm)
		if err != nil {
			t.Fatal(err)
		}
		ders, err := a.sign(20)
		if err != nil {
			t.Fatal(err)
		}
		serials := map[string]bool{}
		for _, der := range ders {
			cert, err := x509.ParseCertificate(der)
			if err != nil {
				t.Fatal(err)
			}
			if err := cert.CheckSignatureFrom(a.cert); err != nil || len(der) < 1000 || len(der) > 1500 {
				t.Errorf("%s: %d bytes, %v", algorithm, len(der), err)
			}
			serials[cert.SerialNumber.String()] = true
		}
		if len(serials) != 20 {
			t.Errorf("%s: %d serial numbers of 20", algorithm, len(serials))
		}
	}
}
