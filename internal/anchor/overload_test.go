package anchor

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/certanchor/certanchor/internal/metrics"
	"github.com/certanchor/certanchor/network"
)

// paced stands for a ledger whose transactions take fixed + each*entries, one after another, by the bubble's clock.
type paced struct {
	network.Ledger
	fixed, each time.Duration
	one         chan struct{} // has the token of the transaction on its way
	stuck       chan struct{}

	mu   sync.Mutex // guards done
	done map[uint64]int
}

func (p *paced) Submit(ctx context.Context, _ string, arg []byte) (network.Receipt, error) {
	p.one <- struct{}{}
	defer func() { <-p.one }()
	if p.stuck != nil {
		<-p.stuck
	}
	<-time.After(p.fixed + p.each*time.Duration(len(arg)/8))
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := 0; i < len(arg); i += 8 {
		p.done[binary.BigEndian.Uint64(arg[i:])]++
	}
	return network.Receipt{Result: arg}, nil
}

func newPaced(fixed, each time.Duration) *paced {
	return &paced{fixed: fixed, each: each, one: make(chan struct{}, 1), done: map[uint64]int{}}
}

// startPaced makes a lane on p whose requests are numbers.
func startPaced(t *testing.T, p *paced, o Options) *lane[uint64, uint64] {
	t.Helper()
	if err := o.fill(); err != nil {
		t.Fatal(err)
	}
	l := &lane[uint64, uint64]{function: "test"}
	l.encode = func(reqs []uint64) (arg []byte) {
		for _, r := range reqs {
			arg = binary.BigEndian.AppendUint64(arg, r)
		}
		return arg
	}
	l.decode = func(b []byte) (res []uint64, err error) {
		for ; len(b) > 0; b = b[8:] {
			res = append(res, binary.BigEndian.Uint64(b))
		}
		return res, nil
	}
	l.start(p, o, nil)
	return l
}

// crowdOf sends n requests, one every so often, whatever becomes of the earlier ones, and waits for all answers.
type answers struct {
	mu     sync.Mutex
	took   []time.Duration // of those that were taken
	last   time.Time       // when the last one of these was answered
	ids    []uint64
	denied []time.Duration // how long those that were turned away had waited for that
	retry  time.Duration   // the longest that one was told to wait
}

func (a *answers) send(t *testing.T, l *lane[uint64, uint64], caller string, from uint64, n int, every time.Duration) {
	var wg sync.WaitGroup
	tick := time.NewTicker(every)
	defer tick.Stop()
	for i := range n {
		<-tick.C
		wg.Go(func() { a.one(t, l, caller, from+uint64(i)) }) //nolint:gosec // it is positive
	}
	wg.Wait()
}

func (a *answers) one(t *testing.T, l *lane[uint64, uint64], caller string, id uint64) error {
	ctx, begin := context.Background(), time.Now()
	if caller != "" {
		ctx = WithCaller(ctx, caller)
	}
	_, _, err := l.do(ctx, &entry[uint64, uint64]{req: id, key: fmt.Sprint(id), size: 1000})
	a.mu.Lock()
	defer a.mu.Unlock()
	over, away := errors.AsType[*OverloadError](err)
	switch {
	case err == nil:
		a.took, a.ids, a.last = append(a.took, time.Since(begin)), append(a.ids, id), time.Now()
	case away && errors.Is(err, network.ErrUnavailable) && errors.Is(err, ErrQueueFull):
		a.denied = append(a.denied, time.Since(begin))
		a.retry = max(a.retry, over.Retry)
	default:
		t.Errorf("request %d: %v", id, err)
	}
	return err
}

func (a *answers) longest() (d time.Duration) {
	for _, took := range a.took {
		d = max(d, took)
	}
	return d
}

