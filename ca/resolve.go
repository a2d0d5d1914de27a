package ca

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/anchor"
	"github.com/certanchor/certanchor/network"
)

const (
	resolveEvery    = time.Second // while something is unresolved
	resolveParallel = 256         // certificates handed to the batcher at once
	maxWarnings     = 16          // of one round, about certificates one by one
)

func (s *Server) kickResolver() {
	select {
	case s.resolveKick <- struct{}{}:
	default:
	}
}

// resolve brings certificates to an end that were signed and whose requester is gone: those an earlier process left, and those
// whose outcome stayed unknown when the requester's time was up.
func (s *Server) resolve(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.resolveKick:
		case <-timer.C:
		}
		s.resolveRound(ctx)
		if s.book.unresolved() > 0 {
			timer.Reset(resolveEvery)
		}
	}
}

func (s *Server) resolveRound(ctx context.Context) {
	var g errgroup.Group
	g.SetLimit(resolveParallel)
	var short, failed atomic.Int64
	for _, e := range s.book.take() {
		g.Go(func() error {
			err := s.resolveOne(ctx, e)
			if err == nil {
				return nil
			}
			s.book.release(e)
			if errors.Is(err, errTooFewFronts) {
				short.Add(1) // there may be thousands, for one reason
			} else if ctx.Err() == nil && failed.Add(1) <= maxWarnings {
				s.log.Warn("a certificate is still without an outcome", "serial", e.serial.String(), "error", err)
			}
			return nil
		})
	}
	_ = g.Wait() // the goroutines report to the log
	if n := failed.Load(); n > maxWarnings && ctx.Err() == nil {
		s.log.Warn("more certificates are still without an outcome", "certificates", n-maxWarnings)
	}
	if n := short.Load(); n > 0 && ctx.Err() == nil {
		s.log.Warn("certificates wait for SCTs of more fronts", "certificates", n)
	}
}

// resolveOne submits an entry again. The contract gives a certificate that it has already the place it had, so an attempt that
// succeeds settles it. A refusal settles it only when no envelope of an earlier attempt can commit any more; asked before, so
// that it is still true when the refusal comes.
func (s *Server) resolveOne(ctx context.Context, e *entry) error {
	ctx, cancel := context.WithTimeout(ctx, s.settings.IssueTimeout)
	defer cancel()
	if e.stage == stagePreAnchored || e.stage == stageStamped {
		_, err := s.finish(ctx, e)
		return err
	}
	r, err := s.journal.read(e.current())
	if err != nil {
		return err
	}
	dead, err := s.envelopesDead(ctx, e.suspect)
	if err != nil {
		return err
	}
	place, receipt, err := s.anchor.Issue(ctx, r.Cert)
	switch {
	case err == nil && e.stage == stagePrecert:
		if err := s.recordPreAnchored(e, place, receipt); err != nil {
			return err
		}
		_, err := s.finish(ctx, e)
		return err
	case err == nil:
		return s.recordAnchored(e, place, receipt)
	case errors.Is(err, network.ErrUnknownOutcome):
		e.suspect = s.now()
	case network.IsRejected(err) && dead && !anchor.AboutCaller(err):
		s.log.Warn("the ledger refused a certificate, it will not be released", "serial", e.serial.String(), "error", err)
		return s.note(&record{Kind: kindRefused, Serial: e.serial, Refusal: refusalOf(err)})
	}
	return err
}

// envelopesDead reports whether the ledger's clock has left behind every transaction submitted up to since: an envelope of epoch n
// cannot commit after a Tick of epoch n+2 (chaincode/clock.go).
func (s *Server) envelopesDead(ctx context.Context, since time.Time) (bool, error) {
	keys := []string{wire.ConsortiumKey}
	for class := range int64(wire.ClockKeys) {
		keys = append(keys, wire.ClockKey(class))
	}
	values, err := s.readState(ctx, keys...)
	if err != nil || values[0] == nil {
		return false, err
	}
	var consortium wire.Consortium
	if err := wire.Decode(values[0], &consortium); err != nil {
		return false, err
	}
	epoch := int64(wire.MillisOf(since)) / consortium.TickInterval
	for _, v := range values[1:] {
		if v == nil {
			continue
		}
		var clock wire.Clock
		if err := wire.Decode(v, &clock); err != nil {
			return false, err
		}
		if clock.Epoch >= epoch+2 {
			return true, nil
		}
	}
	return false, nil
}
