package served

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// outcome is what became of a question.
type outcome int

const (
	nothing  outcome = iota // no answer was due, or none came
	compared                // an answer was, rightly or wrongly
	later                   // the bridge says that it has none now
)

// question is what one bridge is asked about one certificate.
type question struct {
	bridge  *bridge
	of      *subject
	bundle  bool // asks for its bundle; else for its status by OCSP
	outcome outcome
	kind    string // of what was wrong with the answer
}

// ask asks about s, which is what the blocks say now, and returns what is wrong with the answer.
func (c *comparison) ask(ctx context.Context, q *question, s *subject) (d *Difference) {
	do := c.askOCSP
	if q.bundle {
		do = c.askBundle
	}
	if q.outcome, d = do(ctx, q.bridge, s); d != nil {
		q.kind = d.Kind
	}
	return d
}

// asked are all questions of one kind to one bridge.
type asked struct {
	bridge *bridge
	bundle bool
	all    []*question
}

// waiting reports whether the bridge has put every question off, so that nothing was compared.
func (a *asked) waiting() bool {
	return a.with(later) > 0 && a.with(compared) == 0
}

func (a *asked) with(o outcome) (n int) {
	for _, q := range a.all {
		if q.outcome == o {
			n++
		}
	}
	return n
}

// askSample asks every bridge about every chosen certificate. Who seems to be wrong is asked again after the blocks that have come
// meanwhile: the bridge may have been ahead. Who has no answers is asked again for a while.
func (c *comparison) askSample(ctx context.Context) error {
	var all []*question
	var groups []*asked
	for _, b := range c.bridges {
		status, bundles := &asked{bridge: b}, &asked{bridge: b, bundle: true}
		for _, s := range c.sampled {
			status.all = append(status.all, &question{bridge: b, of: s})
			if c.Policy != nil && s.Record.Final != nil {
				bundles.all = append(bundles.all, &question{bridge: b, of: s, bundle: true})
			}
		}
		groups, all = append(groups, status, bundles), append(append(all, status.all...), bundles.all...)
	}
	again := c.askAll(ctx, all)
	again = append(again, c.wait(ctx, groups)...)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if len(again) > 0 {
		if err := c.askAgain(ctx, again); err != nil {
			return err
		}
	}
	for _, g := range groups {
		c.putOff(g)
	}
	return nil
}

// askAgain asks after the blocks that have come meanwhile. What is wrong then is a difference.
func (c *comparison) askAgain(ctx context.Context, again []*question) error {
	if err := c.CatchUp(ctx); err != nil {
		return err
	}
	if err := c.knownLogs(ctx); err != nil {
		return err
	}
	for _, q := range again {
		if c.full(q.kind) {
			continue
		}
		now, err := c.Audit.Certificate(q.of.CAID, q.of.Serial)
		if err != nil {
			return err
		}
		s := *q.of
		s.Certificate = now
		d := c.ask(ctx, q, &s)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if d != nil {
			c.add(0, d)
		}
	}
	return nil
}

// askAll returns the questions with a wrong answer, in order.
func (c *comparison) askAll(ctx context.Context, all []*question) (wrong []*question) {
	var (
		workers sync.WaitGroup
		mu      sync.Mutex
		next    int
		bad     = make([]bool, len(all))
	)
	for range c.Concurrency {
		workers.Go(func() {
			for ctx.Err() == nil {
				mu.Lock()
				i := next
				next++
				mu.Unlock()
				if i >= len(all) {
					return
				}
				if i%100 == 0 {
					c.progress("certificates", uint64(i), uint64(len(all)))
				}
				bad[i] = c.ask(ctx, all[i], all[i].of) != nil
			}
		})
	}
	workers.Wait()
	for i, q := range all {
		if bad[i] {
			wrong = append(wrong, q)
		}
	}
	return wrong
}

const patiencePause = 250 * time.Millisecond // between questions to a bridge that has no answers now

// wait asks the bridges that have put every question off until they answer, for as long as Patience says: one that has just started may
// not have a view of the ledger yet. It returns the questions with a wrong answer.
func (c *comparison) wait(ctx context.Context, groups []*asked) (wrong []*question) {
	begun, pause := time.Now(), time.NewTicker(min(patiencePause, c.Patience))
	defer pause.Stop()
	for {
		open := 0
		for _, g := range groups {
			if ctx.Err() != nil || !g.waiting() || g.bridge.fetch.gone() {
				continue
			}
			probe := g.probe()
			wrong = append(wrong, c.askAll(ctx, probe)...)
			if g.waiting() {
				open++
				continue
			}
			var rest []*question
			for _, q := range g.all {
				if q.outcome == later {
					rest = append(rest, q)
				}
			}
			wrong = append(wrong, c.askAll(ctx, rest)...)
		}
		if open == 0 || time.Since(begun) >= c.Patience {
			return wrong
		}
		c.progress("bridges that have no answers yet", uint64(len(groups)-open), uint64(len(groups)))
		select {
		case <-ctx.Done():
			return wrong
		case <-pause.C:
		}
	}
}

// probe has one of the questions that were put off for each CA: a bridge may have no responder certificate of some.
func (g *asked) probe() (some []*question) {
	had := map[string]bool{}
	for _, q := range g.all {
		if id := q.of.CAID.String(); q.outcome == later && !had[id] {
			had[id] = true
			some = append(some, q)
		}
	}
	return some
}

// putOff says what a bridge had no answers to. To have none at all is a difference: nothing shows that it would be right.
func (c *comparison) putOff(g *asked) {
	n, b := g.with(later), g.bridge
	if !g.bundle {
		b.Unanswered = n
	}
	switch {
	case g.waiting():
		d := &Difference{Kind: KindUnanswered, Where: b.URL + "/ocsp", What: certificates(n), Found: "tryLater for each, for " + c.Patience.String(), Blocks: "an answer that can be compared"}
		if g.bundle {
			d.Where, d.Found, d.Blocks = b.URL+"/logs/.../bundle", "HTTP status 503 for each, for "+c.Patience.String(), "a bundle that can be compared"
		}
		c.add(0, d)
	case n > 0 && g.bundle:
		c.note("%s gives no bundles of %s now (HTTP status 503): they were not compared", b.URL, certificates(n))
	}
}

func certificates(n int) string {
	if n == 1 {
		return "1 certificate"
	}
	return fmt.Sprintf("%d certificates", n)
}
