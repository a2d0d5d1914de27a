package crl

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"io"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"pgregory.net/rapid"

	"github.com/certanchor/certanchor/chaincode/wire"
)

func marshal(t interface{ Fatal(...any) }, v any, params string) []byte {
	der, err := asn1.MarshalWithParams(v, params)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// Types of RFC 5280 section 5.2.5 as encoding/asn1 has them, which shares no code with this package.
type (
	pointName struct {
		FullName []asn1.RawValue `asn1:"optional,tag:0"`
	}
	issuingPoint struct {
		DistributionPoint pointName `asn1:"optional,tag:0"`
		IndirectCRL       bool      `asn1:"optional,tag:4"`
	}
)

func uri(url string) pointName {
	return pointName{FullName: []asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(url)}}}
}

// reference builds the same with crypto/x509.
func reference(t interface{ Fatal(...any) }, c *Contents, f Form, key crypto.Signer) []byte {
	l := theirs(c, f.NextUpdate)
	add := func(id int, critical bool, value []byte) {
		l.ExtraExtensions = append(l.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, id}, Critical: critical, Value: value})
	}
	if c.Base != 0 {
		add(27, true, marshal(t, new(big.Int).SetUint64(c.Base), ""))
	}
	if c.Scope != "" {
		add(28, true, marshal(t, issuingPoint{DistributionPoint: uri(c.Scope)}, ""))
	}
	if f.DeltaURL != "" {
		add(46, false, marshal(t, []issuingPoint{{DistributionPoint: uri(f.DeltaURL)}}, ""))
	}
	der, err := x509.CreateRevocationList(rand.Reader, l, f.Issuer, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// On inputs that both can express, the octets that are signed are those that crypto/x509 would sign; where signatures are deterministic,
// so is the whole.
func TestBuildIsCryptoX509OctetByOctet(t *testing.T) {
	issuers := map[string]*issuer{}
	for _, kind := range kinds {
		issuers[kind] = newIssuer(t, kind)
	}
	rapid.Check(t, func(t *rapid.T) {
		kind := rapid.SampledFrom(kinds).Draw(t, "kind")
		p, c := issuers[kind], drawContents(t)
		if c.ThisUpdate.Unix() >= int64(MaxSeconds) {
			c.ThisUpdate = c.ThisUpdate.Add(-time.Minute)
		}
		c.CAID = p.id()
		f := Form{Issuer: p.cert, NextUpdate: c.ThisUpdate.Add(time.Second)}
		if c.Base == 0 && rapid.Bool().Draw(t, "delta url") {
			f.DeltaURL = "http://crl.example/delta.crl"
		}
		ours, err := Build(c, f, p.key)
		if err != nil {
			t.Fatal(err)
		}
		want := reference(t, c, f, p.key)
		got, err := x509.ParseRevocationList(ours)
		if err != nil {
			t.Fatal(err)
		}
		wanted, err := x509.ParseRevocationList(want)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.RawTBSRevocationList, wanted.RawTBSRevocationList) {
			t.Fatalf("signed octets are\n%x, crypto/x509 has\n%x", got.RawTBSRevocationList, wanted.RawTBSRevocationList)
		}
		if (kind == "rsa" || kind == "ed25519") && !bytes.Equal(ours, want) {
			t.Fatalf("the CRL is\n%x, crypto/x509 has\n%x", ours, want)
		}
		if err := got.CheckSignatureFrom(p.cert); err != nil {
			t.Fatal(err)
		}
		list, err := Parse(ours)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := list.Verify([]*x509.Certificate{p.cert}); err != nil {
			t.Fatal(err)
		}
		back, err := list.Contents(p.id())
		if err == nil {
			err = back.Compare(c)
		}
		if err != nil || list.DeltaURL != f.DeltaURL || !list.NextUpdate.Equal(f.NextUpdate) {
			t.Fatal(err, list.DeltaURL, list.NextUpdate)
		}
	})
}

