package bench

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
)

// Latency sums up samples of one operation.
type Latency struct {
	Samples int     `json:"samples"`
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"`
	Max     float64 `json:"max_ms"`
}

func summarize(samples []time.Duration) Latency {
	if len(samples) == 0 {
		return Latency{}
	}
	s := slices.Clone(samples)
	slices.Sort(s)
	// Nearest rank: the least sample that at least the given share does not exceed.
	rank := func(share float64) float64 { return ms(s[max(0, int(share*float64(len(s))+0.999999)-1)]) }
	return Latency{Samples: len(s), P50: rank(0.50), P99: rank(0.99), Max: ms(s[len(s)-1])}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (l Latency) String() string {
	return fmt.Sprintf("p50 %6.1f ms  p99 %6.1f ms  max %6.1f ms  (n=%d)", l.P50, l.P99, l.Max, l.Samples)
}

// sequence measures n calls of op, one after another.
func sequence(ctx context.Context, n int, op func(context.Context, int) error) (Latency, error) {
	samples := make([]time.Duration, 0, n)
	for i := range n {
		start := time.Now()
		if err := op(ctx, i); err != nil {
			return Latency{}, fmt.Errorf("sample %d: %w", i, err)
		}
		samples = append(samples, time.Since(start))
	}
	return summarize(samples), nil
}

// noop submits a transaction that reads one key and writes nothing: what ordering and committing cost by themselves.
func noop(l network.Ledger) func(context.Context, int) error {
	arg := wire.Encode(&wire.ReadArg{V: wire.Version, Keys: []string{wire.ConsortiumKey}})
	return func(ctx context.Context, _ int) error {
		_, err := l.Submit(ctx, wire.FnRead, arg)
		return err
	}
}

// issuer submits one certificate a transaction, signed beforehand so that signing is not measured.
func issuer(l network.Ledger, caID wire.CAID, certs [][]byte) func(context.Context, int) error {
	return func(ctx context.Context, i int) error {
		return untilApplied(ctx, func() error {
			_, err := l.Submit(ctx, wire.FnIssue, wire.Encode(wire.NewIssueArg(caID, certs[i:i+1])))
			return err
		})
	}
}

// untilApplied repeats an idempotent submission until it is refused or applied: the time of a retry counts.
func untilApplied(ctx context.Context, submit func() error) error {
	for {
		err := submit()
		if err == nil || network.IsRejected(err) || ctx.Err() != nil {
			return err
		}
	}
}
