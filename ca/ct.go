package ca

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/anchor"
	"github.com/certanchor/certanchor/network"
)

// Steps of an issuance with SCTs that follow stepRecorded, which is then the precertificate's, in order.
const (
	stepStamped         = "stamped" // SCTs are here
	stepStampsRecorded  = "stamps recorded"
	stepFinalSigned     = "final signed"
	stepFinalJournalled = "final journalled"
	stepFinalAnchored   = "final anchored"
	stepFinalRecorded   = "final recorded"
)

// loadFronts reads whose SCTs can be had, and which keys are not certified.
func (s *Server) loadFronts(cfg Config) (err error) {
	s.weakKeys = cfg.WeakKeys
	if s.fronts, err = newFronts(cfg, s.issuer, s.settings.FrontTimeout, s.log); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(s.issuer.policy.rules)) {
		if err := s.checkFronts(name); err != nil {
			s.log.Warn("a profile cannot be used", "profile", name, "error", err)
		}
	}
	s.metrics.Gauge("ca_fronts", "Organisations' fronts that this CA can have SCTs of, its own among them.", func() float64 { return float64(s.fronts.count()) })
	s.metrics.Gauge("ca_fronts_failing", "Fronts that gave no SCTs lately.", func() float64 { return float64(s.fronts.failing()) })
	return nil
}

// checkFronts refuses a profile that needs more SCTs than there are fronts: nothing is promised that could not be kept.
func (s *Server) checkFronts(profile string) error {
	if r, n := s.issuer.policy.rules[profile], s.fronts.count(); r != nil && r.scts > n {
		return wire.Errorf(wire.FailedPrecondition, "profile", profile, "its certificates need SCTs of %d fronts of the log of this CA, and %d are configured: "+
			"this organisation's (ca.ct) and others' (ca.fronts)", r.scts, n)
	}
	return nil
}

// bringWithSCTs takes a journalled precertificate to its certificate. Up to its commit it may fail as any certificate may; from then on
// it is a promise (RFC 6962 section 3.1), and what is not finished here the resolver finishes.
func (s *Server) bringWithSCTs(ctx context.Context, e *entry, precert []byte) (*Issued, error) {
	place, receipt, err := s.anchor.Issue(ctx, precert)
	if err != nil {
		return nil, s.notAnchored(e, err)
	}
	s.step(stepAnchored)
	if s.front != nil {
		s.front.recent.add(precert, place) // another front may be about to ask, before its own blocks have it
	}
	if err := s.recordPreAnchored(e, place, receipt); err != nil {
		return nil, err
	}
	s.step(stepRecorded)
	got, err := s.finish(ctx, e)
	if err != nil {
		return nil, s.leave(e, err)
	}
	return got, nil
}

func (s *Server) recordPreAnchored(e *entry, place wire.LogEntry, receipt network.Receipt) error {
	s.reached.Store(s.now().UnixMilli())
	err := s.note(&record{Kind: kindPreAnchored, Serial: e.serial, Log: &place, Block: receipt.Block, TxID: receipt.TxID})
	if err != nil {
		return fmt.Errorf("precertificate %s is on the ledger at index %d, but the journal did not take that: %w", e.serial, place.Index, err)
	}
	return nil
}

// finish takes the remaining steps of a certificate whose precertificate is on the ledger, from wherever it stands. The caller owns e.
// After an error the same call continues.
//
// What is embedded is durable before the CA's key signs the certificate. So whatever gets lost and is signed again, there is one
// TBSCertificate, and not two certificates of one serial number.
func (s *Server) finish(ctx context.Context, e *entry) (*Issued, error) {
	if e.stage == stagePreAnchored {
		if err := s.stamp(ctx, e); err != nil {
			return nil, err
		}
	}
	if e.stage == stageStamped {
		if err := s.signFinal(e); err != nil {
			return nil, err
		}
	}
	r, err := s.journal.read(e.current())
	if err != nil {
		return nil, err
	}
	place, receipt, err := s.anchorFinal(ctx, r.Cert)
	if err != nil {
		e.suspect = s.now()
		return nil, err
	}
	s.step(stepFinalAnchored)
	if err := s.recordAnchored(e, place, receipt); err != nil {
		return nil, err
	}
	s.step(stepFinalRecorded)
	return &Issued{Serial: e.serial, DER: r.Cert, Log: place, Block: receipt.Block, TxID: receipt.TxID}, nil
}

// stamp gets the SCTs and makes them durable.
func (s *Server) stamp(ctx context.Context, e *entry) error {
	r, err := s.journal.read(e.pos)
	if err != nil {
		return err
	}
	list, err := s.fronts.stamp(ctx, r.Cert, e.prePlace, e.need)
	if err != nil {
		return fmt.Errorf("SCTs: %w", err)
	}
	s.step(stepStamped)
	if err := s.note(&record{Kind: kindStamped, Serial: e.serial, SCTs: list}); err != nil {
		return err
	}
	s.step(stepStampsRecorded)
	return nil
}

// signFinal signs the certificate and makes it durable. A key out of use keeps the promise later.
func (s *Server) signFinal(e *entry) error {
	if err := s.keyUsable(); err != nil {
		return err
	}
	pre, err := s.journal.read(e.pos)
	if err != nil {
		return err
	}
	stamps, err := s.journal.read(e.stamps)
	if err != nil {
		return err
	}
	cert, err := s.issuer.complete(pre.Cert, stamps.SCTs)
	if err != nil {
		return err
	}
	s.step(stepFinalSigned)
	if err := s.note(&record{Kind: kindFinal, Serial: e.serial, Cert: cert.Raw}); err != nil {
		return err
	}
	s.step(stepFinalJournalled)
	return nil
}

// overloadPause is between attempts to queue a certificate whose precertificate was let in already.
const overloadPause = 50 * time.Millisecond

// anchorFinal submits a certificate. It is let in once with its precertificate, so it waits out an overload, within ctx.
func (s *Server) anchorFinal(ctx context.Context, der []byte) (wire.LogEntry, network.Receipt, error) {
	for {
		place, receipt, err := s.anchor.Issue(ctx, der)
		if !errors.Is(err, anchor.ErrQueueFull) {
			return place, receipt, err
		}
		select {
		case <-ctx.Done():
			return place, receipt, err
		case <-time.After(overloadPause):
		}
	}
}
