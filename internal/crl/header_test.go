package crl

import (
	"bytes"
	"crypto/x509"
	"testing"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// What must come before the signature is verified costs the same for any number of entries.
func TestHeaderCostsNothingForEntries(t *testing.T) {
	p := newIssuer(t, "p256")
	allocs := func(n int) float64 {
		c := someContents()
		c.Entries = nil
		for i := range n {
			c.Entries = append(c.Entries, Entry{Serial: wire.Serial{1, byte(i >> 8), byte(i)}, Time: someTime})
		}
		der := p.build(t, c)
		return testing.AllocsPerRun(20, func() {
			l, err := ParseHeader(der)
			if err != nil || l.Groups != nil || l.Number != c.Number {
				t.Fatal(l, err)
			}
		})
	}
	if few, many := allocs(1), allocs(20_000); many != few {
		t.Errorf("%v allocations with 20,000 entries, %v with one", many, few)
	}
}

// ParseHeader and ReadEntries together are Parse, and the signature covers what is read later.
func TestHeaderThenEntriesIsParse(t *testing.T) {
	p := newIssuer(t, "p256")
	for name, c := range variants() {
		der := p.build(t, c)
		l, err := ParseHeader(der)
		if err != nil {
			t.Fatal(name, err)
		}
		if _, err := l.Verify([]*x509.Certificate{p.cert}); err != nil {
			t.Error(name, err)
		}
		if err := l.ReadEntries(); err != nil {
			t.Error(name, err)
		}
		got, err := l.Contents(p.id())
		if err != nil || got.Compare(c) != nil {
			t.Error(name, err, got.Compare(c))
		}
	}
}

// Whoever sends a CRL does not choose how long the error gets.
func TestErrorsAreShort(t *testing.T) {
	long := bytes.Repeat([]byte{0x01}, 1<<20)
	der := newIssuer(t, "p256").build(t, someContents())
	l, err := ParseHeader(der)
	if err != nil {
		t.Fatal(err)
	}
	l.Issuer = long
	_, err = l.Verify(nil)
	if err == nil || len(err.Error()) > 1000 {
		t.Errorf("%d octets", len(err.Error()))
	}
}
