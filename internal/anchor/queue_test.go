package anchor

import (
	"context"
	"crypto/x509"
	"errors"
	"maps"
	"math/big"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/anchor/anchortest"
	"github.com/certanchor/certanchor/internal/metrics"
	"github.com/certanchor/certanchor/network"
)

// held makes the next transaction wait until release is called, or the test ends: it is called after start, whose Log waits for it.
func held(t *testing.T, ledger *anchortest.Ledger) (release func()) {
	hold := make(chan struct{})
	release = sync.OnceFunc(func() { close(hold) })
	t.Cleanup(release)
	var once sync.Once
	ledger.Plan(func(string) anchortest.Fault {
		once.Do(func() { <-hold })
		return anchortest.None
	})
	return release
}

// inFlight has a Log send a first transaction and returns when that is on its way. The caller waits for done.
func inFlight(t *testing.T, l *Log, ledger *anchortest.Ledger, der []byte) (done <-chan error) {
	t.Helper()
	ch := make(chan error, 1)
	go func() {
		_, _, err := l.Issue(context.Background(), der)
		ch <- err
	}()
	waitFor(t, func() bool { return ledger.Sent() == 1 })
	return ch
}

func TestIdenticalRequestsShareAnEntry(t *testing.T) {
	node := openLedger(t)
	ca, ledger := setup(t, node)
	o := fast
	o.MaxQueue, o.Metrics = 1, metrics.New()
	l := start(t, ledger, ca, o)
	release := held(t, ledger)
	certs := ca.IssueMany(t, 2)
	first := inFlight(t, l, ledger, certs[0])
	entries := make([]wire.LogEntry, 20)
	errs := make([]error, 20)
	var wg sync.WaitGroup
	gone, cancel := context.WithCancel(t.Context())
	for i := range entries {
		ctx := t.Context()
		if i < 5 {
			ctx = gone
		}
		wg.Go(func() { entries[i], _, errs[i] = l.Issue(ctx, certs[1]) })
	}
	waiters := func() (n int) {
		l.issues.mu.Lock()
		defer l.issues.mu.Unlock()
		for _, e := range l.issues.waiting {
			n += e.waiters
		}
		return n
	}
	waitFor(t, func() bool { return waiters() == 20 })
	cancel() // some leave, the others keep the entry
	waitFor(t, func() bool { return waiters() == 15 })
	if n := queued(l); n != 1 {
		t.Errorf("%d entries wait, want 1", n)
	}
	release()
	wg.Wait()
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	rec := onLedger(t, ledger, ca, certs)[1]
	for i, err := range errs {
		if i < 5 && !errors.Is(err, network.ErrUnavailable) || i >= 5 && (err != nil || entries[i].Index != rec.Final.Index) {
			t.Errorf("caller %d: %v, %v", i, entries[i], err)
		}
	}
	if n := ledger.Sent(); n != 2 {
		t.Errorf("%d transactions, want 2", n)
	}
	expectMetrics(t, o.Metrics, ca, `coalesced_total{%s} 19`)
}

// A precertificate and its certificate, or whatever else has one serial, do not share a transaction, and do not keep others waiting.
func TestOneSerialOnceInABatch(t *testing.T) {
	node := openLedger(t)
	ca, ledger := setup(t, node)
	o := fast
	o.MaxBatch = 100
	l := start(t, ledger, ca, o)
	release := held(t, ledger)
	serial := func(c *x509.Certificate) { c.SerialNumber = big.NewInt(4711) }
	one, _ := ca.Issue(t, serial)
	other, _ := ca.Issue(t, serial, func(c *x509.Certificate) { c.DNSNames = []string{"other.example"} })
	certs := append(ca.IssueMany(t, 10), one)
	first := inFlight(t, l, ledger, certs[0])
	errs := make(chan error, 11)
	for _, der := range append(certs[1:], other) {
		waiting := queued(l)
		go func() {
			_, _, err := l.Issue(t.Context(), der)
			errs <- err
		}()
		waitFor(t, func() bool { return queued(l) == waiting+1 })
	}
	release()
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	refused := 0
	for range 11 {
		if err := <-errs; err != nil {
			refused++
			if we, ok := errors.AsType[*wire.Error](err); !ok || we.Code != wire.AlreadyExists {
				t.Errorf("got %v", err)
			}
		}
	}
	// One for the first, one for all others, one for the second with its serial, which comes last.
	if n := ledger.Sent(); refused != 1 || n != 3 {
		t.Errorf("%d refused in %d transactions, want 1 in 3", refused, n)
	}
	onLedger(t, ledger, ca, certs)
}

