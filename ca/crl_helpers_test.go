package ca

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/crl"
	"github.com/certanchor/certanchor/internal/problem"
)

// crlBridge stands in for an organisation's OCSP bridge, as far as CRLs go. What it says of the ledger is what contents returns.
type crlBridge struct {
	t      testing.TB
	url    string
	issuer *x509.Certificate

	mu       sync.Mutex
	contents func(scope string, base uint64) (*crl.Contents, error)
	height   func() uint64
	check    func(*crl.Contents) error // of a CRL that is published; nil: all are taken
	fault    func(http.ResponseWriter, *http.Request, []byte) bool
	served   map[string][]byte // by path below /crl/
	numbers  map[string]uint64
	seen     map[string]map[[32]byte]bool // by scope and number: which CRLs anybody has got
	posts    int
	refused  int
	events   []chan struct{}
}

func newCRLBridge(t testing.TB, issuer *x509.Certificate) *crlBridge {
	t.Helper()
	b := &crlBridge{t: t, issuer: issuer, served: map[string][]byte{}, numbers: map[string]uint64{}, seen: map[string]map[[32]byte]bool{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/applied", b.getApplied)
	mux.HandleFunc("GET /v1/crl/contents/{ca}", b.getContents)
	mux.HandleFunc("GET /v1/events", b.getEvents)
	mux.HandleFunc("POST /crl/{ca}", b.post)
	mux.HandleFunc("GET /crl/{ca}/{name}", b.get)
	hs := httptest.NewServer(mux)
	t.Cleanup(func() { hs.CloseClientConnections(); hs.Close() })
	b.url = hs.URL
	return b
}

// set changes how the bridge behaves.
func (b *crlBridge) set(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
}

func (b *crlBridge) getContents(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	contents := b.contents
	b.mu.Unlock()
	base, err := strconv.ParseUint("0"+r.URL.Query().Get("base"), 10, 64)
	var c *crl.Contents
	if err == nil && contents == nil {
		err = wire.Errorf(wire.NotFound, "ca_id", r.PathValue("ca"), "must be known")
	}
	if err == nil {
		c, err = contents(r.URL.Query().Get("scope"), base)
	}
	if err != nil {
		problem.Write(w, slog.New(slog.DiscardHandler), err)
		return
	}
	w.Header().Set("Content-Type", crl.ContentType)
	if _, err := c.WriteTo(w); err != nil {
		b.t.Error(err)
	}
}

// getApplied does not wait, so the one who asks does.
func (b *crlBridge) getApplied(w http.ResponseWriter, r *http.Request) {
	block, err := strconv.ParseUint(r.URL.Query().Get("block"), 10, 64)
	b.mu.Lock()
	height := b.height
	b.mu.Unlock()
	if err != nil || height == nil || height() <= block {
		w.WriteHeader(http.StatusGatewayTimeout)
	}
}

func (b *crlBridge) getEvents(w http.ResponseWriter, r *http.Request) {
	ch := make(chan struct{}, 1)
	b.set(func() { b.events = append(b.events, ch) })
	w.Header().Set("Content-Type", "text/event-stream")
	for {
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-ch:
			fmt.Fprint(w, "event: status\ndata: {}\n\n")
		}
	}
}

// tell sends an event to whoever listens, and returns how many do.
func (b *crlBridge) tell() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, ch := range b.events {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
	return len(b.events)
}

func (b *crlBridge) post(w http.ResponseWriter, r *http.Request) {
	der, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.posts++
	if b.fault != nil && b.fault(w, r, der) {
		return
	}
	if err := b.take(der); err != nil {
		b.refused++
		problem.Write(w, slog.New(slog.DiscardHandler), problem.New(http.StatusUnprocessableEntity, string(wire.InvalidArgument), "crl", "", err.Error()))
	}
}

// take requires mu.
func (b *crlBridge) take(der []byte) error {
	list, err := crl.Parse(der)
	if err != nil {
		return err
	}
	if _, err := list.Verify([]*x509.Certificate{b.issuer}); err != nil {
		return err
	}
	c, err := list.Contents(wire.CAIDOf(b.issuer.RawSubjectPublicKeyInfo))
	if err != nil {
		return err
	}
	key := fmt.Sprintf("%s#%d", c.Scope, c.Number)
	if b.seen[key] == nil {
		b.seen[key] = map[[32]byte]bool{}
	}
	b.seen[key][sha256.Sum256(der)] = true
	if b.check != nil {
		if err := b.check(c); err != nil {
			return err
		}
	}
	kind := kindComplete
	if c.Base != 0 {
		kind = kindDelta
	}
	name := newSigned(c, kind, list.NextUpdate, der).path("")
	if c.Number > b.numbers[name] {
		b.served[name], b.numbers[name] = der, c.Number
	}
	return nil
}

func (b *crlBridge) get(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	der := b.served["/crl//"+r.PathValue("name")]
	b.mu.Unlock()
	if der == nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", crlContentType)
	w.Header().Set("ETag", (&signedCRL{sum: sha256.Sum256(der)}).etag())
	if r.Method == http.MethodGet {
		_, _ = w.Write(der) // the client sees what is missing
	}
}

// crlAt returns the contents of a CRL that the bridge serves; nil for none.
func (b *crlBridge) crlAt(name string) *crl.Contents {
	b.mu.Lock()
	der := b.served["/crl//"+name]
	b.mu.Unlock()
	if der == nil {
		return nil
	}
	list, err := crl.Parse(der)
	if err != nil {
		b.t.Fatal(err)
	}
	c, err := list.Contents(wire.CAIDOf(b.issuer.RawSubjectPublicKeyInfo))
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

// lists tells whether a CRL that the bridge serves has an entry for a serial.
func (b *crlBridge) lists(name, serial string) bool {
	c := b.crlAt(name)
	return c != nil && slices.ContainsFunc(c.Entries, func(e crl.Entry) bool { return e.Serial.String() == serial && !e.Remove })
}

// noNumberTwice fails if two different CRLs of one scope with the same number have been seen.
func (b *crlBridge) noNumberTwice() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.seen) == 0 {
		b.t.Error("no CRL was ever published")
	}
	for key, sums := range b.seen {
		if len(sums) != 1 {
			b.t.Errorf("%d different CRLs of scope and number %s", len(sums), key)
		}
	}
}

