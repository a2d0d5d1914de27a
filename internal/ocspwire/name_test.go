package ocspwire

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"math/big"
	"net"
	"testing"
)

// generalNames is one of each choice.
func generalNames(t testing.TB, p *pki) map[string]*GeneralName {
	t.Helper()
	return map[string]*GeneralName{
		"otherName":     {Choice: OtherName, ID: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2, 3}, Value: wrap(0x0c, []byte("who"))},
		"rfc822Name":    {Choice: RFC822Name, Text: "who@example.com"},
		"dNSName":       {Choice: DNSName, Text: "example.com"},
		"x400Address":   {Choice: X400Address, Value: wrap(0x30)},
		"directoryName": DirectoryNameOf(p.leaf.RawSubject),
		"ediPartyName":  {Choice: EDIPartyName, Value: bytes.Join([][]byte{wrap(0xa0, wrap(0x0c, []byte("by"))), wrap(0xa1, wrap(0x13, []byte("who")))}, nil)},
		"URI":           {Choice: URI, Text: "https://example.com/who"},
		"iPAddress":     {Choice: IPAddress, Value: []byte{192, 0, 2, 1}},
		"registeredID":  {Choice: RegisteredID, ID: asn1.ObjectIdentifier{1, 2, 3, 4}},
	}
}

func TestEveryGeneralNameIsARequestor(t *testing.T) {
	p := newPKI(t, nil, nil)
	names := generalNames(t, p)
	if len(names) != 9 {
		t.Fatalf("%d of the nine choices", len(names))
	}
	for what, want := range names {
		req, err := ParseRequest(marshal(t, &Request{RequestorName: want, Items: []RequestItem{{ID: p.id(t, crypto.SHA1)}}}), manyItems)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		got := req.RequestorName
		if got.Choice != want.Choice || got.Text != want.Text || !got.ID.Equal(want.ID) || !bytes.Equal(got.Value, want.Value) {
			t.Errorf("%s: %s comes back as %s", what, want, got)
		}
		if !bytes.Equal(got.marshal(), want.marshal()) {
			t.Errorf("%s: encodes as %x, then as %x", what, want.marshal(), got.marshal())
		}
	}
}

func TestWhatIsNoGeneralNameIsMalformed(t *testing.T) {
	for what, h := range map[string]string{
		"no such choice":               "8900",
		"a bare Name":                  "3000",
		"two":                          "820378797a8200",
		"nothing":                      "",
		"constructed text":             "a203820178",
		"primitive Name":               "84023000",
		"text beyond ASCII":            "8201ff",
		"address of five octets":       "87050102030405",
		"empty identifier":             "8800",
		"identifier with padding":      "8803802a03",
		"otherName without a value":    "a00506032a0304",
		"otherName with two values":    "a00d06032a0304a006040101040102",
		"Name with an empty set":       "a40430023100",
		"Name with an unsorted set":    "a41e301c311a300b06035504031304" + "78797a7a" + "300b060355040313" + "0461626364",
		"ediPartyName of nobody":       "a500",
		"ediPartyName in an INTEGER":   "a505a103020101",
		"ediPartyName, implicitly":     "a50381017a",
		"x400Address of nothing":       "a300",
		"x400Address cut off":          "a3023005",
		"registeredID, as constructed": "a8032a0304",
	} {
		der, err := hex.DecodeString(h)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseGeneralName(der)
		if m := new(MalformedError); !errors.As(err, &m) {
			t.Errorf("%s: read as %s, error %v", what, got, err)
		}
	}
	for what, n := range map[string]*GeneralName{
		"no such choice": {Choice: 9}, "text beyond ASCII": {Choice: URI, Text: "ü"}, "no identifier": {Choice: RegisteredID}, "no Name": {Choice: DirectoryName},
	} {
		if der, err := n.Marshal(); err == nil {
			t.Errorf("%s: encodes as %x", what, der)
		}
	}
}