func TestSerialIsFoundWithoutParsing(t *testing.T) {
	ca := cctest.NewCA(t)
	der, cert := ca.Issue(t)
	if got := SerialIn(der); got != string(cert.SerialNumber.Bytes()) {
		t.Errorf("got %x, want %x", got, cert.SerialNumber)
	}
	for _, bad := range [][]byte{{0}, der[:5], {0x30, 0x03, 0x30, 0x01, 0x02}} {
		if got := SerialIn(bad); got != string(bad) {
			t.Errorf("%x: %x", bad, got)
		}
	}
}

// Aviator, 2016: a log that took more than it could merge, and merged late. Here the queue is bounded, who finds it full is told at
// once, and what was told so or gave up is not on the ledger, not even when the ledger has time again.
func TestAviator2016OverloadIsRefusedAndNeverAcceptedLate(t *testing.T) {
	node := openLedger(t)
	ca, ledger := setup(t, node)
	o := fast
	o.MaxQueue, o.MaxBatch = 20, 5
	l := start(t, ledger, ca, o)
	release := held(t, ledger)
	certs := ca.IssueMany(t, 300)
	first := inFlight(t, l, ledger, certs[0])
	ctx, giveUp := context.WithCancel(t.Context())
	errs := make([]error, len(certs))
	answered := make(chan int, len(certs))
	for i := range certs[1:] {
		go func() {
			caller := t.Context()
			if i%2 == 0 { // certificates 1, 3, 5...
				caller = ctx
			}
			_, _, errs[i+1] = l.Issue(caller, certs[i+1])
			answered <- i + 1
		}()
	}
	// The ledger does not move, and yet everybody has an answer but those who wait.
	waiting := map[int]bool{}
	for i := range certs[1:] {
		waiting[i+1] = true
	}
	for len(waiting) > o.MaxQueue {
		i := <-answered
		delete(waiting, i)
		if !errors.Is(errs[i], network.ErrUnavailable) || !errors.Is(errs[i], ErrQueueFull) {
			t.Fatalf("certificate %d: %v", i, errs[i])
		}
	}
	if err := l.Full(t.Context()); !errors.Is(err, ErrQueueFull) || !errors.Is(err, network.ErrUnavailable) {
		t.Errorf("Full: %v", err)
	}
	giveUp()
	maps.DeleteFunc(waiting, func(i int, _ bool) bool { return i%2 == 1 })
	waitFor(t, func() bool { return queued(l) == len(waiting) })
	release()
	if errs[0] = <-first; errs[0] != nil {
		t.Fatal(errs[0])
	}
	for range o.MaxQueue {
		<-answered
	}
	if err := l.Full(t.Context()); err != nil {
		t.Errorf("the queue is empty: %v", err)
	}
	late, _ := ca.Issue(t) // and after some more transactions
	if _, _, err := l.Issue(t.Context(), late); err != nil {
		t.Fatal(err)
	}
	recs := onLedger(t, ledger, ca, append(certs, late))
	for i, err := range errs {
		if (err == nil) != (recs[i] != nil) {
			t.Errorf("certificate %d: record %v, its caller was told %v", i, recs[i], err)
		}
	}
}

