// Package ticker keeps the ledger's clock moving: it submits one Tick in each epoch that has none.
//
// Every organisation runs one. In each epoch they stand in a queue, whose order all compute alike and which rotates by one
// place from epoch to epoch; whoever is first sends at once, and the one in place n waits n slots for the tick to show in its
// own blocks. So one organisation sends, and when it does not, the next does.
package ticker

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
)

// View is what an organisation's own blocks say.
type View struct {
	Consortium *wire.Consortium // nil: the ledger is not founded yet
	Tick       wire.Clock       // the newest; Time 0: none yet
}

// Config of a Ticker. All fields are required.
type Config struct {
	Submit  func(ctx context.Context, function string, arg []byte) (network.Receipt, error)
	MSPID   string
	View    func() View
	Changed func() <-chan struct{} // asked before View; closed when View may have changed
	Now     func() time.Time
	After   func(time.Duration) <-chan time.Time
	Log     *slog.Logger
}

// Run submits ticks until ctx ends. One is in flight at a time; a tick that another organisation sent first, or that
// conflicted with it, is normal.
func Run(ctx context.Context, cfg Config) {
	var next time.Time // after an attempt: not before this
	for ctx.Err() == nil {
		changed := cfg.Changed()
		view := cfg.View()
		now := cfg.Now()
		due, ok := Due(view, cfg.MSPID, now)
		if next.After(due) {
			due = next
		}
		switch {
		case !ok:
			wait(ctx, changed, nil)
		case due.After(now):
			wait(ctx, changed, cfg.After(due.Sub(now)))
		default:
			attempt(ctx, cfg, view)
			// Whatever came of it, this organisation takes its place at the end of the queue before it tries again: by then
			// the blocks have told.
			next = cfg.Now().Add(slot(view.Consortium) * time.Duration(len(view.Consortium.MSPs)))
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

// Due returns when mspID should submit a tick, given that nothing else happens; ok is false while the ledger has no
// consortium or mspID is not in it.
func Due(v View, mspID string, now time.Time) (due time.Time, ok bool) {
	if v.Consortium == nil || v.Consortium.TickInterval <= 0 {
		return time.Time{}, false
	}
	place, found := slices.BinarySearch(v.Consortium.MSPs, mspID)
	if !found {
		return time.Time{}, false
	}
	epoch := now.UnixMilli() / v.Consortium.TickInterval
	if v.Tick.Time != 0 && v.Tick.Epoch >= epoch {
		epoch = v.Tick.Epoch + 1
	}
	n := int64(len(v.Consortium.MSPs))
	queue := (int64(place) + epoch%n) % n
	begin := time.UnixMilli(epoch * v.Consortium.TickInterval)
	return begin.Add(slot(v.Consortium) * time.Duration(queue)), true
}

// slot is how long each organisation in the queue waits for the one before: all have had their turn within half an epoch.
func slot(c *wire.Consortium) time.Duration {
	interval := time.Duration(c.TickInterval) * time.Millisecond
	return interval / time.Duration(2*len(c.MSPs))
}

func attempt(ctx context.Context, cfg Config, view View) {
	interval := time.Duration(view.Consortium.TickInterval) * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, max(interval, time.Second))
	defer cancel()
	r, err := cfg.Submit(ctx, wire.FnTick, wire.Encode(&wire.TickArg{V: wire.Version}))
	switch {
	case err == nil:
		cfg.Log.Debug("tick committed", "block", r.Block, "tx", r.TxID)
	case network.IsRejected(err), errors.Is(err, network.ErrConflict):
		cfg.Log.Debug("tick not needed", "error", err)
	case ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled):
		cfg.Log.Debug("tick cut off by shutdown", "error", err)
	default:
		cfg.Log.Warn("tick failed", "error", err)
	}
}
