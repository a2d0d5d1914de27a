package ctapi

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"

	"github.com/certanchor/certanchor/internal/ctapi/ctapitest"
	"github.com/certanchor/certanchor/internal/merklelog"
)

func TestParametersThatAreRefused(t *testing.T) {
	l, ledger := fixture(t)
	ledger.Fill(t, 10)
	entries, err := ledger.Entries(9, 10)
	if err != nil {
		t.Fatal(err)
	}
	newest := url.QueryEscape(base64.StdEncoding.EncodeToString(rfc6962.DefaultHasher.HashLeaf(entries[0].Leaf)))
	unknown := url.QueryEscape(base64.StdEncoding.EncodeToString(make([]byte, 32)))
	huge := "18446744073709551616"
	for target, want := range map[string]string{
		"get-entries":                                             "start",
		"get-entries?start=0":                                     "end",
		"get-entries?start=&end=1":                                "start",
		"get-entries?start=-1&end=1":                              `start "-1"`,
		"get-entries?start=0&end=-1":                              `end "-1"`,
		"get-entries?start=+1&end=1":                              "start",
		"get-entries?start=0x1&end=1":                             "start",
		"get-entries?start=1.0&end=1":                             "start",
		"get-entries?start=1e0&end=1":                             "start",
		"get-entries?start=2&end=1":                               `start "2": must be at most end, 1`,
		"get-entries?start=10&end=10":                             "must be below the size of the log, 10",
		"get-entries?start=10&end=" + huge:                        "end",
		"get-entries?start=" + huge + "&end=1":                    "start",
		"get-entries?start=0&start=1&end=1":                       "must be given once",
		"get-entries?start=0&end=1&end=1":                         "must be given once",
		"get-entries?start=0;end=1":                               "query",
		"get-entries?start=%zz&end=1":                             "query",
		"get-sth-consistency?first=1":                             "second",
		"get-sth-consistency?second=1":                            "first",
		"get-sth-consistency?first=3&second=2":                    "must be at most second, 2",
		"get-sth-consistency?first=3&second=11":                   "must be at most the size of the log, 10",
		"get-sth-consistency?first=-1&second=2":                   "first",
		"get-sth-consistency?first=a&second=2":                    "first",
		"get-proof-by-hash?tree_size=3":                           "hash",
		"get-proof-by-hash?hash=" + unknown:                       "tree_size",
		"get-proof-by-hash?tree_size=0&hash=" + newest:            "must be at least 1",
		"get-proof-by-hash?tree_size=11&hash=" + newest:           "must be at most the size of the log, 10",
		"get-proof-by-hash?tree_size=3&hash=AAAA":                 "32 octets",
		"get-proof-by-hash?tree_size=3&hash=*":                    "32 octets",
		"get-proof-by-hash?tree_size=3&hash=":                     "32 octets",
		"get-entry-and-proof?leaf_index=1":                        "tree_size",
		"get-entry-and-proof?tree_size=1":                         "leaf_index",
		"get-entry-and-proof?leaf_index=0&tree_size=0":            "must be at least 1",
		"get-entry-and-proof?leaf_index=3&tree_size=3":            "must be below tree_size, 3",
		"get-entry-and-proof?leaf_index=3&tree_size=11":           "must be at most the size of the log, 10",
		"get-entry-and-proof?leaf_index=-1&tree_size=3":           "leaf_index",
		"get-entry-and-proof?leaf_index=" + huge + "&tree_size=3": "leaf_index",
	} {
		refusal(t, l, target, nil, http.StatusBadRequest, want)
	}
	for target, want := range map[string]string{
		"get-proof-by-hash?tree_size=10&hash=" + unknown: "must be the hash of a leaf",
		"get-proof-by-hash?tree_size=9&hash=" + newest:   "tree of size 9", // in the log, but later
		"get-sth/":       "path",
		"get-everything": "path",
		"../v1/get-sth":  "path",
		"/get-sth":       "path",
		"":               "path",
	} {
		refusal(t, l, target, nil, http.StatusNotFound, want)
	}
}

func TestMethodsThatAreRefused(t *testing.T) {
	l, _ := fixture(t)
	for path, c := range map[string]struct{ method, allow string }{
		"add-chain": {http.MethodGet, "POST"}, "add-pre-chain": {http.MethodHead, "POST"}, "get-sth": {http.MethodPost, "GET"}, "get-entries": {http.MethodDelete, "GET"},
	} {
		w := httptest.NewRecorder()
		l.API().ServeHTTP(w, httptest.NewRequest(c.method, "http://log.example/ct/v1/"+path, http.NoBody))
		if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != c.allow {
			t.Errorf("%s %s: status %d, Allow %q", c.method, path, w.Code, w.Header().Get("Allow"))
		}
	}
	w := httptest.NewRecorder()
	l.API().ServeHTTP(w, httptest.NewRequest(http.MethodHead, "http://log.example/ct/v1/get-sth", http.NoBody))
	if w.Code != http.StatusOK {
		t.Errorf("HEAD: status %d", w.Code)
	}
}

func TestEveryPairOfHeadsIsConsistent(t *testing.T) {
	const n = 20
	l, ledger := fixture(t)
	var roots [n + 1][32]byte
	for i := range n + 1 {
		roots[i] = ledger.Head().Root
		ledger.Fill(t, 1)
	}
	for second := range n + 1 {
		for first := range second + 1 {
			var got struct{ Consistency *[][]byte }
			w := ask(l, fmt.Sprintf("get-sth-consistency?first=%d&second=%d", first, second), nil)
			decode(t, w, &got)
			if got.Consistency == nil || w.Header().Get("Cache-Control") != settled {
				t.Fatalf("%d to %d: %s, %v", first, second, w.Body, w.Header())
			}
			if first == 0 {
				if len(*got.Consistency) != 0 {
					t.Errorf("0 to %d: %d hashes", second, len(*got.Consistency))
				}
				continue
			}
			if err := proof.VerifyConsistency(rfc6962.DefaultHasher, uint64(first), uint64(second), *got.Consistency, roots[first][:], roots[second][:]); err != nil {
				t.Errorf("%d to %d: %v", first, second, err)
			}
		}
	}
}

