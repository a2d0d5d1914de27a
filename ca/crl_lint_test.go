package ca

import (
	"crypto/x509"
	"encoding/binary"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/crl"
)

// TestLongCRLIsLintedByASampleOfAnotherKey: nothing that the CA's key has signed leaves entries out.
func TestLongCRLIsLintedByASampleOfAnotherKey(t *testing.T) {
	dir, key := newDir(t)
	cert, _, err := LoadCertificate(dir)
	if err != nil {
		t.Fatal(err)
	}
	sampler, err := newCRLSampler(cert)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 1, maxLinted, maxLinted + 1, 3*maxLinted + 7} {
		c := &crl.Contents{CAID: wire.CAIDOf(cert.RawSubjectPublicKeyInfo), Scope: "http://x/1.crl", Number: 9, ThisUpdate: time.Now().UTC().Truncate(time.Second)}
		for i := range n {
			c.Entries = append(c.Entries, crl.Entry{Serial: binary.BigEndian.AppendUint32([]byte{1}, uint32(i)), Time: 1, Reason: wire.Superseded})
		}
		form := crl.Form{Issuer: cert, NextUpdate: c.ThisUpdate.Add(time.Hour)}
		der, err := crl.Build(c, form, key)
		if err != nil {
			t.Fatal(err)
		}
		got, err := sampler.of(c, form, der)
		if err != nil {
			t.Fatal(err)
		}
		if err := lintCRL(got); err != nil {
			t.Errorf("%d entries: %v", n, err)
		}
		list, err := crl.Parse(got)
		if err != nil {
			t.Fatal(err)
		}
		said, err := list.Contents(wire.CAID{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = list.Verify([]*x509.Certificate{cert})
		if whole := n <= maxLinted; whole != (err == nil) || len(said.Entries) > maxLinted {
			t.Errorf("%d entries: the CA's signature: %v; %d are linted", n, err, len(said.Entries))
		}
		if list.Scope != c.Scope || list.Number != c.Number || !list.NextUpdate.Equal(form.NextUpdate) {
			t.Errorf("%d entries: the sample says %+v", n, list)
		}
	}
}

func TestCRLThatZlintCannotReadIsRefused(t *testing.T) {
	if err := lintCRL([]byte("no CRL")); err == nil {
		t.Error("accepted")
	}
}
