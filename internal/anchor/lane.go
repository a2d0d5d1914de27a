package anchor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/certanchor/certanchor/internal/metrics"
	"github.com/certanchor/certanchor/network"
)

// lane is a queue and one goroutine that submits it in batches, one transaction in flight.
type lane[Req, Res any] struct {
	queue[Req, Res]
	function string
	decode   func([]byte) ([]Res, error)                  // one result for each request, in order
	recorded func(context.Context, []Req) ([]bool, error) // which of the requests the ledger has done already; nil: not to be asked
	ledger   network.Ledger
	turns    turns // owned by the goroutine
	lastSize int   // entries of the last batch; owned by the goroutine
	cancel   context.CancelFunc
	exited   chan struct{}          // closed when the goroutine has ended
	down     atomic.Pointer[outage] // the last attempt failed; nil after one that the ledger decided on
}

// outage is what an attempt met that did not reach a decision.
type outage struct {
	err      error
	at       time.Time
	retrying bool // somebody still waits for the batch
}

// outageFor is how long an outage is believed in when nobody tries any more.
const outageFor = 2 * time.Second

func (l *lane[Req, Res]) outage() error {
	o := l.down.Load()
	if o == nil || !o.retrying && l.limits.Now().Sub(o.at) > outageFor {
		return nil
	}
	return o.err
}

func (l *lane[Req, Res]) start(ledger network.Ledger, opts Options, m *metrics.Lane) {
	ctx, cancel := context.WithCancel(context.Background())
	l.ledger, l.limits, l.cancel, l.metrics = ledger, opts, cancel, m
	l.newcomer = make(chan struct{}, 1)
	l.open = map[digest]*entry[Req, Res]{}
	l.exited = make(chan struct{})
	go func() {
		defer close(l.exited)
		for b := l.collect(ctx); b != nil; b = l.collect(ctx) {
			l.lastSize = len(b.entries)
			l.fly(true)
			l.settleBatch(ctx, b)
			l.fly(false)
		}
	}()
}

func (l *lane[Req, Res]) close() {
	l.cancel()
	<-l.exited
}

// fly notes that a batch is on its way, or is settled. One that nobody waited for to the end says nothing about the pace.
func (l *lane[Req, Res]) fly(flying bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.limits.Now()
	if !flying && l.decided > 0 {
		l.pace.seen(l.decided, now.Sub(l.departed), l.limits.mayWait())
	}
	l.flying, l.departed, l.flight, l.decided = flying, now, 0, 0
	l.prepare()
	l.show()
}

// do queues one request and waits for its end or ctx's.
func (l *lane[Req, Res]) do(ctx context.Context, e *entry[Req, Res]) (Res, network.Receipt, error) {
	e.done = make(chan struct{})
	err := ctx.Err()
	if err == nil {
		select {
		case <-l.exited:
			err = network.ErrClosed
		default:
			e, err = l.join(ctx, e)
		}
	}
	if err != nil {
		var none Res
		return none, network.Receipt{}, &network.UnavailableError{Stage: l.function, Err: err}
	}
	var o outcome[Res]
	select {
	case <-e.done:
		o = e.out
	case <-ctx.Done():
		o = l.leave(e, l.function, ctx.Err())
	case <-l.exited:
		o = l.leave(e, l.function, network.ErrClosed)
	}
	return o.res, o.receipt, o.err
}

// collect waits until somebody is there and returns the next batch. It returns nil when ctx has ended.
func (l *lane[Req, Res]) collect(ctx context.Context) *batch[Req, Res] {
	for ctx.Err() == nil {
		l.mu.Lock()
		b, n := l.next, len(l.waiting)
		l.next = nil
		l.mu.Unlock()
		switch {
		case b != nil:
			<-b.packed
			return b
		case n > 0:
			l.gather(ctx)
			l.mu.Lock()
			b = l.form()
			l.mu.Unlock()
			if len(b.entries) > 0 { // they may have left meanwhile
				return b
			}
		default:
			select {
			case <-l.newcomer:
			case <-ctx.Done():
			}
		}
	}
	return nil
}

