package ca

import (
	"context"
	"crypto/elliptic"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/anchor/anchortest"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/problem"
)

func serverRequest(t *testing.T) string {
	return body(t, caapi.IssueRequest{CSR: newCSR(t, nil), Profile: "server"})
}

func TestNothingIsSignedWhileTheCAIsNotRegistered(t *testing.T) {
	dir, _ := newDir(t)
	w := startWorld(t, dir, nil)
	before := w.fingerprint()
	code, _, b := w.call("POST", caapi.PathCertificates, serverRequest(t), nil)
	if p := asProblem(t, b); code != http.StatusConflict || p.Field != "ca_id" || !strings.Contains(p.Rule, "certanchor ca register") {
		t.Fatalf("%d %s", code, b)
	}
	if w.fingerprint() != before {
		t.Fatal("it left traces")
	}
	ready, err := w.client("operator").Ready(t.Context())
	if err != nil || ready.Ready || ready.Registered || !strings.Contains(ready.Detail, "certanchor ca register") {
		t.Fatalf("%+v, %v", ready, err)
	}
	register(t, w.node, dir)
	if ready, err := w.client("operator").Ready(t.Context()); err != nil || !ready.Ready || ready.OperatingMSP != testMSP {
		t.Fatalf("%+v, %v", ready, err)
	}
	if code, _, b := w.call("POST", caapi.PathCertificates, serverRequest(t), nil); code != http.StatusCreated {
		t.Fatalf("%d %s", code, b)
	}
}

func TestNothingIsSignedWhileTheLedgerIsDown(t *testing.T) {
	var clock atomic.Int64
	clock.Store(time.Now().UnixMilli())
	w := newWorld(t, func(c *Config) { c.Now = func() time.Time { return time.UnixMilli(clock.Load()) } })
	if code, _, b := w.call("POST", caapi.PathCertificates, serverRequest(t), nil); code != http.StatusCreated {
		t.Fatalf("%d %s", code, b)
	}
	clock.Add(reachedFor.Milliseconds()) // the last answer is old now
	w.ledger.Down(true)
	before := w.fingerprint()
	code, h, b := w.call("POST", caapi.PathCertificates, serverRequest(t), nil)
	if p := asProblem(t, b); code != http.StatusServiceUnavailable || p.Code != problem.CodeUnavailable || h.Get("Retry-After") == "" {
		t.Fatalf("%d %s", code, b)
	}
	// A request that is at fault is told so in any case.
	if code, _, b := w.call("POST", caapi.PathCertificates, `{"csr":"x","profile":"server"}`, nil); code != http.StatusBadRequest {
		t.Fatalf("%d %s", code, b)
	}
	if w.fingerprint() != before {
		t.Fatal("something was signed")
	}
	if ready, err := w.client("operator").Ready(t.Context()); err != nil || ready.Ready || ready.Detail == "" {
		t.Fatalf("%+v, %v", ready, err)
	}
	w.ledger.Down(false)
	if code, _, b := w.call("POST", caapi.PathCertificates, serverRequest(t), nil); code != http.StatusCreated {
		t.Fatalf("%d %s", code, b)
	}
}

// The ledger goes down between the check and the submission: the certificate is never submitted, and the key is free again.
func TestAbandonedWhenNeverSubmitted(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Settings.IssueTimeout = time.Second })
	w.ledger.Plan(func(string) anchortest.Fault { return anchortest.Unavailable })
	req := caapi.IssueRequest{CSR: newCSR(t, nil), Profile: "server"}
	key := map[string]string{caapi.IdempotencyKey: "k"}
	code, _, b := w.call("POST", caapi.PathCertificates, body(t, req), key)
	if p := asProblem(t, b); code != http.StatusServiceUnavailable || p.Code != problem.CodeUnavailable || open(w.server) != 0 {
		t.Fatalf("%d %s, %d open", code, b, open(w.server))
	}
	// The outage is believed in for a while.
	w.ledger.Plan(nil)
	waitFor(t, "probe", func() bool {
		code, _, b = w.call("POST", caapi.PathCertificates, body(t, req), key)
		return code == http.StatusCreated
	})
	if w.logSize() != 1 {
		t.Fatalf("%d certificates on the ledger", w.logSize())
	}
}

// The answer to the transaction gets lost until the requester's time is up: it is told so, with an address to ask at, and both
// the address and the idempotency key lead to the certificate.
func TestUnknownOutcomeIsResolved(t *testing.T) {
	for _, fault := range []anchortest.Fault{anchortest.UnknownCommits, anchortest.UnknownLost, anchortest.UnknownLater} {
		t.Run(fmt.Sprint(fault), func(t *testing.T) {
			t.Parallel()
			testUnknownOutcome(t, fault)
		})
	}
}