// Past capacity: whoever is taken has its answer in time, whoever is not knows at once and nothing of it is on the ledger, and the ledger
// does as much as without the overload. Below it nobody is turned away. While it gets to know a ledger, it may take a full transaction.
func TestPastCapacityWaitsAreBoundedAndTheLedgerStaysBusy(t *testing.T) {
	const wait, learns, lasts = 2 * time.Second, 30 * time.Second, 30 * time.Second
	for _, p := range []struct{ fixed, each time.Duration }{
		{5 * time.Millisecond, 2 * time.Millisecond}, {50 * time.Millisecond, 2 * time.Millisecond},
		{500 * time.Millisecond, 4 * time.Millisecond}, {time.Second, 10 * time.Millisecond},
	} {
		full := float64(wait / 2 / p.each)              // entries of a transaction that takes half of the wait, beside fixed
		capacity := full / (p.fixed + wait/2).Seconds() // with those back to back
		for _, load := range []float64{0.4, 1.3, 4} {
			t.Run(fmt.Sprintf("fixed=%v/each=%v/load=%v", p.fixed, p.each, load), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ledger := newPaced(p.fixed, p.each)
					l := startPaced(t, ledger, Options{MaxWait: wait})
					defer l.close()
					var cold, a answers
					rate := load * capacity
					every := time.Duration(float64(time.Second) / rate)
					cold.send(t, l, "", 0, int(rate*learns.Seconds()), every)
					n, begin := int(rate*lasts.Seconds()), time.Now()
					a.send(t, l, "", 1e9, n, every)
					// Half of it for the transaction on its way, half for the own one, and what one takes on an idle ledger.
					if bound := wait/2 + max(wait/2, p.fixed) + p.fixed; a.longest() > bound+bound/5 {
						t.Errorf("somebody waited %v, want at most %v", a.longest(), bound)
					}
					for _, d := range a.denied {
						if d > 0 {
							t.Fatalf("somebody was turned away after %v", d)
						}
					}
					took := float64(len(a.took)) / a.last.Sub(begin).Seconds()
					share := 0.8
					if p.fixed > wait/4 { // how much of it is fixed is hard to tell while it is never idle
						share = 0.5
					}
					if want := min(load, 1) * capacity; took < share*want {
						t.Errorf("%.0f/s were taken, the ledger could do %.0f/s", took, want)
					}
					if load < 1 && p.fixed < wait/2 && len(a.denied) > 0 {
						t.Errorf("%d of %d were turned away below capacity", len(a.denied), n)
					}
					if taken := len(a.ids) + len(cold.ids); len(ledger.done) != taken || len(a.ids)+len(a.denied) != n {
						t.Errorf("%d on the ledger, %d taken, %d turned away, %d sent", len(ledger.done), taken, len(a.denied), n)
					}
				})
			})
		}
	}
}

func TestABurstOnAnIdleLedgerIsTakenAsFarAsOneFullTransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := startPaced(t, newPaced(50*time.Millisecond, time.Millisecond), Options{})
		defer l.close()
		var cold, warm answers
		cold.send(t, l, "", 0, 1000, time.Nanosecond)
		if len(cold.denied) > 0 {
			t.Errorf("%d of 1000 first callers were turned away", len(cold.denied))
		}
		var slow answers
		slow.send(t, l, "", 10000, 50, time.Second) // transactions of one say little about large ones
		warm.send(t, l, "", 20000, 5000, time.Nanosecond)
		if n := len(warm.took); n < 900 || n > 1100 || len(slow.denied) > 0 {
			t.Errorf("%d of 5000 were taken", n)
		}
	})
}

// What a caller has may be much more than the bound: by coming again when it is told to, it gets everything on the ledger, once.
func TestABulkLargerThanTheBoundMakesProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ledger := newPaced(3*time.Second, 2*time.Millisecond) // one alone takes longer than may be waited
		l := startPaced(t, ledger, Options{MaxWait: time.Second})
		defer l.close()
		const n = 1500
		var a answers
		var wg sync.WaitGroup
		for id := range uint64(n) {
			wg.Go(func() {
				for {
					over, away := errors.AsType[*OverloadError](a.one(t, l, "bulk", id))
					if !away {
						return
					}
					<-time.After(over.Retry)
				}
			})
		}
		wg.Wait()
		for id := range uint64(n) {
			if ledger.done[id] != 1 {
				t.Fatalf("request %d is %d times on the ledger", id, ledger.done[id])
			}
		}
		if len(a.denied) == 0 {
			t.Error("nobody was turned away: the bulk was not larger than the bound")
		}
	})
}

// A transaction that does not end: the queue does not grow behind it, callers are told to come back later and later, and are taken
// again when it has ended.
func TestBehindAStuckTransactionTheQueueDoesNotGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ledger := newPaced(50*time.Millisecond, time.Millisecond)
		ledger.stuck = make(chan struct{})
		l := startPaced(t, ledger, Options{SubmitTimeout: time.Hour})
		defer l.close()
		var first, early, late, after answers
		var wg sync.WaitGroup
		wg.Go(func() { first.send(t, l, "", 0, 1, time.Millisecond) })
		<-time.After(time.Second)
		wg.Go(func() { early.send(t, l, "", 100, 10, time.Millisecond) })
		<-time.After(time.Minute)
		late.send(t, l, "", 200, 100, time.Millisecond)
		if len(late.denied) != 100 || late.retry != maxRetry {
			t.Errorf("%d of 100 were turned away and told to wait %v at most", len(late.denied), late.retry)
		}
		close(ledger.stuck)
		wg.Wait()
		after.send(t, l, "", 300, 100, time.Millisecond)
		if len(first.took) != 1 || len(early.took) != 10 || len(after.took) != 100 || len(ledger.done) != 111 {
			t.Errorf("%d, %d, %d were taken, %d are on the ledger", len(first.took), len(early.took), len(after.took), len(ledger.done))
		}
	})
}

