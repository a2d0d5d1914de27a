package served

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
)

// Bridges are asked at the same time, so that a slow one costs its own time and not everybody's. What the report says does not depend on who
// was quicker: each bridge has a comparison of its own, and what they found is put together in the order of the bridges.

// lane is the part of a comparison that is about one bridge. It reads what they share, and adds findings and claims of its own.
func (c *comparison) lane() *comparison {
	own := *c
	own.findings = &findings{limit: c.limit, refused: map[string]bool{}, notes: map[string]bool{}}
	own.claims, own.inBundles = map[string][]*claim{}, map[string]*bundleNote{}
	return &own
}

// join adds what a lane has found to everything.
func (c *comparison) join(own *comparison) {
	slices.SortStableFunc(own.list, func(a, b found) int { return a.at - b.at })
	for _, f := range own.list {
		c.add(f.at, f.d)
	}
	for kind := range own.refused {
		c.refused[kind] = true
	}
	for _, text := range own.order {
		c.note("%s", text)
	}
	for _, log := range slices.Sorted(maps.Keys(own.claims)) {
		c.claims[log] = append(c.claims[log], own.claims[log]...)
	}
	for _, n := range slices.SortedFunc(maps.Values(own.inBundles), (*bundleNote).compare) {
		if c.inBundles[n.note] == nil {
			c.inBundles[n.note] = n
			c.bundleClaim(n)
		}
	}
}

// onEach runs fn for all bridges at the same time. The error is that of the first bridge with one.
func (c *comparison) onEach(ctx context.Context, fn func(ctx context.Context, own *comparison, b *bridge) error) error {
	var running sync.WaitGroup
	lanes, errs := make([]*comparison, len(c.bridges)), make([]error, len(c.bridges))
	for i, b := range c.bridges {
		lanes[i] = c.lane()
		running.Go(func() { errs[i] = fn(ctx, lanes[i], b) })
	}
	running.Wait()
	for _, own := range lanes {
		c.join(own)
	}
	return errorOf(append(errs, ctx.Err()))
}

func errorOf(all []error) error {
	for _, err := range all {
		if err != nil {
			return err
		}
	}
	return nil
}

// filesAtOnce is how many files of a bridge are compared before it is decided whether that goes on: so that how far it goes does not depend
// on which answer came first.
const filesAtOnce = 32

// files compares the files that jobs name, in their order, Concurrency at a time.
func (c *comparison) files(ctx context.Context, jobs <-chan *job) {
	for batch := next(jobs); len(batch) > 0; batch = next(jobs) {
		batch = slices.DeleteFunc(batch, func(j *job) bool {
			return ctx.Err() != nil || c.full(j.kind) || j.site.bridge.missing.Load() > int64(c.limit)
		})
		c.inParallel(len(batch), func(i int) { c.compareFile(ctx, batch[i]) })
	}
}

// next takes so many jobs, fewer only at the end.
func next(jobs <-chan *job) (batch []*job) {
	for j := range jobs {
		if batch = append(batch, j); len(batch) == filesAtOnce {
			break
		}
	}
	return batch
}

// inParallel calls fn with 0 to n-1, in this order, Concurrency at a time.
func (c *comparison) inParallel(n int, fn func(int)) {
	var (
		workers sync.WaitGroup
		mu      sync.Mutex
		next    int
	)
	for range min(c.Concurrency, n) {
		workers.Go(func() {
			for {
				mu.Lock()
				i := next
				next++
				mu.Unlock()
				if i >= n {
					return
				}
				fn(i)
			}
		})
	}
	workers.Wait()
}

// bundleNote is a checkpoint that was in a bundle.
type bundleNote struct {
	note  string
	where string // the first bundle that it was in, in the order of the questions
	order int
}

func (n *bundleNote) compare(other *bundleNote) int {
	if n.order != other.order {
		return n.order - other.order
	}
	return strings.Compare(n.note, other.note)
}
