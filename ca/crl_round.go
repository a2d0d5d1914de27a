package ca

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/crl"
	"github.com/certanchor/certanchor/internal/keystate"
)

const (
	minCRLPause = 10 * time.Millisecond // between rounds, however many changes there are
	maxCRLPause = time.Second

	maxDeltaEntries = 10_000 // past which deltas begin anew
	maxEarly        = 20     // complete CRLs in the time of one, for that reason

	smallComplete = 50_000          // entries, up to which a change makes a complete CRL due: its clients would learn of it at the next interval only
	earlyPause    = time.Second     // between two of those, or more:
	earlyShare    = 20              // making them takes at most one part in so many of the time
	earlyLate     = 2 * time.Second // after which it goes before the delta: where every block has a change, deltas would take all numbers

	shardsTime  = 250 * time.Millisecond // that shards may take of a round
	firstRetry  = 100 * time.Millisecond // after a failure, doubled up to lastRetry
	lastRetry   = 30 * time.Second
	appliedWait = 5 * time.Second        // for the bridge to apply the block of a revocation
	growWait    = 200 * time.Millisecond // for it to apply any
)

// Stages of making a CRL, for status and metrics.
const (
	stageKey      = "key"
	stageLedger   = "ledger"
	stageContents = "contents"
	stageNumber   = "number"
	stageSign     = "sign"
	stageLint     = "lint"
	stageStore    = "store"
)

// stageError says what was in the way of a CRL.
type stageError struct {
	stage string
	err   error
}

func (e *stageError) Error() string { return e.stage + ": " + e.err.Error() }
func (e *stageError) Unwrap() error { return e.err }

func at(stage string, err error) error {
	if err == nil {
		return nil
	}
	return &stageError{stage, err}
}

// errNotYet says that there is no number for a CRL: it is the ledger's height, which has not grown since the last one. Two of the same second
// have the same thisUpdate and different numbers, which is what tells them apart (RFC 5280 section 5.2.3): to wait for another second could
// mean to wait for a Tick.
var errNotYet = errors.New("the ledger has not grown since the last CRL")

// round makes what is due, and returns when to look again.
func (m *crlMaker) round(ctx context.Context) time.Duration {
	began, wait := time.Now(), m.set.PollEvery
	m.mu.Lock()
	need := m.need
	m.lists[0].look = m.lists[0].look || m.changed
	m.changed = false
	m.mu.Unlock()
	var may *permission
	for i, l := range m.lists {
		// Many shards take a while, in which a change may have come that is to be in the delta soon.
		if i > 0 && (len(m.kick) > 0 || time.Since(began) > shardsTime) {
			wait = 0
			break
		}
		for _, kind := range m.due(l, need) {
			if may == nil {
				may = m.permission(ctx)
			}
			err := m.make(ctx, l, kind, need, may)
			if ctx.Err() != nil {
				return 0
			}
			m.outcome(l, err)
			if failed, ok := errors.AsType[*stageError](err); ok && i == 0 && (failed.stage == stageKey || failed.stage == stageLedger || failed.stage == stageContents) {
				return l.pause // the shards would fare no better
			}
		}
		if l.pause != 0 {
			wait = min(wait, l.pause)
		}
		if i == 0 && l.dirty && l.pause == 0 {
			wait = min(wait, max(0, l.early.Sub(m.server.now())))
		}
	}
	// The more there is in a CRL the longer it takes: most of the time is left for issuing and revoking.
	select {
	case <-ctx.Done():
	case <-time.After(min(max(minCRLPause, 3*time.Since(began)), maxCRLPause)):
	}
	return wait
}

// due says which CRLs of a scope are to be made now, in this order. A change goes into the delta first, for the number that a complete
// CRL takes is gone; unless the complete one has waited for long.
func (m *crlMaker) due(l *crlList, need uint64) []crlKind {
	now := m.server.now()
	urgent := l.scope == "" && need > l.covered
	if now.Before(l.after) && !urgent && !(l.notYet && l.look) {
		return nil
	}
	complete, delta := l.newest[kindComplete], l.newest[kindDelta]
	if complete == nil {
		return []crlKind{kindComplete}
	}
	age := now.Sub(complete.thisUpdate)
	var kinds []crlKind
	if age >= m.set.FullEvery || l.dirty && !now.Before(l.early) {
		kinds = append(kinds, kindComplete)
	}
	if l.scope != "" || !urgent && !l.look && !l.rebase && delta != nil && now.Sub(delta.thisUpdate) < m.set.DeltaEvery {
		return kinds
	}
	late := age >= m.set.FullEvery+min(m.set.FullEvery, m.set.Validity-m.set.FullEvery)/4
	if late || l.dirty && now.Sub(l.early) >= earlyLate {
		return append(kinds, kindDelta)
	}
	return append([]crlKind{kindDelta}, kinds...)
}

