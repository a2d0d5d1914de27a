package anchor

import (
	"context"
	"crypto/sha256"
	"slices"
	"sync"
	"time"

	"github.com/certanchor/certanchor/internal/metrics"
	"github.com/certanchor/certanchor/network"
)

// entry is one request on its way, with everybody who waits for it.
type entry[Req, Res any] struct {
	req  Req
	key  string             // two entries with the same key never share a batch
	id   *[sha256.Size]byte // identical requests share an entry; nil: they do not
	size int                // bytes that count towards the limits
	from string             // who asked for it first; empty: not known
	done chan struct{}      // closed when out is set
	out  outcome[Res]       // not changed after done is closed

	// The rest is guarded by queue.mu.
	waiters int    // callers that are still there
	queued  bool   // counts towards the queue's limits: not submitted yet
	flying  bool   // part of a transaction that is being submitted
	maybe   bool   // part of an earlier one whose outcome is unknown
	txID    string // of that one
}

type outcome[Res any] struct {
	res     Res
	receipt network.Receipt
	err     error
}

// batch is what one transaction carries.
type batch[Req, Res any] struct {
	entries  []*entry[Req, Res]
	arg      []byte        // encoded entries; nil: not encoded yet
	packed   chan struct{} // closed when arg is set by pack; nil: nobody packs it
	culprits int           // entries that the contract refused, of the batch that this is a part of
	sifted   bool          // of entries that the ledger has records of (lane.sift)
}

// queue is who waits, in the order of arrival, and within bounds.
type queue[Req, Res any] struct {
	limits  Options
	encode  func([]Req) []byte
	metrics *metrics.Lane

	newcomer chan struct{} // capacity 1: somebody joined waiting

	mu      sync.Mutex
	waiting []*entry[Req, Res]                     // not in a batch yet
	size    int                                    // of waiting, in bytes
	open    map[[sha256.Size]byte]*entry[Req, Res] // not settled, by id
	next    *batch[Req, Res]                       // a full batch that was made while another one is in flight
	flying  bool                                   // a batch is being settled
	count   int                                    // entries that are queued: waiting or in next
	bytes   int                                    // their size
	coming  int                                    // places reserved for requests that are not queued yet
	held    map[string]int                         // queued and coming, by caller; those without a name are not in it

	pace     pace      // how long transactions take
	departed time.Time // when the batch that is flying set off
	flight   int       // entries that left the queue with it
	decided  int       // of these, those with an outcome
}

// join queues req for one caller, or makes the caller share an entry that is there. An *OverloadError: nothing was queued.
func (q *queue[Req, Res]) join(ctx context.Context, e *entry[Req, Res]) (*entry[Req, Res], error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	e.from = callerOf(ctx)
	admitted := q.redeem(ctx)
	if e.id != nil {
		if same := q.open[*e.id]; same != nil {
			same.waiters++
			q.metrics.Coalesced()
			return same, nil
		}
	}
	if !admitted || q.bytes+e.size > q.limits.MaxQueueBytes {
		if err := q.check(e.from, e.size); err != nil {
			return nil, err
		}
	}
	e.waiters, e.queued = 1, true
	if e.id != nil {
		q.open[*e.id] = e
	}
	q.waiting = append(q.waiting, e)
	q.size += e.size
	q.counted(e, 1)
	q.prepare()
	select {
	case q.newcomer <- struct{}{}:
	default:
	}
	return e, nil
}

// counted notes that e is queued (1), or is no longer (-1). It requires mu.
func (q *queue[Req, Res]) counted(e *entry[Req, Res], n int) {
	q.count += n
	q.bytes += n * e.size
	q.hold(e.from, n)
	q.show()
}

// enough reports whether what waits fills a batch. It requires mu.
func (q *queue[Req, Res]) enough() bool {
	return len(q.waiting) >= q.limits.MaxBatch || q.size >= q.limits.MaxBytes
}

// prepare makes and packs the next batch while one is in flight, once nobody can be added to it: packing then delays no one. It
// requires mu.
func (q *queue[Req, Res]) prepare() {
	if !q.flying || q.next != nil || !q.enough() {
		return
	}
	b := q.form()
	b.packed = make(chan struct{})
	q.next = b
	go func() {
		b.pack(q.encode)
		close(b.packed)
	}()
}