// gather waits for more callers, while nothing is in flight, when fewer than half of the last batch are here: callers that were just
// answered tend to come back with their next request together, and submitting the first of them alone would make all others wait for
// two transactions. It ends when as many are here as last time, with the first gap of QuietTime, and after four QuietTimes.
// Steady load never waits here, because its batch collects during the flight before; nor does a single caller.
func (l *lane[Req, Res]) gather(ctx context.Context) {
	quiet := l.limits.QuietTime
	if quiet < 0 || !l.fewerThan((l.lastSize+1)/2) {
		return
	}
	end := time.NewTimer(4 * quiet)
	defer end.Stop()
	gap := time.NewTimer(quiet)
	defer gap.Stop()
	for l.fewerThan(l.lastSize) {
		select {
		case <-l.newcomer:
			gap.Reset(quiet)
		case <-gap.C:
			return
		case <-end.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (l *lane[Req, Res]) fewerThan(n int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiting) < n && !l.enough()
}

// settleBatch brings every entry of a batch to its end, in as few transactions as the contract's refusals allow. Large parts come
// first: most callers then have their answer before the last of the refused entries is found.
func (l *lane[Req, Res]) settleBatch(ctx context.Context, b *batch[Req, Res]) {
	for work := []*batch[Req, Res]{b}; len(work) > 0; {
		work = append(work[1:], l.attempt(ctx, work[0])...)
	}
}

// attempt submits a batch until the ledger decides on it or no caller is left. Of a batch of several that was refused it
// delivers what it can and returns the parts to try on their own.
func (l *lane[Req, Res]) attempt(ctx context.Context, b *batch[Req, Res]) []*batch[Req, Res] {
	l.turns.yield(ctx)
	for n := 0; ; n++ {
		if ctx.Err() == nil {
			b = l.depart(b)
		}
		if b == nil || ctx.Err() != nil {
			if o := l.down.Load(); o != nil {
				l.down.Store(&outage{err: o.err, at: o.at})
			}
			return nil
		}
		b.pack(l.encode)
		began := time.Now()
		results, receipt, err := l.submit(ctx, b)
		switch {
		case err == nil:
			l.down.Store(nil)
			l.turns.won(time.Since(began))
			for i, e := range b.entries {
				l.settle(e, outcome[Res]{res: results[i], receipt: receipt})
			}
			return nil
		case network.IsRejected(err):
			l.down.Store(nil)
			if rest, ok := l.sift(ctx, b, err); ok {
				return rest
			}
			return l.refused(b, err)
		}
		l.undecided(b, err)
		if conflict, ok := errors.AsType[*network.ConflictError](err); ok && conflict.Code == codeMVCC && l.turns.head != nil {
			l.turns.lost(ctx)
		} else {
			pause(ctx, backoff(l.limits, n))
		}
	}
}

func (l *lane[Req, Res]) submit(ctx context.Context, b *batch[Req, Res]) (_ []Res, _ network.Receipt, err error) {
	ctx, cancel := context.WithTimeout(ctx, l.limits.SubmitTimeout)
	defer cancel()
	arrived := l.metrics.Depart(len(b.entries))
	defer func() { arrived(classify(err)) }()
	receipt, err := l.ledger.Submit(ctx, l.function, b.arg)
	if err != nil {
		return nil, network.Receipt{}, err
	}
	results, err := l.decode(receipt.Result)
	if err == nil && len(results) != len(b.entries) {
		err = fmt.Errorf("%d results for %d entries", len(results), len(b.entries))
	}
	if err != nil { // it committed, and only a retry can say what
		return nil, network.Receipt{}, &network.UnknownOutcomeError{TxID: receipt.TxID, Stage: "decode the contract's answer", Err: err}
	}
	receipt.Result = nil
	return results, receipt, nil
}

func classify(err error) metrics.Outcome {
	switch {
	case err == nil:
		return metrics.Committed
	case network.IsRejected(err):
		return metrics.Rejected
	case errors.Is(err, network.ErrConflict):
		return metrics.Conflict
	case errors.Is(err, network.ErrUnavailable):
		return metrics.Unavailable
	}
	return metrics.Unknown
}

// Codes of a ConflictError that are daily life: another transaction was first, or an endorser was a block behind.
const (
	codeMVCC     = "MVCC_READ_CONFLICT"
	codeMismatch = "ENDORSEMENT_MISMATCH"
)

// undecided notes what an attempt without a decision means for its callers.
func (l *lane[Req, Res]) undecided(b *batch[Req, Res], err error) {
	conflict, lost := errors.AsType[*network.ConflictError](err)
	if lost {
		l.down.Store(nil)
		level := slog.LevelWarn // anything else that a block says against a transaction will not just go away
		if conflict.Code == codeMVCC || conflict.Code == codeMismatch {
			level = slog.LevelDebug
		}
		l.limits.Logger.Log(context.Background(), level, "transaction was not applied, trying again", "function", l.function, "entries", len(b.entries), "error", err)
	} else {
		l.down.Store(&outage{err: err, at: l.limits.Now(), retrying: true})
		l.limits.Logger.Warn("ledger did not decide, trying again", "function", l.function, "entries", len(b.entries), "error", err)
	}
	txID := ""
	if unknown, ok := errors.AsType[*network.UnknownOutcomeError](err); ok {
		txID = unknown.TxID
	}
	// Only these two promise that nothing was written; an error that no engine should return counts as unknown.
	l.back(b, lost || errors.Is(err, network.ErrUnavailable), txID)
}

// fewCulprits is how many entries are taken out of a batch one by one.
const fewCulprits = 2

// refused handles a batch that the contract refused as a whole. It names one entry each time, so n entries of which k are refused take
// k refusals, whatever is done. Of a few, all others go into one transaction in the end. Of more, each refusal halves what is left: k
// refusals and at most k transactions of about n log k entries in all, where one by one would have n k entries endorsed and
// keep everybody waiting to the end. Whoever has refused certificates could hold up the others that way.
func (l *lane[Req, Res]) refused(b *batch[Req, Res], err error) []*batch[Req, Res] {
	es, culprits := b.entries, b.culprits
	if len(es) == 1 || AboutCaller(err) {
		for _, e := range es {
			l.refuse(e, l.function, err)
		}
		return nil
	}
	part := func(es []*entry[Req, Res]) *batch[Req, Res] { return &batch[Req, Res]{entries: es, culprits: culprits} }
	if i, ok := culprit(err); ok && i < len(es) {
		l.refuse(es[i], l.function, err)
		es = append(es[:i:i], es[i+1:]...)
		if culprits++; culprits < fewCulprits || len(es) == 1 {
			return []*batch[Req, Res]{part(es)}
		}
	}
	half := len(es) / 2
	return []*batch[Req, Res]{part(es[:half]), part(es[half:])}
}

// backoff is the pause before attempt n+1.
func backoff(o Options, n int) time.Duration {
	d := o.MaxBackoff
	if n < 16 {
		d = min(d, o.MinBackoff<<n)
	}
	return d/2 + jitter(d/2)
}

// jitter is a random time from 0 to d.
func jitter(d time.Duration) time.Duration { return rand.N(d + 1) } //nolint:gosec // jitter needs no secrecy

// pause waits for d or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
