package ticker

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"runtime"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
)

var msps = []string{"Org1MSP", "Org2MSP", "Org3MSP", "Org4MSP"}

func TestOneOrganisationIsFirstInEachEpochAndAllHaveTheirTurnWithinHalfOfIt(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		n := rapid.IntRange(1, 4).Draw(r, "organisations")
		interval := rapid.Int64Range(1000, 60000).Draw(r, "interval")
		epoch := rapid.Int64Range(1, 1<<30).Draw(r, "epoch")
		now := time.UnixMilli(epoch*interval + rapid.Int64Range(0, interval-1).Draw(r, "offset"))
		ticked := rapid.Bool().Draw(r, "ticked")
		v := View{Consortium: &wire.Consortium{MSPs: msps[:n], TickInterval: interval}}
		begin := time.UnixMilli(epoch * interval)
		if ticked {
			v.Tick = wire.Clock{V: 1, Epoch: epoch, Time: wire.Millis(epoch * interval)}
			begin = time.UnixMilli((epoch + 1) * interval)
		}
		seen := map[time.Duration]bool{}
		for _, m := range msps[:n] {
			due, ok := Due(v, m, now)
			if !ok {
				r.Fatalf("%s has no turn", m)
			}
			d := due.Sub(begin)
			if d < 0 || d >= time.Duration(interval)*time.Millisecond/2 || seen[d] {
				r.Fatalf("%s has its turn %s after the epoch's begin; others %v", m, d, seen)
			}
			seen[d] = true
		}
		if !seen[0] {
			r.Fatalf("nobody is first: %v", seen)
		}
	})
}

func TestNobodyTicksWithoutAConsortiumOrFromOutsideIt(t *testing.T) {
	now := time.Now()
	if _, ok := Due(View{}, "Org1MSP", now); ok {
		t.Error("due before the ledger is founded")
	}
	if _, ok := Due(View{Consortium: &wire.Consortium{MSPs: msps, TickInterval: 1000}}, "Org9MSP", now); ok {
		t.Error("due for an organisation outside the consortium")
	}
}

// ring is a clock that stands still until all tickers wait, and then jumps to the first timer; and the ledger they share.
type ring struct {
	mu      sync.Mutex
	now     time.Time
	timers  map[chan time.Time]time.Time
	view    View
	changed chan struct{}
	sent    map[string]int   // submissions by organisation
	ticks   map[int64]string // epoch to the organisation that sent it
	dead    map[string]bool
}

func newRing() *ring {
	return &ring{
		now: time.UnixMilli(1_700_000_000_123), timers: map[chan time.Time]time.Time{}, changed: make(chan struct{}),
		view: View{Consortium: &wire.Consortium{MSPs: msps, TickInterval: 15000}},
		sent: map[string]int{}, ticks: map[int64]string{}, dead: map[string]bool{},
	}
}

func (r *ring) config(msp string) Config {
	return Config{
		MSPID: msp, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Now:     func() time.Time { r.mu.Lock(); defer r.mu.Unlock(); return r.now },
		View:    func() View { r.mu.Lock(); defer r.mu.Unlock(); return r.view },
		Changed: func() <-chan struct{} { r.mu.Lock(); defer r.mu.Unlock(); return r.changed },
		After: func(d time.Duration) <-chan time.Time {
			r.mu.Lock()
			defer r.mu.Unlock()
			ch := make(chan time.Time, 1)
			r.timers[ch] = r.now.Add(d)
			return ch
		},
		Submit: func(_ context.Context, fn string, arg []byte) (network.Receipt, error) { return r.submit(msp, fn, arg) },
	}
}

func (r *ring) submit(msp, fn string, arg []byte) (network.Receipt, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent[msp]++
	if err := wire.Decode(arg, &wire.TickArg{}); err != nil || fn != wire.FnTick {
		return network.Receipt{}, errors.New("not a tick")
	}
	if r.dead[msp] {
		return network.Receipt{}, &network.UnavailableError{Stage: "test", Err: errors.New("peer is down")}
	}
	epoch := r.now.UnixMilli() / r.view.Consortium.TickInterval
	if r.view.Tick.Epoch >= epoch {
		return network.Receipt{}, &network.RejectedError{Function: fn, Reason: errors.New("one tick per epoch")}
	}
	r.ticks[epoch] = msp
	r.view.Tick = wire.Clock{V: 1, Epoch: epoch, Time: wire.MillisOf(r.now)}
	close(r.changed)
	r.changed = make(chan struct{})
	return network.Receipt{}, nil
}

// advance lets the timers up to d fire, one at a time.
func (r *ring) advance(t *testing.T, d time.Duration) {
	t.Helper()
	limit := time.Now().Add(30 * time.Second)
	r.mu.Lock()
	end := r.now.Add(d)
	r.mu.Unlock()
	for {
		r.mu.Lock()
		var first chan time.Time
		for ch, at := range r.timers {
			if first == nil || at.Before(r.timers[first]) {
				first = ch
			}
		}
		waiting := len(r.timers)
		switch {
		case waiting >= len(msps) && r.timers[first].After(end):
			r.now = end
			r.mu.Unlock()
			return
		case waiting >= len(msps):
			if at := r.timers[first]; at.After(r.now) {
				r.now = at
			}
			delete(r.timers, first)
			first <- r.now
		}
		r.mu.Unlock()
		if time.Now().After(limit) {
			t.Fatal("tickers do not wait")
		}
		runtime.Gosched() // the tickers, until all wait
	}
}

func TestEveryEpochGetsOneTickAndTheNextInLineTakesOver(t *testing.T) {
	r := newRing()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, m := range msps {
		wg.Go(func() { Run(ctx, r.config(m)) })
	}
	defer wg.Wait()
	defer cancel()

	const epochs = 12
	r.advance(t, epochs*15*time.Second)
	r.mu.Lock()
	if len(r.ticks) < epochs {
		t.Errorf("%d ticks in %d epochs", len(r.ticks), epochs)
	}
	total := 0
	for _, n := range r.sent {
		total += n
	}
	if total > 2*len(r.ticks) {
		t.Errorf("%d submissions for %d ticks: normally one organisation sends", total, len(r.ticks))
	}
	r.dead["Org2MSP"] = true
	clear(r.ticks)
	r.mu.Unlock()
	r.advance(t, epochs*15*time.Second)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.ticks) < epochs-1 {
		t.Errorf("one organisation is down: %d ticks in %d epochs", len(r.ticks), epochs)
	}
	for epoch, by := range r.ticks {
		if by == "Org2MSP" {
			t.Errorf("epoch %d has its tick from an organisation that is down", epoch)
		}
	}
}
