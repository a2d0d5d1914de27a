package served

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/client"
	"github.com/certanchor/certanchor/internal/bundle"
	"github.com/certanchor/certanchor/internal/status"
	"github.com/certanchor/certanchor/internal/tlogproof"
)

// describe says a status as a difference shows it.
func describe(s status.Status) string {
	switch s.State {
	case wire.CertHeld, wire.CertRevoked:
		return fmt.Sprintf("revoked at %s, %s", s.Since().Time().Truncate(time.Second).Format(time.RFC3339), s.Reason)
	case status.Unknown:
		return "unknown"
	}
	return "good"
}

// explain is describe with both dates of what was imported.
func explain(s status.Status) string {
	if s.Asserted == 0 {
		return describe(s)
	}
	if s.Since() == s.Time {
		return fmt.Sprintf("%s (the CA asserts %s)", describe(s), s.Asserted.Time().Truncate(time.Second).Format(time.RFC3339))
	}
	return fmt.Sprintf("%s (asserted by the CA; on the ledger since %s)", describe(s), s.Time.Time().Truncate(time.Second).Format(time.RFC3339))
}

// covers reports whether a bridge's log covers a certificate, so that it must know it.
func (b *bridge) covers(s *subject) bool {
	return s.cert != nil && b.sizes[s.CAID.String()] > s.index
}

// askOCSP compares the responder's answer. The difference is nil if nothing is wrong with it.
func (c *comparison) askOCSP(ctx context.Context, q *question, s *subject) (outcome, *Difference) {
	b := q.bridge
	where := b.URL + "/ocsp"
	wrong := func(found string) *Difference {
		return &Difference{Kind: KindStatus, Where: where, What: s.String(), Found: found, Blocks: explain(s.Status)}
	}
	cl := client.Client{HTTP: c.HTTP, OCSPURL: where, Now: c.Now}
	var a *client.Answer
	err := b.fetch.try(ctx, "/ocsp", func() (err error) {
		if s.cert == nil {
			a, err = cl.StatusOfSerial(ctx, s.Serial.Int(), s.issuer)
		} else {
			a, err = cl.Status(ctx, s.cert, s.issuer)
		}
		return err
	}, func(err error) bool { return !errors.As(err, new(*url.Error)) })
	switch {
	case ctx.Err() != nil, errors.As(err, new(*noAnswer)):
		return nothing, nil
	case errors.Is(err, client.ErrTryLater) && !c.responders[s.CAID]:
		return nobody, nil
	case errors.Is(err, client.ErrTryLater):
		return later, nil
	case errors.Is(err, client.ErrUnauthorized) && !b.covers(s):
		return nothing, nil
	case errors.Is(err, client.ErrTransport):
		return compared, &Difference{Kind: KindMissing, Where: where, What: s.String(), Found: err.Error(), Blocks: explain(s.Status)}
	case err != nil:
		return compared, wrong(err.Error())
	}
	c.count(func() { b.OCSP++ })
	found := "good"
	switch a.Status {
	case client.Revoked:
		found = fmt.Sprintf("revoked at %s, %s", a.RevokedAt.UTC().Format(time.RFC3339), a.Reason)
	case client.Unknown:
		found = "unknown"
		if s.cert != nil && !b.covers(s) || s.cert == nil && a.ThisUpdate.Before(s.Changed.Time()) {
			return nothing, nil
		}
	}
	// What was never issued may be answered as on hold since 1970 (RFC 6960 section 2.2).
	if s.Status.State == status.Unknown && a.Status == client.Revoked && a.RevokedAt.Unix() == 0 {
		found = describe(s.Status)
	}
	if found != describe(s.Status) {
		// Until it changed, another answer was right: the bridge may be behind. What it signs as of later is a lie.
		if a.Status != client.Unknown && a.ThisUpdate.Before(s.Changed.Time()) {
			return compared, c.stale(wrong, a.ThisUpdate)
		}
		return compared, wrong(fmt.Sprintf("%s, as of %s", found, a.ThisUpdate.Format(time.RFC3339)))
	}
	return compared, c.stale(wrong, a.ThisUpdate)
}

// stale looks at how old a view of the ledger is: long after the newest Tick nothing may be said.
func (c *comparison) stale(wrong func(string) *Difference, asOf time.Time) *Difference {
	if c.newestTick.IsZero() || !asOf.Before(c.newestTick.Add(-staleTicks*c.tickInterval-time.Second)) {
		return nil
	}
	return wrong(fmt.Sprintf("an answer as of %s: the newest tick is of %s", asOf.Format(time.RFC3339), c.newestTick.Format(time.RFC3339)))
}

// askBundle fetches and verifies a certificate's bundle. The difference is nil if nothing is wrong with it.
func (c *comparison) askBundle(ctx context.Context, q *question, s *subject) (outcome, *Difference) {
	b := q.bridge
	path := "/logs/" + s.CAID.String() + "/bundle?serial=" + s.Serial.String()
	differs := func(kind, found string) (outcome, *Difference) {
		return compared, &Difference{Kind: kind, Where: b.URL + path, What: s.String(), Found: found, Blocks: explain(s.Status)}
	}
	data, err := b.fetch.get(ctx, path, bundle.MaxSize)
	var answer *statusError
	switch {
	case ctx.Err() != nil, errors.As(err, new(*noAnswer)):
		return nothing, nil
	case errors.As(err, &answer) && answer.code == http.StatusServiceUnavailable:
		return later, nil
	case notFound(err) && !b.covers(s):
		return nothing, nil
	case errors.As(err, &answer) && answer.code == http.StatusConflict:
		return nothing, nil // it says that no bundle can show this certificate's status (docs/decisions/0008)
	case err != nil:
		return differs(KindMissing, err.Error())
	}
	r, err := bundle.Verify(c.Policy, s.cert, data, c.Now())
	if err != nil {
		return differs(KindBundle, err.Error())
	}
	c.count(func() { b.Proofs++ })
	c.bundleHeads(q.order, b.URL+path, data)
	if found := describe(r.Status); found != describe(s.Status) && !r.AsOf.Before(s.Changed.Time()) {
		return differs(KindBundle, fmt.Sprintf("%s, as of %s", found, r.AsOf.Format(time.RFC3339)))
	}
	return compared, nil
}

// bundleHeads takes the checkpoints in a bundle as claims: that they are signed does not make them the ledger's.
func (c *comparison) bundleHeads(order int, where string, data []byte) {
	b, err := bundle.Parse(data)
	if err != nil {
		return // it was parsed before
	}
	var notes [][]byte
	for _, e := range b.Entries {
		if p, err := tlogproof.Parse(e.Proof); err == nil {
			notes = append(notes, p.Checkpoint)
		}
	}
	for _, l := range append(b.Newer, b.Tick) {
		if p, err := tlogproof.ParseBare(l.Proof); err == nil {
			notes = append(notes, p.Checkpoint)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, signed := range notes {
		if n := c.inBundles[string(signed)]; n == nil || n.order > order {
			c.inBundles[string(signed)] = &bundleNote{note: string(signed), where: where, order: order}
		}
	}
}

func (c *comparison) bundleClaim(n *bundleNote) {
	cp, _, err := tlogproof.ReadUnverified([]byte(n.note))
	if err != nil {
		return
	}
	for i := range c.logs {
		if c.logs[i].Origin == cp.Origin {
			c.claimed(&claim{log: c.logs[i].Name, size: cp.Size, root: cp.Root, where: n.where, note: []byte(n.note)})
		}
	}
}

func (c *comparison) count(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
}
