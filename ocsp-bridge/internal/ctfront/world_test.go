package ctfront

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctapi"
	"github.com/certanchor/certanchor/internal/ctapi/ctapitest"
	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/merklelog/merklelogtest"
	"github.com/certanchor/certanchor/internal/problem"
)

var listTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// org is one organisation's front, served over TLS.
type org struct {
	*Front
	t      testing.TB
	cfg    Config
	server *httptest.Server
	url    string
	http   *http.Client
	now    atomic.Pointer[Front]

	mu   sync.Mutex // guards what follows
	cas  []CA
	logs map[wire.CAID]merklelog.Log
	to   map[wire.CAID]ctapi.Submitter
}

// newOrg starts a front whose trust list is empty.
func newOrg(t testing.TB, name string) *org {
	t.Helper()
	o := &org{t: t, logs: map[wire.CAID]merklelog.Log{}, to: map[wire.CAID]ctapi.Submitter{}}
	o.server = httptest.NewTLSServer(http.HandlerFunc(o.serve))
	t.Cleanup(o.server.Close)
	o.url, o.http = o.server.URL, o.server.Client()
	o.cfg = Config{
		Dir: t.TempDir(), PublicURL: o.url, Operator: name, Logger: slog.New(slog.DiscardHandler), Now: func() time.Time { return listTime },
		CAs: func() []CA {
			o.mu.Lock()
			defer o.mu.Unlock()
			return append([]CA(nil), o.cas...)
		},
		Log: func(id wire.CAID) (merklelog.Log, bool) {
			o.mu.Lock()
			defer o.mu.Unlock()
			l, ok := o.logs[id]
			return l, ok
		},
		Submit: func(id wire.CAID) ctapi.Submitter {
			o.mu.Lock()
			defer o.mu.Unlock()
			return o.to[id]
		},
	}
	o.restart()
	return o
}

// restart replaces the front by one that knows only what is on disk.
func (o *org) restart() {
	o.t.Helper()
	var err error
	if o.Front, err = New(o.cfg); err != nil {
		o.t.Fatal(err)
	}
	o.now.Store(o.Front)
}

func (o *org) serve(w http.ResponseWriter, r *http.Request) {
	path := r.URL.EscapedPath()
	if path == "/log_list.json" {
		o.now.Load().ServeLogList(w, r)
		return
	}
	ca, rest, _ := strings.Cut(strings.TrimPrefix(path, "/logs/"), "/")
	id, err := wire.ParseCAID(ca)
	if err != nil {
		problem.Write(w, o.cfg.Logger, err)
		return
	}
	o.now.Load().ServeLog(w, r, id, rest)
}

// trust puts a CA on the trust list, with the log and the submitter that this organisation has for it.
func (o *org) trust(l *ctapitest.Ledger, log merklelog.Log, to ctapi.Submitter) {
	o.mu.Lock()
	defer o.mu.Unlock()
	l.Record.OperatingMSP = "Org1MSP"
	o.cas = append(o.cas, CA{ID: l.CA.ID, Record: l.Record, Name: l.CA.Cert.Subject.String()})
	o.logs[l.CA.ID], o.to[l.CA.ID] = log, to
}

func (o *org) setLog(id wire.CAID, log merklelog.Log) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.logs[id] = log
}

func (o *org) prefix(l *ctapitest.Ledger) string { return o.url + "/logs/" + l.CA.ID.String() }

// reply is an answer that has been read.
type reply struct {
	*http.Response
	body []byte
}

// ask sends one request below a log's prefix; in is the body of a POST and nil for GET.
func (o *org) ask(l *ctapitest.Ledger, path string, in []byte) reply {
	o.t.Helper()
	return o.askIn(o.t.Context(), o.prefix(l)+"/"+path, in)
}

func (o *org) askIn(ctx context.Context, url string, in []byte) reply {
	o.t.Helper()
	method := http.MethodGet
	if in != nil {
		method = http.MethodPost
	}
	r, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(in))
	if err != nil {
		o.t.Fatal(err)
	}
	answer, err := o.http.Do(r)
	if err != nil {
		o.t.Fatal(err)
	}
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.Body.Close() != nil {
		o.t.Fatal(err)
	}
	return reply{answer, body}
}

// refused checks that an answer is a problem with this status and code, that it says all of words, and that nothing in it is signed.
func (r reply) refused(t testing.TB, status int, code string, words ...string) {
	t.Helper()
	var p problem.Problem
	if err := json.Unmarshal(r.body, &p); err != nil || r.StatusCode != status || p.Code != code {
		t.Errorf("status %d, code %q, want %d, %q: %s", r.StatusCode, p.Code, status, code, r.body)
	}
	for _, word := range words {
		if !strings.Contains(p.Detail, word) {
			t.Errorf("%q must say %q", p.Detail, word)
		}
	}
	if bytes.Contains(r.body, []byte("signature\"")) {
		t.Errorf("signed: %s", r.body)
	}
	if (r.Header.Get("Retry-After") != "") != (status == http.StatusServiceUnavailable) {
		t.Errorf("status %d with Retry-After %q", status, r.Header.Get("Retry-After"))
	}
}

func (r reply) ok(t testing.TB) []byte {
	t.Helper()
	if r.StatusCode != http.StatusOK {
		t.Fatalf("status %d: %s", r.StatusCode, r.body)
	}
	return r.body
}

// follower is another organisation's copy of a log, which takes over what is new only when told to.
type follower struct {
	*merklelogtest.Memory
	of      *ctapitest.Ledger
	waiting chan struct{} // tells of each call of Changed, as far as there is room

	mu      sync.Mutex // guards what follows
	changed chan struct{}
}

func follow(of *ctapitest.Ledger) *follower {
	return &follower{Memory: merklelogtest.New(), of: of, waiting: make(chan struct{}, 100), changed: make(chan struct{})}
}

func (f *follower) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case f.waiting <- struct{}{}:
	default:
	}
	return f.changed
}

// pull takes over entries until there are size.
func (f *follower) pull(t testing.TB, size uint64) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	entries, err := f.of.Entries(f.Head().Size, size)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		f.Append(e.Time, e)
	}
	close(f.changed)
	f.changed = make(chan struct{})
}

// copyOf is a log as a backup has it, with its first entries.
func copyOf(t testing.TB, l *ctapitest.Ledger, size uint64) *merklelogtest.Memory {
	t.Helper()
	f := follow(l)
	f.pull(t, size)
	return f.Memory
}

func never() <-chan struct{} { return nil }

// forward makes a submitter that hands a ledger's certificates to the front at url.
func forward(t testing.TB, l *ctapitest.Ledger, url string, client *http.Client, log merklelog.Log, changed func() <-chan struct{}) ctapi.Submitter {
	t.Helper()
	to, err := Forward(ForwardConfig{
		CAID: l.CA.ID, URL: url, Log: log, Changed: changed, HTTP: client, Chain: func() [][]byte { return [][]byte{l.CA.DER, l.Root.DER} },
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}
