package anchortest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
)

// Orderer makes a ledger that executes transactions one after another behave like one that endorses them first and orders them later:
// an Issue is executed, waits for the others of its block, and is void when another Issue of the same CA changed the log's head in
// between. The connections that Connect returns share it.
type Orderer struct {
	blocks time.Duration // from one block to the next; 0: a block as soon as somebody waits

	mu      sync.Mutex // held while a block commits
	pending []*envelope
	kick    chan struct{} // capacity 1
	sent    int
	void    int
}

type envelope struct {
	ctx      context.Context
	ledger   network.Ledger
	function string
	arg      []byte
	read     string // the head that it was executed on
	done     chan struct{}
	receipt  network.Receipt
	err      error
}

// NewOrderer starts an orderer that cuts a block every so often, until ctx ends.
func NewOrderer(ctx context.Context, blocks time.Duration) *Orderer {
	o := &Orderer{blocks: blocks, kick: make(chan struct{}, 1)}
	go o.run(ctx)
	return o
}

// Counts returns how many transactions were ordered, and how many of them were void.
func (o *Orderer) Counts() (sent, void int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.sent, o.void
}

// Connect returns ledger with o between endorsement and commit.
func (o *Orderer) Connect(ledger network.Ledger) network.Ledger {
	return &ordered{Ledger: ledger, orderer: o}
}

type ordered struct {
	network.Ledger
	orderer *Orderer
}

// Submit implements network.Ledger.
func (l *ordered) Submit(ctx context.Context, function string, arg []byte) (network.Receipt, error) {
	e := &envelope{ctx: ctx, ledger: l.Ledger, function: function, arg: arg, done: make(chan struct{})}
	var err error
	if e.read, err = e.head(ctx); err == nil {
		_, err = l.Evaluate(ctx, function, arg) // what endorsing costs, and its refusals
	}
	if err != nil {
		return network.Receipt{}, err
	}
	l.orderer.order(e)
	select {
	case <-e.done:
		return e.receipt, e.err
	case <-ctx.Done():
		return network.Receipt{}, &network.UnknownOutcomeError{TxID: "ordered", Stage: function, Err: ctx.Err()}
	}
}

func (o *Orderer) order(e *envelope) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sent++
	o.pending = append(o.pending, e)
	select {
	case o.kick <- struct{}{}:
	default:
	}
}

func (o *Orderer) run(ctx context.Context) {
	for {
		select {
		case <-o.kick:
		case <-ctx.Done():
			return
		}
		if o.blocks > 0 {
			select {
			case <-time.After(o.blocks):
			case <-ctx.Done():
				return
			}
		}
		o.cut(ctx)
	}
}

func (o *Orderer) cut(ctx context.Context) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, e := range o.pending {
		e.commit(context.WithoutCancel(ctx))
		if errors.Is(e.err, network.ErrConflict) {
			o.void++
		}
		close(e.done)
	}
	o.pending = nil
}

func (e *envelope) commit(ctx context.Context) {
	head, err := e.head(ctx)
	switch {
	case err != nil:
		e.err = &network.UnknownOutcomeError{TxID: "ordered", Stage: e.function, Err: err}
	case head != e.read:
		e.err = &network.ConflictError{TxID: "ordered", Code: "MVCC_READ_CONFLICT"}
	default:
		e.receipt, e.err = e.ledger.Submit(ctx, e.function, e.arg)
	}
}

// head is what an Issue, and an Import of certificates, reads and writes; empty for other transactions.
func (e *envelope) head(ctx context.Context) (string, error) {
	var a wire.IssueArg
	var err error
	switch e.function {
	case wire.FnIssue:
		err = wire.Decode(e.arg, &a)
	case wire.FnImport:
		var im wire.ImportArg
		if err = wire.Decode(e.arg, &im); err == nil && len(im.Packed) == 0 {
			return "", nil
		}
		a.CAID = im.CAID
	default:
		return "", nil
	}
	if err != nil {
		return "", &network.RejectedError{Function: e.function, Reason: err}
	}
	answer, err := e.ledger.Evaluate(ctx, wire.FnRead, wire.Encode(&wire.ReadArg{V: wire.Version, Keys: []string{wire.LogHeadKey(a.CAID)}}))
	if err != nil {
		return "", err
	}
	var r wire.ReadResult
	if err := wire.Decode(answer, &r); err != nil {
		return "", err
	}
	if len(r.Values) != 1 {
		return "", fmt.Errorf("%d values for one key", len(r.Values))
	}
	return string(r.Values[0]), nil
}
