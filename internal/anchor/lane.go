package anchor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
)

// lane is a queue of calls and one goroutine that submits them in batches, one transaction in flight.
type lane[Req, Res any] struct {
	function string
	encode   func([]Req) []byte
	decode   func([]byte) ([]Res, error) // one result for each request, in order
	size     func(Req) int               // bytes that count towards Options.MaxBytes
	key      func(Req) string            // two requests with the same key never share a batch

	ledger network.Ledger
	opts   Options
	queue  chan *call[Req, Res]
	cancel context.CancelFunc
	exited chan struct{}          // closed when the goroutine has ended
	down   atomic.Pointer[outage] // the last attempt failed; nil after one that the ledger decided on

	carry *call[Req, Res] // owned by the goroutine: taken from the queue, does not fit the batch before
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
	if o == nil || !o.retrying && l.opts.Now().Sub(o.at) > outageFor {
		return nil
	}
	return o.err
}

func (l *lane[Req, Res]) start(ledger network.Ledger, opts Options) {
	ctx, cancel := context.WithCancel(context.Background())
	l.ledger, l.opts, l.cancel = ledger, opts, cancel
	l.queue = make(chan *call[Req, Res], opts.MaxQueue)
	l.exited = make(chan struct{})
	go func() {
		defer close(l.exited)
		for {
			batch := l.collect(ctx)
			if batch == nil {
				return
			}
			l.settle(ctx, batch)
		}
	}()
}

func (l *lane[Req, Res]) close() {
	l.cancel()
	<-l.exited
}

// do queues one request and waits for its end or ctx's.
func (l *lane[Req, Res]) do(ctx context.Context, req Req) (Res, network.Receipt, error) {
	c := &call[Req, Res]{req: req, done: make(chan outcome[Res], 1)}
	var none Res
	if err := ctx.Err(); err != nil {
		return none, network.Receipt{}, &network.UnavailableError{Stage: l.function, Err: err}
	}
	select {
	case <-l.exited:
		return none, network.Receipt{}, &network.UnavailableError{Stage: l.function, Err: network.ErrClosed}
	case l.queue <- c:
	default:
		return none, network.Receipt{}, &network.UnavailableError{Stage: l.function, Err: errQueueFull}
	}
	var o outcome[Res]
	select {
	case o = <-c.done:
	case <-ctx.Done():
		o = c.leave(l.function, ctx.Err())
	case <-l.exited:
		o = c.leave(l.function, network.ErrClosed)
	}
	return o.res, o.receipt, o.err
}