func TestPagesOfEntriesAreClamped(t *testing.T) {
	l, ledger := fixture(t)
	ledger.Fill(t, 300)
	for query, want := range map[string]struct {
		entries int
		cache   string
	}{
		"start=0&end=0":                      {1, settled},
		"start=0&end=255":                    {256, settled},
		"start=0&end=256":                    {256, settled},
		"start=10&end=299":                   {256, settled},
		"start=290&end=299":                  {10, settled},
		"start=290&end=300":                  {10, fresh}, // there will be more
		"start=299&end=18446744073709551615": {1, fresh},
		"start=007&end=008&other=x":          {2, settled},
	} {
		var page entriesAnswer
		w := ask(l, "get-entries?"+query, nil)
		decode(t, w, &page)
		if len(page.Entries) != want.entries || w.Header().Get("Cache-Control") != want.cache {
			t.Errorf("%s: %d entries, %s; want %d, %s", query, len(page.Entries), w.Header().Get("Cache-Control"), want.entries, want.cache)
		}
	}
}

// A page is bounded in octets too, and yet gets on.
func TestLargeEntriesMakeShortPages(t *testing.T) {
	l, ledger := fixture(t)
	large := make([]byte, 1<<18)
	for i := range 40 {
		ledger.Append(1, merklelog.Entry{Kind: merklelog.X509, Leaf: append([]byte{byte(i)}, large...)})
	}
	for start := 0; start < 40; {
		var page entriesAnswer
		decode(t, ask(l, fmt.Sprintf("get-entries?start=%d&end=39", start), nil), &page)
		if n := len(page.Entries); n == 0 || n > maxPageBytes/len(large) {
			t.Fatalf("from %d: %d entries", start, n)
		}
		for _, e := range page.Entries {
			if e.LeafInput[0] != byte(start) {
				t.Fatalf("entry %d is at %d", e.LeafInput[0], start)
			}
			start++
		}
	}
	enormous := make([]byte, maxPageBytes+1)
	ledger.Append(1, merklelog.Entry{Kind: merklelog.X509, Leaf: enormous})
	var page entriesAnswer
	decode(t, ask(l, "get-entries?start=40&end=40", nil), &page)
	if len(page.Entries) != 1 {
		t.Errorf("an entry larger than a page: %d entries", len(page.Entries))
	}
}

func TestConfigurationThatIsRefused(t *testing.T) {
	ledger := ctapitest.New(t)
	for name, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"no key":         {func(c *Config) { c.Key = nil }, "Key"},
		"no submitter":   {func(c *Config) { c.Submitter = nil }, "Submitter"},
		"no CA":          {func(c *Config) { c.CA = nil }, "CA"},
		"another CA":     {func(c *Config) { c.CAID[0] ^= 1 }, "another key"},
		"pending":        {func(c *Config) { c.MaxPending = -1 }, "max_pending"},
		"timeout":        {func(c *Config) { c.SubmitTimeout = -1 }, "submit_timeout"},
		"no prefix":      {func(c *Config) { c.Prefix = "" }, "prefix"},
		"no host":        {func(c *Config) { c.Prefix = "https:///logs" }, "prefix"},
		"another scheme": {func(c *Config) { c.Prefix = "ftp://log.example" }, "prefix"},
		"a query":        {func(c *Config) { c.Prefix = "https://log.example/?" }, "prefix"},
		"a user":         {func(c *Config) { c.Prefix = "https://me@log.example/" }, "prefix"},
		"a plus sign":    {func(c *Config) { c.Prefix = "https://log.example/a+b" }, "plus"},
	} {
		cfg := config(t, ledger)
		c.change(&cfg)
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q named", name, err, c.want)
		}
	}
	cfg := config(t, ledger)
	cfg.Prefix = "https://log.example/logs/aa//"
	if got := newLog(t, cfg).Origin(); got != "log.example/logs/aa" {
		t.Errorf("origin is %q", got)
	}
}

func FuzzQuery(f *testing.F) {
	ledger := ctapitest.New(f)
	ledger.Fill(f, 40)
	l := newLog(f, config(f, ledger))
	endpoints := []string{"get-entries", "get-sth-consistency", "get-proof-by-hash", "get-entry-and-proof", "get-roots", "get-sth"}
	for _, q := range []string{
		"start=0&end=9", "first=3&second=40", "tree_size=40&hash=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA%3D", "leaf_index=39&tree_size=40",
		"start=-1&end=18446744073709551615", "first=41&second=40", "tree_size=0&hash=%", "leaf_index=1&leaf_index=1", "", ";", "&&=&",
	} {
		for i := range endpoints {
			f.Add(i, q)
		}
	}
	f.Fuzz(func(t *testing.T, which int, q string) {
		r := httptest.NewRequest(http.MethodGet, "http://log.example/ct/v1/"+endpoints[uint(which)%uint(len(endpoints))], http.NoBody)
		r.URL.RawQuery = q
		w := httptest.NewRecorder()
		l.API().ServeHTTP(w, r)
		if w.Code != http.StatusOK && w.Code != http.StatusBadRequest && w.Code != http.StatusNotFound {
			t.Fatalf("status %d: %s", w.Code, w.Body)
		}
	})
}
