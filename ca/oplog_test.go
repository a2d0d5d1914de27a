package ca

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/anchor/anchortest"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/oplog"
)

// quickly anchors the operators' log often.
func quickly(c *Config) { c.Settings.OperatorsLog.AnchorEvery = 100 * time.Millisecond }

// audited is the log of the CA in w's directory, compared with every head on the ledger.
func (w *world) audited() (*oplog.Report, []*oplog.Record) {
	w.t.Helper()
	cert, _, err := LoadCertificate(w.dir)
	if err != nil {
		w.t.Fatal(err)
	}
	id := wire.CAIDOf(cert.RawSubjectPublicKeyInfo)
	histories, err := oplog.Histories(w.t.Context(), w.node.Connect(wire.RoleAuditor), id, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	name, err := oplog.NameOf(w.dir)
	if err != nil {
		w.t.Fatal(err)
	}
	files, err := oplog.Files(w.dir)
	if err != nil {
		w.t.Fatal(err)
	}
	var records []*oplog.Record
	r, err := oplog.Verify(files, id, name, true, histories[name], func(_ uint64, rec *oplog.Record) error { records = append(records, rec); return nil })
	if err != nil {
		w.t.Fatal(err)
	}
	return r, records
}

// told is what the log says once everything is written: entries, and their outcomes by number.
func (w *world) told() (entries []*oplog.Record, outcomes map[uint64]*oplog.Record) {
	w.t.Helper()
	waitFor(w.t, "outcomes", func() bool { return len(w.server.operators.log.Unfinished()) == 0 })
	if _, err := w.server.operators.log.Head(); err != nil {
		w.t.Fatal(err)
	}
	_, records := w.audited()
	outcomes = map[uint64]*oplog.Record{}
	for _, r := range records {
		switch r.Kind {
		case oplog.Tells:
			entries = append(entries, r)
		case oplog.Ends:
			outcomes[r.Of] = r
		case oplog.Begins:
		}
	}
	return entries, outcomes
}

func TestEveryMutatingRequestIsRecordedWithItsOutcome(t *testing.T) {
	w := newWorld(t, nil)
	cert, err := w.client("requester").Issue(t.Context(), caapi.IssueRequest{CSR: newCSR(t, nil), Profile: "server"}, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.client("operator").Revoke(t.Context(), caapi.RevokeRequest{Serial: cert.Serial, Reason: "certificateHold"}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.client("operator").Release(t.Context(), cert.Serial); err != nil {
		t.Fatal(err)
	}
	for _, refused := range []string{`{"serial":"01","reason":"superseded"}`, `{"serial":"0\n\u001b[2J1","reason":"x"}`, `not json`} {
		w.call("POST", caapi.PathRevocations, refused, nil)
	}
	w.call("POST", caapi.PathRevocations, `{"serial":"01"}`, map[string]string{"Authorization": "Bearer " + w.token("requester")})
	before := w.server.operators.log.Size()
	for _, path := range []string{caapi.PathCA, caapi.PathCRLs, caapi.PathReady, caapi.PathCertificates + "/" + cert.Serial} {
		w.call("GET", path, "", nil)
	}
	if after := w.server.operators.log.Size(); after != before {
		t.Fatalf("reading made %d records", after-before)
	}
	entries, outcomes := w.told()
	want := []struct{ actor, action, target, outcome string }{
		{"requester", "POST /v1/certificates", cert.Serial, "done"},
		{"operator", "POST /v1/revocations", cert.Serial, "done"},
		{"operator", "POST /v1/releases", cert.Serial, "done"},
		{"operator", "POST /v1/revocations", "01", "refused: "},
		{"operator", "POST /v1/revocations", `0\u{a}\u{1b}[2J1`, "refused: "},
		{"operator", "POST /v1/revocations", "", "refused: "},
		{"requester", "POST /v1/revocations", "", "refused: role"},
	}
	if len(entries) != len(want) {
		t.Fatalf("%d entries, want %d", len(entries), len(want))
	}
	for i, e := range entries {
		outcome, target := e.Outcome, e.Target
		if end := outcomes[e.Seq]; end != nil {
			outcome = end.Outcome
			if end.Target != "" {
				target = end.Target
			}
		}
		x := want[i]
		if e.Actor != x.actor || e.How != "token" || e.Action != x.action || target != x.target || !strings.HasPrefix(outcome, x.outcome) || e.Source != "127.0.0.1" {
			t.Errorf("entry %d is %+v with outcome %q, want %+v", i, e, outcome, x)
		}
		if e.Outcome == "" && len(e.Detail["sha256"]) != 64 {
			t.Errorf("entry %d has the details %v", i, e.Detail)
		}
	}
	if d := entries[1].Detail; d["reason"] != "certificateHold" {
		t.Errorf("the hold has the details %v", d)
	}
}

// What a handler records beside has the client and the address of the request.
func TestHandlersMayRecordMore(t *testing.T) {
	w := newWorld(t, nil)
	r := httptest.NewRequest("POST", "/v1/something", nil)
	if err := w.server.operated(r, &client{name: "alice", how: howHMAC}, oplog.Entry{Action: "part of it", Target: "0a", Outcome: oplog.Done}); err != nil {
		t.Fatal(err)
	}
	entries, _ := w.told()
	if e := entries[0]; e.Actor != "alice" || e.How != howHMAC || e.Source != "192.0.2.1" || e.Action != "part of it" || e.Outcome != oplog.Done {
		t.Fatalf("%+v", e)
	}
}

// What cannot be recorded is not done: not signed, not journalled, not on the ledger.
func TestNothingIsDoneWithoutARecordOfIt(t *testing.T) {
	w := newWorld(t, nil)
	cert, err := w.client("requester").Issue(t.Context(), caapi.IssueRequest{CSR: newCSR(t, nil), Profile: "server"}, "")
	if err != nil {
		t.Fatal(err)
	}
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0) // each write fails with ENOSPC
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.server.operators.log.Head(); err != nil {
		t.Fatal(err)
	}
	disk, before := w.server.operators.log.Swap(full), w.fingerprint()
	for range 2 {
		for path, body := range map[string]string{caapi.PathCertificates: serverRequest(t), caapi.PathRevocations: fmt.Sprintf(`{"serial":%q,"reason":"superseded"}`, cert.Serial)} {
			code, h, b := w.call("POST", path, body, nil)
			if p := asProblem(t, b); code != http.StatusServiceUnavailable || h.Get("Retry-After") == "" || p.Field != "operators_log" || !strings.Contains(p.Rule, "nothing was changed") {
				t.Fatalf("%s: %d %s", path, code, b)
			}
		}
	}
	if _, err := w.server.EnrollResponder(t.Context(), w.server.CAID(), nil); err == nil {
		t.Fatal("a responder was enrolled")
	}
	if now := w.fingerprint(); now != before {
		t.Fatalf("%s, before it was %s", now, before)
	}
	if ready := w.server.Ready(t.Context()); ready.Ready || !strings.Contains(ready.Detail, "operators_log") {
		t.Fatalf("%+v", ready)
	}
	if code, _, b := w.call("GET", caapi.PathCertificates+"/"+cert.Serial, "", nil); code != http.StatusOK {
		t.Fatalf("reading: %d %s", code, b)
	}
	w.server.operators.log.Swap(disk)
	if err := full.Close(); err != nil {
		t.Fatal(err)
	}
}

// A flood of refused requests is counted, and cannot fill the disk.
func TestRefusedRequestsAreCountedInFewRecords(t *testing.T) {
	w := newWorld(t, nil)
	waitFor(t, "comparison with the ledger", w.server.operators.settled.Load)
	before := w.server.operators.log.Size()
	const n = 3 * ownRefusals
	for range n {
		if code, _, _ := w.call("POST", caapi.PathRevocations, "{}", map[string]string{"Authorization": ""}); code != http.StatusUnauthorized && code != http.StatusTooManyRequests {
			t.Fatalf("anonymous: %d", code)
		}
		if code, _, _ := w.call("POST", caapi.PathRevocations, "{}", map[string]string{"Authorization": "Bearer " + w.token("auditor")}); code != http.StatusForbidden {
			t.Fatalf("auditor: %d", code)
		}
	}
	w.server.operators.tellRefused()
	if got := w.server.operators.log.Size() - before; got != ownRefusals+2 {
		t.Fatalf("%d records, want %d", got, ownRefusals+2)
	}
	entries, _ := w.told()
	anonymous, auditor := entries[len(entries)-2], entries[len(entries)-1]
	if anonymous.Actor != "" || anonymous.Detail["count"] != fmt.Sprint(n) || anonymous.Detail["sources"] != "127.0.0.1" || anonymous.Outcome != "refused: not authenticated, or over the rate" {
		t.Errorf("%+v", anonymous)
	}
	if auditor.Actor != "auditor" || auditor.Detail["count"] != fmt.Sprint(n-ownRefusals) || auditor.Outcome != "refused: not allowed" {
		t.Errorf("%+v", auditor)
	}
	w.server.operators.tellRefused() // nothing is left to tell
	if got := w.server.operators.log.Size() - before; got != ownRefusals+2 {
		t.Fatalf("%d records", got)
	}
}

func TestHeadIsAnchoredAtIntervalsAndAtTheEnd(t *testing.T) {
	w := newWorld(t, quickly)
	for range 3 {
		if _, err := w.client("requester").Issue(t.Context(), caapi.IssueRequest{CSR: newCSR(t, nil), Profile: "server"}, ""); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "anchor", w.anchored)
	}
	r, _ := w.audited()
	if len(r.Differences) != 0 || r.Parts[0].Heads < 2 || r.Parts[0].Anchored != r.Parts[0].Records {
		t.Fatalf("%+v", r)
	}
	// Another one is not anchored while nothing happens.
	h := height(t, w)
	w.server.operators.tellRefused()
	if err := w.server.operators.anchor(t.Context()); err != nil || height(t, w) != h {
		t.Fatalf("%v, height %d, before it was %d", err, height(t, w), h)
	}
	if err := w.server.Close(); err != nil {
		t.Fatal(err)
	}
	slow, err := New(Config{Dir: w.dir, Key: prepared.key, Log: quiet}, w.ledger)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := slow.EnrollResponder(t.Context(), slow.CAID(), nil); err == nil {
		t.Fatal("enrolled without a request")
	}
	if err := slow.Close(); err != nil {
		t.Fatal(err)
	}
	if r, _ := w.audited(); len(r.Differences) != 0 || r.Parts[0].Anchored != r.Parts[0].Records || r.Parts[0].Unfinished != 0 {
		t.Fatalf("after the end: %+v", r)
	}
}

// TestOutcomeOfAnInterruptedChangeIsFoundOnTheLedger: the process ended after it recorded that it would change a status.
func TestOutcomeOfAnInterruptedChangeIsFoundOnTheLedger(t *testing.T) {
	w := newWorld(t, nil)
	var serials []string
	for range 3 {
		c, err := w.client("requester").Issue(t.Context(), caapi.IssueRequest{CSR: newCSR(t, nil), Profile: "server"}, "")
		if err != nil {
			t.Fatal(err)
		}
		serials = append(serials, c.Serial)
	}
	if _, _, err := w.client("operator").Revoke(t.Context(), caapi.RevokeRequest{Serial: serials[0], Reason: "superseded"}); err != nil {
		t.Fatal(err)
	}
	if err := w.server.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := oplog.OpenWith(w.dir, oplog.Options{Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	want := map[uint64]string{}
	for _, c := range []struct{ action, target, reason, outcome string }{
		{"POST /v1/revocations", serials[0], "superseded", "done"},
		{"POST /v1/revocations", serials[0], "keyCompromise", "failed: the ledger does not have it"},
		{"POST /v1/revocations", serials[1], "superseded", "failed: the ledger does not have it"},
		{"POST /v1/revocations", "ff", "superseded", "failed: the ledger does not have it"},
		{"POST /v1/releases", serials[1], "", "done"},
		{"POST /v1/releases", serials[0], "", "failed: the ledger does not have it"},
		{"POST /v1/revocations", "nonsense", "superseded", "unknown"},
		{"POST /v1/something", serials[0], "", "unknown"},
	} {
		seq, err := l.Record(oplog.Entry{Actor: "operator", Action: c.action, Target: c.target, Detail: map[string]string{"reason": c.reason}})
		if err != nil {
			t.Fatal(err)
		}
		want[seq] = c.outcome
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Dir: w.dir, Key: prepared.key, Log: quiet}, w.ledger)
	if err != nil {
		t.Fatal(err)
	}
	w.serve(s)
	admin := w.node.Connect(wire.RoleOperator)
	waitFor(t, "outcomes", func() bool {
		_, _ = admin.Submit(t.Context(), wire.FnTick, wire.Encode(&wire.TickArg{V: wire.Version})) // one per epoch; others are refused
		return len(s.operators.log.Unfinished()) == 0
	})
	_, outcomes := w.told()
	for seq, outcome := range want {
		if got := outcomes[seq]; got == nil || got.Outcome != outcome || got.Detail[foundHow] == "" {
			t.Errorf("record %d: %+v, want %q", seq, got, outcome)
		}
	}
}

func height(t *testing.T, w *world) uint64 {
	t.Helper()
	h, err := w.node.Connect(wire.RoleAuditor).Height(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// Whatever becomes of the transactions, the log is anchored in the end, and the CA says so while it is not.
func TestAnchoringGoesOnAfterEveryFault(t *testing.T) {
	for _, fault := range []anchortest.Fault{anchortest.Conflict, anchortest.Unavailable, anchortest.UnknownLost, anchortest.UnknownCommits, anchortest.Mismatch} {
		t.Run(fmt.Sprint(fault), func(t *testing.T) {
			now := &fakeClock{at: time.Now()}
			w := newWorld(t, func(c *Config) { quickly(c); c.Now = now.Now })
			if _, err := w.client("requester").Issue(t.Context(), caapi.IssueRequest{CSR: newCSR(t, nil), Profile: "server"}, ""); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "anchor", w.anchored)
			w.ledger.Plan(func(function string) anchortest.Fault {
				if function == wire.FnAnchorOperators {
					return fault
				}
				return anchortest.None
			})
			w.call("POST", caapi.PathRevocations, `{"serial":"01","reason":"superseded"}`, nil)
			if fault != anchortest.UnknownCommits { // which is found to have committed
				waitFor(t, "failure", func() bool {
					w.server.operators.mu.Lock()
					defer w.server.operators.mu.Unlock()
					return w.server.operators.failure != nil
				})
				now.move(time.Minute)
				if r := w.server.Ready(t.Context()); r.Ready || !strings.Contains(r.Detail, "not anchored in the ledger") {
					t.Fatalf("%+v", r)
				}
				now.move(-time.Minute)
			}
			w.ledger.Plan(nil)
			waitFor(t, "anchor", w.anchored)
			if r := w.server.Ready(t.Context()); !r.Ready {
				t.Fatalf("%+v", r)
			}
			if r, _ := w.audited(); len(r.Differences) != 0 || r.Parts[0].Anchored != r.Parts[0].Records {
				t.Fatalf("%+v", r)
			}
		})
	}
}

// TestOldCopyOfTheDirectoryDoesNothing: a CA whose log lacks what is anchored neither goes on nor forks it, until somebody says that it was
// restored; then it has the certificates that the copy lacks, and the audit tells what is lost of the log.
func TestOldCopyOfTheDirectoryDoesNothingUntilItIsMarked(t *testing.T) {
	w := newWorld(t, quickly)
	issue := func() *caapi.Certificate {
		t.Helper()
		c, err := w.client("requester").Issue(t.Context(), caapi.IssueRequest{CSR: newCSR(t, nil), Profile: "server"}, "")
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	issue()
	if err := w.server.Close(); err != nil {
		t.Fatal(err)
	}
	old, first := filepath.Join(t.TempDir(), "old"), w.dir
	copyTree(t, old, w.dir)
	restart := func(dir string, l *anchortest.Ledger) *Server {
		t.Helper()
		s, err := New(Config{Dir: dir, Key: prepared.key, Log: slog.New(slog.DiscardHandler), Settings: Settings{OperatorsLog: OperatorsLogSettings{AnchorEvery: 100 * time.Millisecond}}}, l)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	w.serve(restart(w.dir, w.ledger))
	lost := []*caapi.Certificate{issue(), issue(), issue()}
	if err := w.server.Close(); err != nil {
		t.Fatal(err)
	}

	w.dir = old
	w.serve(restart(old, w.ledger))
	before := w.fingerprint()
	for range 3 {
		code, _, b := w.call("POST", caapi.PathCertificates, serverRequest(t), nil)
		if code != http.StatusServiceUnavailable || !strings.Contains(asProblem(t, b).Rule, "certanchor ca restored") {
			t.Fatalf("%d %s", code, b)
		}
	}
	if now := w.fingerprint(); now != before || w.server.Ready(t.Context()).Ready {
		t.Fatalf("%s, before it was %s", now, before)
	}
	if err := w.server.Close(); err != nil {
		t.Fatal(err)
	}

	if err := oplog.MarkRestored(old, oplog.Restored{Restored: time.Now(), From: "a copy"}); err != nil {
		t.Fatal(err)
	}
	w.serve(restart(old, w.ledger))
	waitFor(t, "catching up", w.server.operators.settled.Load)
	for _, c := range lost {
		got, err := w.client("auditor").Get(t.Context(), c.Serial)
		if err != nil || got.Certificate != c.Certificate || got.LogIndex != c.LogIndex {
			t.Fatalf("%s: %+v, %v", c.Serial, got, err)
		}
	}
	// Doing it again, as after a kill in the middle, takes nothing in twice.
	caughtUp := w.fingerprint()
	if err := w.server.catchUp(t.Context(), func(error) {}); err != nil {
		t.Fatal(err)
	}
	if now := strings.Split(w.fingerprint(), ", "); now[1] != strings.Split(caughtUp, ", ")[1] {
		t.Fatalf("%s, before it was %s", now, caughtUp)
	}
	issue()
	waitFor(t, "anchor", w.anchored)
	if got := w.logSize(); got != 5 {
		t.Fatalf("%d certificates on the ledger", got)
	}
	r, _ := w.audited()
	if len(r.Differences) != 0 || len(r.Gaps) != 1 || r.Gaps[0].Anchored == 0 || len(r.Parts) != 2 || r.Parts[1].Heads == 0 {
		t.Fatalf("%+v", r)
	}
	// The disk that was thought lost comes back: it is not the log of the ledger any more.
	stale := restart(first, w.ledger)
	<-stale.operators.first
	var behind *oplog.BehindError
	if err := stale.operators.state(t.Context()); !errors.As(err, &behind) {
		t.Fatalf("got %v", err)
	}
	if err := stale.Close(); err != nil {
		t.Fatal(err)
	}
}

// anchored tells whether the whole log was when it was last looked at.
func (w *world) anchored() bool {
	w.server.operators.mu.Lock()
	defer w.server.operators.mu.Unlock()
	return w.server.operators.since.IsZero()
}

// serve makes another Server the world's.
func (w *world) serve(s *Server) {
	w.t.Helper()
	w.server = s
	hs := httptest.NewServer(s.Handler())
	w.t.Cleanup(hs.Close)
	w.url = hs.URL
}

type fakeClock struct {
	mu sync.Mutex
	at time.Time
}

func (c *fakeClock) Now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.at }
func (c *fakeClock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}
