package tiles

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/transparency-dev/merkle/compact"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctleaf"
	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/merklelog/merklelogtest"
	"github.com/certanchor/certanchor/internal/problem"
)

// statusLog has n entries of growing length.
func statusLog(n int) *merklelogtest.Memory {
	m := merklelogtest.New()
	for i := range n {
		m.Append(wire.Millis(i), merklelog.Entry{Kind: merklelog.Status, Leaf: bytes.Repeat([]byte{byte(i)}, i%40+1)})
	}
	return m
}

func handler(t testing.TB, c Config) *Handler {
	t.Helper()
	if c.Checkpoint == nil {
		c.Checkpoint = func(context.Context) ([]byte, error) { return []byte("origin\n0\n\n\n— a b\n"), nil }
	}
	h, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func request(h http.Handler, method, path string, header ...string) *http.Response {
	r := httptest.NewRequest(method, "http://log.example/"+path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func get(t testing.TB, h http.Handler, path string) []byte {
	t.Helper()
	answer := request(h, http.MethodGet, path)
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: status %d, %v: %s", path, answer.StatusCode, err, body)
	}
	return body
}

func TestHeadersSayWhatCachesMayKeep(t *testing.T) {
	h := handler(t, Config{Log: statusLog(300)})
	for path, want := range map[string]struct{ kind, cache string }{
		"checkpoint":           {"text/plain; charset=utf-8", "no-cache"},
		"tile/0/000":           {"application/octet-stream", forever},
		"tile/0/001.p/44":      {"application/octet-stream", forever},
		"tile/0/000.p/1":       {"application/octet-stream", forever}, // still there although the tile is full
		"tile/1/000.p/1":       {"application/octet-stream", forever},
		"tile/entries/000":     {"application/octet-stream", forever},
		"tile/entries/001.p/3": {"application/octet-stream", forever},
	} {
		body := get(t, h, path)
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			answer := request(h, method, path)
			if got := answer.Header.Get("Content-Type"); got != want.kind {
				t.Errorf("%s %s: content type %q, want %q", method, path, got, want.kind)
			}
			if got := answer.Header.Get("Cache-Control"); got != want.cache {
				t.Errorf("%s %s: Cache-Control %q, want %q", method, path, got, want.cache)
			}
			if got := answer.Header.Get("Content-Length"); got != fmt.Sprint(len(body)) {
				t.Errorf("%s %s: length %s, want %d", method, path, got, len(body))
			}
		}
	}
}

func TestEntriesAreCompressedForWhoAcceptsIt(t *testing.T) {
	h := handler(t, Config{Log: statusLog(300)})
	plain := get(t, h, "tile/entries/000")
	for accept, want := range map[string]string{
		"gzip": "gzip", "identity, gzip;q=0.5": "gzip", "*": "gzip", "br, GZIP": "gzip",
		"gzip;q=0": "", "*, gzip; q=0.0": "", "br": "", "gzip;q=x": "", "": "",
	} {
		answer := request(h, http.MethodGet, "tile/entries/000", "Accept-Encoding", accept)
		if got := answer.Header.Get("Content-Encoding"); got != want {
			t.Errorf("Accept-Encoding %q: answered in %q, want %q", accept, got, want)
		}
		if answer.Header.Get("Vary") != "Accept-Encoding" {
			t.Errorf("Accept-Encoding %q: Vary is %q", accept, answer.Header.Get("Vary"))
		}
		body := io.Reader(answer.Body)
		if want == "gzip" {
			var err error
			if body, err = gzip.NewReader(answer.Body); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("Accept-Encoding %q: %d octets, want %d, %v", accept, len(got), len(plain), err)
		}
	}
	if got := request(h, http.MethodGet, "tile/0/000", "Accept-Encoding", "gzip").Header.Get("Content-Encoding"); got != "" {
		t.Errorf("hashes do not compress, yet they are in %q", got)
	}
}

func TestPathsThatAreRefused(t *testing.T) {
	static := &Static{Chain: [][]byte{{1}}}
	tlog, ct := handler(t, Config{Log: statusLog(300)}), handler(t, Config{Log: statusLog(300), Static: static})
	for path, want := range map[string]int{
		"":                                    404,
		"tile":                                400,
		"tile/":                               400,
		"tile/0":                              400,
		"tile/0/":                             400,
		"tile/0/0":                            400,
		"tile/0/00":                           400,
		"tile/0/0000":                         400,
		"tile/0/x001":                         400,
		"tile/0/001/234":                      400,
		"tile/0/x000/001":                     400,
		"tile/0/x001/x234":                    400,
		"tile/0/x01/000":                      400,
		"tile/0/xx01/000":                     400,
		"tile/0/-01":                          400,
		"tile/0/+01":                          400,
		"tile/0/1e1":                          400,
		"tile/0/000/":                         400,
		"tile/0/000/x":                        400,
		"tile/0/../0/000":                     400,
		"tile/../checkpoint":                  400,
		"../tile/0/000":                       404,
		"tile//0/000":                         400,
		"//tile/0/000":                        404,
		"tile/00/000":                         400,
		"tile/01/000":                         400,
		"tile/-1/000":                         400,
		"tile/64/000":                         400,
		"tile/99999999999999999999/0":         400,
		"tile/data":                           400,
		"tile/0/000.p":                        400,
		"tile/0/000.p/":                       400,
		"tile/0/000.p/0":                      400,
		"tile/0/000.p/01":                     400,
		"tile/0/000.p/256":                    400,
		"tile/0/000.p/-1":                     400,
		"tile/0/000.p/1/2":                    400,
		"tile/0/000.p/1.p/1":                  400,
		"tile/0/000.P/1":                      400,
		"tile/0/%30%30%30":                    400,
		"tile/0%2F000":                        400,
		"tile/0/x036/x028/x797/x018/x963/968": 400, // 2^55
		"tile/0/x036/x028/x797/x018/x963/967": 404,
		"tile/0/x999/x999/x999/x999/x999/x999/x999/999": 400,
		"tile/0/001":      404, // not full yet
		"tile/0/001.p/45": 404, // beyond the head
		"tile/0/002.p/1":  404,
		"tile/1/000":      404,
		"tile/1/000.p/2":  404,
		"tile/2/000.p/1":  404,
		"tile/8/000.p/1":  404,
		"tile/63/000.p/1": 404,
		"checkpoint/":     404,
		"checkpoints":     404,
		"issuer/00":       404,
		"tiles/0/000":     404,
		"index.html":      404,
	} {
		for name, h := range map[string]http.Handler{"tlog-tiles": tlog, "static-ct-api": ct} {
			answer := request(h, http.MethodGet, path)
			var p problem.Problem
			if err := json.NewDecoder(answer.Body).Decode(&p); err != nil || answer.StatusCode != want || p.Rule == "" || p.Detail == "" {
				t.Errorf("%s %q: status %d, want %d; body %+v, %v", name, path, answer.StatusCode, want, p, err)
			}
			if cache := answer.Header.Get("Cache-Control"); cache != "no-store" {
				t.Errorf("%s %q: a refusal may be cached: %q", name, path, cache)
			}
		}
	}
	for h, path := range map[http.Handler]string{tlog: "tile/data/000", ct: "tile/entries/000"} {
		if got := request(h, http.MethodGet, path).StatusCode; got != http.StatusBadRequest {
			t.Errorf("%s of the other protocol: status %d", path, got)
		}
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions} {
		answer := request(tlog, method, "tile/0/000")
		if answer.StatusCode != http.StatusMethodNotAllowed || answer.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: status %d, Allow %q", method, answer.StatusCode, answer.Header.Get("Allow"))
		}
	}
}

