package client

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/cryptobyte"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctleaf"
)

func patternsOf(t testing.TB, texts ...string) patterns {
	t.Helper()
	var ps patterns
	for _, s := range texts {
		p, err := parsePattern(s)
		if err != nil {
			t.Fatal(err)
		}
		ps = append(ps, p)
	}
	return ps
}

func TestNamesMatchPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"example.org", "example.org", true},
		{"example.org", "www.example.org", true},
		{"example.org", "a.b.c.example.org", true},
		{"example.org", "*.example.org", true},
		{"example.org", "*.a.example.org", true},
		{"example.org", "EXAMPLE.Org", true},
		{"EXAMPLE.org", "example.ORG.", true},
		{"example.org.", "www.example.org", true},
		{" example.org ", "example.org", true},
		{"example.org", "notexample.org", false},
		{"example.org", "example.org.evil.example", false},
		{"example.org", "example.organic", false},
		{"example.org", "example", false},
		{"example.org", "org", false},
		{"example.org", "", false},
		// A wildcard that covers the name is a certificate for it.
		{"example.org", "*.org", true},
		{"example.org", "ex*e.org", true},
		{"example.org", "exa*z.org", false},
		{"example.org", "examplee*e.org", false},
		{"www.example.org", "*.example.org", true},
		{"www.example.org", "example.org", false},
		{"www.example.org", "*.org", false},
		{"org", "*", false},
		// Only what is below.
		{"*.example.net", "example.net", false},
		{"*.example.net", "a.example.net", true},
		{"*.example.net", "a.b.example.net", true},
		{"*.example.net", "*.example.net", true},
		{"*.example.net", "*.net", false},
		// Common names are free text.
		{"example.org", "Example Corp (www.example.org)", true},
		{"example.org", "https://example.org/path", true},
		{"example.org", "https://example.org:8443/", true},
		{"example.org", "example.org\x00.evil.example", true},
		{"example.org", "a.example.com, example.org", true},
		{"example.org", "www\u3002example\uff0eorg", true},
		{"xn--bcher-kva.example", "XN--BCHER-KVA.example", true},
		{"xn--bcher-kva.example", "bücher.example", false}, // documented: A-labels are compared
		// Mail.
		{"example.org", "someone@example.org", true},
		{"example.org", "someone@mail.EXAMPLE.org", true},
		{"example.org", "example.org@evil.example", false},
		{"a@example.org", "A@Example.org", true},
		{"a@example.org", "b@example.org", false},
		{"a@example.org", "example.org", false},
		{"*.example.org", "a@example.org", false},
		// Addresses.
		{"192.0.2.7", "192.0.2.7", true},
		{"192.0.2.7", "192.0.2.70", false},
		{"192.0.2.0/24", "192.0.2.70", true},
		{"192.0.2.9/24", "192.0.2.70", true},
		{"192.0.2.7", "::ffff:192.0.2.7", true},
		{"2001:db8::/32", "2001:DB8::1", true},
		{"2001:db8::/32", "2001:db9::1", false},
		{"192.0.2.7", "example.org", false},
		{"example.org", "192.0.2.7", false},
	} {
		if got := patternsOf(t, c.pattern).match(c.name) != nil; got != c.want {
			t.Errorf("%q matches %q: %v, want %v", c.pattern, c.name, got, c.want)
		}
	}
}

func TestPatternsThatCouldNeverMatchAreRefused(t *testing.T) {
	for _, s := range []string{
		"", ".", "*", "*.", "exa mple.org", "https://example.org", "example..org", "bücher.example", "a.*.example.org", "@example.org",
		"a b@example.org", "a@", "a@exa mple", "fe80::1%eth0", "192.0.2.0/33", strings.Repeat("a", 64) + ".org", strings.Repeat("a.", 130) + "org",
	} {
		if p, err := parsePattern(s); err == nil || !strings.Contains(err.Error(), "match ") {
			t.Errorf("%q: read as %+v, %v", s, p, err)
		}
	}
}

