package tiles

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
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

// counted counts how often entries are read.
type counted struct {
	merklelog.Log
	reads atomic.Int64
	fail  atomic.Bool
}

func (c *counted) Entries(from, to uint64) ([]merklelog.Entry, error) {
	c.reads.Add(1)
	if c.fail.Load() {
		return nil, errors.New("disk")
	}
	return c.Log.Entries(from, to)
}

func TestKeptTilesAreTheSameOctets(t *testing.T) {
	log := &counted{Log: certLog(t, 600, 100)}
	cache := NewCache(1 << 20)
	c := Config{Log: log, Static: &Static{Chain: [][]byte{{1}}}, Cache: cache}
	h := handler(t, c)
	c.Static = &Static{Chain: [][]byte{{2}}}
	other := handler(t, c) // shares the Cache; its tiles differ
	fetch := func(h *Handler, path, coding string) []byte {
		t.Helper()
		answer := request(h, http.MethodGet, path, "Accept-Encoding", coding)
		body, err := io.ReadAll(answer.Body)
		if err != nil || answer.StatusCode != http.StatusOK || answer.Header.Get("Content-Length") != strconv.Itoa(len(body)) ||
			answer.Header.Get("Cache-Control") != forever || answer.Header.Get("Content-Encoding") == "gzip" != (coding == "gzip") {
			t.Fatalf("%s: %v, %v", path, answer, err)
		}
		return body
	}
	for _, coding := range []string{"gzip", "identity"} {
		for _, path := range []string{"tile/data/000", "tile/data/001"} {
			first := fetch(h, path, coding)
			before := log.reads.Load()
			if again := fetch(h, path, coding); !bytes.Equal(again, first) || log.reads.Load() != before {
				t.Errorf("%s in %s: other octets, or cut again", path, coding)
			}
			if bytes.Equal(fetch(other, path, coding), first) {
				t.Errorf("%s in %s: another log's", path, coding)
			}
		}
	}
	before := log.reads.Load()
	for range 2 { // what grows is not kept: its place in the Cache is for those that everybody will ask for
		fetch(h, "tile/data/002.p/88", "gzip")
	}
	if got := log.reads.Load() - before; got != 2 {
		t.Errorf("a partial tile was cut %d times", got)
	}
}

func TestCacheKeepsToItsSize(t *testing.T) {
	const tile, most = 1000, 10 * (1000 + cachedOverhead)
	c := NewCache(most)
	key := func(i int) cacheKey { return cacheKey{index: uint64(i)} }
	for i := range 30 {
		c.put(key(i), make([]byte, tile))
		c.put(key(i), make([]byte, tile))
		if c.get(key(0)) == nil {
			t.Fatalf("the tile that is always asked for went after %d", i)
		}
		if c.size > most || len(c.kept) != c.order.Len() || len(c.kept) != min(i+1, 10) {
			t.Fatalf("%d octets in %d tiles, %d in order", c.size, len(c.kept), c.order.Len())
		}
	}
	if c.get(key(29)) == nil || c.get(key(21)) == nil || c.get(key(20)) != nil {
		t.Error("it did not keep those asked for last")
	}
	if c.put(key(99), make([]byte, most)); c.get(key(99)) != nil || len(c.kept) != 10 {
		t.Error("a tile larger than the Cache drove others out")
	}
	if NewCache(0) != nil || NewCache(-1) != nil {
		t.Error("a Cache of nothing")
	}
}

func TestTileThatCannotBeReadIsNotKept(t *testing.T) {
	log := &counted{Log: certLog(t, 256, 10)}
	h := handler(t, Config{Log: log, Static: &Static{Chain: [][]byte{{1}}}, Cache: NewCache(1 << 20)})
	log.fail.Store(true)
	if got := request(h, http.MethodGet, "tile/data/000").StatusCode; got != http.StatusInternalServerError {
		t.Errorf("status %d", got)
	}
	log.fail.Store(false)
	get(t, h, "tile/data/000")
}

func TestCacheIsSharedByManyReaders(t *testing.T) {
	h := handler(t, Config{Log: certLog(t, 1024, 20), Static: &Static{Chain: [][]byte{{1}}}, Cache: NewCache(40_000)})
	want := [][]byte{get(t, h, "tile/data/000"), get(t, h, "tile/data/001"), get(t, h, "tile/data/002"), get(t, h, "tile/data/003")}
	var readers sync.WaitGroup
	for n := range 8 {
		readers.Go(func() {
			for i := range 40 {
				k := (n + i) % 4
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, fmt.Sprintf("/tile/data/00%d", k), nil))
				if !bytes.Equal(w.Body.Bytes(), want[k]) {
					t.Errorf("tile %d is another one", k)
				}
			}
		})
	}
	readers.Wait()
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