// One that sends five times what the ledger takes does not keep others out, and two such share it.
func TestCallersShareTheQueueFairly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := startPaced(t, newPaced(50*time.Millisecond, 2*time.Millisecond), Options{})
		defer l.close()
		var greedy, other, modest answers
		var wg sync.WaitGroup
		wg.Go(func() { greedy.send(t, l, "greedy", 0, 50000, 400*time.Microsecond) })
		wg.Go(func() { other.send(t, l, "another", 100000, 50000, 400*time.Microsecond) })
		wg.Go(func() { modest.send(t, l, "modest", 200000, 400, 50*time.Millisecond) })
		wg.Wait()
		if len(modest.denied) > 0 {
			t.Errorf("%d of 400 of the modest caller's were turned away", len(modest.denied))
		}
		if a, b := len(greedy.took), len(other.took); a == 0 || b == 0 || a > 2*b || b > 2*a {
			t.Errorf("of two greedy callers one got %d in, the other %d", a, b)
		}
	})
}

// Logs of several CAs over one ledger: each goes by what it gets of it.
func TestLogsThatShareALedgerEachKeepTheirBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const wait = 2 * time.Second
		ledger := newPaced(50*time.Millisecond, 2*time.Millisecond)
		logs := []*lane[uint64, uint64]{startPaced(t, ledger, Options{MaxWait: wait}), startPaced(t, ledger, Options{MaxWait: wait})}
		var got [2]answers
		var wg sync.WaitGroup
		for i, l := range logs {
			wg.Go(func() { got[i].send(t, l, "", uint64(i)*100000, 40000, time.Millisecond) }) //nolint:gosec // it is positive
		}
		wg.Wait()
		for i, l := range logs {
			l.close()
			if n := len(got[i].took); n < 40*150 {
				t.Errorf("log %d: %d taken in 40 s", i, n)
			}
			if longest := got[i].longest(); longest > 2*wait {
				t.Errorf("log %d: somebody waited %v", i, longest)
			}
		}
	})
}

// A place that was reserved is used once, is given back when it is not used, and counts until then.
func TestAReservedPlaceIsUsedOnceOrGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := startPaced(t, newPaced(time.Second, 0), Options{MaxQueue: 2})
		defer l.close()
		a, releaseA, errA := l.admit(t.Context())
		_, releaseB, errB := l.admit(WithCaller(t.Context(), "b"))
		if err := errors.Join(errA, errB); err != nil {
			t.Fatal(err)
		}
		_, release, err := l.admit(t.Context())
		if over, ok := errors.AsType[*OverloadError](err); !ok || over.Reason != metrics.ByEntries {
			t.Fatalf("a third place of two: %v", err)
		}
		release()
		releaseB()
		releaseB()
		if again, _, err := l.admit(a); err != nil || again != a {
			t.Fatalf("who has a place asks again: %v", err)
		}
		if _, _, err := l.do(a, &entry[uint64, uint64]{req: 1, key: "1", size: 1}); err != nil {
			t.Fatal(err)
		}
		releaseA()
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.coming != 0 || len(l.held) != 0 || l.count != 0 {
			t.Errorf("%d coming, %d callers, %d queued, want none", l.coming, len(l.held), l.count)
		}
	})
}

func TestPaceIsAlwaysATime(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var p pace
		for range rapid.IntRange(0, 300).Draw(rt, "transactions") {
			p.seen(rapid.IntRange(1, 1000).Draw(rt, "entries"), time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(rt, "took")), 1)
			if fixed, each := p.line(); fixed < 0 || each <= 0 || math.IsNaN(fixed+each) || math.IsInf(fixed+each, 0) {
				rt.Fatalf("a transaction takes %v s and %v s for each entry", fixed, each)
			}
		}
	})
}

// Whatever the ledger was like before, some transactions of different sizes tell how it is now.
func TestPaceFollowsTheLedger(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var p pace
		for _, when := range []string{"before", "now"} {
			fixed, each := rapid.Float64Range(0.001, 1).Draw(rt, when+" fixed"), rapid.Float64Range(0.0002, 0.01).Draw(rt, when+" each")
			large := rapid.IntRange(500, 1000)
			for range 30 {
				small, n := rapid.IntRange(1, few).Draw(rt, when+" small"), large.Draw(rt, when+" large")
				p.seen(small, seconds(fixed+each*float64(small)), 1)
				p.seen(n, seconds(fixed+each*float64(n)), 1)
			}
			if a, b := p.line(); math.Abs(a-fixed) > 0.1*fixed+0.02 || math.Abs(b-each) > 0.2*each+0.0002 {
				rt.Fatalf("%s: expected are %v s and %v s for each, it takes %v s and %v s", when, a, b, fixed, each)
			}
		}
	})
}

func TestOneLostTransactionDoesNotMakeAllSlow(t *testing.T) {
	var p pace
	p.seen(1, time.Hour, 1)
	if fixed, _ := p.line(); fixed > 3*firstFixed {
		t.Errorf("a small transaction is expected to take %v s", fixed)
	}
}
