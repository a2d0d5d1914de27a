package ca

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/oplog"
	"github.com/certanchor/certanchor/network"
)

const (
	settleEvery   = 500 * time.Millisecond // between attempts to compare the log with the ledger
	anchorRetry   = 2 * time.Second        // after a failure
	anchorTimeout = 10 * time.Second
	lastAnchor    = 3 * time.Second // at shutdown
)

// unavailable tells whether err is the ledger's condition, and not what it says.
func unavailable(err error) bool {
	return errors.Is(err, network.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// run compares the log with the ledger, and then anchors its head at intervals until ctx ends.
func (o *operators) run(ctx context.Context) {
	begun := func() { o.begun.Do(func() { close(o.first) }) }
	defer begun()
	for !o.settle(ctx) {
		begun()
		select {
		case <-ctx.Done():
			return
		case <-o.kick:
		case <-time.After(settleEvery):
		}
	}
	begun()
	o.done.Go(func() { o.resolveUnfinished(ctx) })
	wait := o.set.AnchorEvery
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		o.tellRefused()
		if wait = o.set.AnchorEvery; o.anchor(ctx) != nil {
			wait = min(wait, anchorRetry)
		}
	}
}

// settle compares the log with the ledger; true: it goes on where that ends, and the ledger has its head. Without the second of two copies of a directory
// that were started one after the other each would be as good as the other, and both could go on.
func (o *operators) settle(ctx context.Context) bool {
	head, err := o.anchoredHead(ctx)
	if err == nil {
		err = o.server.catchUpAll(ctx, o.log.IsRestored(), o.say)
	}
	if err == nil {
		err = o.log.Settle(head)
	}
	if err == nil && (head == nil || o.log.Generation() != head.Generation || o.log.Size() != head.Size) {
		err = o.tryAnchor(ctx)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		if o.problem == nil || o.problem.Error() != err.Error() {
			o.server.log.Warn("nothing can be done for clients yet: the operators' log must be compared with the ledger", "error", err)
		}
		o.problem = err
		return false
	}
	if o.problem = nil; o.anchored == nil {
		o.anchored = head
	}
	if o.log.Generation() != o.generation {
		o.left = nil // in a file that nothing is added to any more
	}
	if head := o.anchored; o.since.IsZero() && (head == nil || o.log.Generation() != head.Generation || o.log.Size() > head.Size) {
		o.since = o.server.now()
	}
	o.settled.Store(true)
	close(o.ready)
	return true
}

// awaitSettled waits until the log was compared with the ledger and goes on where that ends; false: ctx has ended.
func (o *operators) awaitSettled(ctx context.Context) bool {
	select {
	case <-o.ready:
		return true
	case <-ctx.Done():
		return false
	}
}

// say tells clients why they must wait.
func (o *operators) say(err error) {
	o.mu.Lock()
	o.problem = err
	o.mu.Unlock()
	o.begun.Do(func() { close(o.first) })
}

// anchoredHead asks the ledger.
func (o *operators) anchoredHead(ctx context.Context) (*wire.OperatorsHead, error) {
	values, err := o.server.readState(ctx, wire.OperatorsKey(o.server.issuer.id, o.log.Name()))
	if err != nil || values[0] == nil {
		return nil, err
	}
	var rec wire.OperatorsRecord
	if err := wire.Decode(values[0], &rec); err != nil {
		return nil, fmt.Errorf("the ledger's head of the operators' log: %w", err)
	}
	return &rec.Head, nil
}

// grew notes that there is a record to anchor.
func (o *operators) grew() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.since.IsZero() {
		o.since = o.server.now()
	}
}

// anchor has the ledger take the log's head, if it grew. It asks for the newest one first: an attempt of unknown outcome may have come
// through, and what another process anchored with another copy of the log must not be taken for this one.
func (o *operators) anchor(ctx context.Context) error {
	err := o.tryAnchor(ctx)
	var behind *oplog.BehindError
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.failure = err; err == nil {
		return nil
	}
	if errors.As(err, &behind) {
		o.problem = err
		o.settled.Store(false) // nothing is done any more: another process goes on with the CA
	}
	if ctx.Err() == nil {
		o.server.log.Warn("the operators' log is not anchored", "error", err)
	}
	return err
}

func (o *operators) tryAnchor(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, anchorTimeout)
	defer cancel()
	if !o.server.registered.Load() {
		if err := o.server.checkRegistered(ctx); err != nil {
			if _, refused := errors.AsType[*wire.Error](err); refused {
				return nil // there is nothing yet that it could be anchored to
			}
			return err
		}
	}
	began := o.server.now()
	h, err := o.log.Head()
	if err != nil {
		return err
	}
	anchored, err := o.anchoredHead(ctx)
	if err != nil {
		return err
	}
	if err := o.log.Settle(anchored); err != nil { // of a log that is not restored, a comparison only
		return err
	}
	if anchored == nil || !anchored.Equal(h) {
		arg, err := o.anchorArg(anchored, h)
		if err != nil {
			return err
		}
		if _, err := o.server.ledger.Submit(ctx, wire.FnAnchorOperators, wire.Encode(arg)); err != nil {
			return err
		}
		anchored = &h
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.anchored, o.since = anchored, time.Time{}
	if o.log.Size() > h.Size {
		o.since = began
	}
	return nil
}

func (o *operators) anchorArg(anchored *wire.OperatorsHead, h wire.OperatorsHead) (*wire.AnchorOperatorsArg, error) {
	arg := &wire.AnchorOperatorsArg{V: wire.Version, CAID: o.server.issuer.id, Head: h, Name: o.log.Name()}
	if anchored == nil {
		return arg, nil
	}
	if anchored.Generation != h.Generation {
		arg.Lost = anchored
		return arg, nil
	}
	var err error
	arg.Proof, err = o.log.Consistency(anchored.Size, h.Size)
	return arg, err
}

// waiting is how long the oldest record has waited for its anchor.
func (o *operators) waiting() time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.since.IsZero() || !o.server.registered.Load() {
		return 0
	}
	return o.server.now().Sub(o.since)
}

// health is nil while the log is written and anchored.
func (o *operators) health(ctx context.Context) error {
	if err := o.usable(ctx); err != nil {
		return err
	}
	if w := o.waiting(); w > overdueAfter*o.set.AnchorEvery {
		o.mu.Lock()
		defer o.mu.Unlock()
		return fmt.Errorf("the operators' log has records that are not anchored in the ledger since %v, %d times operators_log.anchor_every or more: %w",
			w.Truncate(time.Second), overdueAfter, orWaiting(o.failure))
	}
	return nil
}

func orWaiting(err error) error {
	if err == nil {
		return errors.New("the next attempt is under way")
	}
	return err
}

// closeOperators is for the first generation, whose log it is.
func (s *Server) closeOperators() error {
	if s.operators == nil || s.operators.server != s {
		return nil
	}
	return s.operators.close()
}

// close anchors what is left and closes the log. The background work has ended.
func (o *operators) close() error {
	o.done.Wait()
	if o.settled.Load() {
		o.tellRefused()
		ctx, cancel := context.WithTimeout(context.Background(), lastAnchor)
		defer cancel()
		_ = o.anchor(ctx) // in the log of this process; the next one anchors it
	}
	return o.log.Close()
}