func TestEntryBundleHoldsTheLeaves(t *testing.T) {
	log := statusLog(300)
	bundle := get(t, handler(t, Config{Log: log}), "tile/entries/001.p/44")
	for i := range 44 {
		n := int(binary.BigEndian.Uint16(bundle))
		e, err := log.Entries(uint64(256+i), uint64(257+i))
		if err != nil || !bytes.Equal(bundle[2:2+n], e[0].Leaf) {
			t.Fatalf("entry %d: %x, want %x, %v", i, bundle[2:2+n], e[0].Leaf, err)
		}
		bundle = bundle[2+n:]
	}
	if len(bundle) != 0 {
		t.Errorf("%d octets after the last entry", len(bundle))
	}
}

func TestEntryThatNoBundleCanHoldIsReported(t *testing.T) {
	m := merklelogtest.New()
	m.Append(1, merklelog.Entry{Kind: merklelog.Status, Leaf: make([]byte, 1<<16)})
	if got := request(handler(t, Config{Log: m}), http.MethodGet, "tile/entries/000.p/1").StatusCode; got != http.StatusInternalServerError {
		t.Errorf("status %d", got)
	}
	m = merklelogtest.New()
	m.Append(1, merklelog.Entry{Kind: merklelog.Status, Leaf: make([]byte, 1<<16-1)})
	if got := len(get(t, handler(t, Config{Log: m}), "tile/entries/000.p/1")); got != 2+1<<16-1 {
		t.Errorf("bundle of the largest leaf has %d octets", got)
	}
}

