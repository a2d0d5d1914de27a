// Package load sends requests at a given rate, whatever becomes of the earlier ones (open loop), and measures each from the moment
// it was due: a system that stalls is charged for every request that waited.
package load

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Options of Run.
type Options struct {
	Rate     float64       // requests per second, positive
	Duration time.Duration // of sending; those under way are waited for
	MaxOpen  int           // requests that may be open; one that is due when so many are open counts as Shed. Default 10000

	// Do sends request number i and classes the outcome: OK, or a few words that say what went wrong.
	Do func(ctx context.Context, i int) string

	// Progress is called every second, from one goroutine; nil: not at all.
	Progress func(Second)

	Now func() time.Time // default time.Now
}

// Outcomes that this package knows.
const (
	OK   = "ok"
	Shed = "not sent: too many open requests"
)

// Second is what happened in one second of a run.
type Second struct {
	At   int     `json:"second"`
	Sent int64   `json:"sent"`
	OK   int64   `json:"ok"`
	Bad  int64   `json:"failed"`
	Open int64   `json:"open"`
	P50  float64 `json:"p50_ms"` // of the requests that ended well in it
	P99  float64 `json:"p99_ms"`
}

// Result of a run.
type Result struct {
	Asked    float64          `json:"asked_per_s"`
	Seconds  float64          `json:"seconds"` // until the last answer
	Sent     int64            `json:"sent"`
	Outcomes map[string]int64 `json:"outcomes"`
	Rate     float64          `json:"ok_per_s"`
	P50      float64          `json:"p50_ms"` // of those that ended well, from when they were due
	P90      float64          `json:"p90_ms"`
	P99      float64          `json:"p99_ms"`
	P999     float64          `json:"p999_ms"`
	Max      float64          `json:"max_ms"`
	Series   []Second         `json:"series"`
}

func (r *Result) String() string {
	s := fmt.Sprintf("%d of %d in %.1f s: %.0f/s (asked %.0f/s), p50 %.0f ms  p90 %.0f ms  p99 %.0f ms  max %.0f ms",
		r.Outcomes[OK], r.Sent, r.Seconds, r.Rate, r.Asked, r.P50, r.P90, r.P99, r.Max)
	for _, k := range r.Failures() {
		s += fmt.Sprintf("; %d %s", r.Outcomes[k], k)
	}
	return s
}

// Failures lists the outcomes other than OK, the most frequent first.
func (r *Result) Failures() []string {
	var names []string
	for k := range r.Outcomes {
		if k != OK {
			names = append(names, k)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(r.Outcomes[b], r.Outcomes[a]), cmp.Compare(a, b))
	})
	return names
}

// run is the state of a Run.
type run struct {
	o    Options
	open atomic.Int64
	sent atomic.Int64

	mu       sync.Mutex // guards what follows
	outcomes map[string]int64
	all      []time.Duration
	second   []time.Duration
	bad      int64
}

// Run sends until the duration is over or ctx ends, and waits for the answers.
func Run(ctx context.Context, o Options) (*Result, error) {
	if o.Rate <= 0 || o.Duration <= 0 || o.Do == nil {
		return nil, fmt.Errorf("load: rate %v, duration %v: must be positive", o.Rate, o.Duration)
	}
	if o.MaxOpen == 0 {
		o.MaxOpen = 10000
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	r := &run{o: o, outcomes: map[string]int64{}}
	start := o.Now()
	stop := make(chan struct{})
	var watch sync.WaitGroup
	var series []Second
	watch.Go(func() { series = r.watch(stop) })
	r.send(ctx, start)
	last := o.Now()
	close(stop)
	watch.Wait()
	res := &Result{
		Asked: o.Rate, Seconds: last.Sub(start).Seconds(), Sent: r.sent.Load(), Outcomes: r.outcomes, Series: series,
	}
	res.Rate = float64(len(r.all)) / res.Seconds
	q := quantiles(r.all)
	res.P50, res.P90, res.P99, res.P999, res.Max = q(0.5), q(0.9), q(0.99), q(0.999), q(1)
	return res, ctx.Err()
}

// send starts every request when it is due, and returns when all have ended.
func (r *run) send(ctx context.Context, start time.Time) {
	var wg sync.WaitGroup
	defer wg.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	total := int(r.o.Rate * r.o.Duration.Seconds())
	for i := 0; i < total; {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		// All that are due: the timer is coarser than the rate.
		elapsed := r.o.Now().Sub(start)
		for ; i < total && time.Duration(float64(i)/r.o.Rate*float64(time.Second)) <= elapsed; i++ {
			n, due := i, start.Add(time.Duration(float64(i)/r.o.Rate*float64(time.Second)))
			r.sent.Add(1)
			if r.open.Load() >= int64(r.o.MaxOpen) {
				r.done(Shed, 0)
				continue
			}
			r.open.Add(1)
			wg.Go(func() {
				outcome := r.o.Do(ctx, n)
				r.open.Add(-1)
				r.done(outcome, r.o.Now().Sub(due))
			})
		}
		timer.Reset(time.Millisecond)
	}
}

func (r *run) done(outcome string, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.outcomes[outcome]++
	if outcome != OK {
		r.bad++
		return
	}
	r.all = append(r.all, took)
	r.second = append(r.second, took)
}

// watch sums up each second.
func (r *run) watch(stop <-chan struct{}) (series []Second) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var sent int64
	sum := func() {
		r.mu.Lock()
		took, bad := r.second, r.bad
		r.second, r.bad = nil, 0
		r.mu.Unlock()
		total := r.sent.Load()
		q := quantiles(took)
		s := Second{At: len(series) + 1, Sent: total - sent, OK: int64(len(took)), Bad: bad, Open: r.open.Load(), P50: q(0.5), P99: q(0.99)}
		sent = total
		series = append(series, s)
		if r.o.Progress != nil {
			r.o.Progress(s)
		}
	}
	for {
		select {
		case <-tick.C:
			sum()
		case <-stop:
			sum()
			return series
		}
	}
}

// quantiles returns nearest-rank quantiles in milliseconds; of nothing they are 0.
func quantiles(samples []time.Duration) func(share float64) float64 {
	slices.Sort(samples)
	return func(share float64) float64 {
		if len(samples) == 0 {
			return 0
		}
		i := max(0, int(share*float64(len(samples))+0.999999)-1)
		return float64(samples[min(i, len(samples)-1)].Microseconds()) / 1000
	}
}
