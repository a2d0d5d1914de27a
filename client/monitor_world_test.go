package client_test

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/client"
	"github.com/certanchor/certanchor/internal/ctleaf"
	"github.com/certanchor/certanchor/internal/lognames"
	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/merklelog/merklelogtest"
	"github.com/certanchor/certanchor/internal/policy"
	"github.com/certanchor/certanchor/internal/policy/policytest"
	"github.com/certanchor/certanchor/internal/tiles"
)

// logsWorld is an organisation's bridge as a monitor sees it: logs in memory, behind the real tile handlers.
type logsWorld struct {
	*policytest.Consortium
	t      testing.TB
	server *httptest.Server

	mu       sync.Mutex // guards what follows: the server reads it
	now      time.Time
	cas      []*cctest.CA
	hidden   map[string]bool // by name: not listed
	logs     map[string]*merklelogtest.Memory
	signers  []*policytest.Org
	tamper   func(w http.ResponseWriter, r *http.Request) bool // answers instead, if it returns true
	change   func(path string, body []byte) []byte             // of an answer
	requests []string
}

func newLogsWorld(t testing.TB) *logsWorld {
	t.Helper()
	w := &logsWorld{t: t, now: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC), hidden: map[string]bool{}, logs: map[string]*merklelogtest.Memory{"status": merklelogtest.New()}}
	w.Consortium = policytest.New(t, channel, 3, 45*time.Second, w.Now, fourOrgs...)
	w.signers = w.Orgs
	w.addCA()
	w.server = httptest.NewServer(http.HandlerFunc(w.serve))
	t.Cleanup(w.server.Close)
	return w
}

func (w *logsWorld) Now() time.Time { return w.now }

// clock and sleep are a monitor's.
func (w *logsWorld) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *logsWorld) sleep(ctx context.Context, d time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
	return ctx.Err()
}

func (w *logsWorld) locked(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func (w *logsWorld) step() wire.Millis {
	w.now = w.now.Add(time.Second)
	return wire.MillisOf(w.now)
}

// addCA puts a CA onto the trust list.
func (w *logsWorld) addCA() *cctest.CA {
	w.t.Helper()
	ca := cctest.NewCA(w.t)
	w.locked(func() {
		w.cas = append(w.cas, ca)
		w.logs[ca.ID.String()] = merklelogtest.New()
	})
	w.status(wire.StatusLeaf{Kind: wire.LeafCA, CAID: ca.ID, Change: 1, State: uint(wire.CAActive)})
	return ca
}

func named(names ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.DNSNames = names }
}

// issue logs a certificate of the first CA.
func (w *logsWorld) issue(names ...string) *x509.Certificate {
	w.t.Helper()
	return w.issueBy(w.cas[0], names...)
}

func (w *logsWorld) issueBy(ca *cctest.CA, names ...string) *x509.Certificate {
	w.t.Helper()
	der, cert := ca.Issue(w.t, named(names...))
	w.log(ca, der, false)
	return cert
}

// log appends an entry; der may be anything.
func (w *logsWorld) log(ca *cctest.CA, der []byte, precert bool) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	log, at := w.logs[ca.ID.String()], w.step()
	e := merklelog.Entry{Kind: merklelog.X509, Time: at, DER: der}
	var err error
	if precert {
		e.Kind = merklelog.Precert
		var tbs []byte
		if tbs, err = ctleaf.PrecertTBS(der); err == nil {
			e.Leaf, err = ctleaf.Precert(log.Head().Size, at, ca.ID, tbs)
		}
	} else {
		e.Leaf, err = ctleaf.X509(log.Head().Size, at, der)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	log.Append(at, e)
}

// status appends to the status log.
func (w *logsWorld) status(l wire.StatusLeaf) {
	w.mu.Lock()
	defer w.mu.Unlock()
	l.V, l.Time = wire.Version, w.step()
	w.logs["status"].Append(l.Time, merklelog.Entry{Kind: merklelog.Status, Time: l.Time, Leaf: wire.Encode(&l)})
}

func (w *logsWorld) set(cert *x509.Certificate, state wire.CertState, reason wire.Reason) {
	w.status(wire.StatusLeaf{Kind: wire.LeafCert, CAID: w.cas[0].ID, Serial: cctest.Serial(w.t, cert), Change: 1, State: uint(state), Reason: reason})
}

func (w *logsWorld) origin(name string) string {
	if name == "status" {
		return lognames.Status(channel)
	}
	id, err := wire.ParseCAID(name)
	if err != nil {
		w.t.Error(err)
	}
	return lognames.Issuance(channel, id)
}

func (w *logsWorld) ca0() string { return w.origin(w.cas[0].ID.String()) }