// ledgerView is what the ledger of a world says about the certificates that crlWorld.issue made.
type ledgerView struct {
	w     *world
	mu    sync.Mutex
	certs []*Issued
	past  map[string][]crl.Entry // by scope and number, of complete CRLs
}

func (v *ledgerView) contents(scope string, base uint64) (*crl.Contents, error) {
	l := v.w.node.Connect(wire.RoleOperator)
	c := &crl.Contents{CAID: v.w.server.CAID(), Scope: scope, Number: v.height(), Base: base, ThisUpdate: time.Now().UTC().Truncate(time.Second)}
	v.mu.Lock()
	certs := slices.Clone(v.certs)
	v.mu.Unlock()
	for _, e := range certs {
		urls, err := crl.Points(e.DER)
		if err != nil || scope != "" && !slices.Contains(urls, scope) {
			continue
		}
		values, err := readAll(l, wire.CertKey(c.CAID, e.Serial))
		if err != nil {
			return nil, err
		}
		var rec wire.CertRecord
		if values[0] == nil || wire.Decode(values[0], &rec) != nil || rec.State == wire.CertValid {
			continue
		}
		c.Entries = append(c.Entries, crl.Entry{Serial: e.Serial, Time: crl.SecondsOf(rec.StatusTime), Reason: rec.Reason})
	}
	crl.Sort(c.Entries)
	return c, v.cut(c)
}

func (v *ledgerView) height() uint64 {
	h, err := v.w.node.Connect(wire.RoleOperator).Height(context.Background())
	if err != nil {
		return 0 // the world is ending
	}
	return h
}

// cut makes a delta of complete contents, or remembers them.
func (v *ledgerView) cut(c *crl.Contents) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.past == nil {
		v.past = map[string][]crl.Entry{}
	}
	if c.Base == 0 {
		v.past[fmt.Sprintf("%s#%d", c.Scope, c.Number)] = c.Entries
		return nil
	}
	before, ok := v.past[fmt.Sprintf("%s#%d", c.Scope, c.Base)]
	if !ok {
		return wire.Errorf(wire.NotFound, "base", strconv.FormatUint(c.Base, 10), "must be the number of a complete CRL")
	}
	has := func(es []crl.Entry, e crl.Entry) bool {
		return slices.ContainsFunc(es, func(o crl.Entry) bool { return sameEntry(o, e) })
	}
	now := c.Entries
	c.Entries = nil
	for _, e := range now {
		if !has(before, e) {
			c.Entries = append(c.Entries, e)
		}
	}
	for _, e := range before {
		if !slices.ContainsFunc(now, func(o crl.Entry) bool { return o.Serial.String() == e.Serial.String() }) {
			c.Entries = append(c.Entries, crl.Entry{Serial: e.Serial, Time: crl.Seconds(time.Now().Unix()), Remove: true})
		}
	}
	crl.Sort(c.Entries)
	return nil
}

