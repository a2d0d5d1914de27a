package ctleaf_test

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"

	ctx509 "github.com/google/certificate-transparency-go/x509"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/internal/ctleaf"
)

func tbsOf(t testing.TB, der []byte) []byte {
	t.Helper()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert.RawTBSCertificate
}

func TestPrecertificateAndCertificateHaveOneTBS(t *testing.T) {
	ca := cctest.NewCA(t)
	for name, tweak := range map[string]func(*x509.Certificate){
		"plain": func(*x509.Certificate) {},
		"extension after it": func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3, 4}, Value: []byte{5, 0}}}
		},
	} {
		pre, _, final := ca.Precert(t, tweak)
		plain, _ := final(nil)
		withSCTs, _ := final(cctest.SCTList())
		want := tbsOf(t, plain)
		for what, f := range map[string]func() ([]byte, error){
			"precertificate":               func() ([]byte, error) { return ctleaf.PrecertTBS(pre) },
			"certificate":                  func() ([]byte, error) { return ctleaf.FinalTBS(plain) },
			"certificate with an SCT list": func() ([]byte, error) { return ctleaf.FinalTBS(withSCTs) },
		} {
			if got, err := f(); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: %s: %x, %v, want %x", name, what, got, err, want)
			}
		}
		for der, want := range map[*[]byte]bool{&pre: true, &plain: false, &withSCTs: false} {
			if got, err := ctleaf.IsPrecert(*der); err != nil || got != want {
				t.Errorf("%s: IsPrecert is %t, %v", name, got, err)
			}
		}
		if _, err := ctleaf.PrecertTBS(plain); err == nil {
			t.Errorf("%s: a certificate is a precertificate", name)
		}
	}
}

// A poison that was the only extension leaves no list behind: RFC 5280 section 4.1 has none that is empty.
func TestTheLastExtensionTakesTheListWithIt(t *testing.T) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { // Certificate
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { // TBSCertificate
			b.AddASN1Int64(1)
			b.AddASN1(cbasn1.Tag(3).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddASN1ObjectIdentifier(ctleaf.OIDPoison)
						b.AddASN1OctetString([]byte{5, 0})
					})
				})
			})
		})
	})
	got, err := ctleaf.PrecertTBS(b.BytesOrPanic())
	if want := []byte{0x30, 3, 2, 1, 1}; err != nil || !bytes.Equal(got, want) {
		t.Errorf("%x, %v, want %x", got, err, want)
	}
}

// FuzzTBS compares with certificate-transparency-go wherever both accept: nobody may log another leaf of one precertificate.
func FuzzTBS(f *testing.F) {
	ca := cctest.NewCA(f)
	pre, _, final := ca.Precert(f)
	plain, _ := final(nil)
	withSCTs, _ := final(cctest.SCTList())
	for _, der := range [][]byte{pre, plain, withSCTs, {}, {0x30, 0}, {0x30, 2, 0x30, 0}} {
		f.Add(der)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		// What a ledger sees has been parsed before.
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			_, _ = ctleaf.PrecertTBS(der)
			_, _ = ctleaf.FinalTBS(der)
			return
		}
		got, err := ctleaf.PrecertTBS(der)
		if want, ctErr := ctx509.RemoveCTPoison(cert.RawTBSCertificate); err == nil && ctErr == nil && !bytes.Equal(got, want) {
			t.Fatalf("without poison:\n%x, want\n%x", got, want)
		}
		got, err = ctleaf.FinalTBS(der)
		if want, ctErr := ctx509.RemoveSCTList(cert.RawTBSCertificate); err == nil && ctErr == nil && !bytes.Equal(got, want) {
			t.Fatalf("without SCT list:\n%x, want\n%x", got, want)
		}
	})
}
