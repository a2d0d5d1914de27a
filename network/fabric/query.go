package fabric

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/hyperledger/fabric-gateway/pkg/client"
	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/gateway"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/protobuf/proto"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
)

// Evaluate implements network.Ledger. The proposal goes to the peer's endorser, not through its gateway: the gateway picks
// the peer that gossip believes to be highest and tries others when one fails, and the contract here promises this one.
func (l *Ledger) Evaluate(ctx context.Context, function string, arg []byte) ([]byte, error) {
	if err := network.CheckArg(function, arg); err != nil {
		return nil, err
	}
	return l.query(ctx, "evaluate "+function, function, l.contract, arg)
}

// Height implements network.Ledger.
func (l *Ledger) Height(ctx context.Context) (uint64, error) {
	const stage = "ask for height"
	answer, err := l.query(ctx, stage, "GetChainInfo", l.qscc, []byte(l.cfg.Channel))
	if err != nil {
		var refused *network.RejectedError
		if errors.As(err, &refused) { // qscc has no say in the contract's matters
			return 0, &network.UnavailableError{Stage: stage, Err: refused.Reason}
		}
		return 0, err
	}
	var info common.BlockchainInfo
	if err := proto.Unmarshal(answer, &info); err != nil {
		return 0, &network.UnavailableError{Stage: stage, Err: fmt.Errorf("parse BlockchainInfo: %w", err)}
	}
	return info.GetHeight(), nil
}

// query executes one function on this connection's own peer, without endorsement by others and without ordering.
func (l *Ledger) query(ctx context.Context, stage, function string, on *client.Contract, arg []byte) ([]byte, error) {
	ctx, cancel := l.call(ctx)
	defer cancel()
	proposal, err := l.signedProposal(on, function, arg)
	if err != nil {
		return nil, l.unavailable(ctx, stage, err)
	}
	answer, err := l.endorser.ProcessProposal(ctx, proposal)
	if err != nil {
		return nil, l.unavailable(ctx, stage, err)
	}
	r := answer.GetResponse()
	if r.GetStatus() >= http.StatusOK && r.GetStatus() < http.StatusBadRequest {
		return r.GetPayload(), nil
	}
	if refusal, ok := wire.ParseMessage(r.GetMessage()); ok {
		return nil, &network.RejectedError{Function: function, Reason: refusal}
	}
	failure := fmt.Errorf("peer answered %d: %s", r.GetStatus(), r.GetMessage())
	if r.GetStatus() < http.StatusBadRequest || r.GetStatus() == http.StatusInternalServerError && answer.GetPayload() == nil {
		// A 500 without a payload is the peer's own: the chaincode was not reached or did not answer.
		return nil, l.unavailable(ctx, stage, failure)
	}
	return nil, &network.RejectedError{Function: function, Reason: failure}
}

// signedProposal takes the proposal that fabric-gateway builds, and signs it for sending without the gateway.
func (l *Ledger) signedProposal(on *client.Contract, function string, arg []byte) (*peer.SignedProposal, error) {
	proposal, err := on.NewProposal(function, client.WithBytesArguments(arg))
	if err != nil {
		return nil, fmt.Errorf("build proposal: %w", err)
	}
	encoded, err := proposal.Bytes()
	if err != nil {
		return nil, fmt.Errorf("build proposal: %w", err)
	}
	var proposed gateway.ProposedTransaction
	if err := proto.Unmarshal(encoded, &proposed); err != nil {
		return nil, fmt.Errorf("build proposal: %w", err)
	}
	signature, err := l.sign(proposal.Digest())
	if err != nil {
		return nil, fmt.Errorf("sign proposal: %w", err)
	}
	signed := proposed.GetProposal()
	signed.Signature = signature
	return signed, nil
}
