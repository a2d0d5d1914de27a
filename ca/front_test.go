package ca

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	ct "github.com/google/certificate-transparency-go"
	ctclient "github.com/google/certificate-transparency-go/client"
	"github.com/google/certificate-transparency-go/jsonclient"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/anchor/anchortest"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/problem"
	"github.com/certanchor/certanchor/internal/sct"
	"github.com/certanchor/certanchor/network"
)

// newTestFront is a CA bridge that takes submissions, with the time of now unless that is nil, and certificate-transparency-go's client for it, which verifies each SCT.
func newTestFront(t *testing.T, now func() time.Time) (*world, *ctclient.LogClient) {
	t.Helper()
	key, err := sct.LoadOrCreate(filepath.Join(t.TempDir(), "log.pem"))
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(c *Config) {
		c.CT = &Submissions{Key: key, Prefix: "https://ca.example"}
		if now != nil {
			c.Now = now
		}
	})
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: key.SPKI()})
	c, err := ctclient.New(w.url, http.DefaultClient, jsonclient.Options{PublicKey: string(public)})
	if err != nil {
		t.Fatal(err)
	}
	return w, c
}

func TestOtherSoftwareSubmitsAsToACTLog(t *testing.T) {
	w, c := newTestFront(t, nil)
	ca := w.elsewhere()
	der, _ := ca.Issue(t, shortLived)
	chain := []ct.ASN1Cert{{Data: der}, {Data: ca.DER}}
	first, err := c.AddChain(t.Context(), chain)
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.AddChain(t.Context(), chain)
	if err != nil || string(again.Signature.Signature) != string(first.Signature.Signature) || again.Timestamp != first.Timestamp || w.logSize() != 1 {
		t.Fatalf("a duplicate: %+v, %v; %d in the log", again, err, w.logSize())
	}
	pre, _, final := ca.Precert(t, shortLived)
	if _, err := c.AddPreChain(t.Context(), []ct.ASN1Cert{{Data: pre}, {Data: ca.DER}}); err != nil {
		t.Fatal(err)
	}
	der, _ = final(cctest.SCTList())
	if _, err := c.AddChain(t.Context(), []ct.ASN1Cert{{Data: der}, {Data: ca.DER}}); err != nil {
		t.Fatal(err)
	}
	roots, err := c.GetAcceptedRoots(t.Context())
	if err != nil || len(roots) != 1 {
		t.Fatalf("%d roots, %v", len(roots), err)
	}
	if cert, err := x509.ParseCertificate(roots[0].Data); err != nil || !cert.Equal(ca.Cert) {
		t.Errorf("the root is another: %v", err)
	}
}

func TestCertificateOfAnotherCAIsNotTaken(t *testing.T) {
	w, c := newTestFront(t, nil)
	other := cctest.NewCA(t)
	der, _ := other.Issue(t)
	if _, err := c.AddChain(t.Context(), []ct.ASN1Cert{{Data: der}, {Data: other.DER}}); err == nil {
		t.Fatal("it was taken")
	}
	if w.logSize() != 0 {
		t.Errorf("%d in the log", w.logSize())
	}
}

// gated is a front whose clock a test moves, and what its submissions cost the ledger.
type gated struct {
	*world
	later atomic.Int64 // nanoseconds
	add   func(der []byte, pre bool) error
}

