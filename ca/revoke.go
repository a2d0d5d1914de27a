package ca

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/network"
)

// Responder is one of this organisation's OCSP responders.
type Responder interface {
	// Name is shown to operators: its base URL, if it has one.
	Name() string
	// WaitApplied returns nil once the responder answers from a state that includes block, and an error when ctx ends before.
	WaitApplied(ctx context.Context, block uint64) error
}

// Revoke makes a change of status that an operator asked for, and waits until this organisation's responders have applied it. The
// first result tells about both; acknowledged is true when every responder has confirmed (invariant 2, docs/invariants.md). After an
// error nothing is known to have changed; problem.From tells unknown outcomes apart.
func (s *Server) Revoke(ctx context.Context, r caapi.RevokeRequest) (_ *caapi.StatusChange, acknowledged bool, err error) {
	change, err := s.parseRevocation(r)
	if err != nil {
		return nil, false, err
	}
	return s.change(ctx, change)
}

// Release ends a hold, in the same way.
func (s *Server) Release(ctx context.Context, r caapi.ReleaseRequest) (_ *caapi.StatusChange, acknowledged bool, err error) {
	serial, err := wire.ParseSerial(r.Serial)
	if err != nil {
		return nil, false, err
	}
	return s.change(ctx, wire.StatusChange{Serial: serial, Op: wire.OpRelease})
}

func (s *Server) parseRevocation(r caapi.RevokeRequest) (wire.StatusChange, error) {
	c := wire.StatusChange{Op: wire.OpRevoke}
	var err error
	if c.Serial, err = wire.ParseSerial(r.Serial); err != nil {
		return c, err
	}
	if c.Reason, err = wire.ParseReason(r.Reason); err != nil {
		return c, err
	}
	if c.Reason == wire.CertificateHold {
		c.Op = wire.OpHold
	}
	if r.InvalidityDate == "" {
		return c, nil
	}
	const field = "invalidity_date"
	t, err := time.Parse(time.RFC3339, r.InvalidityDate)
	switch {
	case err != nil:
		return c, invalid(field, r.InvalidityDate, "must be a time in RFC 3339 form")
	case c.Op == wire.OpHold:
		return c, invalid(field, r.InvalidityDate, "a hold has none (RFC 5280 section 5.3.2)")
	case t.Unix() <= 0 || t.After(s.now()):
		return c, invalid(field, r.InvalidityDate, "must be after 1970 and not in the future")
	}
	c.Invalidity = wire.MillisOf(t)
	return c, nil
}

func (s *Server) change(ctx context.Context, c wire.StatusChange) (*caapi.StatusChange, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, s.settings.StatusTimeout+s.settings.AckTimeout)
	defer cancel()
	s = s.holder(ctx, c.Serial)
	res, receipt, err := s.commitChange(ctx, c)
	if err != nil {
		return nil, false, err
	}
	s.crls.changedAt(receipt.Block, c.Serial, res)
	answer := &caapi.StatusChange{
		Serial: c.Serial.String(), State: stateName(res.State), Change: res.Change, Changed: res.Changed,
		Block: receipt.Block, TxID: receipt.TxID, Responders: s.waitApplied(ctx, receipt.Block),
	}
	if res.State != wire.CertValid {
		answer.Reason, answer.RevocationTime = res.Reason.String(), res.Time.Time().Format(caapi.TimeFormat)
	}
	var missing []string
	for _, r := range answer.Responders {
		if !r.Applied {
			missing = append(missing, r.URL)
		}
	}
	if len(missing) > 0 {
		answer.Detail = "the change is committed on the ledger but not acknowledged yet by " + strings.Join(missing, ", ")
	}
	return answer, len(missing) == 0, nil
}

func (s *Server) commitChange(ctx context.Context, c wire.StatusChange) (wire.StatusResult, network.Receipt, error) {
	ctx, cancel := context.WithTimeout(ctx, s.settings.StatusTimeout)
	defer cancel()
	return s.anchor.SetStatus(ctx, c)
}

// waitApplied asks every responder at the same time.
func (s *Server) waitApplied(ctx context.Context, block uint64) []caapi.Responder {
	ctx, cancel := context.WithTimeout(ctx, s.settings.AckTimeout)
	defer cancel()
	answers := make([]caapi.Responder, len(s.responders))
	var wg sync.WaitGroup
	for i, r := range s.responders {
		wg.Go(func() {
			err := r.WaitApplied(ctx, block)
			answers[i] = caapi.Responder{URL: r.Name(), Applied: err == nil}
			if err != nil {
				answers[i].Error = err.Error()
				s.log.Warn("a responder did not confirm a change of status", "responder", r.Name(), "block", block, "error", err)
			}
		})
	}
	wg.Wait()
	return answers
}

func stateName(st wire.CertState) string {
	switch st {
	case wire.CertValid:
		return "valid"
	case wire.CertHeld:
		return "held"
	case wire.CertRevoked:
		return "revoked"
	}
	return "unknown"
}
