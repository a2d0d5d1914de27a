package sct

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"testing"

	ct "github.com/google/certificate-transparency-go"
	"github.com/google/certificate-transparency-go/tls"
	"github.com/google/certificate-transparency-go/x509util"

	ctx509 "github.com/google/certificate-transparency-go/x509"

	"github.com/certanchor/certanchor/internal/ctleaf"
)

func logKey(t testing.TB) *Key {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k, err := New(private)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSCTIsVerifiedAgainstOneKeyAndOneEntry(t *testing.T) {
	key, other := logKey(t), logKey(t)
	leaf, err := ctleaf.Precert(7, 1767225600000, [32]byte{1}, []byte{0x30, 0})
	if err != nil {
		t.Fatal(err)
	}
	good, err := key.SignSCT(leaf)
	if err != nil {
		t.Fatal(err)
	}
	if err := good.Verify(key.Public(), leaf); err != nil {
		t.Fatal(err)
	}
	changed := func(f func(*SCT)) *SCT {
		s := *good
		s.Extensions, s.Signature = bytes.Clone(s.Extensions), bytes.Clone(s.Signature)
		f(&s)
		return &s
	}
	elsewhere, err := ctleaf.Precert(8, 1767225600000, [32]byte{1}, []byte{0x30, 0})
	if err != nil {
		t.Fatal(err)
	}
	if good.Verify(other.Public(), leaf) == nil || good.Verify(key.Public(), elsewhere) == nil || good.Verify(key.Public(), nil) == nil {
		t.Error("taken with another key, for another entry or for none")
	}
	for name, s := range map[string]*SCT{
		"time":           changed(func(s *SCT) { s.Time++ }),
		"extensions":     changed(func(s *SCT) { s.Extensions[7] ^= 1 }),
		"no extensions":  changed(func(s *SCT) { s.Extensions = nil }),
		"signature":      changed(func(s *SCT) { s.Signature[20] ^= 1 }),
		"algorithm":      changed(func(s *SCT) { s.Signature[1] = 1 }),
		"trailing octet": changed(func(s *SCT) { s.Signature = append(s.Signature, 0) }),
		"no signature":   changed(func(s *SCT) { s.Signature = nil }),
	} {
		if s.Verify(key.Public(), leaf) == nil {
			t.Errorf("%s: an SCT that was changed there is taken", name)
		}
	}
}

// TestListIsReadByOthers: certificate-transparency-go is the judge.
func TestListIsReadByOthers(t *testing.T) {
	leaf, err := ctleaf.Precert(7, 1767225600000, [32]byte{1}, []byte{0x30, 0})
	if err != nil {
		t.Fatal(err)
	}
	var scts []*SCT
	for range 3 {
		s, err := logKey(t).SignSCT(leaf)
		if err != nil {
			t.Fatal(err)
		}
		scts = append(scts, s)
	}
	b, err := MarshalList(scts)
	if err != nil {
		t.Fatal(err)
	}
	var list ctx509.SignedCertificateTimestampList
	if rest, err := tls.Unmarshal(b, &list); err != nil || len(rest) > 0 {
		t.Fatalf("%v, %d octets left", err, len(rest))
	}
	parsed, err := x509util.ParseSCTsFromSCTList(&list)
	if err != nil || len(parsed) != len(scts) {
		t.Fatalf("%d SCTs, %v", len(parsed), err)
	}
	for i, p := range parsed {
		if p.SCTVersion != ct.V1 || p.LogID.KeyID != scts[i].LogID || p.Timestamp != uint64(scts[i].Time) {
			t.Errorf("SCT %d: %+v", i, p)
		}
	}
	if _, err := MarshalList(nil); err == nil {
		t.Error("an empty list is made")
	}
	long := &SCT{Signature: make([]byte, 1<<16)}
	if _, err := MarshalList([]*SCT{long}); err == nil {
		t.Error("a list that is too long is made")
	}
}