func TestBuildRefuses(t *testing.T) {
	p, other := newIssuer(t, "p256"), newIssuer(t, "p256")
	bare := *p
	bare.cert = p.certify(t, &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "no cRLSign"}, KeyUsage: x509.KeyUsageCertSign, SubjectKeyId: []byte{1}})
	noID := *p
	noID.cert = p.certify(t, &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "no ID"}, KeyUsage: x509.KeyUsageCRLSign})
	for name, tc := range map[string]struct {
		change func(*Contents, *Form)
		key    crypto.Signer
		want   string
	}{
		"contents":           {func(c *Contents, _ *Form) { c.Number = 0 }, p.key, "number"},
		"no issuer":          {func(_ *Contents, f *Form) { f.Issuer = nil }, p.key, "issuer"},
		"another CA":         {func(c *Contents, _ *Form) { c.CAID = other.id() }, p.key, "issuer"},
		"another key":        {func(*Contents, *Form) {}, other.key, "must be that of the issuer"},
		"no cRLSign":         {func(_ *Contents, f *Form) { f.Issuer = bare.cert }, p.key, "cRLSign"},
		"no key identifier":  {func(_ *Contents, f *Form) { f.Issuer = noID.cert }, p.key, "subject key identifier"},
		"next before this":   {func(c *Contents, f *Form) { f.NextUpdate = c.ThisUpdate }, p.key, "next update"},
		"next is fractional": {func(_ *Contents, f *Form) { f.NextUpdate = f.NextUpdate.Add(1) }, p.key, "next update"},
		"delta of a delta":   {func(c *Contents, f *Form) { c.Base, f.DeltaURL = 1, "http://a/d.crl" }, p.key, "delta URL"},
		"odd delta URL":      {func(_ *Contents, f *Form) { f.DeltaURL = "d.crl" }, p.key, "delta URL"},
		"faulty signer":      {func(*Contents, *Form) {}, faultySigner{p.key}, "does not verify"},
	} {
		c := someContents()
		c.CAID = p.id()
		f := p.form(c)
		tc.change(c, &f)
		if _, err := Build(c, f, tc.key); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}

// faultySigner signs something else, as a broken HSM may.
type faultySigner struct{ crypto.Signer }

func (s faultySigner) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	digest = bytes.Clone(digest)
	digest[0] ^= 1
	return s.Signer.Sign(r, digest, o)
}

// indirectGroups are entries of two CAs whose names are long and short.
func indirectGroups(t testing.TB) []Group {
	t.Helper()
	a, b := newIssuerNamed(t, "p256", "A"), newIssuerNamed(t, "p256", strings.Repeat("long ", 50))
	return []Group{{Name: a.cert.RawSubject, Entries: someContents().Entries}, {Name: b.cert.RawSubject, Entries: someContents().Entries[:2]}}
}

