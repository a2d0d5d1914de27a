package ocspwire

import (
	"crypto"
	"fmt"
	"strings"
	"testing"
)

// A responder that keeps a Request for each worker reads without allocating: names, hashes, serials and extensions are in the
// message or in memory that was there before.
func TestUnmarshalIntoUsedMemoryAllocatesNothing(t *testing.T) {
	p := newPKI(t, nil, nil)
	for what, req := range map[string]*Request{
		"one":          {Items: []RequestItem{{ID: p.id(t, crypto.SHA1)}}},
		"with a nonce": {Items: []RequestItem{{ID: p.id(t, crypto.SHA256)}}, Nonce: make([]byte, DefaultNonce)},
		"several":      {Items: []RequestItem{{ID: p.id(t, crypto.SHA384)}, {ID: p.id(t, crypto.SHA512)}, {ID: p.id(t, crypto.SHA1)}}},
	} {
		der := marshal(t, req)
		var into Request
		if n := testing.AllocsPerRun(100, func() {
			if err := into.Unmarshal(der, manyItems); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", what, n)
		}
	}
}

func TestChoosingWithoutPreferencesAllocatesNothing(t *testing.T) {
	for name, key := range keys(t) {
		pub := key.Public()
		if n := testing.AllocsPerRun(100, func() {
			if _, err := ChooseAlgorithm(pub, nil); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkParseRequest(b *testing.B) {
	p := newPKI(b, nil, nil)
	for _, c := range []struct {
		what  string
		items int
		nonce []byte
	}{{"one", 1, nil}, {"one with a nonce", 1, make([]byte, DefaultNonce)}, {"sixteen", 16, nil}} {
		req := &Request{Nonce: c.nonce}
		for range c.items {
			req.Items = append(req.Items, RequestItem{ID: p.id(b, crypto.SHA1)})
		}
		der := marshal(b, req)
		b.Run(strings.ReplaceAll(c.what, " ", "-")+"/new", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ParseRequest(der, manyItems); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(strings.ReplaceAll(c.what, " ", "-")+"/reused", func(b *testing.B) {
			b.ReportAllocs()
			var into Request
			for b.Loop() {
				if err := into.Unmarshal(der, manyItems); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkSign(b *testing.B) {
	p := newPKI(b, nil, nil)
	r := p.response(b)
	r.Nonce = make([]byte, DefaultNonce)
	for _, alg := range p256Algs[:1] {
		b.Run(fmt.Sprint(alg), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.SignWith(p.key, alg); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