func testUnknownOutcome(t *testing.T, fault anchortest.Fault) {
	w := newWorld(t, func(c *Config) { c.Settings.IssueTimeout = 2 * time.Second })
	w.ledger.Plan(func(string) anchortest.Fault { return fault })
	req := caapi.IssueRequest{CSR: newCSR(t, nil), Profile: "server"}
	key := map[string]string{caapi.IdempotencyKey: "k"}
	code, h, b := w.call("POST", caapi.PathCertificates, body(t, req), key)
	p := asProblem(t, b)
	if code != http.StatusServiceUnavailable || p.Code != problem.CodeUnknownOutcome || h.Get("Retry-After") == "" || !strings.HasPrefix(p.Instance, caapi.PathCertificates+"/") {
		t.Fatalf("%d %s", code, b)
	}
	if code, _, b := w.call("GET", p.Instance, "", nil); code != http.StatusServiceUnavailable || strings.Contains(string(b), "BEGIN") {
		t.Fatalf("%d %s", code, b)
	}
	w.ledger.Plan(nil)
	var got []byte
	waitFor(t, "resolution", func() bool {
		code, _, got = w.call("GET", p.Instance, "", nil)
		return code == http.StatusOK
	})
	again, err := w.client("operator").Issue(t.Context(), req, "k")
	if err != nil || !strings.Contains(string(got), again.Serial) || w.logSize() != 1 {
		t.Fatalf("%+v, %v, %d on the ledger", again, err, w.logSize())
	}
}

// Faults everywhere, many requesters, and a restart in the middle: what was acknowledged is on the ledger, and the ledger has
// nothing that the journal does not.
func TestNothingIsLostOrDoubledUnderFaults(t *testing.T) {
	dir, _ := newDir(t)
	w := startWorld(t, dir, func(c *Config) { c.Settings.IssueTimeout = 500 * time.Millisecond })
	register(t, w.node, dir)
	n := atomic.Int64{}
	w.ledger.Plan(func(string) anchortest.Fault { return anchortest.Fault(n.Add(1) % int64(anchortest.Hang)) })
	csrs := make([]string, 40)
	for i := range csrs {
		csrs[i] = newCSR(t, nil)
	}
	var mu sync.Mutex
	acked := map[string]bool{}
	var wg sync.WaitGroup
	for _, csr := range csrs {
		wg.Go(func() {
			if got, err := w.server.Issue(t.Context(), Request{CSR: csr, Profile: "server"}); err == nil {
				mu.Lock()
				acked[got.Serial.String()] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if err := w.server.Close(); err != nil {
		t.Fatal(err)
	}
	back, err := New(Config{Dir: dir, Key: prepared.key, Log: slog.New(slog.DiscardHandler)}, w.node.Connect(wire.RoleOperator))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := back.Close(); err != nil {
			t.Error(err)
		}
	}()
	waitFor(t, "resolution", func() bool { return open(back) == 0 })
	anchored := uint64(0)
	for _, e := range back.book.bySerial {
		if e.state == stateAnchored {
			anchored++
		} else if acked[e.serial.String()] {
			t.Errorf("%s was acknowledged and is in state %d", e.serial, e.state)
		}
		delete(acked, e.serial.String())
	}
	if len(acked) > 0 || anchored != w.logSize() {
		t.Fatalf("lost %v; %d anchored in the journal, %d on the ledger", acked, anchored, w.logSize())
	}
}

// fakeResponder confirms a block when it is told to.
type fakeResponder struct {
	name    string
	applied chan struct{} // closed: it has applied everything
}

func (f *fakeResponder) Name() string { return f.name }
func (f *fakeResponder) WaitApplied(ctx context.Context, _ uint64) error {
	select {
	case <-f.applied:
		return nil
	case <-ctx.Done():
		return errors.New("too slow")
	}
}

func TestRevocationWaitsForEveryResponder(t *testing.T) {
	quick, slow := &fakeResponder{"quick", make(chan struct{})}, &fakeResponder{"slow", make(chan struct{})}
	close(quick.applied)
	w := newWorld(t, func(c *Config) {
		c.Settings.AckTimeout = 200 * time.Millisecond
		c.Responders = []Responder{quick, slow}
	})
	cert, err := w.client("operator").Issue(t.Context(), caapi.IssueRequest{CSR: newCSR(t, nil), Profile: "server"}, "")
	if err != nil {
		t.Fatal(err)
	}
	req := caapi.RevokeRequest{Serial: cert.Serial, Reason: "keyCompromise", InvalidityDate: "2026-01-01T00:00:00Z"}
	c, acked, err := w.client("operator").Revoke(t.Context(), req)
	if err != nil || acked || c.State != "revoked" || !strings.Contains(c.Detail, "not acknowledged yet by slow") || !c.Responders[0].Applied || c.Responders[1].Applied {
		t.Fatalf("%+v, %t, %v", c, acked, err)
	}
	close(slow.applied)
	c, acked, err = w.client("operator").Revoke(t.Context(), req)
	if err != nil || !acked || c.Changed || c.Detail != "" {
		t.Fatalf("%+v, %t, %v", c, acked, err)
	}
	got, err := w.client("operator").Get(t.Context(), cert.Serial)
	if err != nil || got.Status.InvalidityDate != "2026-01-01T00:00:00.000Z" {
		t.Fatalf("%+v, %v", got.Status, err)
	}
}

func TestHTTPResponder(t *testing.T) {
	var mu sync.Mutex
	answers := []int{500, 504, 200}
	var asked []string
	hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, r.URL.Path+"?block="+r.URL.Query().Get("block"))
		if d, err := time.ParseDuration(r.URL.Query().Get("timeout")); err != nil || d <= 0 || d > longestPoll {
			t.Errorf("timeout %q", r.URL.Query().Get("timeout"))
		}
		w.WriteHeader(answers[0])
		answers = answers[1:]
	}))
	defer hs.Close()
	r := NewHTTPResponder(hs.URL+"/", nil)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := r.WaitApplied(ctx, 17); err != nil || len(asked) != 3 || asked[0] != "/v1/applied?block=17" || r.Name() != hs.URL {
		t.Fatalf("%v, asked %v", err, asked)
	}
	hs.Close()
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := r.WaitApplied(short, 17); err == nil {
		t.Fatal("a responder that is gone confirmed")
	}
}

