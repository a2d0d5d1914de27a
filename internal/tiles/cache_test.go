package tiles

import (
	"crypto/rand"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctleaf"
	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/merklelog/merklelogtest"
)

// certLog has n entries of size octets, half of which do not compress, as in certificates.
func certLog(t testing.TB, n, size int) *merklelogtest.Memory {
	t.Helper()
	m := merklelogtest.New()
	for i := range n {
		der := make([]byte, size)
		if _, err := rand.Read(der[size/2:]); err != nil {
			t.Fatal(err)
		}
		leaf, err := ctleaf.X509(uint64(i), wire.Millis(i), der)
		if err != nil {
			t.Fatal(err)
		}
		m.Append(wire.Millis(i), merklelog.Entry{Kind: merklelog.X509, Time: wire.Millis(i), Leaf: leaf, DER: der})
	}
	return m
}

func BenchmarkFullDataTile(b *testing.B) {
	log := certLog(b, 256, 1200)
	for name, cache := range map[string]*Cache{"cut": nil, "kept": NewCache(1 << 20)} {
		for _, coding := range []string{"identity", "gzip"} {
			b.Run(name+"/"+coding, func(b *testing.B) {
				h := handler(b, Config{Log: log, Static: &Static{Chain: [][]byte{{1}}}, Cache: cache})
				r := httptest.NewRequest(http.MethodGet, "/tile/data/000", nil)
				r.Header.Set("Accept-Encoding", coding)
				w := &discard{http.Header{}}
				b.ReportAllocs()
				for b.Loop() {
					clear(w.h)
					h.ServeHTTP(w, r)
				}
			})
		}
	}
}

type discard struct{ h http.Header }

func (d *discard) Header() http.Header         { return d.h }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(int)             {}