func TestQueueIsBoundedInBytes(t *testing.T) {
	node := openLedger(t)
	ca, ledger := setup(t, node)
	o := fast
	o.MaxQueueBytes = wire.MaxCertDER
	l := start(t, ledger, ca, o)
	release := held(t, ledger)
	big, _ := ca.Issue(t, func(c *x509.Certificate) {
		for range 1500 {
			c.DNSNames = append(c.DNSNames, "a-name-of-some-length.example")
		}
	})
	small := ca.IssueMany(t, 2)
	first := inFlight(t, l, ledger, small[0])
	second := make(chan error, 1)
	go func() {
		_, _, err := l.Issue(t.Context(), big)
		second <- err
	}()
	waitFor(t, func() bool { return queued(l) == 1 || len(second) > 0 })
	if _, _, err := l.Issue(t.Context(), append(big[:len(big):len(big)], 0)); !errors.Is(err, ErrQueueFull) {
		t.Errorf("%d bytes beside %d: %v", len(big), len(big), err)
	}
	release()
	for _, done := range []<-chan error{first, second} {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// Callers that were answered together come back together: the first of them is not sent alone. If half of them are here already, as
// under steady load, nobody waits.
func TestCallersThatReturnTogetherAreWaitedFor(t *testing.T) {
	after16 := func(quiet time.Duration) *lane[int, int] {
		l := &lane[int, int]{lastSize: 16}
		if err := l.limits.fill(); err != nil {
			t.Fatal(err)
		}
		l.limits.QuietTime = quiet
		l.newcomer = make(chan struct{}, 1)
		return l
	}
	come := func(l *lane[int, int], n int) {
		for range n {
			if _, err := l.join(t.Context(), &entry[int, int]{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	l := after16(time.Hour)
	come(l, 1)
	gathered := make(chan struct{})
	go func() {
		l.gather(t.Context())
		close(gathered)
	}()
	waitFor(t, func() bool { return len(l.newcomer) == 0 }) // it has begun to wait: had it found half of them here, it would not
	for range 14 {
		come(l, 1)
		select {
		case <-gathered:
			t.Fatalf("only %d of 16 are here", len(l.waiting))
		default:
		}
	}
	come(l, 1)
	<-gathered

	half := after16(time.Hour)
	come(half, 8)
	half.gather(t.Context())
	nobodyElse := after16(time.Millisecond)
	come(nobodyElse, 1)
	nobodyElse.gather(t.Context())
	never := after16(-1)
	come(never, 1)
	never.gather(t.Context())
}

func TestSingleCallerIsNotKeptWaiting(t *testing.T) {
	node := openLedger(t)
	ca, ledger := setup(t, node)
	l := start(t, ledger, ca, Options{QuietTime: time.Second})
	began := time.Now()
	for _, der := range ca.IssueMany(t, 30) {
		if _, _, err := l.Issue(t.Context(), der); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("30 certificates one after the other took %v: each waited", took)
	}
}

func TestMetricsTellWhatHappens(t *testing.T) {
	node := openLedger(t)
	ca, ledger := setup(t, node)
	o := fast
	o.MaxQueue, o.Metrics = 2, metrics.New()
	ledger.Plan(script([]int{int(anchortest.Conflict), int(anchortest.Unavailable), int(anchortest.UnknownLost)}))
	l := start(t, ledger, ca, o)
	certs := ca.IssueMany(t, 4)
	foreign, _ := cctest.NewCA(t).Issue(t)
	if _, _, err := l.Issue(t.Context(), certs[0]); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.Issue(t.Context(), foreign); !network.IsRejected(err) {
		t.Fatal(err)
	}
	expectMetrics(t, o.Metrics, ca,
		`transactions_total{%s,outcome="committed"} 1`, `transactions_total{%s,outcome="conflict"} 1`,
		`transactions_total{%s,outcome="unavailable"} 1`, `transactions_total{%s,outcome="unknown"} 1`,
		`transactions_total{%s,outcome="rejected"} 1`, `submit_seconds_count{%s} 5`, `batch_entries_bucket{%s,le="1"} 5`)
	before := ledger.Sent()
	release := held(t, ledger)
	var wg sync.WaitGroup
	for i, der := range certs[1:] {
		wg.Go(func() {
			if _, _, err := l.Issue(t.Context(), der); err != nil {
				t.Error(err)
			}
		})
		waitFor(t, func() bool { return ledger.Sent() == before+1 && queued(l) == i })
	}
	if _, _, err := l.Issue(t.Context(), foreign); !errors.Is(err, ErrQueueFull) {
		t.Fatal(err)
	}
	expectMetrics(t, o.Metrics, ca, `queue_entries{%s} 2`, `in_flight_entries{%s} 1`, `turned_away_total{%s,reason="entries"} 1`)
	release()
	wg.Wait()
	waitFor(t, func() bool { return queued(l) == 0 })
	expectMetrics(t, o.Metrics, ca, `queue_entries{%s} 0`, `queue_bytes{%s} 0`, `in_flight_entries{%s} 0`)
}

// expectMetrics looks for lines in what Prometheus gets; %s stands for the labels of the CA's issue lane.
func expectMetrics(t *testing.T, r *metrics.Registry, ca *cctest.CA, lines ...string) {
	t.Helper()
	rec := httptest.NewRecorder()
	r.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	text := "\n" + rec.Body.String()
	for _, line := range lines {
		want := "certanchor_anchor_" + strings.Replace(line, "%s", `ca="`+ca.ID.String()+`",lane="issue"`, 1)
		if !strings.Contains(text, "\n"+want+"\n") {
			t.Errorf("no line %q in\n%s", want, text)
		}
	}
}
