// Package integrator moves pending changes of status into the status log.
//
// Every organisation runs one. After each change of the log's head they stand in a queue that begins behind the organisation that
// integrated last, which comes last itself: the first submits a little after it sees something pending, to take more along, and each
// later one waits a step longer for the head to move. So one organisation at a time does the work, they take turns, and when
// one is silent the next one steps in within the merge delay of a second.
package integrator

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
)

// Times of the queue. With four organisations, two of which are silent, the third still integrates 500 ms after it saw the change.
const (
	gather = 100 * time.Millisecond // the first in the queue waits this long
	step   = 200 * time.Millisecond // and each after it so much longer than the one before

	// alone is gather where there is nobody else.
	alone = 20 * time.Millisecond

	// patience is for how long an attempt may be on its way.
	patience = 5 * time.Second
	// settle is how long the organisation's own blocks may take to show the head that an attempt met or made.
	settle = time.Second
	// pause after an attempt that did not reach the ledger.
	pause = time.Second
)

// View is what an organisation's own blocks say.
type View struct {
	Consortium *wire.Consortium // nil: the ledger is not founded yet
	Size       uint64           // of the status log
	Integrator string           // MSP ID of who integrated last; empty: nobody did yet
	Pending    int              // changes that are not in the status log
}

// Config of Run. All fields are required.
type Config struct {
	Submit  func(ctx context.Context, function string, arg []byte) (network.Receipt, error)
	MSPID   string
	View    func() View
	Pending func(limit int) ([][sha256.Size]byte, error) // leaf hashes of pending changes, oldest first
	Changed func() <-chan struct{}                       // asked before View; closed when View may have changed
	Now     func() time.Time
	After   func(time.Duration) <-chan time.Time
	Log     *slog.Logger
}

// Run integrates until ctx ends. One transaction is in flight at a time; one that another organisation's overtook is normal.
func Run(ctx context.Context, cfg Config) {
	var (
		since    time.Time // local time since when the head is as it is and something is pending
		at       uint64    // the size it had then
		notUntil time.Time // after an attempt that failed
	)
	for ctx.Err() == nil {
		changed := cfg.Changed()
		v := cfg.View()
		delay, ok := Turn(v, cfg.MSPID)
		if !ok || v.Pending == 0 {
			since = time.Time{}
			wait(ctx, changed, nil)
			continue
		}
		now := cfg.Now()
		if since.IsZero() || v.Size != at {
			since, at = now, v.Size
		}
		due := since.Add(delay)
		if notUntil.After(due) {
			due = notUntil
		}
		if due.After(now) {
			wait(ctx, changed, cfg.After(due.Sub(now)))
			continue
		}
		if attempt(ctx, cfg, v) {
			awaitHead(ctx, cfg, v.Size)
		} else {
			notUntil = cfg.Now().Add(pause)
		}
	}
}

// Turn returns how long mspID waits from when it sees pending changes behind a new head; ok is false while the ledger has no
// consortium or mspID is not in it.
func Turn(v View, mspID string) (delay time.Duration, ok bool) {
	if v.Consortium == nil {
		return 0, false
	}
	msps := v.Consortium.MSPs
	place, found := slices.BinarySearch(msps, mspID)
	if !found {
		return 0, false
	}
	if len(msps) == 1 {
		return alone, true
	}
	last, found := slices.BinarySearch(msps, v.Integrator)
	if !found {
		last = len(msps) - 1
	}
	queue := (place - last - 1 + len(msps)) % len(msps)
	delay = gather + time.Duration(queue)*step
	if found && place == last {
		delay = max(delay, wire.StepBack+gather) // the contract refuses it before
	}
	return delay, true
}

// attempt submits the oldest pending changes, and reports whether the head moves, by this transaction or by another.
func attempt(ctx context.Context, cfg Config, v View) bool {
	hashes, err := cfg.Pending(wire.MaxBatch)
	if err != nil {
		cfg.Log.Error("pending changes of status cannot be read", "error", err)
		return false
	}
	if len(hashes) == 0 { // the view was a little older
		return true
	}
	arg := &wire.IntegrateArg{V: wire.Version, Size: v.Size, Leaves: make([][]byte, len(hashes))}
	for i := range hashes {
		arg.Leaves[i] = hashes[i][:]
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r, err := cfg.Submit(ctx, wire.FnIntegrate, wire.Encode(arg))
	switch {
	case err == nil:
		cfg.Log.Debug("changes of status integrated", "changes", len(hashes), "size", v.Size+uint64(len(hashes)), "block", r.Block)
		return true
	case network.IsRejected(err), errors.Is(err, network.ErrConflict):
		cfg.Log.Debug("integration overtaken", "error", err)
		return true
	case errors.Is(err, network.ErrUnknownOutcome):
		cfg.Log.Warn("outcome of an integration is unknown", "error", err)
		return true
	case ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled):
		cfg.Log.Debug("integration cut off by shutdown", "error", err)
	default:
		cfg.Log.Warn("integration failed", "error", err)
	}
	return false
}

// awaitHead returns when this organisation's blocks show another head than size, or after a while: whoever moved it.
func awaitHead(ctx context.Context, cfg Config, size uint64) {
	timeout := cfg.After(settle)
	for ctx.Err() == nil {
		changed := cfg.Changed()
		if cfg.View().Size != size {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			return
		case <-ctx.Done():
		}
	}
}

func wait(ctx context.Context, changed <-chan struct{}, timer <-chan time.Time) {
	select {
	case <-ctx.Done():
	case <-changed:
	case <-timer:
	}
}
