package ctapi

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/certanchor/certanchor/internal/ctapi/ctapitest"
	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/sct"
)

// guard is a HeadGuard in memory.
type guard struct {
	before func() error // of each Store

	mu   sync.Mutex
	kept []sct.STH
}

func (g *guard) Load() (*sct.STH, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.kept) == 0 {
		return nil, nil
	}
	return &g.kept[len(g.kept)-1], nil
}

func (g *guard) Store(h sct.STH) error {
	if g.before != nil {
		if err := g.before(); err != nil {
			return err
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.kept = append(g.kept, h)
	return nil
}

func (g *guard) heads() []sct.STH {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.kept
}

func guarded(t testing.TB, g *guard) (*Log, *ctapitest.Ledger, Config) {
	t.Helper()
	ledger := ctapitest.New(t)
	c := config(t, ledger)
	c.Guard = g
	return newLog(t, c), ledger, c
}

func TestHeadIsKeptBeforeItsSignatureLeaves(t *testing.T) {
	g := &guard{}
	l, ledger, _ := guarded(t, g)
	ledger.Fill(t, 3)
	for range 3 {
		sth(t, l)
		if _, err := l.checkpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if kept := g.heads(); len(kept) != 1 || kept[0].Size != 3 {
		t.Fatalf("kept %+v: one head was signed", kept)
	}
	g.before = func() error { return errors.New("disk full") }
	ledger.Fill(t, 1)
	for _, target := range []string{"get-sth", "get-entry-and-proof?leaf_index=0&tree_size=4"} {
		refusal(t, l, target, nil, http.StatusInternalServerError)
	}
	// What was signed before needs no new head.
	if w := ask(l, "get-entry-and-proof?leaf_index=0&tree_size=2", nil); w.Code != http.StatusOK {
		t.Errorf("a proof of an older tree: %d %s", w.Code, w.Body)
	}
	g.before = nil
	if got := sth(t, l); got.Size != 4 {
		t.Errorf("size %d when there is room again", got.Size)
	}
	g.before = func() error { return errors.New("disk full") }
	if got := sth(t, l); got.Size != 4 {
		t.Errorf("size %d of a head that is kept", got.Size)
	}
}

// Whoever waits while a head is written is served by the next one: a write costs milliseconds, and requests come by the thousand.
func TestWaitingRequestsShareOneHead(t *testing.T) {
	g, ledger := &guard{}, ctapitest.New(t)
	c := config(t, ledger)
	log := &watched{Log: ledger, heads: make(chan struct{}, 1000)}
	c.Log, c.Guard = log, g
	l := newLog(t, c)
	ledger.Fill(t, 5)
	entered, release := make(chan struct{}), make(chan struct{})
	g.before = sync.OnceValue(func() error {
		close(entered)
		<-release
		return nil
	})
	var all sync.WaitGroup
	all.Go(func() { sth(t, l) })
	<-entered
	ledger.Fill(t, 1)
	for len(log.heads) > 0 {
		<-log.heads
	}
	const readers = 20
	for range readers {
		all.Go(func() {
			if got := sth(t, l); got.Size != 6 {
				t.Errorf("size %d, want what the log had when it was asked, 6", got.Size)
			}
		})
	}
	for range readers { // each has looked at the log, and waits
		<-log.heads
	}
	close(release)
	all.Wait()
	if kept := g.heads(); len(kept) != 2 {
		t.Errorf("%d heads were written, want 2", len(kept))
	}
}

// watched tells of each call of Head.
type watched struct {
	merklelog.Log
	heads chan struct{}
}

func (w *watched) Head() merklelog.Head {
	w.heads <- struct{}{}
	return w.Log.Head()
}

func TestLogThatLacksWhatWasSignedServesNoHeadAndTakesNoSubmissions(t *testing.T) {
	g := &guard{}
	l, ledger, c := guarded(t, g)
	ledger.Fill(t, 20)
	before := sth(t, l)
	log := &skewed{Log: ledger, head: merklelog.Head{Time: ctapitest.Start}}
	c.Log = log
	l = newLog(t, c)
	calls := ledger.Calls()
	for size := range uint64(20) {
		root, err := merklelog.RootAt(ledger, size)
		if err != nil {
			t.Fatal(err)
		}
		log.set(merklelog.Head{Size: size, Root: root, Time: ctapitest.Start})
		refusal(t, l, "get-sth", nil, http.StatusServiceUnavailable)
		refusal(t, l, "add-chain", ctapitest.Body(ledger.Chain(t)...), http.StatusServiceUnavailable)
	}
	if ledger.Calls() != calls {
		t.Error("a submission reached the ledger")
	}
	log.set(merklelog.Head{Size: before.Size, Root: [32]byte(before.Root), Time: ctapitest.Start}) // with a clock set back
	if again := sth(t, l); string(again.Signature) != string(before.Signature) || again.Time != before.Time {
		t.Errorf("head is %+v, want the one that was signed, %+v", again, before)
	}
	log.set(ledger.Head())
	if w := ask(l, "add-chain", ctapitest.Body(ledger.Chain(t)...)); w.Code != http.StatusOK {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestLogThatForkedWhileItGrewIsNotSigned(t *testing.T) {
	for _, size := range []int{1, 2, 5, 8} {
		g := &guard{}
		l, ledger, c := guarded(t, g)
		ledger.Fill(t, size)
		sth(t, l)
		other := ctapitest.New(t) // all entries differ
		other.Fill(t, size+3)
		c.Log = other
		for _, again := range []*Log{newLog(t, c), l} { // after a restart and without one
			again.log = other
			refusal(t, again, "get-sth", nil, http.StatusInternalServerError)
			w := httptest.NewRecorder()
			again.Static().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/checkpoint", nil))
			if w.Code != http.StatusOK {
				continue
			}
			t.Errorf("size %d: a forked checkpoint: %s", size, w.Body)
		}
		refusal(t, newLog(t, c), "add-chain", ctapitest.Body(ledger.Chain(t)...), http.StatusInternalServerError)
		if kept := g.heads(); len(kept) != 1 {
			t.Errorf("%d heads were kept", len(kept))
		}
	}
}

// RFC 6962 3.5: each subsequent timestamp MUST be more recent than the one before.
func TestEachTreeHasALaterTimestamp(t *testing.T) {
	l, log, ledger := skew(t, 5)
	h := ledger.Head()
	h.Time += 1000
	log.set(h)
	last := sth(t, l)
	for range 5 {
		ledger.Fill(t, 1)
		log.set(ledger.Head())
		next := sth(t, l)
		if next.Time <= last.Time {
			t.Errorf("size %d at %d, size %d at %d", last.Size, last.Time, next.Size, next.Time)
		}
		last = next
	}
}

func TestGuardThatCannotBeReadKeepsTheLogClosed(t *testing.T) {
	_, _, c := guarded(t, &guard{})
	c.Guard = broken{}
	if _, err := New(c); err == nil || !strings.Contains(err.Error(), "unreadable") {
		t.Errorf("%v", err)
	}
}

type broken struct{ *guard }

func (broken) Load() (*sct.STH, error) { return nil, errors.New("unreadable") }