// form takes the oldest entries that fit into one batch out of waiting. One whose key is in the batch already stays where it is:
// the contract refuses a serial that occurs twice in a transaction. It requires mu.
func (q *queue[Req, Res]) form() *batch[Req, Res] {
	b := &batch[Req, Res]{}
	keys := make(map[string]bool, min(len(q.waiting), q.limits.MaxBatch))
	bytes, rest := 0, q.waiting[:0]
	for i, e := range q.waiting {
		if len(b.entries) == q.limits.MaxBatch || len(b.entries) > 0 && bytes+e.size > q.limits.MaxBytes {
			rest = append(rest, q.waiting[i:]...)
			break
		}
		if keys[e.key] {
			rest = append(rest, e)
			continue
		}
		keys[e.key] = true
		b.entries = append(b.entries, e)
		bytes += e.size
	}
	clear(q.waiting[len(rest):])
	q.waiting = rest
	q.size -= bytes
	return b
}

// depart returns b's entries that are to be submitted now, as a batch, and marks them as flying; nil when nobody waits for any of
// them. Those without callers are dropped, so that nothing is accepted late, but not from a batch that may have committed: it is
// submitted again as it was, as long as anyone waits for it.
func (q *queue[Req, Res]) depart(b *batch[Req, Res]) *batch[Req, Res] {
	q.mu.Lock()
	defer q.mu.Unlock()
	awaited := slices.ContainsFunc(b.entries, func(e *entry[Req, Res]) bool { return e.waiters > 0 })
	stay := make([]*entry[Req, Res], 0, len(b.entries))
	for _, e := range b.entries {
		if e.queued {
			q.flight++
			e.queued = false
			q.counted(e, -1)
		}
		if awaited && (e.waiters > 0 || e.maybe) {
			e.flying = true
			stay = append(stay, e)
		} else {
			q.forget(e)
		}
	}
	if len(stay) == 0 {
		return nil
	}
	if len(stay) != len(b.entries) {
		return &batch[Req, Res]{entries: stay, culprits: b.culprits, sifted: b.sifted}
	}
	return b
}

// forget keeps newcomers from sharing e. It requires mu.
func (q *queue[Req, Res]) forget(e *entry[Req, Res]) {
	if e.id != nil && q.open[*e.id] == e {
		delete(q.open, *e.id)
	}
}

// leave is one caller giving up on e because of cause. If the outcome came meanwhile, that is the answer.
func (q *queue[Req, Res]) leave(e *entry[Req, Res], stage string, cause error) outcome[Res] {
	q.mu.Lock()
	defer q.mu.Unlock()
	select {
	case <-e.done:
		return e.out
	default:
	}
	e.waiters--
	if e.flying || e.maybe {
		return outcome[Res]{err: &network.UnknownOutcomeError{TxID: e.txID, Stage: stage, Err: cause}}
	}
	if e.waiters == 0 {
		q.forget(e)
		if e.queued {
			e.queued = false
			q.counted(e, -1)
		}
		if i := slices.Index(q.waiting, e); i >= 0 {
			q.waiting = slices.Delete(q.waiting, i, i+1)
			q.size -= e.size
		}
	}
	return outcome[Res]{err: &network.UnavailableError{Stage: stage, Err: cause}}
}

// settle gives everybody who waits for e its answer.
func (q *queue[Req, Res]) settle(e *entry[Req, Res], o outcome[Res]) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.forget(e)
	q.decided++
	e.flying, e.out = false, o
	close(e.done)
}

// back notes the end of an attempt that decided nothing.
func (q *queue[Req, Res]) back(b *batch[Req, Res], nothingWritten bool, txID string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, e := range b.entries {
		e.flying = false
		if !nothingWritten {
			e.maybe = true
			if txID != "" {
				e.txID = txID
			}
		}
	}
}

// refuse delivers the contract's refusal. After an attempt of unknown outcome it proves only that this attempt had not
// committed yet: its envelope may still be on its way, so the outcome stays unknown.
func (q *queue[Req, Res]) refuse(e *entry[Req, Res], stage string, err error) {
	q.mu.Lock()
	maybe, txID := e.maybe, e.txID
	q.mu.Unlock()
	err = aboutOne(err)
	if maybe {
		err = &network.UnknownOutcomeError{TxID: txID, Stage: stage, Err: err}
	}
	q.settle(e, outcome[Res]{err: err})
}

// pack encodes b, unless it is.
func (b *batch[Req, Res]) pack(encode func([]Req) []byte) {
	if b.arg != nil {
		return
	}
	reqs := make([]Req, len(b.entries))
	for i, e := range b.entries {
		reqs[i] = e.req
	}
	b.arg = encode(reqs)
}