func newGated(t *testing.T) *gated {
	t.Helper()
	g, start := &gated{}, time.Now()
	w, c := newTestFront(t, func() time.Time { return start.Add(time.Duration(g.later.Load())) })
	g.world = w
	g.add = func(der []byte, pre bool) error {
		chain, add := []ct.ASN1Cert{{Data: der}, {Data: w.server.issuer.cert.Raw}}, c.AddChain
		if pre {
			add = c.AddPreChain
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := add(ctx, chain)
		return err
	}
	g.warm()
	return g
}

// warm has the trust list read, so that what follows pays only for itself.
func (g *gated) warm() {
	g.t.Helper()
	if _, err := g.server.front.trusted(); err != nil {
		g.t.Fatal(err)
	}
	g.server.registered.Store(true)
}

// move lets time pass, as far as the bridge knows.
func (g *gated) move(d time.Duration) {
	g.t.Helper()
	g.later.Add(int64(d))
	g.warm()
}

// forget is a restart.
func (g *gated) forget() {
	g.server.front.mu.Lock()
	defer g.server.front.mu.Unlock()
	g.server.front.log, g.server.front.recent = nil, new(recent)
	g.server.front.read = g.server.now()
}

// costs submits and compares the transactions and the reads that it took.
func (g *gated) costs(what string, der []byte, pre, taken bool, sent, reads int) {
	g.t.Helper()
	if _, err := g.server.front.handler(); err != nil {
		g.t.Fatal(err)
	}
	s, r := g.ledger.Sent(), g.ledger.Reads()
	if err := g.add(der, pre); (err == nil) != taken {
		g.t.Errorf("%s: %v", what, err)
	}
	if s, r = g.ledger.Sent()-s, g.ledger.Reads()-r; s != sent || r != reads {
		g.t.Errorf("%s: %d transactions and %d reads, want %d and %d", what, s, r, sent, reads)
	}
}

func TestNewCertificatesAreNotLookedUpAndOldOnesAreNotSubmittedAgain(t *testing.T) {
	g := newGated(t)
	ca := g.elsewhere()
	der, cert := ca.Issue(t, shortLived)
	pre, _, final := ca.Precert(t, shortLived)
	fin, _ := final(cctest.SCTList())
	g.costs("new", der, false, true, 1, 0)
	g.costs("again", der, false, true, 0, 0)
	g.costs("precertificate", pre, true, true, 1, 0)
	g.costs("its certificate", fin, false, true, 1, 0)
	g.costs("precertificate again", pre, true, true, 0, 0)
	other, _ := ca.Issue(t, shortLived, func(c *x509.Certificate) { c.SerialNumber = cert.SerialNumber })
	g.costs("the serial with other octets", other, false, false, 0, 1)
	g.move(freshFor)
	g.costs("old and remembered", der, false, true, 0, 0)
	g.forget()
	g.costs("old and forgotten", der, false, true, 0, 1)
	g.costs("that again", der, false, true, 0, 0)
	g.costs("old precertificate", pre, true, true, 0, 1)
	late, _ := ca.Issue(t, shortLived)
	g.costs("old and new to the log", late, false, true, 1, 1)
	if n := g.logSize(); n != 4 {
		t.Errorf("%d in the log, want 4", n)
	}
}

func TestExpiredCertificateIsOnlySubmittedForItsPrecertificate(t *testing.T) {
	g := newGated(t)
	ca := g.elsewhere()
	soon := func(c *x509.Certificate) { c.NotAfter = time.Now().Add(20 * time.Minute) }
	pre, _, final := ca.Precert(t, shortLived, soon)
	fin, _ := final(cctest.SCTList())
	der, _ := ca.Issue(t, shortLived, soon)
	g.costs("precertificate", pre, true, true, 1, 0)
	g.move(time.Hour) // less than freshFor: they are looked up because they have expired
	g.costs("expired", der, false, false, 0, 1)
	g.costs("expired, precertificate recorded", fin, false, true, 1, 1)
	g.costs("expired and recorded", fin, false, true, 0, 0)
}

func TestLookThatFailsSaysTryAgain(t *testing.T) {
	g := newGated(t)
	der, _ := g.elsewhere().Issue(t, shortLived)
	g.move(2 * freshFor)
	if _, err := g.server.front.handler(); err != nil {
		t.Fatal(err)
	}
	before := g.ledger.Sent()
	g.ledger.Down(true)
	look := &gate{server: g.server, recent: new(recent), reads: make(chan struct{}, 1)}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := look.recorded(t.Context(), cert); !errors.Is(err, network.ErrUnavailable) {
		t.Errorf("ledger down: %v", err)
	}
	look.reads <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := look.recorded(ctx, cert); !errors.Is(err, network.ErrUnavailable) {
		t.Errorf("no place for a read: %v", err)
	}
	if g.ledger.Sent() != before {
		t.Error("it was submitted")
	}
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	var r recent
	der := func(i int) []byte { return fmt.Appendf(nil, "certificate %d", i) }
	for i := range 3 * maxRecent {
		r.add(der(i), wire.LogEntry{Index: uint64(i)}) //nolint:gosec // it is positive
		if n := len(r.now) + len(r.old); n > 2*maxRecent {
			t.Fatalf("%d are remembered", n)
		}
	}
	for i := 2 * maxRecent; i < 3*maxRecent; i++ {
		if at, found, _ := r.find(der(i)); !found || at.Index != uint64(i) { //nolint:gosec // as above
			t.Fatalf("certificate %d: %v, %v", i, at, found)
		}
	}
	if _, found, _ := r.find(der(0)); found {
		t.Error("the oldest is still remembered")
	}
}

// Anybody may submit, also while the CA is suspended: what the contract would refuse for that costs no transaction, and what it has
// promised a place is given one.
func TestSuspendedCAsFrontRefusesBeforeItSubmits(t *testing.T) {
	g := newGated(t)
	ca := g.elsewhere()
	known, _ := ca.Issue(t, shortLived)
	pre, _, final := ca.Precert(t, shortLived)
	promised, _ := final(cctest.SCTList())
	g.costs("before", known, false, true, 1, 0)
	g.costs("precertificate before", pre, true, true, 1, 0)
	admin := g.node.Connect(wire.RoleAdministrator)
	if _, err := admin.Submit(t.Context(), wire.FnDecide, ca.SuspendArg(1)); err != nil {
		t.Fatal(err)
	}
	g.move(2 * trustedFor)
	fresh, _ := ca.Issue(t, shortLived)
	g.costs("new", fresh, false, false, 0, 1)
	g.costs("new, again", fresh, false, false, 0, 1)
	g.costs("recorded", known, false, true, 0, 0)
	g.costs("certificate of a recorded precertificate", promised, false, true, 1, 1)
	g.forget()
	g.costs("recorded and forgotten", known, false, true, 0, 1)
	code, h, b := g.call("POST", "/ct/v1/add-chain", body(t, map[string][][]byte{"chain": {fresh, ca.DER}}), nil)
	if p := asProblem(t, b); code != http.StatusBadRequest || p.Field != "ca.state" || h.Get("Retry-After") != "" {
		t.Errorf("%d %s", code, b)
	}
	if _, err := admin.Submit(t.Context(), wire.FnDecide, ca.ResumeArg(2)); err != nil {
		t.Fatal(err)
	}
	// What was known of the CA is old by a moment: the look says better.
	g.costs("after it was resumed", fresh, false, true, 1, 1)
}

// Past capacity a submission is refused before its body is read, let alone its signature verified.
func TestOverloadIsRefusedAtTheDoor(t *testing.T) {
	hold := make(chan struct{})
	g := newGated(t)
	if _, err := g.server.front.handler(); err != nil {
		t.Fatal(err)
	}
	g.ledger.Plan(func(string) anchortest.Fault {
		<-hold
		return anchortest.None
	})
	ca := g.elsewhere()
	der, _ := ca.Issue(t, shortLived)
	sent, done := g.ledger.Sent(), make(chan error, 1)
	go func() { done <- g.add(der, false) }()
	waitFor(t, "a transaction", func() bool { return g.ledger.Sent() == sent+1 })
	g.later.Add(int64(7 * time.Second)) // for this long it has been on its way, as far as the bridge knows
	code, h, b := g.call("POST", "/ct/v1/add-chain", "this is not read", nil)
	if p := asProblem(t, b); code != http.StatusServiceUnavailable || p.Code != problem.CodeUnavailable || h.Get("Retry-After") != "7" {
		t.Errorf("%d, Retry-After %q: %s", code, h.Get("Retry-After"), b)
	}
	before := len(g.server.book.bySerial)
	if code, h, b := g.call("POST", caapi.PathCertificates, serverRequest(t), nil); code != http.StatusServiceUnavailable || h.Get("Retry-After") != "7" || len(g.server.book.bySerial) != before {
		t.Errorf("a request to sign: %d, Retry-After %q: %s", code, h.Get("Retry-After"), b)
	}
	close(hold)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if code, _, b := g.call("POST", "/ct/v1/add-chain", "this is read", nil); code != http.StatusBadRequest {
		t.Errorf("when the ledger has time again: %d %s", code, b)
	}
}

// slowReads is a ledger whose reads wait until they are let go.
type slowReads struct {
	network.Ledger
	waiting chan struct{} // a token for each read that waits
	hold    chan struct{}
}

func (l *slowReads) Evaluate(ctx context.Context, function string, arg []byte) ([]byte, error) {
	l.waiting <- struct{}{}
	<-l.hold
	return l.Ledger.Evaluate(ctx, function, arg)
}

// One caller waits for the trust list, which a slow ledger may take long to give; the others are served by what is known.
func TestSlowLedgerKeepsOneCallerWaiting(t *testing.T) {
	g := newGated(t)
	slow := &slowReads{Ledger: g.server.ledger, waiting: make(chan struct{}, 10), hold: make(chan struct{})}
	f := &front{server: &Server{ledger: slow, settings: g.server.settings, now: g.server.now, issuer: g.server.issuer}}
	f.rec, f.read = g.server.front.rec, g.server.front.read.Add(-2*trustedFor)
	old, done := f.rec, make(chan error, 1)
	go func() {
		_, err := f.trusted()
		done <- err
	}()
	<-slow.waiting
	for range 3 {
		if rec, err := f.trusted(); err != nil || rec != old {
			t.Errorf("another caller: %v", err)
		}
	}
	close(slow.hold)
	if err := <-done; err != nil || f.rec == old || len(slow.waiting) != 0 {
		t.Errorf("%v, %d more reads, new entry %v", err, len(slow.waiting), f.rec != old)
	}
}

func TestHostsAreToldApart(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.1:1234": "192.0.2.1", "[::ffff:192.0.2.1]:1": "192.0.2.1", "[2001:db8:1:2:3::4%eth0]:1": "2001:db8:1:2::/64", "@": "@",
	} {
		if got := hostOf(remote); got != want {
			t.Errorf("%s: %s, want %s", remote, got, want)
		}
	}
}
