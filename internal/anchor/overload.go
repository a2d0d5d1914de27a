package anchor

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/metrics"
)

// ErrQueueFull is what the UnavailableError of a request wraps that was turned away; the error between them is an *OverloadError.
var ErrQueueFull = errors.New("too many requests are waiting for the ledger")

// OverloadError turns a request away: nothing of it was taken, and nothing of it will be.
type OverloadError struct {
	Reason metrics.Reason
	Wait   time.Duration // how much later than on an idle ledger it would have been answered, at least
	Retry  time.Duration // after which it may come again: what waits is on the ledger by then
}

func (e *OverloadError) Error() string {
	return fmt.Sprintf("%v (%s): the wait would be %v", ErrQueueFull, e.Reason, e.Wait.Round(time.Millisecond))
}

// Unwrap makes it ErrQueueFull.
func (e *OverloadError) Unwrap() error { return ErrQueueFull }

// RetryAfter is asked by package problem.
func (e *OverloadError) RetryAfter() time.Duration { return e.Retry }

// maxRetry bounds what a caller is asked to wait.
const maxRetry = 30 * time.Second

// pace estimates how long a transaction of n entries takes: fixed + each*n. Small ones teach what is fixed, larger ones what each entry adds.
// A rate alone would not do: what one certificate takes on an idle network says little about a thousand of them.
type pace struct {
	small         float64 // seconds that small transactions took, a moving average, beyond firstFixed
	entries, time float64 // of larger ones: entries, and the seconds that these added; the newest weigh most
}

const (
	few = 32 // entries of a small transaction; so many may always wait, unless the one on its way is late

	// What is believed before anything was seen: the first callers of a process are not turned away for want of knowledge, and by
	// default one full transaction may wait. firstWeight is for how many entries the belief counts beside what was seen.
	firstFixed  = 0.05  // seconds
	firstEach   = 0.001 // seconds
	firstWeight = 50

	ageing     = 0.95 // of what larger ones taught, at each small one
	learning   = 0.3  // weight of the newest small transaction
	forgetting = 0.6  // of larger ones, when as many entries went by as may wait
)

// line returns the two parameters in seconds; they are not negative.
func (p *pace) line() (fixed, each float64) {
	return firstFixed + p.small, (p.time + firstWeight*firstEach) / (p.entries + firstWeight)
}