func TestIndirectSurvives(t *testing.T) {
	p, groups := newIssuer(t, "rsa"), indirectGroups(t)
	this := Seconds(someTime).Time()
	f := Form{Issuer: p.cert, NextUpdate: this.Add(time.Hour)}
	der, err := BuildIndirect(7, this, groups, f, p.key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Parse(der)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Verify([]*x509.Certificate{p.cert}); err != nil || !l.Indirect || l.Number != 7 || len(l.Groups) != len(groups) {
		t.Fatal(err, l.Indirect, l.Number, len(l.Groups))
	}
	for i, g := range l.Groups {
		if err := compareEntries(g.Entries, groups[i].Entries); err != nil || !bytes.Equal(g.Name, groups[i].Name) {
			t.Errorf("group %d: %v, name %x, want %x", i, err, g.Name, groups[i].Name)
		}
	}
	if _, err := l.Contents(p.id()); err == nil {
		t.Error("it passes for a direct one")
	}
	theirs, err := x509.ParseRevocationList(der)
	if err != nil || len(theirs.RevokedCertificateEntries) != 5 {
		t.Fatal(err, theirs)
	}
	if ext := theirs.RevokedCertificateEntries[3].Extensions[0]; !ext.Critical || ext.Id.String() != "2.5.29.29" {
		t.Errorf("the second group begins with %v, want a critical certificateIssuer", ext)
	}
	for name, bad := range map[string][]Group{
		"twice the same": {groups[0], groups[0]}, "no name": {{Entries: groups[0].Entries}},
		"removal": {{Name: groups[0].Name, Entries: []Entry{{Serial: wire.Serial{1}, Time: 1, Remove: true}}}},
	} {
		if _, err := BuildIndirect(7, this, bad, f, p.key); err == nil {
			t.Errorf("%s: built", name)
		}
	}
}

// altered is a CRL with octets of tbsCertList replaced, and signed again.
func altered(t *testing.T, p *issuer, der []byte, old, new string) []byte {
	t.Helper()
	from, to := unhex(old), unhex(new)
	l, err := Parse(der)
	if err != nil {
		t.Fatal(err)
	}
	var inner cryptobyte.String
	tbs := cryptobyte.String(l.TBS)
	if !tbs.ReadASN1(&inner, sequence) || bytes.Count(inner, from) != 1 {
		t.Fatalf("%s occurs %d times in %x", old, bytes.Count(inner, from), []byte(inner))
	}
	return resigned(t, p, bytes.Replace(inner, from, to, 1))
}

func resigned(t *testing.T, p *issuer, inner []byte) []byte {
	t.Helper()
	alg, err := algorithmFor(p.key)
	if err != nil {
		t.Fatal(err)
	}
	tbs := append(appendTag(nil, tagSequence, len(inner)), inner...)
	sig, err := alg.sign(p.key, tbs)
	if err != nil {
		t.Fatal(err)
	}
	b := append(slices.Clone(tbs), alg.der...)
	b = append(append(appendTag(b, tagBitString, len(sig)+1), 0), sig...)
	return append(appendTag(nil, tagSequence, len(b)), b...)
}

// What could say something else to another reader, or says what the ledger cannot, is refused.
func TestParseRefuses(t *testing.T) {
	p := newIssuer(t, "p256")
	c := someContents()
	c.Scope = "http://crl.example/1.crl"
	der := p.build(t, c)
	url := hex.EncodeToString([]byte(c.Scope))
	idp := "0603551d1c" + "0101ff" + "0420" + "301ea01ca01a8618" + url // OID, critical, value
	for name, tc := range map[string]struct{ old, new, want string }{
		"version 1":             {"020101300a", "020100300a", "version"},
		"another algorithm":     {"300a06082a8648ce3d040302", "300a06082a8648ce3d040303", "signature"},
		"GeneralizedTime early": {"170d3237303131353038303030305a", "180f32303237303131353038303030305a", "thisUpdate"},
		"no such day":           {"170d3237303131353038303030305a", "170d3237303233303038303030305a", "thisUpdate"},
		"no seconds":            {"170d3237303131353038303030305a", "170b323730313135303830305a", "thisUpdate"},
		"a zone":                {"170d3237303131353038303030305a", "17113237303131353038303030302b30313030", "thisUpdate"},
		"next is this":          {"170d3237303131353039303030305a", "170d3237303131353038303030305a", "nextUpdate"},
		"unspecified":           {"0603551d1504030a0106", "0603551d1504030a0100", "2.5.29.21"},
		"removal in a complete": {"0603551d1504030a0106", "0603551d1504030a0108", "2.5.29.21"},
		"reason 7":              {"0603551d1504030a0106", "0603551d1504030a0107", "2.5.29.21"},
		"twice in the list":     {"3012020101", "3012020102", "twice"},
		"serial zero":           {"3012020101", "3012020100", "userCertificate"},
		"negative serial":       {"3012020101", "3012020181", "userCertificate"},
		"scope not critical":    {idp, strings.Replace(idp, "0101ff0420", "04200101ff", 1), "OCTET STRING"},
		"scope as FALSE":        {"0603551d1c0101ff", "0603551d1c010100", "critical"},
		"number zero":           {"0603551d140403" + "020109", "0603551d140403" + "020100", "2.5.29.20"},
		"unknown extension":     {"0603551d14", "0603551d7f", "2.5.29.127"},
		"no number":             {"0603551d140403" + "020109", "0603551d23" + "0403" + "020109", "2.5.29.35"},
		"only user certs":       {"301ea01ca01a8618" + url, "301ea019a0178615" + url[:len(url)-6] + "8101ff", "2.5.29.28"},
	} {
		if _, err := Parse(altered(t, p, der, tc.old, tc.new)); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
	for name, tc := range map[string]struct {
		der  []byte
		want string
	}{
		"an octet more": {append(bytes.Clone(der), 0), "CertificateList"},
		"cut":           {der[:len(der)-1], "CertificateList"},
		"nothing":       {nil, "CertificateList"},
	} {
		if _, err := Parse(tc.der); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
	if _, err := Parse(altered(t, p, der, "3012020101", "3012020105")); err != nil { // entries in another order
		t.Error(err)
	}
}

func TestVerifyRefuses(t *testing.T) {
	p, other := newIssuer(t, "p256"), newIssuerNamed(t, "p256", "Other CA")
	l, err := Parse(p.build(t, someContents()))
	if err != nil {
		t.Fatal(err)
	}
	twin := newIssuer(t, "p256") // same name and key identifier, another key
	bare := *p.cert
	bare.KeyUsage = x509.KeyUsageCertSign
	renamed := *p.cert
	renamed.SubjectKeyId = []byte{9}
	for name, tc := range map[string]struct {
		certs []*x509.Certificate
		want  string
	}{
		"nobody": {nil, "subject"}, "another CA": {[]*x509.Certificate{other.cert}, "subject"}, "a twin": {[]*x509.Certificate{twin.cert}, "signature"},
		"no cRLSign": {[]*x509.Certificate{&bare}, "cRLSign"}, "another key identifier": {[]*x509.Certificate{&renamed}, "subject key identifier"},
	} {
		if _, err := l.Verify(tc.certs); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
	if by, err := l.Verify([]*x509.Certificate{other.cert, twin.cert, p.cert}); err != nil || by != p.cert {
		t.Errorf("%v, %v", by, err)
	}
	l.Signature[len(l.Signature)-1] ^= 1
	if _, err := l.Verify([]*x509.Certificate{p.cert}); err == nil {
		t.Error("a changed signature verifies")
	}
}
