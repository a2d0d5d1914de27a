package ca

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/catalogue"
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
	return s.revoke(ctx, "", r)
}

func (s *Server) revoke(ctx context.Context, by string, r caapi.RevokeRequest) (_ *caapi.StatusChange, acknowledged bool, err error) {
	change, err := s.parseRevocation(r)
	if err != nil {
		return nil, false, err
	}
	return s.change(ctx, by, change)
}

// Release ends a hold, in the same way.
func (s *Server) Release(ctx context.Context, r caapi.ReleaseRequest) (_ *caapi.StatusChange, acknowledged bool, err error) {
	serial, err := wire.ParseSerial(r.Serial)
	if err != nil {
		return nil, false, err
	}
	return s.change(ctx, "", wire.StatusChange{Serial: serial, Op: wire.OpRelease})
}

func (s *Server) parseRevocation(r caapi.RevokeRequest) (wire.StatusChange, error) {
	serial, err := wire.ParseSerial(r.Serial)
	if err != nil {
		return wire.StatusChange{}, err
	}
	c, err := s.parseStatus(r.Reason, r.InvalidityDate)
	c.Serial = serial
	return c, err
}

// parseStatus reads what a revocation or hold is, without its certificate.
func (s *Server) parseStatus(reason, invalidityDate string) (c wire.StatusChange, err error) {
	c.Op = wire.OpRevoke
	if c.Reason, err = wire.ParseReason(reason); err != nil {
		return c, err
	}
	if c.Reason == wire.CertificateHold {
		c.Op = wire.OpHold
	}
	if invalidityDate != "" {
		c.Invalidity, err = s.parseInvalidity(c.Op, invalidityDate)
	}
	return c, err
}

func (s *Server) parseInvalidity(op wire.StatusOp, text string) (wire.Millis, error) {
	const field = "invalidity_date"
	t, err := time.Parse(time.RFC3339, text)
	switch {
	case err != nil:
		return 0, invalid(field, text, "must be a time in RFC 3339 form")
	case op == wire.OpHold:
		return 0, invalid(field, text, "a hold has none (RFC 5280 section 5.3.2)")
	case t.Unix() <= 0 || t.After(s.now()):
		return 0, invalid(field, text, "must be after 1970 and not in the future")
	}
	return wire.MillisOf(t), nil
}

func (s *Server) change(ctx context.Context, by string, c wire.StatusChange) (*caapi.StatusChange, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, s.settings.StatusTimeout+s.settings.AckTimeout)
	defer cancel()
	s, err := s.holder(ctx, c.Serial)
	if err != nil {
		return nil, false, err
	}
	if err := s.beforeChange(ctx, by, c); err != nil {
		return nil, false, err
	}
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
	if at, err := s.catalogue.Get(c.Serial); err == nil && at != nil && at.Change == res.Change {
		answer.StatusLog = statusLog(c.Serial, at.Position)
	} else if res.Change > 0 {
		answer.StatusLog = statusLog(c.Serial, nil)
	}
	missing := unconfirmed(answer.Responders)
	if len(missing) > 0 {
		answer.Detail = "the change is committed on the ledger but not acknowledged yet by " + strings.Join(missing, ", ")
	}
	return answer, len(missing) == 0, nil
}

// beforeChange refuses what could not be, and keeps a compromised key from new certificates before anybody learns that it is one.
func (s *Server) beforeChange(ctx context.Context, by string, c wire.StatusChange) error {
	if err := s.clockSound(); err != nil {
		return err
	}
	if c.Op != wire.OpRevoke || c.Reason != wire.KeyCompromise {
		return nil
	}
	known, err := s.catalogue.Get(c.Serial)
	if err != nil {
		return err
	}
	var hash []byte
	if known != nil {
		hash = known.Key
	} else { // recorded a moment ago
		values, err := s.readState(ctx, wire.CertKey(s.issuer.id, c.Serial))
		if err != nil {
			return err
		}
		if values[0] == nil {
			return nil // the contract says what is wrong
		}
		var rec wire.CertRecord
		if err := wire.Decode(values[0], &rec); err != nil {
			return err
		}
		hash = rec.SPKIHash
	}
	if len(hash) != len(catalogue.Key{}) {
		return nil
	}
	return s.blocked.block(by, false, 0, catalogue.Key(hash))
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
