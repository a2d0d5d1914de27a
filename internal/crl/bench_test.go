package crl

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"runtime"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// million is a complete CRL's contents with as many revoked certificates, whose serial numbers have 16 octets.
func million(b *testing.B, issuer *x509.Certificate) *Contents {
	const n = 1_000_000
	c := &Contents{CAID: wire.CAIDOf(issuer.RawSubjectPublicKeyInfo), Number: 77, ThisUpdate: Seconds(someTime).Time()}
	octets := make([]byte, 16*n)
	if _, err := rand.Read(octets); err != nil {
		b.Fatal(err)
	}
	for i := range n {
		serial := octets[16*i : 16*i+16]
		serial[0] |= 1
		c.Entries = append(c.Entries, Entry{Serial: serial, Time: Seconds(someTime - i%1000), Reason: wire.Superseded})
	}
	Sort(c.Entries)
	return c
}

// BenchmarkMillion reports time, and memory allocated, of each step of a CRL with a million entries, and x509.CreateRevocationList in the
// same run.
func BenchmarkMillion(b *testing.B) {
	p := newIssuer(b, "p256")
	c := million(b, p.cert)
	der := p.build(b, c)
	enc := encode(b, c)
	form := p.form(c)
	step := func(name string, run func() error) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := run(); err != nil {
					b.Fatal(err)
				}
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				b.ReportMetric(float64(m.HeapSys>>20), "heap-MiB")
			}
		})
	}
	step("Build", func() error { _, err := Build(c, form, p.key); return err })
	step("Parse", func() error { _, err := Parse(der); return err })
	step("ParseVerifyCompare", func() error {
		l, err := Parse(der)
		if err != nil {
			return err
		}
		if _, err := l.Verify([]*x509.Certificate{p.cert}); err != nil {
			return err
		}
		got, err := l.Contents(c.CAID)
		if err != nil {
			return err
		}
		return got.Compare(c)
	})
	step("WriteContents", func() error { _, err := c.WriteTo(new(bytes.Buffer)); return err })
	step("ReadContents", func() error { _, err := ReadContents(bytes.NewReader(enc)); return err })
	step("x509.CreateRevocationList", func() error {
		_, err := x509.CreateRevocationList(rand.Reader, theirs(c, form.NextUpdate), p.cert, p.key)
		return err
	})
	step("x509.ParseRevocationList", func() error { _, err := x509.ParseRevocationList(der); return err })
}

// theirs is c as crypto/x509 takes it.
func theirs(c *Contents, next time.Time) *x509.RevocationList {
	l := &x509.RevocationList{Number: new(big.Int).SetUint64(c.Number), ThisUpdate: c.ThisUpdate, NextUpdate: next}
	for i := range c.Entries {
		e := &c.Entries[i]
		entry := x509.RevocationListEntry{SerialNumber: e.Serial.Int(), RevocationTime: e.Time.Time(), ReasonCode: int(e.Reason)}
		if e.Remove {
			entry.ReasonCode = removeFromCRL
		}
		if e.Invalidity != 0 {
			entry.ExtraExtensions = append(entry.ExtraExtensions, invalidityExtension(e.Invalidity))
		}
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, entry)
	}
	return l
}
