package fabric

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/hyperledger/fabric-gateway/pkg/client"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
)

// codeDisagree is the ConflictError code of a transaction that was not submitted because endorsers did not agree about it.
const codeDisagree = "ENDORSEMENT_MISMATCH"

// Texts of Fabric's gateway (internal/pkg/gateway), which has no codes for these.
const (
	textMismatch   = "ProposalResponsePayloads do not match"
	textChaincode  = "chaincode response " // before the status and message of a chaincode that refused
	textNoOrderers = "no orderer nodes available"
)

// endorseError sorts a failed endorsement. The own organisation's peer is always among the endorsers, and what it knows is what
// the caller knows. So a refusal by the own organisation is the contract's answer; a refusal by others only means that their
// state, or their chaincode, is not the same: they may be a block behind.
func (l *Ledger) endorseError(ctx context.Context, function, txID string, err error) error {
	var failed *client.EndorseError
	if ctx.Err() != nil || !errors.As(err, &failed) {
		return l.unavailable(ctx, "endorse "+function, err)
	}
	var said []string
	disagree := false
	for _, d := range failed.Details() {
		refusal := contractRefusal(d.GetMessage())
		if refusal != nil && d.GetMspId() == l.cfg.MSPID {
			return &network.RejectedError{Function: function, Reason: refusal}
		}
		disagree = disagree || refusal != nil || strings.Contains(d.GetMessage(), textMismatch)
		said = append(said, fmt.Sprintf("%s (%s): %s", d.GetMspId(), d.GetAddress(), d.GetMessage()))
	}
	if disagree {
		return &network.ConflictError{TxID: txID, Code: codeDisagree, Detail: strings.Join(said, "; ")}
	}
	if len(said) > 0 {
		err = fmt.Errorf("%s: %s", status.Convert(failed).Message(), strings.Join(said, "; "))
	}
	return l.unavailable(ctx, "endorse "+function, err)
}

// contractRefusal returns what the contract said, or nil when the failure came from somewhere else: a peer that could not
// be reached, a chaincode server that did not answer.
func contractRefusal(message string) error {
	if refusal, ok := wire.ParseMessage(message); ok {
		return refusal
	}
	if strings.HasPrefix(message, textChaincode) {
		return errors.New(message)
	}
	return nil
}

// neverOrdered reports whether a submission failed before the gateway sent anything to an orderer. Other failures say
// nothing: a transaction can be ordered although every orderer's answer was lost, or was "request already processed".
func neverOrdered(err error) bool {
	switch s := status.Convert(err); s.Code() {
	case codes.InvalidArgument, codes.NotFound, codes.FailedPrecondition, codes.ResourceExhausted,
		codes.Unimplemented, codes.PermissionDenied, codes.Unauthenticated:
		return true
	case codes.Unavailable:
		return s.Message() == textNoOrderers
	default:
		return false
	}
}

func (l *Ledger) unknown(ctx context.Context, txID string, sendErr error) error {
	e := &network.UnknownOutcomeError{TxID: txID, Stage: "wait for commit", Err: ctx.Err()}
	if sendErr != nil {
		e.Stage, e.Err = "submit", sendErr
	}
	e.Err = l.because(ctx, e.Err)
	return e
}