// seen takes a transaction of so many entries into the estimate. bound is how many seconds' worth of entries may wait.
func (p *pace) seen(entries int, took time.Duration, bound float64) {
	fixed, each := p.line()
	n, t := float64(entries), took.Seconds()
	if entries <= few {
		// One that got lost for a while must not count for what all take: at most twice as much as before is believed.
		rest := min(max(t-each*n, 0), 2*fixed+firstFixed)
		p.small += learning * (rest - fixed)
		// What larger ones taught gets old, or one that was slow by accident would keep all after it small.
		p.entries, p.time = p.entries*ageing, p.time*ageing
		return
	}
	keep := math.Pow(forgetting, min(1, n*each/bound))
	p.entries = p.entries*keep + n
	p.time = p.time*keep + max(t-fixed, 0)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// mayWait is how many seconds' worth of entries may wait, under overload.
func (o *Options) mayWait() float64 {
	if o.MaxWait <= 0 {
		return time.Second.Seconds()
	}
	return o.MaxWait.Seconds() / 2
}

// ahead is what a newcomer finds before it: what is left of the transaction on its way, and the time that all who wait add to the next
// ones. A transaction that takes longer than expected by some time is expected to take as long again. It requires mu.
func (q *queue[Req, Res]) ahead() (left, work time.Duration) {
	fixed, each := q.pace.line()
	entries := q.count + q.coming
	batches := max(entries/q.limits.MaxBatch, q.bytes/q.limits.MaxBytes)
	work = seconds(each*float64(entries) + fixed*float64(batches))
	if q.flying {
		left = seconds(fixed+each*float64(q.flight)) - q.limits.Now().Sub(q.departed)
		left = max(left, -left)
	}
	return left, work
}

// check says whether a newcomer of so many bytes is turned away, and why. Nobody is who finds nothing before it. It requires mu.
//
// What waits is bounded by half of MaxWait: under overload a transaction then takes half of it, and whoever comes while one is on its way
// waits for the rest of that and, however many come after it, for its own.
//
// The last quarter of every bound is kept for callers with less than an equal share of what waits: one that sends more than the ledger
// takes, in any number of requests, fills three quarters, and leaves the others room. Callers that nobody named count as one each.
func (q *queue[Req, Res]) check(caller string, size int) error {
	left, work := q.ahead()
	ahead := q.count + q.coming
	of := func(bound int) int { return bound }
	if caller != "" && q.held[caller]*len(q.held) >= ahead && ahead > 0 {
		of = func(bound int) int { return bound - bound/4 }
	}
	bound := time.Duration(of(int(q.limits.MaxWait)))
	late := bound > 0 && (left > q.limits.MaxWait || ahead >= of(few) && max(2*work, left+work) > bound)
	reason := metrics.Reason("")
	switch {
	case ahead >= of(q.limits.MaxQueue):
		reason = metrics.ByEntries
	case q.bytes+size > max(of(q.limits.MaxQueueBytes), size):
		reason = metrics.ByBytes
	case late:
		reason = metrics.ByWait
	default:
		return nil
	}
	q.metrics.TurnedAway(reason)
	return &OverloadError{Reason: reason, Wait: left + work, Retry: min(max(left+work, time.Second), maxRetry)}
}

// ticket is a place in a queue that a request has before it joins.
type ticket[Req, Res any] struct {
	queue  *queue[Req, Res]
	caller string
	used   bool // guarded by queue.mu
}

type (
	ticketKey[Req, Res any] struct{}
	callerKey               struct{}
)

// WithCaller names who asks, so that callers share the queue fairly: an authenticated client, or the host that a request came from.
func WithCaller(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, callerKey{}, name)
}

func callerOf(ctx context.Context) string {
	name, _ := ctx.Value(callerKey{}).(string)
	return name
}

// admit reserves a place, or turns the request away.
func (q *queue[Req, Res]) admit(ctx context.Context) (context.Context, func(), error) {
	if t, ok := ctx.Value(ticketKey[Req, Res]{}).(*ticket[Req, Res]); ok && t.queue == q {
		return ctx, func() {}, nil // whoever has it gives it back
	}
	t := &ticket[Req, Res]{queue: q, caller: callerOf(ctx)}
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.check(t.caller, wire.MaxCertDER); err != nil {
		return ctx, func() {}, err
	}
	q.coming++
	q.hold(t.caller, 1)
	q.show()
	return context.WithValue(ctx, ticketKey[Req, Res]{}, t), func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		t.giveBack()
	}, nil
}

// giveBack requires queue.mu. It reports whether the place was still reserved.
func (t *ticket[Req, Res]) giveBack() bool {
	if t.used {
		return false
	}
	t.used = true
	t.queue.coming--
	t.queue.hold(t.caller, -1)
	t.queue.show()
	return true
}

// redeem uses the ticket of a request that joins; false: it has none. It requires mu.
func (q *queue[Req, Res]) redeem(ctx context.Context) bool {
	t, ok := ctx.Value(ticketKey[Req, Res]{}).(*ticket[Req, Res])
	return ok && t.queue == q && t.giveBack()
}

// hold counts what waits of a caller. It requires mu.
func (q *queue[Req, Res]) hold(caller string, n int) {
	if caller == "" {
		return
	}
	if q.held == nil {
		q.held = map[string]int{}
	}
	if q.held[caller] += n; q.held[caller] <= 0 {
		delete(q.held, caller)
	}
}

// show tells the metrics how much waits. It requires mu.
func (q *queue[Req, Res]) show() {
	fixed, each := q.pace.line()
	left, work := q.ahead()
	q.metrics.Queue(q.count, q.bytes, left+work, float64(q.limits.MaxBatch)/(fixed+each*float64(q.limits.MaxBatch)))
}