func TestDataTileLooksLikeThis(t *testing.T) {
	issuer, root := []byte("issuer"), []byte("root")
	m := merklelogtest.New()
	cert, err := ctleaf.X509(0, 0x0102, []byte{0x30, 0})
	if err != nil {
		t.Fatal(err)
	}
	pre, err := ctleaf.Precert(1, 0x0103, [32]byte{0xaa}, []byte{0x30, 1, 0})
	if err != nil {
		t.Fatal(err)
	}
	m.Append(0x0103, merklelog.Entry{Kind: merklelog.X509, Leaf: cert, DER: []byte{0x30, 0}},
		merklelog.Entry{Kind: merklelog.Precert, Leaf: pre, DER: []byte{0x30, 2, 1, 1}})
	h := handler(t, Config{Log: m, Static: &Static{Chain: [][]byte{issuer, root}}})
	a, b := sha256.Sum256(issuer), sha256.Sum256(root)
	chain := "0040" + hex.EncodeToString(a[:]) + hex.EncodeToString(b[:])
	want := "0000000000000102" + "0000" + "0000023000" + "0008" + "0000050000000000" + chain +
		"0000000000000103" + "0001" + "aa" + strings.Repeat("00", 31) + "000003300100" + "0008" + "0000050000000001" + "00000430020101" + chain
	if got := hex.EncodeToString(get(t, h, "tile/data/000.p/2")); got != want {
		t.Errorf("data tile is\n%s, want\n%s", got, want)
	}
	for _, der := range [][]byte{issuer, root} {
		sum := sha256.Sum256(der)
		path := "issuer/" + hex.EncodeToString(sum[:])
		if got := get(t, h, path); !bytes.Equal(got, der) {
			t.Errorf("issuer is %q, want %q", got, der)
		}
		answer := request(h, http.MethodGet, path)
		if answer.Header.Get("Content-Type") != "application/pkix-cert" || answer.Header.Get("Cache-Control") != forever {
			t.Errorf("issuer's headers are %v", answer.Header)
		}
		if got := request(h, http.MethodGet, "issuer/"+strings.ToUpper(hex.EncodeToString(sum[:]))).StatusCode; got != http.StatusNotFound {
			t.Errorf("an issuer in capitals: status %d", got)
		}
	}
}

func TestHandlerNeedsItsParts(t *testing.T) {
	checkpoint := func(context.Context) ([]byte, error) { return nil, nil }
	for name, c := range map[string]Config{
		"no log": {Checkpoint: checkpoint}, "no checkpoint": {Log: statusLog(1)}, "no chain": {Log: statusLog(1), Checkpoint: checkpoint, Static: &Static{}},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// flipped is a log with one bit changed in a stored hash or in a leaf.
type flipped struct {
	merklelog.Log
	node compact.NodeID
	leaf uint64
}

func (f *flipped) Nodes(ids []compact.NodeID) ([][]byte, error) {
	hashes, err := f.Log.Nodes(ids)
	for i, id := range ids {
		if id == f.node {
			hashes[i] = bytes.Clone(hashes[i])
			hashes[i][5] ^= 1
		}
	}
	return hashes, err
}

func (f *flipped) Entries(from, to uint64) ([]merklelog.Entry, error) {
	entries, err := f.Log.Entries(from, to)
	if from <= f.leaf && f.leaf < to {
		e := &entries[f.leaf-from]
		e.Leaf = bytes.Clone(e.Leaf)
		e.Leaf[0] ^= 1
	}
	return entries, err
}

func TestYeti2022BitFlipIsNotServedAsImmutable(t *testing.T) {
	const none = 1 << 40
	status := func(f *flipped, path string) int {
		f.Log = statusLog(1000)
		answer := request(handler(t, Config{Log: f}), http.MethodGet, path)
		if answer.StatusCode != http.StatusOK && answer.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: the failure may be cached", path)
		}
		return answer.StatusCode
	}
	for path, f := range map[string]*flipped{
		"tile/0/001":           {node: compact.NewNodeID(0, 300), leaf: none},
		"tile/0/003.p/230":     {node: compact.NewNodeID(0, 768+229), leaf: none},
		"tile/1/000.p/3":       {node: compact.NewNodeID(8, 1), leaf: none},
		"tile/1/000.p/2":       {node: compact.NewNodeID(9, 0), leaf: none},
		"tile/entries/001":     {node: compact.NewNodeID(0, 300), leaf: none},
		"tile/entries/001.p/9": {node: compact.NewNodeID(60, 0), leaf: 260},
	} {
		if got := status(f, path); got != http.StatusInternalServerError {
			t.Errorf("%s with a flipped bit: status %d", path, got)
		}
	}
	if got := status(&flipped{node: compact.NewNodeID(0, 300), leaf: none}, "tile/0/000"); got != http.StatusOK {
		t.Errorf("a tile beside the flipped bit: status %d", got)
	}
}
