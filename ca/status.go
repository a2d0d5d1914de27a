package ca

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/keystate"
)

// statusWait is how long a status waits for responders.
const statusWait = 2 * time.Second

func (s *Server) getStatus(w http.ResponseWriter, r *http.Request, _ *client) error {
	return s.answer(w, http.StatusOK, s.Status(r.Context()))
}

// Status tells how the CA is. It never fails: what cannot be found out is among the problems.
func (s *Server) Status(ctx context.Context) *caapi.CAStatus {
	issuing := s.issuing()
	cert := issuing.issuer.cert
	st := &caapi.CAStatus{
		CAID: issuing.issuer.id.String(), Subject: cert.Subject.String(), NotBefore: cert.NotBefore.UTC().Format(time.RFC3339), NotAfter: cert.NotAfter.UTC().Format(time.RFC3339),
		Profiles: len(s.issuer.policy.Profiles), Ready: s.Ready(ctx), CRLs: issuing.CRLs(), BlockedKeys: s.blocked.count(), Superseding: s.superseded.count(),
		Responders: []caapi.Responder{}, Problems: []string{},
	}
	problem := func(err error) {
		if err != nil {
			st.Problems = append(st.Problems, err.Error())
		}
	}
	last := issuing.custody.states.Last()
	st.Key.State, st.Key.Since = string(last.To), last.Time.Format(caapi.TimeFormat)
	err := issuing.keyUsable()
	if err == nil {
		err = issuing.custody.usable(keystate.Certificates)
	}
	if st.Key.Usable = err == nil; err != nil {
		st.Key.Detail = err.Error()
		problem(err)
	}
	problem(s.clockSound())
	st.Journal, st.Last = issuing.book.summary()
	for _, j := range s.bulks.all() {
		switch v, _ := j.view(); v.State {
		case caapi.BulkPlanned:
			st.Bulks.Planned++
		case caapi.BulkRunning:
			st.Bulks.Running++
		}
	}
	for _, g := range s.line.list() {
		one, err := g.generationStatus(ctx)
		problem(err)
		problem(g.catalogue.Err())
		st.Generations = append(st.Generations, *one)
		if g == issuing {
			st.Ledger = one.Ledger
		}
	}
	st.Catalogue.Height = issuing.catalogue.Height()
	if h := st.Ready.Height; h > 0 {
		st.Catalogue.Behind = h - min(h, st.Catalogue.Height)
		ctx, cancel := context.WithTimeout(ctx, statusWait)
		defer cancel()
		st.Responders = append(st.Responders, s.waitApplied(ctx, h-1)...)
	} else {
		for _, r := range s.responders {
			st.Responders = append(st.Responders, caapi.Responder{URL: r.Name(), Error: "not asked: the ledger does not answer"})
		}
	}
	if !st.Ready.Ready && !slices.Contains(st.Problems, st.Ready.Detail) {
		st.Problems = append(st.Problems, st.Ready.Detail)
	}
	return st
}

func (s *Server) generationStatus(ctx context.Context) (g *caapi.GenerationStatus, err error) {
	last := s.custody.states.Last()
	g = &caapi.GenerationStatus{
		CAID: s.issuer.id.String(), NotAfter: s.issuer.cert.NotAfter.UTC().Format(time.RFC3339), KeyState: string(last.To), Since: last.Time.Format(caapi.TimeFormat),
		Issues: s.issues(), CRLs: s.CRLs(),
	}
	g.Journal, g.Last = s.book.summary()
	g.Ledger, err = s.onLedger(ctx)
	return g, err
}

// onLedger is nil for a CA that is not on the trust list.
func (s *Server) onLedger(ctx context.Context) (*caapi.OnLedger, error) {
	values, err := s.readState(ctx, wire.CAKey(s.issuer.id), wire.LogHeadKey(s.issuer.id))
	if err != nil || values[0] == nil {
		return nil, err
	}
	var rec wire.CARecord
	if err := wire.Decode(values[0], &rec); err != nil {
		return nil, err
	}
	l := &caapi.OnLedger{
		State: "active", Since: rec.StateTime.Time().Format(caapi.TimeFormat), SuspendedBy: rec.SuspendedBy, Registered: rec.Registered.Time().Format(caapi.TimeFormat),
		Certs: len(rec.Certs), Rules: rec.Rules,
	}
	if rec.State != wire.CAActive {
		l.State = "suspended"
	}
	if values[1] != nil {
		var head wire.LogHead
		if err := wire.Decode(values[1], &head); err != nil {
			return nil, err
		}
		l.LogSize = head.Size
	}
	return l, nil
}

// tally counts an entry that has just left stateSigned. It requires mu.
func (b *book) tally(e *entry) {
	b.counts[stateSigned]--
	b.counts[e.state]++
	if e.state == stateAnchored && (b.last == nil || e.log.Index >= b.last.log.Index) {
		b.last = e
	}
}

func (b *book) summary() (caapi.JournalCounts, *caapi.Anchored) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := caapi.JournalCounts{Issued: b.counts[stateAnchored], Unresolved: b.counts[stateSigned], Refused: b.counts[stateRefused], Abandoned: b.counts[stateAbandoned]}
	if b.last == nil {
		return n, nil
	}
	return n, &caapi.Anchored{Serial: b.last.serial.String(), LogIndex: b.last.log.Index, Block: b.last.block, Time: b.last.log.Time.Time().Format(caapi.TimeFormat)}
}
