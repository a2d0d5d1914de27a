package ocspbridge

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/index"
)

const (
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
)

// follow applies blocks until ctx ends, or until one cannot be applied. Each time it (re)starts, it asks the peer's height
// first: until the index has reached it, nothing is answered. Nor is it before the peer has delivered the index's newest block
// once more: a peer that does not have it is another ledger's, or is still finding its way back to where it was.
func (b *Bridge) follow(ctx context.Context) error {
	pause := firstPause
	for {
		before := b.index.View().Height
		err := b.stream(ctx)
		b.required.Store(unknownHeight)
		b.confirmed.Store(false)
		if ctx.Err() != nil {
			return nil
		}
		if !errors.Is(err, network.ErrUnavailable) {
			b.halt(err)
			return err
		}
		if b.index.View().Height > before {
			pause = firstPause
		}
		b.log.Warn("block stream ended", "error", err, "retry_in", pause)
		select {
		case <-ctx.Done():
			return nil
		case <-b.cfg.After(pause):
		}
		pause = min(2*pause, longestPause)
	}
}

func (b *Bridge) stream(ctx context.Context) error {
	height, err := b.ledger.Height(ctx)
	if err != nil {
		if ctx.Err() == nil && !errors.Is(err, network.ErrUnavailable) {
			err = &network.UnavailableError{Stage: "height", Err: err}
		}
		return err
	}
	b.required.Store(int64(height))
	b.checkClock()
	from := b.index.View().Height
	if from > 0 {
		from-- // once more, to see that it is the block that was applied
	}
	return b.ledger.Blocks(ctx, from, b.apply)
}

// apply takes one block of the stream.
func (b *Bridge) apply(block *network.Block) error {
	v := b.index.View()
	if block.Number < v.Height {
		if err := b.index.CheckKnown(block); err != nil {
			return err
		}
		b.confirmed.Store(true)
		return nil
	}
	delays := b.mergeDelays(block)
	// What the block touches is not answered from what is kept while it is being applied: nobody who sees the block is given an answer from
	// before it, at no moment.
	b.versions.Begin(b.touched(block), latest(v.Time.Time(), b.cfg.Now()))
	if err := b.index.Apply(block); err != nil {
		return fmt.Errorf("apply block %d: %w", block.Number, err) // and it stays so
	}
	b.versions.End()
	b.meters.applied(delays)
	b.noteClock(block)
	b.confirmed.Store(true)
	return b.learn(b.index.View())
}

// learn works out what depends on the consortium, once that is on the ledger.
func (b *Bridge) learn(v *index.View) error {
	if v.Consortium == nil || b.limits.Load() != nil {
		return nil
	}
	l, err := b.cfg.Settings.limits(v.Consortium)
	if err != nil {
		return err
	}
	b.limits.Store(&l)
	return b.foundTrust(v)
}

// WaitApplied returns once block is applied: any request that arrives afterwards is answered from a view that includes it.
// Errors: ctx.Err(), or why the bridge has halted.
func (b *Bridge) WaitApplied(ctx context.Context, block uint64) error {
	for {
		changed := b.index.Changed()
		if err := b.haltReason(); err != nil {
			return err
		}
		if b.index.View().Height > block {
			return nil
		}
		select {
		case <-changed:
		case <-b.halted:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