func (w *logsWorld) serve(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.requests = append(w.requests, r.URL.Path)
	if w.tamper != nil {
		// It may wait for the client.
		tamper := w.tamper
		w.mu.Unlock()
		done := tamper(rw, r)
		w.mu.Lock()
		if done {
			return
		}
	}
	if w.change == nil {
		w.answer(rw, r)
		return
	}
	r.Header.Del("Accept-Encoding")
	rec := httptest.NewRecorder()
	path := r.URL.Path // answer shortens it
	w.answer(rec, r)
	rw.WriteHeader(rec.Code)
	_, _ = rw.Write(w.change(path, rec.Body.Bytes()))
}

func (w *logsWorld) answer(rw http.ResponseWriter, r *http.Request) {
	rest, _ := strings.CutPrefix(r.URL.Path, "/logs")
	if rest == "" {
		w.list(rw)
		return
	}
	name, path, _ := strings.Cut(strings.TrimPrefix(rest, "/"), "/")
	log := w.logs[name]
	if log == nil {
		http.NotFound(rw, r)
		return
	}
	conf := tiles.Config{Log: log, Logger: slog.New(slog.DiscardHandler), Checkpoint: func(context.Context) ([]byte, error) {
		return policytest.Checkpoint(w.t, log, w.origin(name), log.Head().Size, w.signers...), nil
	}}
	if inner, ok := strings.CutPrefix(path, "static/"); ok {
		path, conf.Static = inner, &tiles.Static{Chain: [][]byte{w.cas[0].DER}}
	}
	h, err := tiles.New(conf)
	if err != nil {
		w.t.Error(err)
		return
	}
	r.URL.Path = "/" + path
	h.ServeHTTP(rw, r)
}

func (w *logsWorld) list(rw http.ResponseWriter) {
	type entry struct {
		CAID   string `json:"ca_id"`
		Origin string `json:"origin"`
		Size   uint64 `json:"size"`
		VKey   string `json:"vkey"`
	}
	list := []entry{{Origin: lognames.Status(channel)}, {Origin: lognames.Map(channel)}}
	for _, ca := range w.cas {
		if name := ca.ID.String(); !w.hidden[name] {
			list = append(list, entry{CAID: name, Origin: w.origin(name), Size: w.logs[name].Head().Size})
		}
	}
	if err := json.NewEncoder(rw).Encode(list); err != nil {
		w.t.Error(err)
	}
}

func (w *logsWorld) policy() *client.Policy {
	w.t.Helper()
	signed, err := (&policy.Signed{Policy: w.Policy}).Marshal()
	if err != nil {
		w.t.Fatal(err)
	}
	p, err := client.LoadPolicy(signed, w.Policy.Fingerprint())
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

func (w *logsWorld) logKey() []note.Verifier {
	w.t.Helper()
	keys, err := client.ParseLogKeys(w.Orgs[0].LogKey)
	if err != nil {
		w.t.Fatal(err)
	}
	return keys
}

// watcher is a monitor and what it has delivered.
type watcher struct {
	*client.Monitor
	w      *logsWorld
	events []client.Event
}

// watch makes a monitor for example.org.
func (w *logsWorld) watch(tweaks ...func(*client.MonitorConfig)) *watcher {
	w.t.Helper()
	x := &watcher{w: w}
	conf := client.MonitorConfig{
		URL: w.server.URL, Match: []string{"example.org"}, Policy: w.policy(), FromStart: true,
		Deliver: func(_ context.Context, events []client.Event) error {
			x.events = append(x.events, events...)
			return nil
		},
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Now: w.clock, Sleep: w.sleep,
	}
	for _, tweak := range tweaks {
		tweak(&conf)
	}
	var err error
	if x.Monitor, err = client.NewMonitor(conf); err != nil {
		w.t.Fatal(err)
	}
	return x
}

func stateIn(t testing.TB) (string, func(*client.MonitorConfig)) {
	path := filepath.Join(t.TempDir(), "monitor.state")
	return path, func(c *client.MonitorConfig) { c.StateFile = path }
}

// catchUp returns what is new.
func (x *watcher) catchUp() []client.Event {
	x.w.t.Helper()
	if err := x.CatchUp(x.w.t.Context()); err != nil {
		x.w.t.Fatal(err)
	}
	return x.take()
}

func (x *watcher) take() []client.Event {
	events := x.events
	x.events = nil
	return events
}

// alarm expects one alarm of a class, or none that is new.
func (x *watcher) alarm(class string) client.Event {
	x.w.t.Helper()
	if err := x.CatchUp(x.w.t.Context()); !errors.Is(err, client.ErrAlarm) {
		x.w.t.Fatalf("CatchUp: %v; want an alarm", err)
	}
	events := x.take()
	if class == "" && len(events) == 0 {
		return client.Event{}
	}
	if len(events) != 1 || events[0].Kind != client.EventAlarm || events[0].Alarm != class {
		x.w.t.Fatalf("events are %+v, want an alarm %q", events, class)
	}
	return events[0]
}

func ids(events []client.Event) []string {
	var list []string
	for _, e := range events {
		list = append(list, e.ID)
	}
	return list
}

func sha(der []byte) [32]byte { return sha256.Sum256(der) }
