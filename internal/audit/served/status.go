package served

import (
	"context"
	"errors"
	"fmt"
	"net/http"
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
		return fmt.Sprintf("revoked at %s, %s", s.Time.Time().Truncate(time.Second).Format(time.RFC3339), s.Reason)
	}
	return "good"
}

// covers reports whether a bridge's log covers a certificate, so that it must know it.
func (b *bridge) covers(s *subject) bool { return b.sizes[s.CAID.String()] > s.index }

// askOCSP compares the responder's answer, and returns nil if nothing is wrong with it.
func (c *comparison) askOCSP(ctx context.Context, b *bridge, s *subject) *Difference {
	where := b.URL + "/ocsp"
	wrong := func(found string) *Difference {
		return &Difference{Kind: KindStatus, Where: where, What: s.String(), Found: found, Blocks: describe(s.Status)}
	}
	cl := client.Client{HTTP: c.HTTP, OCSPURL: where, Now: c.Now}
	a, err := cl.Status(ctx, s.cert, s.issuer)
	switch {
	case ctx.Err() != nil:
		return nil
	case errors.Is(err, client.ErrTryLater):
		c.count(func() { b.Unanswered++ })
		return nil
	case errors.Is(err, client.ErrUnauthorized) && !b.covers(s):
		return nil
	case errors.Is(err, client.ErrTransport):
		return &Difference{Kind: KindUnreachable, Where: where, What: s.String(), Found: err.Error(), Blocks: describe(s.Status)}
	case err != nil:
		return wrong(err.Error())
	}
	c.count(func() { b.OCSP++ })
	found := "good"
	switch a.Status {
	case client.Revoked:
		found = fmt.Sprintf("revoked at %s, %s", a.RevokedAt.UTC().Format(time.RFC3339), a.Reason)
	case client.Unknown:
		if found = "unknown"; !b.covers(s) {
			return nil
		}
	}
	if found != describe(s.Status) {
		// Until it changed, another answer was right: the bridge may be behind. What it signs as of later is a lie.
		if a.Status != client.Unknown && a.ThisUpdate.Before(s.Changed.Time()) {
			return c.stale(wrong, a.ThisUpdate)
		}
		return wrong(fmt.Sprintf("%s, as of %s", found, a.ThisUpdate.Format(time.RFC3339)))
	}
	return c.stale(wrong, a.ThisUpdate)
}

// stale looks at how old a view of the ledger is: long after the newest Tick nothing may be said.
func (c *comparison) stale(wrong func(string) *Difference, asOf time.Time) *Difference {
	if c.newestTick.IsZero() || !asOf.Before(c.newestTick.Add(-staleTicks*c.tickInterval-time.Second)) {
		return nil
	}
	return wrong(fmt.Sprintf("an answer as of %s: the newest tick is of %s", asOf.Format(time.RFC3339), c.newestTick.Format(time.RFC3339)))
}

// askBundle fetches and verifies a certificate's bundle, and returns nil if nothing is wrong with it.
func (c *comparison) askBundle(ctx context.Context, b *bridge, s *subject) *Difference {
	path := "/logs/" + s.CAID.String() + "/bundle?serial=" + s.Serial.String()
	wrong := func(found string) *Difference {
		return &Difference{Kind: KindBundle, Where: b.URL + path, What: s.String(), Found: found, Blocks: describe(s.Status)}
	}
	data, err := b.fetch.get(ctx, path, bundle.MaxSize)
	var answer *statusError
	switch {
	case ctx.Err() != nil:
		return nil
	case errors.As(err, &answer) && answer.code == http.StatusServiceUnavailable:
		c.notes503(b)
		return nil
	case notFound(err) && !b.covers(s):
		return nil
	case err != nil:
		return unreachable(b.URL+path, s.String(), err)
	}
	r, err := bundle.Verify(c.Policy, s.cert, data, c.Now())
	if err != nil {
		return wrong(err.Error())
	}
	c.count(func() { b.Proofs++ })
	c.bundleHeads(b.URL+path, data)
	if found := describe(r.Status); found != describe(s.Status) && !r.AsOf.Before(s.Changed.Time()) {
		return wrong(fmt.Sprintf("%s, as of %s", found, r.AsOf.Format(time.RFC3339)))
	}
	return nil
}

func (c *comparison) notes503(b *bridge) {
	c.note("%s gives no bundles now (HTTP status 503): none were compared for some certificates", b.URL)
}

// bundleHeads takes the checkpoints in a bundle as claims: that they are signed does not make them the ledger's.
func (c *comparison) bundleHeads(where string, data []byte) {
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
		cp, _, err := tlogproof.ReadUnverified(signed)
		if err != nil || c.inBundles[string(signed)] {
			continue
		}
		c.inBundles[string(signed)] = true
		for i := range c.logs {
			if c.logs[i].Origin == cp.Origin {
				c.claimed(&claim{log: c.logs[i].Name, size: cp.Size, root: cp.Root, where: where, note: signed})
			}
		}
	}
}

func (c *comparison) count(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
}