func TestRequestorsThatMustNotBeBelieved(t *testing.T) {
	other := newPKI(t, nil, nil)
	sanOf := func(c *x509.Certificate) {
		c.DNSNames, c.IPAddresses = []string{"client.test"}, []net.IP{net.IPv4(192, 0, 2, 1)}
	}
	for _, c := range []struct {
		what   string
		spec   func(*x509.Certificate)
		name   *GeneralName
		change func(*pki, *Request)
		good   bool
	}{
		{what: "in the subject's name", good: true},
		{what: "in an alternative name", spec: sanOf, name: &GeneralName{Choice: DNSName, Text: "client.test"}, good: true},
		{what: "in an alternative address", spec: sanOf, name: &GeneralName{Choice: IPAddress, Value: []byte{192, 0, 2, 1}}, good: true},
		{what: "in another's alternative name", spec: sanOf, name: &GeneralName{Choice: DNSName, Text: "server.test"}},
		{what: "in another choice's name", spec: sanOf, name: &GeneralName{Choice: URI, Text: "client.test"}},
		{what: "in another's name", name: DirectoryNameOf(other.ca.RawSubject)},
		{what: "with an empty name", name: DirectoryNameOf([]byte{0x30, 0}), change: func(*pki, *Request) {}},
		{what: "unsigned", change: func(_ *pki, r *Request) { r.Signature = nil }},
		{what: "without a name", change: func(_ *pki, r *Request) { r.RequestorName = nil }},
		{what: "without a certificate", change: func(_ *pki, r *Request) { r.Signature.Certs = nil }},
		{what: "with another's certificate first", change: func(p *pki, r *Request) { r.Signature.Certs = [][]byte{p.leaf.Raw, r.Signature.Certs[0]} }},
		{what: "certificate is none", change: func(_ *pki, r *Request) { r.Signature.Certs = [][]byte{{0x30, 0}} }},
		{what: "question changed", change: func(_ *pki, r *Request) {
			r.Signature.TBS = bytes.Clone(r.Signature.TBS)
			r.Signature.TBS[len(r.Signature.TBS)-1] ^= 1
		}},
		{what: "signature changed", change: func(_ *pki, r *Request) {
			r.Signature.Value = bytes.Clone(r.Signature.Value)
			r.Signature.Value[len(r.Signature.Value)-1] ^= 1
		}},
		{what: "algorithm changed", change: func(_ *pki, r *Request) { r.Signature.Algorithm = algorithm(x509.ECDSAWithSHA384).der }},
		{what: "algorithm unknown", change: func(_ *pki, r *Request) { r.Signature.Algorithm = wrap(0x30, []byte{6, 3, 0x2a, 3, 4}) }},
		{what: "key not for signing", spec: func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }},
		{what: "certificate expired", spec: func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = other.now.AddDate(0, 0, -2), other.now.AddDate(0, 0, -1)
		}},
	} {
		t.Run(c.what, func(t *testing.T) {
			p := newPKI(t, nil, c.spec)
			r := &Request{RequestorName: c.name, Items: []RequestItem{{ID: p.id(t, crypto.SHA256)}}}
			der, err := r.Sign(p.key, p.delegate)
			if err != nil {
				t.Fatal(err)
			}
			got, err := ParseRequest(der, manyItems)
			if err != nil {
				t.Fatal(err)
			}
			if c.change != nil {
				c.change(p, got)
			}
			roots := x509.NewCertPool()
			roots.AddCert(p.ca)
			who, err := got.Verify(RequestorOptions{Roots: roots, Now: p.now})
			if c.good != (err == nil) || err != nil && !errors.Is(err, ErrRequestor) {
				t.Fatalf("error is %v", err)
			}
			if c.good && !who.Equal(p.delegate) {
				t.Errorf("signed by %s", who.Subject)
			}
		})
	}
}

func TestRequestorOfAForeignCAIsBelievedOnlyWithoutRoots(t *testing.T) {
	p, other := newPKI(t, nil, nil), newPKI(t, nil, nil)
	der, err := (&Request{Items: []RequestItem{{ID: p.id(t, crypto.SHA1)}}}).Sign(p.key, p.delegate, p.ca)
	if err != nil {
		t.Fatal(err)
	}
	req, err := ParseRequest(der, 1)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(other.ca)
	if _, err := req.Verify(RequestorOptions{Roots: roots, Now: p.now}); !errors.Is(err, ErrRequestor) {
		t.Errorf("a request that brings its own root: error is %v", err)
	}
	if _, err := req.Verify(RequestorOptions{}); err != nil {
		t.Errorf("chain left to the caller: %v", err)
	}
}

func TestIntermediatesOfARequestorComeWithTheRequestOrAreKnown(t *testing.T) {
	p := newPKI(t, nil, nil)
	midKey, key := ecKey(t, p256), ecKey(t, p256)
	mid := p.sign(t, p.ca, &x509.Certificate{SerialNumber: big.NewInt(8), Subject: named("between"), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, midKey.Public())
	under := &pki{caKey: midKey, now: p.now}
	cert := under.sign(t, mid, &x509.Certificate{SerialNumber: big.NewInt(9), Subject: named("client")}, key.Public())
	roots, known := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(p.ca)
	known.AddCert(mid)
	for _, c := range []struct {
		what  string
		bring []*x509.Certificate
		opts  RequestorOptions
		good  bool
	}{
		{"brought", []*x509.Certificate{cert, mid}, RequestorOptions{Roots: roots, Now: p.now}, true},
		{"known", []*x509.Certificate{cert}, RequestorOptions{Roots: roots, Intermediates: known, Now: p.now}, true},
		{"neither", []*x509.Certificate{cert}, RequestorOptions{Roots: roots, Now: p.now}, false},
	} {
		der, err := (&Request{Items: []RequestItem{{ID: p.id(t, crypto.SHA1)}}}).Sign(key, c.bring...)
		if err != nil {
			t.Fatal(err)
		}
		req, err := ParseRequest(der, 1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := req.Verify(c.opts); (err == nil) != c.good {
			t.Errorf("%s: error is %v", c.what, err)
		}
	}
}
