package fabric

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hyperledger/fabric-gateway/pkg/client"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"

	"github.com/certanchor/certanchor/network"
)

// Pauses before endorsing again when endorsers disagreed. Peers commit the same block some milliseconds apart, and a
// proposal that reads what that block wrote gets different answers meanwhile; by the last pause honest peers agree.
const (
	firstDisagreement = 10 * time.Millisecond
	lastDisagreement  = 160 * time.Millisecond
)

// Envelope is an endorsed transaction that has not been submitted.
type Envelope struct {
	TxID   string
	Result []byte // the contract's answer, as endorsed

	mu sync.Mutex
	tx *client.Transaction // signs itself at the first submission; guarded by mu
}

// Submit implements network.Ledger.
func (l *Ledger) Submit(ctx context.Context, function string, arg []byte) (network.Receipt, error) {
	ctx, cancel := l.call(ctx)
	defer cancel()
	envelope, err := l.Endorse(ctx, function, arg)
	if err != nil {
		return network.Receipt{}, err
	}
	return l.SubmitEnvelope(ctx, envelope)
}

// Endorse has the transaction executed and signed by as many organisations as the endorsement policy wants, and submits
// nothing. When endorsers disagree it asks a few times more. Errors: *network.RejectedError, *network.ConflictError with
// Block 0, *network.UnavailableError.
func (l *Ledger) Endorse(ctx context.Context, function string, arg []byte) (*Envelope, error) {
	if err := network.CheckArg(function, arg); err != nil {
		return nil, err
	}
	ctx, cancel := l.call(ctx)
	defer cancel()
	for pause := firstDisagreement; ; pause *= 2 {
		envelope, err := l.endorseOnce(ctx, function, arg)
		if !errors.Is(err, network.ErrConflict) || pause > lastDisagreement {
			return envelope, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, l.unavailable(ctx, "endorse "+function, err)
		}
	}
}

// endorseBy has one set of organisations endorse, nil for those that the gateway picks.
func (l *Ledger) endorseBy(ctx context.Context, function string, arg []byte, set []string) (*Envelope, error) {
	options := []client.ProposalOption{client.WithBytesArguments(arg)}
	if len(set) > 0 {
		options = append(options, client.WithEndorsingOrganizations(set...))
	}
	proposal, err := l.contract.NewProposal(function, options...)
	if err != nil {
		return nil, l.unavailable(ctx, "endorse "+function, fmt.Errorf("build proposal: %w", err))
	}
	tx, err := proposal.EndorseWithContext(ctx)
	if err != nil {
		return nil, l.endorseError(ctx, function, proposal.TransactionID(), err)
	}
	return &Envelope{TxID: tx.TransactionID(), Result: tx.Result(), tx: tx}, nil
}

// SubmitEnvelope hands an endorsed transaction to the orderers and waits for the block that has it. Errors are those of
// Submit, without *network.RejectedError.
func (l *Ledger) SubmitEnvelope(ctx context.Context, e *Envelope) (network.Receipt, error) {
	ctx, cancel := l.call(ctx)
	defer cancel()
	if err := l.watchCommits(ctx); err != nil {
		return network.Receipt{}, err
	}
	arrives, forget := l.commits.expect(e.TxID)
	defer forget()

	sent := make(chan error, 1)
	go func() { sent <- e.send(ctx) }()
	var sendErr error // only the blocks can say whether it was ordered nevertheless
	for {
		select {
		case o := <-arrives:
			return receipt(e, o)
		case sendErr = <-sent:
			if neverOrdered(sendErr) {
				return network.Receipt{}, l.unavailable(ctx, "submit "+e.TxID, sendErr)
			}
		case <-ctx.Done():
			return network.Receipt{}, l.unknown(ctx, e.TxID, sendErr)
		}
	}
}

func (e *Envelope) send(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, err := e.tx.SubmitWithContext(ctx)
	return err
}

func receipt(e *Envelope, o outcome) (network.Receipt, error) {
	if o.code != peer.TxValidationCode_VALID {
		return network.Receipt{}, &network.ConflictError{TxID: e.TxID, Block: o.block, Code: o.code.String()}
	}
	return network.Receipt{TxID: e.TxID, Block: o.block, Result: e.Result}, nil
}