// TestNamesAreFoundWhereverTheyStand in a certificate.
func TestNamesAreFoundWhereverTheyStand(t *testing.T) {
	ca := cctest.NewCA(t)
	upn := func(value []byte) pkix.Extension {
		san := cryptobyte.NewBuilder(nil)
		san.AddASN1(0x30, func(b *cryptobyte.Builder) {
			b.AddASN1(0xa0, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2, 3})
				b.AddASN1(0xa0, func(b *cryptobyte.Builder) { b.AddBytes(value) })
			})
		})
		return pkix.Extension{Id: oidSAN, Value: san.BytesOrPanic()}
	}
	ps := patternsOf(t, "example.org", "192.0.2.0/24")
	for what, c := range map[string]struct {
		tweak func(*x509.Certificate)
		want  bool
	}{
		"none":        {func(*x509.Certificate) {}, false},
		"dNSName":     {func(c *x509.Certificate) { c.DNSNames = []string{"x.example", "a.example.org"} }, true},
		"rfc822Name":  {func(c *x509.Certificate) { c.EmailAddresses = []string{"a@example.org"} }, true},
		"iPAddress":   {func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(192, 0, 2, 3)} }, true},
		"URI":         {func(c *x509.Certificate) { c.URIs = []*url.URL{{Scheme: "spiffe", Host: "example.org", Path: "/x"}} }, true},
		"common name": {func(c *x509.Certificate) { c.Subject.CommonName = "Example.ORG" }, true},
		"first of two common names": {func(c *x509.Certificate) {
			c.Subject.ExtraNames = []pkix.AttributeTypeAndValue{{Type: oidCommonName, Value: "a.example.org"}, {Type: oidCommonName, Value: "b"}}
		}, true},
		"emailAddress": {func(c *x509.Certificate) {
			c.Subject.ExtraNames = []pkix.AttributeTypeAndValue{{Type: oidEmail, Value: "a@example.org"}}
		}, true},
		"otherName, UTF8String": {func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{upn([]byte("\x0c\x0da@example.org"))} }, true},
		"otherName, BMPString": {func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{upn([]byte("\x1e\x16\x00e\x00x\x00a\x00m\x00p\x00l\x00e\x00.\x00o\x00r\x00g"))}
		}, true},
		"only in the OCSP URL":    {func(c *x509.Certificate) { c.OCSPServer = []string{"http://ocsp.example.org"} }, false},
		"only as organisation":    {func(c *x509.Certificate) { c.Subject.Organization = []string{"example.org"} }, false},
		"otherName, not a string": {func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{upn([]byte("\x02\x01\x05"))} }, false},
	} {
		der, cert := ca.Issue(t, c.tweak)
		f := ps.find(&logEntry{der: der, at: 1}, ca.ID, "o", 3)
		if (f != nil) != c.want {
			t.Errorf("%s: found %v, want %v; names are %q", what, f != nil, c.want, certNames(cert))
		}
		if f != nil && (f.event.ID != "o#3" || f.cert == nil || len(f.cert.Names) != 1) {
			t.Errorf("%s: %+v", what, f)
		}
	}
}

