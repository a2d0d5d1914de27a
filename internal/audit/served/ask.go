package served

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// outcome is what became of a question.
type outcome int

const (
	nothing  outcome = iota // no answer was due, or none came
	compared                // an answer was, rightly or wrongly
	later                   // the bridge says that it has none now
	nobody                  // it says so of a CA for which nobody can answer
)

// question is what one bridge is asked about one certificate.
type question struct {
	bridge  *bridge
	of      *subject
	bundle  bool // asks for its bundle; else for its status by OCSP
	order   int  // among the questions to the bridge
	outcome outcome
	kind    string // of what was wrong with the answer
}

// ask asks about s, which is what the blocks say now, and returns what is wrong with the answer.
func (c *comparison) ask(ctx context.Context, q *question, s *subject) (d *Difference) {
	do := c.askOCSP
	if q.bundle {
		do = c.askBundle
	}
	if q.outcome, d = do(ctx, q, s); d != nil {
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
	groups, again := make([][]*asked, len(c.bridges)), make([][]*question, len(c.bridges))
	var total, had atomic.Uint64
	progress := func() { c.progress("certificates", had.Load(), total.Load()) }
	err := c.onEach(ctx, func(ctx context.Context, own *comparison, b *bridge) error {
		groups[b.index] = c.questions(b)
		var all []*question
		for _, g := range groups[b.index] {
			all = append(all, g.all...)
		}
		for i, q := range all {
			q.order = i
		}
		total.Add(uint64(len(all)))
		again[b.index] = own.askAll(ctx, all, func() {
			if had.Add(1)%100 == 1 {
				progress()
			}
		})
		again[b.index] = append(again[b.index], own.wait(ctx, groups[b.index])...)
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	if err := c.askAgain(ctx, again); err != nil {
		return err
	}
	for _, of := range groups {
		for _, g := range of {
			c.putOff(g)
		}
	}
	return nil
}

// questions are those to one bridge: by OCSP, and for bundles.
func (c *comparison) questions(b *bridge) []*asked {
	status, bundles := &asked{bridge: b}, &asked{bridge: b, bundle: true}
	for _, s := range c.sampled {
		status.all = append(status.all, &question{bridge: b, of: s})
		if c.Policy != nil && s.Record.Final != nil {
			bundles.all = append(bundles.all, &question{bridge: b, of: s, bundle: true})
		}
	}
	return []*asked{status, bundles}
}

// askAgain asks after the blocks that have come meanwhile. What is wrong then is a difference. again is by bridge.
func (c *comparison) askAgain(ctx context.Context, again [][]*question) error {
	if !slices.ContainsFunc(again, func(of []*question) bool { return len(of) > 0 }) {
		return nil
	}
	if err := c.CatchUp(ctx); err != nil {
		return err
	}
	if err := c.knownLogs(ctx); err != nil {
		return err
	}
	now := make([][]*subject, len(again))
	for i, of := range again { // before the bridges are asked: the audit is for one goroutine
		for _, q := range of {
			cert, err := c.Audit.Certificate(q.of.CAID, q.of.Serial)
			if err != nil {
				return err
			}
			s := *q.of
			s.Certificate = cert
			now[i] = append(now[i], &s)
		}
	}
	return c.onEach(ctx, func(ctx context.Context, own *comparison, b *bridge) error {
		for i, q := range again[b.index] {
			if own.full(q.kind) {
				continue
			}
			d := own.ask(ctx, q, now[b.index][i])
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if d != nil {
				own.add(0, d)
			}
		}
		return nil
	})
}

// askAll returns the questions with a wrong answer, in order. It calls done after each.
func (c *comparison) askAll(ctx context.Context, all []*question, done func()) (wrong []*question) {
	bad := make([]bool, len(all))
	c.inParallel(len(all), func(i int) {
		if ctx.Err() == nil {
			bad[i] = c.ask(ctx, all[i], all[i].of) != nil
			done()
		}
	})
	for i, q := range all {
		if bad[i] {
			wrong = append(wrong, q)
		}
	}
	return wrong
}

const patiencePause = 250 * time.Millisecond // between questions to a bridge that has no answers now

// wait asks a bridge that has put every question of a group off until it answers, for as long as Patience says: one that has just started
// may not have a view of the ledger yet. It returns the questions with a wrong answer.
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
			wrong = append(wrong, c.askAll(ctx, probe, func() {})...)
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
			wrong = append(wrong, c.askAll(ctx, rest, func() {})...)
		}
		if open == 0 || time.Since(begun) >= c.Patience {
			return wrong
		}
		c.progress("no answers yet from "+groups[0].bridge.URL, 0, 0)
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
		b.Unanswered, b.NoResponder = n, g.with(nobody)
		for _, q := range g.all {
			if q.outcome == nobody {
				c.note("CA %s has no valid OCSP responder certificate on the ledger: nobody can answer for it by OCSP", q.of.CAID)
			}
		}
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
