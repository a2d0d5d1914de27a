package ca

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/network"
)

const (
	reachedFor   = 2 * time.Second // an answer this old still shows that the ledger is there
	probeTimeout = 3 * time.Second
)

// withoutOutcome keeps what an earlier transaction met from being taken for the fate of this request.
func withoutOutcome(err error) error { return errors.New(err.Error()) }

func (s *Server) height(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	h, err := s.ledger.Height(ctx)
	if err == nil {
		s.reached.Store(s.now().UnixMilli())
	}
	return h, err
}

// checkRegistered asks the trust list about this CA. Errors: FailedPrecondition as long as it is not there with this
// organisation as its operator.
func (s *Server) checkRegistered(ctx context.Context) error {
	rec, err := s.trustListEntry(ctx)
	if err != nil {
		return err
	}
	if rec == nil {
		return wire.Errorf(wire.FailedPrecondition, "ca_id", s.issuer.id.String(),
			"the CA is not registered on the ledger %s yet: administrators of a majority of organisations must run `certanchor ca register`", s.ledger.Channel())
	}
	if rec.OperatingMSP != s.ledger.MSPID() {
		return wire.Errorf(wire.FailedPrecondition, "msp_id", s.ledger.MSPID(), "the CA is registered to be operated by %s", rec.OperatingMSP)
	}
	s.registered.Store(true)
	return nil
}

// trustListEntry is nil when there is none.
func (s *Server) trustListEntry(ctx context.Context) (*wire.CARecord, error) {
	values, err := s.readState(ctx, wire.CAKey(s.issuer.id))
	if err != nil || values[0] == nil {
		return nil, err
	}
	var rec wire.CARecord
	return &rec, wire.Decode(values[0], &rec)
}

// readState returns the values of keys, nil for each that is absent.
func (s *Server) readState(ctx context.Context, keys ...string) ([][]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	answer, err := s.ledger.Evaluate(ctx, wire.FnRead, wire.Encode(&wire.ReadArg{V: wire.Version, Keys: keys}))
	if err != nil {
		return nil, err
	}
	var r wire.ReadResult
	if err := wire.Decode(answer, &r); err != nil {
		return nil, err
	}
	if len(r.Values) != len(keys) {
		return nil, fmt.Errorf("the ledger gave %d values for %d keys", len(r.Values), len(keys))
	}
	s.reached.Store(s.now().UnixMilli())
	return r.Values, nil
}

// Ready tells whether certificates can be issued now, and if not, why.
func (s *Server) Ready(ctx context.Context) caapi.Ready {
	s = s.issuing()
	r := caapi.Ready{MSPID: s.ledger.MSPID(), Unresolved: s.book.unresolved()}
	err := s.journal.health()
	if err == nil {
		err = s.operators.health(ctx)
	}
	if err == nil {
		err = s.custody.ready()
	}
	if err == nil {
		r.Height, err = s.height(ctx)
	}
	if err == nil {
		var rec *wire.CARecord
		if rec, err = s.trustListEntry(ctx); err == nil && rec != nil {
			r.Registered, r.OperatingMSP = true, rec.OperatingMSP
			if rec.State != wire.CAActive {
				err = fmt.Errorf("the CA is suspended on the ledger (state %d)", rec.State)
			}
		}
	}
	if err == nil {
		err = s.checkRegistered(ctx)
	}
	if err == nil {
		err = s.anchor.Down()
	}
	if err != nil {
		r.Detail = err.Error()
	} else if waits := s.rotationWaits(); waits != nil {
		r.Detail = "the rotation of the CA's key waits: " + waits.Error()
	}
	r.Ready = err == nil
	return r
}

// registerPause lets the block with another organisation's assent arrive at every peer.
const registerPause = 200 * time.Millisecond

// Register asks for a CA to be put on the trust list, as an administrator. The answer tells how many organisations have assented
// so far; repeating it is harmless. chain is the certificates above cert, issuer first, empty for a root.
func Register(ctx context.Context, ledger network.Ledger, certDER []byte, chain [][]byte, operatingMSP string) (wire.RegisterCAResult, error) {
	var res wire.RegisterCAResult
	arg := wire.Encode(&wire.RegisterCAArg{V: wire.Version, Cert: certDER, Chain: chain, OperatingMSP: operatingMSP})
	pause := time.NewTicker(registerPause)
	defer pause.Stop()
	for {
		receipt, err := ledger.Submit(ctx, wire.FnRegisterCA, arg)
		if err == nil {
			return res, wire.Decode(receipt.Result, &res)
		}
		// Another organisation's assent came in between, or the network is only just starting: the same bytes may be
		// submitted again whatever became of them.
		again := errors.Is(err, network.ErrConflict) || errors.Is(err, network.ErrUnavailable) || errors.Is(err, network.ErrUnknownOutcome)
		if !again {
			return res, err
		}
		select {
		case <-ctx.Done():
			return res, err
		case <-pause.C:
		}
	}
}