func TestWhatNobodyCanReadIsSearched(t *testing.T) {
	ps := patternsOf(t, "example.org", "a@example.com", "192.0.2.0/24", "2001:db8::/32")
	for raw, want := range map[string]string{
		"\x30xxExample.Orgxx": "example.org",
		"\x00e\x00x\x00a\x00m\x00p\x00l\x00e\x00.\x00o\x00r\x00g": "example.org",
		"xA@example.comx":            "a@example.com",
		"x\x87\x04\xc0\x00\x02\x09x": "192.0.2.0/24",
		"\x87\x10\x20\x01\x0d\xb8" + strings.Repeat("\x00", 12): "2001:db8::/32",
		"\x87\x04\xc0\x00\x03\x09":                              "",
		"\x87\x04\xc0\x00":                                      "",
		"example.com":                                           "",
		"":                                                      "",
	} {
		var list []string
		if want != "" {
			list = []string{want}
		}
		if got := ps.within([]byte(raw)); !slices.Equal(got, list) {
			t.Errorf("%q: %q, want %q", raw, got, list)
		}
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("example.org", "www.example.org")
	f.Add("*.example.org", "*.EXAMPLE.org.")
	f.Add("a@example.org", "a@example.org, b")
	f.Add("2001:db8::/32", "[2001:db8::1]:443")
	f.Fuzz(func(t *testing.T, text, name string) {
		p, err := parsePattern(text)
		if err != nil {
			return
		}
		again, err := parsePattern(p.text)
		if err != nil || again != p {
			t.Fatalf("%q is read as %+v, and that as %+v, %v", text, p, again, err)
		}
		ps := patterns{p}
		ps.match(name)
		ps.within([]byte(name))
		// Whatever stands around it, a name that matches alone does so as a word.
		word := p.domain + p.mail
		if p.prefix.IsValid() {
			word = p.prefix.Addr().String()
		}
		if p.below {
			word = "x." + word
		}
		if ps.match(name+" "+strings.ToUpper(word)+","+name) == nil {
			t.Fatalf("%q does not match %q between %q", text, word, name)
		}
		if _, err := netip.ParseAddr(word); err != nil && ps.within([]byte(name+word)) == nil {
			t.Fatalf("%q is not found in octets with %q", text, word)
		}
	})
}

// FuzzEntries holds that reading never fails otherwise than by an error, and that what is read is all of it.
func FuzzEntries(f *testing.F) {
	ca := cctest.NewCA(f)
	der, _ := ca.Issue(f)
	pre, _, _ := ca.Precert(f, func(c *x509.Certificate) { c.DNSNames = []string{"a.example.org"} })
	tbs, err := ctleaf.PrecertTBS(pre)
	if err != nil {
		f.Fatal(err)
	}
	final, err := ctleaf.X509(5, 77, der)
	if err != nil {
		f.Fatal(err)
	}
	preLeaf, err := ctleaf.Precert(6, 78, ca.ID, tbs)
	if err != nil {
		f.Fatal(err)
	}
	one := slices.Concat(final[2:], []byte{0, 32}, make([]byte, 32))
	two := slices.Concat(preLeaf[2:], []byte{0, byte(len(pre) >> 8), byte(len(pre))}, pre, []byte{0, 0})
	f.Add(one, 1)
	f.Add(two, 1)
	f.Add(slices.Concat(one, two), 2)
	f.Add([]byte{0, 3, 1, 2, 3, 0, 0}, 2)
	f.Add([]byte(nil), 0)
	ps := patternsOf(f, "example.org")
	f.Add(preLeaf, -1)
	f.Fuzz(func(t *testing.T, tile []byte, width int) {
		if e, err := readLeaf(tile); err == nil {
			if string(e.leaf) != string(tile) {
				t.Fatalf("leaf %x is read as %x", tile, e.leaf)
			}
			ps.find(e, ca.ID, "o", 0)
		}
		width = min(max(width, 0), tileWidth)
		if leaves, err := readBundle(tile, width); err == nil {
			n := 2 * len(leaves)
			for _, l := range leaves {
				n += len(l)
			}
			if n != len(tile) || len(leaves) != width {
				t.Fatalf("%d leaves of %d octets in all, want %d of %d", len(leaves), n, width, len(tile))
			}
		}
		entries, err := readEntries(tile, width)
		if err != nil {
			return
		}
		n := 0
		for i, e := range entries {
			n += len(e.leaf)
			_ = e.check(uint64(i), ca.ID)
			if f := ps.find(e, ca.ID, "o", uint64(i)); f != nil && len(f.event.Matched) == 0 {
				t.Fatalf("found without a match: %+v", f)
			}
			// The leaf is the one that ctleaf makes of what was read.
			if !e.precert && e.check(uint64(i), ca.ID) == nil {
				want, err := ctleaf.X509(uint64(i), e.at, e.der)
				if err != nil || string(want) != string(e.leaf) {
					t.Fatalf("leaf is %x, want %x, %v", e.leaf, want, err)
				}
			}
		}
		if n > len(tile)+2*width || len(entries) != width {
			t.Fatalf("%d entries, leaves of %d octets, from %d octets", len(entries), n, len(tile))
		}
	})
}

func TestEntriesAreReadBack(t *testing.T) {
	ca := cctest.NewCA(t)
	der, _ := ca.Issue(t)
	leaf, err := ctleaf.X509(5, 77, der)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := readEntries(append(leaf[2:], 0, 0), 1)
	if err != nil {
		t.Fatal(err)
	}
	e := entries[0]
	if string(e.leaf[2:]) != string(leaf[2:]) || e.at != 77 || e.precert || string(e.der) != string(der) {
		t.Errorf("entry is %+v", e)
	}
	if err := e.check(5, ca.ID); err != nil {
		t.Error(err)
	}
	if err := e.check(6, ca.ID); err == nil || !strings.Contains(err.Error(), "leaf_index") {
		t.Errorf("at another index: %v", err)
	}
	if err := (&logEntry{precert: true, ext: ctleaf.Extensions(5), caID: wire.CAID{1}}).check(5, ca.ID); err == nil || !strings.Contains(err.Error(), "issuer_key_hash") {
		t.Errorf("of another CA: %v", err)
	}
}