// outcome notes how an attempt ended.
func (m *crlMaker) outcome(l *crlList, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil {
		l.pause, l.after, l.notYet = 0, time.Time{}, false
		delete(m.problems, l.scope)
		return
	}
	l.pause = min(max(2*l.pause, firstRetry), lastRetry)
	if l.notYet = errors.Is(err, errNotYet); l.notYet {
		l.pause = min(l.pause, m.set.PollEvery)
	}
	l.after = m.server.now().Add(l.pause)
	stage, ok := errors.AsType[*stageError](err)
	if l.notYet || !ok {
		return
	}
	m.metrics.Failed(stage.stage)
	old := m.problems[l.scope]
	p := &caapi.CRLProblem{Scope: l.scope, Stage: stage.stage, Detail: stage.err.Error(), Since: m.server.now().UTC().Format(caapi.TimeFormat)}
	if old != nil {
		p.Since = old.Since
	}
	m.problems[l.scope] = p
	if old == nil || old.Detail != p.Detail {
		level := slog.LevelError
		if stage.stage == stageLedger || stage.stage == stageContents { // services that start in any order, as a rule
			level = slog.LevelWarn
		}
		m.log.Log(context.Background(), level, "a CRL is due and cannot be made", "scope", l.scope, "stage", stage.stage, "error", stage.err)
	}
}

// permission is what key and ledger say about signing now.
type permission struct {
	err       error         // a *stageError: nothing may be signed
	staleness time.Duration // age past which the ledger's time is that of a ledger that stands still
}

// permission asks, once a round. A CA that the consortium has suspended goes on: its certificates keep their status, may be revoked, and
// whoever relies on CRLs must not be left with old ones.
func (m *crlMaker) permission(ctx context.Context) *permission {
	p := &permission{staleness: m.set.Staleness}
	if err := m.server.maySignCRLs(); err != nil {
		p.err = at(stageKey, err)
		return p
	}
	values, err := m.server.readState(ctx, wire.CAKey(m.server.issuer.id), wire.ConsortiumKey)
	var consortium wire.Consortium
	switch {
	case err != nil:
	case values[0] == nil:
		err = wire.Errorf(wire.FailedPrecondition, "ca_id", m.server.issuer.id.String(), "the CA is not registered on the ledger yet")
	case values[1] == nil:
		err = errors.New("the ledger has no settings of the consortium")
	default:
		err = wire.Decode(values[1], &consortium)
	}
	if p.staleness == 0 {
		p.staleness = 3 * time.Duration(consortium.TickInterval) * time.Millisecond
	}
	if err == nil && m.floor == 0 {
		m.floor, err = m.server.height(ctx)
	}
	p.err = at(stageLedger, err)
	return p
}

// make makes a CRL and hands it to the targets.
func (m *crlMaker) make(ctx context.Context, l *crlList, kind crlKind, need uint64, may *permission) error {
	if may.err != nil {
		return may.err
	}
	began, old := m.server.now(), l.newest[kind]
	c, err := m.contents(ctx, l, kind, need, may)
	if errors.Is(err, errNotYet) {
		return err
	}
	if err != nil {
		return at(stageContents, err)
	}
	if kind == kindDelta && m.nothingNew(l, c) {
		l.look, l.covered = false, c.Number
		return nil
	}
	if c.Number <= max(l.numbers.Number, m.floor) {
		return errNotYet
	}
	early := kind == kindComplete && old != nil && !l.large && began.Sub(old.thisUpdate) < m.set.FullEvery
	signed, err := m.sign(l, kind, c)
	if err != nil {
		return err
	}
	m.announce(l, signed)
	m.done(l, signed, c, early)
	if now := m.server.now(); l.scope == "" && kind == kindComplete {
		l.early = now.Add(max(earlyPause, earlyShare*now.Sub(began)))
	}
	return nil
}