func TestBrokenJournalIssuesNothing(t *testing.T) {
	w := newWorld(t, nil)
	breakDisk(t, w.server.journal)
	for range 2 {
		code, _, b := w.call("POST", caapi.PathCertificates, serverRequest(t), nil)
		if code != http.StatusInternalServerError || strings.Contains(string(b), "BEGIN") {
			t.Fatalf("%d %s", code, b)
		}
	}
	if ready := w.server.Ready(t.Context()); ready.Ready || w.logSize() != 0 {
		t.Fatalf("%+v, %d on the ledger", ready, w.logSize())
	}
	_ = w.server.Close() // says that the file is closed
	w.server.closeErr = nil
}

// The period that a profile promises is granted or refused, never shortened.
func TestValidityBeyondTheCA(t *testing.T) {
	dir, key := newDir(t)
	cert, _, err := LoadCertificate(dir)
	if err != nil {
		t.Fatal(err)
	}
	policy, err := parseProfiles(defaultProfiles(&InitOptions{}, DefaultValidity))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		now  time.Time
		ok   bool
	}{
		{"just fits", cert.NotAfter.Add(-policy.Profiles["server"].Expiry + defaultBackdate), true},
		{"a minute too long", cert.NotAfter.Add(-policy.Profiles["server"].Expiry + defaultBackdate + time.Minute), false},
		{"CA not valid yet", cert.NotBefore.Add(-time.Hour), false},
		{"backdating stops at the CA", cert.NotBefore.Add(time.Second), true},
	} {
		i, err := newIssuer(cert, nil, key, policy, func() time.Time { return tc.now })
		if err != nil {
			t.Fatal(err)
		}
		from, to, err := i.validity("server", policy.Profiles["server"])
		if (err == nil) != tc.ok {
			t.Errorf("%s: %v to %v, %v", tc.name, from, to, err)
		}
		if err == nil && (from.Before(cert.NotBefore) || to.After(cert.NotAfter)) {
			t.Errorf("%s: %v to %v lies outside the CA's", tc.name, from, to)
		}
		if we, ok := errors.AsType[*wire.Error](err); err != nil && (!ok || we.Code != wire.FailedPrecondition) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
	if _, err := newIssuer(cert, nil, key, policy, func() time.Time { return cert.NotAfter.Add(time.Second) }); err == nil {
		t.Error("an expired CA started")
	}
}

func TestConfigurationIsRefused(t *testing.T) {
	dir, key := newDir(t)
	node, err := openNode(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := node.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, tc := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"no directory", Config{Dir: dir + "x", Key: key}, "no such file"},
		{"no key", Config{Dir: dir}, "key"},
		{"another key", Config{Dir: dir, Key: ecKey(t, elliptic.P256())}, "does not belong"},
		{"issue_timeout", Config{Dir: dir, Key: key, Settings: Settings{IssueTimeout: time.Hour}}, `issue_timeout "1h0m0s"`},
		{"ack_timeout", Config{Dir: dir, Key: key, Settings: Settings{AckTimeout: 50 * time.Second}}, `ack_timeout "50s"`},
		{"max_batch", Config{Dir: dir, Key: key, Settings: Settings{MaxBatch: 5000}}, `max_batch "5000"`},
		{"max_batch_bytes", Config{Dir: dir, Key: key, Settings: Settings{MaxBatchBytes: 5}}, `max_batch_bytes "5"`},
		{"max_wait", Config{Dir: dir, Key: key, Settings: Settings{MaxWait: time.Minute}}, `max_wait "1m0s"`},
		{"max_queue", Config{Dir: dir, Key: key, Settings: Settings{MaxQueue: -5}}, `max_queue "-5"`},
		{"responders", Config{Dir: dir, Key: key, Settings: Settings{Responders: []string{"http://ok", "ocsp.example"}}}, `responders[1] "ocsp.example"`},
		{"responders, empty", Config{Dir: dir, Key: key, Settings: Settings{Responders: []string{""}}}, `responders[0] ""`},
	} {
		if _, err := New(tc.cfg, node.Connect(wire.RoleOperator)); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
}