// collect waits for a first call and adds what else is queued and fits. It returns nil when ctx has ended.
func (l *lane[Req, Res]) collect(ctx context.Context) []*call[Req, Res] {
	first := l.carry
	l.carry = nil
	if first == nil {
		select {
		case first = <-l.queue:
		case <-ctx.Done():
			return nil
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	batch := []*call[Req, Res]{first}
	bytes := l.size(first.req)
	keys := map[string]bool{l.key(first.req): true}
	for len(batch) < l.opts.MaxBatch {
		select {
		case c := <-l.queue:
			bytes += l.size(c.req)
			if k := l.key(c.req); bytes > l.opts.MaxBytes || keys[k] {
				l.carry = c
				return batch
			} else {
				keys[k] = true
			}
			batch = append(batch, c)
		default:
			return batch
		}
	}
	return batch
}

// settle brings every call of a batch to its end, in as few transactions as the contract's refusals allow.
func (l *lane[Req, Res]) settle(ctx context.Context, batch []*call[Req, Res]) {
	work := [][]*call[Req, Res]{batch}
	for len(work) > 0 {
		next := work[0]
		work = append(l.attempt(ctx, next), work[1:]...)
	}
}

// attempt submits a batch until the ledger decides on it or no caller is left. Of a batch of several that was refused it
// delivers what it can and returns the parts to try on their own.
func (l *lane[Req, Res]) attempt(ctx context.Context, batch []*call[Req, Res]) [][]*call[Req, Res] {
	for n := 0; ; n++ {
		batch = present(batch)
		if len(batch) == 0 || ctx.Err() != nil {
			if o := l.down.Load(); o != nil {
				l.down.Store(&outage{err: o.err, at: o.at})
			}
			return nil
		}
		results, receipt, err := l.submit(ctx, batch)
		switch {
		case err == nil:
			l.down.Store(nil)
			for i, c := range batch {
				c.deliver(outcome[Res]{res: results[i], receipt: receipt})
			}
			return nil
		case network.IsRejected(err):
			l.down.Store(nil)
			return l.refused(batch, err)
		}
		l.undecided(batch, err)
		if !l.pause(ctx, n) {
			return nil
		}
	}
}

func (l *lane[Req, Res]) submit(ctx context.Context, batch []*call[Req, Res]) ([]Res, network.Receipt, error) {
	ctx, cancel := context.WithTimeout(ctx, l.opts.SubmitTimeout)
	defer cancel()
	reqs := make([]Req, len(batch))
	for i, c := range batch {
		reqs[i] = c.req
	}
	receipt, err := l.ledger.Submit(ctx, l.function, l.encode(reqs))
	if err != nil {
		return nil, network.Receipt{}, err
	}
	results, err := l.decode(receipt.Result)
	if err == nil && len(results) != len(batch) {
		err = fmt.Errorf("%d results for %d entries", len(results), len(batch))
	}
	if err != nil { // it committed, and only a retry can say what
		return nil, network.Receipt{}, &network.UnknownOutcomeError{TxID: receipt.TxID, Stage: "decode the contract's answer", Err: err}
	}
	receipt.Result = nil
	return results, receipt, nil
}

// undecided notes what an attempt without a decision means for its callers.
func (l *lane[Req, Res]) undecided(batch []*call[Req, Res], err error) {
	var conflict *network.ConflictError
	if errors.As(err, &conflict) {
		l.down.Store(nil)
		// Losing to another transaction is daily life; anything else that a block or the endorsers say against one is not,
		// and each attempt leaves an invalid transaction in a block.
		l.opts.Logger.Log(context.Background(), conflictLevel(conflict), "transaction was not applied, trying again", "function", l.function, "entries", len(batch), "error", err)
	} else {
		l.down.Store(&outage{err: err, at: l.opts.Now(), retrying: true})
		l.opts.Logger.Warn("ledger did not decide, trying again", "function", l.function, "entries", len(batch), "error", err)
	}
	// Only these two promise that nothing was written; an error that no engine should return counts as unknown.
	nothing := conflict != nil || errors.Is(err, network.ErrUnavailable)
	var unknown *network.UnknownOutcomeError
	txID := ""
	if errors.As(err, &unknown) {
		txID = unknown.TxID
	}
	for _, c := range batch {
		c.back(nothing, txID)
	}
}

func conflictLevel(c *network.ConflictError) slog.Level {
	if c.Code == "MVCC_READ_CONFLICT" || c.Code == "ENDORSEMENT_MISMATCH" {
		return slog.LevelDebug
	}
	return slog.LevelWarn
}

// refused handles a batch that the contract refused as a whole.
func (l *lane[Req, Res]) refused(batch []*call[Req, Res], err error) [][]*call[Req, Res] {
	if len(batch) == 1 || AboutCaller(err) {
		for _, c := range batch {
			c.refuse(l.function, err)
		}
		return nil
	}
	if i, ok := culprit(err); ok && i < len(batch) {
		batch[i].refuse(l.function, err)
		rest := append(batch[:i:i], batch[i+1:]...)
		return [][]*call[Req, Res]{rest}
	}
	half := len(batch) / 2
	return [][]*call[Req, Res]{batch[:half], batch[half:]}
}

// pause waits before attempt n+1. It reports false when ctx has ended.
func (l *lane[Req, Res]) pause(ctx context.Context, n int) bool {
	d := l.opts.MaxBackoff
	if n < 16 {
		d = min(d, l.opts.MinBackoff<<n)
	}
	t := time.NewTimer(d/2 + rand.N(d/2+1)) //nolint:gosec // jitter needs no secrecy
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// AboutCaller reports whether a refusal is about the caller, the CA or the clock, which no part of the batch would change.
// Anything else that does not name an entry is tried in halves: entries that are recorded already succeed where new ones do not.
func AboutCaller(err error) bool {
	var we *wire.Error
	if !errors.As(err, &we) {
		return false
	}
	return we.Code == wire.PermissionDenied || we.Field == "ca_id" || we.Field == "time" || we.Field == "consortium"
}