// crlWorld is a registered CA that makes CRLs out of its ledger, and the bridges of several organisations.
type crlWorld struct {
	*world
	view      *ledgerView
	bridges   []*crlBridge
	lintFails atomic.Bool
}

// newCRLWorld starts one with n bridges; the first says what the contents are.
func newCRLWorld(t testing.TB, n int, change func(*Config)) *crlWorld {
	t.Helper()
	dir, _ := newDir(t)
	return crlWorldIn(t, dir, n, change)
}

func crlWorldIn(t testing.TB, dir string, n int, change func(*Config)) *crlWorld {
	t.Helper()
	cert, _, err := LoadCertificate(dir)
	if err != nil {
		t.Fatal(err)
	}
	cw := &crlWorld{view: &ledgerView{}}
	set := &CRLSettings{PollEvery: minPollEvery, Staleness: 10 * time.Second}
	for range n {
		b := newCRLBridge(t, cert)
		cw.bridges = append(cw.bridges, b)
		set.Publish = append(set.Publish, b.url)
	}
	set.Contents = set.Publish[0]
	cw.world = startWorld(t, dir, func(c *Config) {
		c.Settings.CRL = set
		c.lintCRL = func(der []byte) error {
			if cw.lintFails.Load() {
				return errors.New("injected")
			}
			return lintCRL(der)
		}
		if change != nil {
			change(c)
		}
	})
	cw.view.w = cw.world
	cw.bridges[0].set(func() { cw.bridges[0].contents, cw.bridges[0].height = cw.view.contents, cw.view.height })
	register(t, cw.node, dir)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { // the ledger's clock goes on, as it does by itself where there is a bridge
		defer close(done)
		l := cw.node.Connect(wire.RoleOperator)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				_, _ = l.Submit(t.Context(), wire.FnTick, wire.Encode(&wire.TickArg{V: wire.Version})) // one per epoch; others are refused
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
	return cw
}

// issue returns the serial of a new certificate.
func (cw *crlWorld) issue() string { cw.t.Helper(); return cw.issueAt(cw.server) }

// issueAt lets the ledger view find the certificate, too, when it is another process's.
func (cw *crlWorld) issueAt(s *Server) string {
	cw.t.Helper()
	got, err := s.Issue(cw.t.Context(), Request{CSR: newCSR(cw.t, nil), Profile: "server"})
	if err != nil {
		cw.t.Fatal(err)
	}
	cw.view.mu.Lock()
	defer cw.view.mu.Unlock()
	cw.view.certs = append(cw.view.certs, got)
	return got.Serial.String()
}

func (cw *crlWorld) revoke(serial, reason string) {
	cw.t.Helper()
	cw.change(cw.server, caapi.RevokeRequest{Serial: serial, Reason: reason})
}

func (cw *crlWorld) revokeAt(s *Server, serial string) {
	cw.t.Helper()
	cw.change(s, caapi.RevokeRequest{Serial: serial, Reason: "keyCompromise"})
}

func (cw *crlWorld) change(s *Server, r caapi.RevokeRequest) {
	cw.t.Helper()
	if _, _, err := s.Revoke(cw.t.Context(), r); err != nil {
		cw.t.Fatal(err)
	}
}

func (cw *crlWorld) status() *caapi.CRLs {
	cw.t.Helper()
	st, err := cw.client("auditor").CRLs(cw.t.Context())
	if err != nil {
		cw.t.Fatal(err)
	}
	return st
}

// target is the status of a bridge.
func (cw *crlWorld) target(i int) caapi.CRLTarget {
	cw.t.Helper()
	for _, t := range cw.status().Targets {
		if t.URL == strings.TrimSuffix(cw.bridges[i].url, "/") {
			return t
		}
	}
	cw.t.Fatal("no such target")
	return caapi.CRLTarget{}
}

// everywhere waits until every bridge's CRL lists a serial.
func (cw *crlWorld) everywhere(name, serial string) {
	cw.t.Helper()
	for i, b := range cw.bridges {
		waitFor(cw.t, fmt.Sprintf("%s in %s at bridge %d", serial, name, i), func() bool { return b.lists(name, serial) })
	}
}
