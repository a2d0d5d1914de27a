package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/certanchor/certanchor/network"
	testnetwork "github.com/certanchor/certanchor/test-network"
)

// Failover is how long the network commits nothing when orderers that lead are frozen (SIGSTOP).
type Failover struct {
	First      []float64 `json:"leader_frozen_ms"`              // the leader, all others well
	CaughtUp   []float64 `json:"next_leader_frozen_ms"`         // the one that followed, the first thawed and caught up
	AtOnce     float64   `json:"next_leader_frozen_at_once_ms"` // the one that followed, the first thawed that very moment
	AtOnceNote string    `json:"at_once_note,omitempty"`
}

const (
	commitAttempt   = 2 * time.Second // a submission that was swallowed by the frozen leader is given up after this
	failoverPatient = 90 * time.Second
)

// nextCommit returns how long it takes until a transaction commits, from start on.
func nextCommit(ctx context.Context, l network.Ledger, start time.Time) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, failoverPatient)
	defer cancel()
	op := noop(l)
	for {
		attempt, stop := context.WithTimeout(ctx, commitAttempt)
		err := op(attempt, 0)
		stop()
		if err == nil {
			return time.Since(start), nil
		}
		if ctx.Err() != nil {
			return 0, fmt.Errorf("nothing committed for %v: %w", failoverPatient, err)
		}
	}
}

// settle returns who leads once all ledgers are level, which takes commits: an orderer that was frozen learns what it missed
// from what the others do next, and takes part again some commits after it is level.
func settle(ctx context.Context, net *testnetwork.Network, l network.Ledger) (leader string, err error) {
	ctx, cancel := context.WithTimeout(ctx, failoverPatient)
	defer cancel()
	for level := 0; level < 3; {
		if _, err := nextCommit(ctx, l, time.Now()); err != nil {
			return "", err
		}
		attempt, stop := context.WithTimeout(ctx, commitAttempt)
		err := net.AwaitLevel(attempt)
		stop()
		switch {
		case err == nil:
			level++
		case ctx.Err() != nil:
			return "", err
		}
	}
	return net.Leader(ctx)
}

// freezeLeader freezes the leader and measures until the next commit. The caller thaws it.
func freezeLeader(ctx context.Context, net *testnetwork.Network, l network.Ledger) (node string, took time.Duration, err error) {
	node, err = settle(ctx, net, l)
	if err != nil {
		return "", 0, err
	}
	start := time.Now()
	if err := net.Freeze(ctx, node); err != nil {
		return node, 0, err
	}
	took, err = nextCommit(ctx, l, start)
	if err != nil {
		err = errors.Join(fmt.Errorf("%s frozen: %w", node, err), net.Thaw(context.WithoutCancel(ctx), node))
	}
	return node, took, err
}

// measureFailover freezes leaders, rounds times one after another with catching up in between, and once without.
func measureFailover(ctx context.Context, net *testnetwork.Network, l network.Ledger, rounds int, say func(string, ...any)) (f Failover, err error) {
	for range rounds {
		for i, into := range []*[]float64{&f.First, &f.CaughtUp} {
			node, took, err := freezeLeader(ctx, net, l)
			if err != nil {
				return f, err
			}
			say("  %s frozen (%s): next commit after %.0f ms", node, []string{"leader", "the next leader"}[i], ms(took))
			*into = append(*into, ms(took))
			if err := net.Thaw(ctx, node); err != nil {
				return f, err
			}
			if _, err := settle(ctx, net, l); err != nil {
				return f, fmt.Errorf("%s does not catch up: %w", node, err)
			}
		}
	}
	node, _, err := freezeLeader(ctx, net, l)
	if err != nil {
		return f, err
	}
	next, err := net.Leader(ctx)
	if err != nil {
		return f, errors.Join(err, net.Thaw(ctx, node))
	}
	if err := net.Thaw(ctx, node); err != nil {
		return f, err
	}
	start := time.Now()
	if err := net.Freeze(ctx, next); err != nil {
		return f, err
	}
	took, err := nextCommit(ctx, l, start)
	if thawErr := net.Thaw(context.WithoutCancel(ctx), next); thawErr != nil {
		return f, errors.Join(err, thawErr)
	}
	if err != nil {
		f.AtOnceNote = err.Error()
		return f, nil
	}
	say("  %s frozen as %s thaws: next commit after %.0f ms", next, node, ms(took))
	f.AtOnce = ms(took)
	return f, nil
}