// nothingNew tells whether a delta would say what the newest one says, and that one is good for a while yet.
func (m *crlMaker) nothingNew(l *crlList, c *crl.Contents) bool {
	old := l.newest[kindDelta]
	return old != nil && l.seen != nil && old.base == c.Base && !l.rebase && m.server.now().Sub(old.thisUpdate) < m.set.DeltaEvery &&
		slices.EqualFunc(l.seen, c.Entries, sameEntry)
}

func sameEntry(a, b crl.Entry) bool {
	return bytes.Equal(a.Serial, b.Serial) && a.Time == b.Time && a.Reason == b.Reason && a.Invalidity == b.Invalidity && a.Remove == b.Remove
}

// sign takes the number for good, makes the CRL and keeps it.
func (m *crlMaker) sign(l *crlList, kind crlKind, c *crl.Contents) (*signedCRL, error) {
	validity := m.set.Validity
	form := crl.Form{Issuer: m.server.issuer.cert}
	switch {
	case kind == kindDelta:
		validity = m.set.DeltaValidity
	case l.scope == "" && m.set.DeltaURL != "":
		form.DeltaURL = expand(m.set.DeltaURL, c.CAID, 0)
	}
	form.NextUpdate = c.ThisUpdate.Add(validity).Truncate(time.Second)
	numbers := *l.numbers
	numbers.Number = c.Number
	if err := m.store.saveNumbers(&numbers); err != nil {
		return nil, at(stageNumber, err)
	}
	l.numbers = &numbers
	m.server.step(stepReserved)
	der, err := crl.Build(c, form, useKey{m.server.custody, keystate.CRLs})
	if err != nil {
		return nil, at(stageSign, err)
	}
	m.server.step(stepCRLSigned)
	sample, err := m.sampler.of(c, form, der)
	if err == nil {
		err = m.lint(sample)
	}
	if err != nil {
		return nil, at(stageLint, err)
	}
	if err := m.store.save(l.scope, kind, der); err != nil {
		return nil, at(stageStore, err)
	}
	if kind == kindComplete {
		m.addBase(l, crlBase{c.Number, form.NextUpdate, c.ThisUpdate})
	}
	m.server.step(stepKept)
	return newSigned(c, kind, form.NextUpdate, der), nil
}

// changeSeen has a small complete CRL follow a delta that says something new. Without knowing what the last delta said, any entry may be news to
// who has the newest complete CRL.
func (m *crlMaker) changeSeen(l *crlList, now []crl.Entry) {
	if l.newest[kindComplete].entries+len(now) <= smallComplete && !slices.EqualFunc(l.seen, now, sameEntry) {
		m.soon(l)
	}
}

// soon makes a complete CRL about all certificates due.
func (m *crlMaker) soon(l *crlList) {
	if !l.dirty {
		l.dirty, l.early = true, latest(l.early, m.server.now())
	}
}

// done notes what a new CRL has settled. early: it is a complete one that a change, and not the interval, has made due.
func (m *crlMaker) done(l *crlList, signed *signedCRL, c *crl.Contents, early bool) {
	if l.scope == "" {
		m.metrics.Signed(string(signed.kind), signed.nextUpdate.Unix())
	} else {
		m.metrics.Signed("shard", 0)
	}
	m.log.Info("signed a CRL", "scope", l.scope, "kind", string(signed.kind), "number", c.Number, "base", c.Base, "entries", len(c.Entries))
	if signed.kind == kindComplete {
		l.dirty, l.rebase, l.large = false, l.scope == "", false
		if l.scope == "" && !early { // the next delta begins anew, and cannot show what has changed before it
			for _, shard := range m.lists[1:] {
				shard.dirty = true
			}
		}
		return
	}
	m.markShards(l.seen, c.Entries)
	m.changeSeen(l, c.Entries)
	if len(c.Entries) > maxDeltaEntries {
		// A new complete CRL begins smaller ones, but not more than one in a while.
		l.large = true
		if m.server.now().Sub(l.newest[kindComplete].thisUpdate) > m.set.FullEvery/maxEarly {
			m.soon(l)
		}
	}
	m.mu.Lock()
	maps.DeleteFunc(m.own, func(_ string, block uint64) bool { return block < c.Number })
	m.mu.Unlock()
	l.look, l.rebase, l.covered, l.seen = false, false, c.Number, c.Entries
	if l.seen == nil {
		l.seen = []crl.Entry{}
	}
}
