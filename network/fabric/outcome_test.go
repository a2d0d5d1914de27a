package fabric

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/hyperledger/fabric-protos-go-apiv2/gateway"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
)

// gatewayError is how Fabric's gateway reports failures: details are MSP ID and message, in turn.
func gatewayError(code codes.Code, message string, details ...string) error {
	s := status.New(code, message)
	var all []protoadapt.MessageV1
	for i := 0; i < len(details); i += 2 {
		all = append(all, protoadapt.MessageV1Of(&gateway.ErrorDetail{Address: "peer:7051", MspId: details[i], Message: details[i+1]}))
	}
	if len(all) > 0 {
		var err error
		if s, err = s.WithDetails(all...); err != nil {
			panic(err)
		}
	}
	return s.Err()
}

var refusal = wire.Errorf(wire.AlreadyExists, "certs[0]", "01", "must be new")

func TestEveryEndorsementFailureHasItsClass(t *testing.T) {
	f, l := startPeer(t)
	const collect, first = "failed to collect enough transaction endorsements, see attached details for more info", "failed to endorse transaction, see attached details for more info"
	ours := "chaincode response 500, " + refusal.Message()
	for _, c := range []struct {
		name  string
		err   error
		class error // nil: RejectedError
		says  string
	}{
		{"the own peer's contract refuses", gatewayError(codes.Aborted, first, "Org1MSP", ours), nil, "must be new"},
		{"the own peer's chaincode refuses in words of its own", gatewayError(codes.Aborted, first, "Org1MSP", "chaincode response 500, no such function"), nil, "no such function"},
		{"only another organisation's contract refuses", gatewayError(codes.Aborted, collect, "Org2MSP", ours), network.ErrConflict, "must be new"},
		{"endorsers disagree", gatewayError(codes.Aborted, collect, "Org2MSP", textMismatch, "Org3MSP", textMismatch), network.ErrConflict, "do not match"},
		{"one disagrees, one is away", gatewayError(codes.Aborted, collect, "Org2MSP", textMismatch, "Org3MSP", "connection refused"), network.ErrConflict, "connection refused"},
		{"the own chaincode server is away", gatewayError(codes.Aborted, first, "Org1MSP", "error in simulation: could not launch chaincode"), network.ErrUnavailable, "could not launch"},
		{"the chaincode took too long", gatewayError(codes.Aborted, first, "Org1MSP", "error in simulation: timeout expired while executing transaction"), network.ErrUnavailable, "timeout"},
		{"others are away", gatewayError(codes.Aborted, collect, "Org2MSP", "connection refused"), network.ErrUnavailable, "Org2MSP"},
		{"gossip has not found enough peers", gatewayError(codes.FailedPrecondition, "no combination of peers can be derived which satisfy the endorsement policy"), network.ErrUnavailable, "combination"},
		{"the peer is overloaded", gatewayError(codes.ResourceExhausted, "too many requests"), network.ErrUnavailable, "too many"},
		{"the identity is not allowed", gatewayError(codes.PermissionDenied, "no"), network.ErrUnavailable, "no"},
		{"the connection breaks", gatewayError(codes.Unavailable, "error reading from server: EOF"), network.ErrUnavailable, "EOF"},
	} {
		f.endorse = func(context.Context, *gateway.EndorseRequest) (*gateway.EndorseResponse, error) { return nil, c.err }
		_, err := l.Submit(t.Context(), wire.FnIssue, nil)
		if c.class == nil && !network.IsRejected(err) || c.class != nil && !errors.Is(err, c.class) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.name, err)
		}
		if errors.Is(err, network.ErrUnknownOutcome) {
			t.Errorf("%s: unknown, though nothing was submitted", c.name)
		}
		if reason := new(wire.Error); c.class == nil && strings.Contains(c.err.Error(), "certanchor-error") && (!errors.As(err, &reason) || *reason != *refusal) {
			t.Errorf("%s: reason %+v, want %+v", c.name, reason, refusal)
		}
	}
}

func TestEndorsersThatDisagreeForAMomentAreAskedAgain(t *testing.T) {
	f, l := startPeer(t)
	agree, asked := f.endorse, 0
	f.endorse = func(ctx context.Context, r *gateway.EndorseRequest) (*gateway.EndorseResponse, error) {
		if asked++; asked < 3 {
			return nil, gatewayError(codes.Aborted, "failed to collect enough transaction endorsements", "Org2MSP", textMismatch)
		}
		return agree(ctx, r)
	}
	if _, err := l.Submit(t.Context(), wire.FnIssue, nil); err != nil || asked != 3 {
		t.Errorf("asked %d times: %v", asked, err)
	}
}

func TestOnlyTheBlocksSayWhatBecameOfASubmission(t *testing.T) {
	f, l := startPeer(t)
	unavailable := gatewayError(codes.Unavailable, "insufficient number of orderers could successfully process transaction to satisfy quorum requirement",
		"OrdererMSP", "received unsuccessful response from orderer: status=SERVICE_UNAVAILABLE, info=request already processed")
	valid, mvcc := peer.TxValidationCode_VALID, peer.TxValidationCode_MVCC_READ_CONFLICT
	policy := peer.TxValidationCode_ENDORSEMENT_POLICY_FAILURE
	for _, c := range []struct {
		name   string
		answer error
		blocks []peer.TxValidationCode // what the envelope's copies are marked as, one block each
		class  error                   // nil: success
		code   string
	}{
		{"accepted and valid", nil, []peer.TxValidationCode{valid}, nil, ""},
		{"accepted and in conflict", nil, []peer.TxValidationCode{mvcc}, network.ErrConflict, "MVCC_READ_CONFLICT"},
		{"accepted and badly endorsed", nil, []peer.TxValidationCode{policy}, network.ErrConflict, "ENDORSEMENT_POLICY_FAILURE"},
		{"already processed, and valid", unavailable, []peer.TxValidationCode{valid}, nil, ""},
		{"already processed, and in conflict", unavailable, []peer.TxValidationCode{mvcc}, network.ErrConflict, "MVCC_READ_CONFLICT"},
		{"ordered twice", nil, []peer.TxValidationCode{valid, peer.TxValidationCode_DUPLICATE_TXID}, nil, ""},
		{"a second copy says nothing", nil, []peer.TxValidationCode{peer.TxValidationCode_DUPLICATE_TXID}, network.ErrUnknownOutcome, ""},
		{"accepted and never seen", nil, nil, network.ErrUnknownOutcome, ""},
		{"refused by the orderers and never seen", unavailable, nil, network.ErrUnknownOutcome, ""},
		{"the gateway knows no orderers", gatewayError(codes.Unavailable, textNoOrderers), nil, network.ErrUnavailable, ""},
		{"the gateway is overloaded", gatewayError(codes.ResourceExhausted, "too many requests"), nil, network.ErrUnavailable, ""},
	} {
		ctx, giveUp := context.WithCancel(t.Context())
		f.submit = func(_ context.Context, r *gateway.SubmitRequest) error {
			for _, code := range c.blocks {
				f.commit(code, r.GetPreparedTransaction())
			}
			if errors.Is(c.class, network.ErrUnknownOutcome) {
				giveUp()
			}
			return c.answer
		}
		r, err := l.Submit(ctx, wire.FnIssue, nil)
		giveUp()
		var conflict *network.ConflictError
		if c.class == nil && (err != nil || string(r.Result) != "answer") || !errors.Is(err, c.class) ||
			errors.As(err, &conflict) && (conflict.Code != c.code || conflict.Block == 0) {
			t.Errorf("%s: %+v, %v", c.name, r, err)
		}
	}
}

func TestACommitCountsThoughTheSubmitCallHangs(t *testing.T) {
	f, l := startPeer(t)
	f.submit = func(ctx context.Context, r *gateway.SubmitRequest) error {
		f.commit(peer.TxValidationCode_VALID, r.GetPreparedTransaction())
		<-ctx.Done()
		return ctx.Err()
	}
	if r, err := l.Submit(t.Context(), wire.FnIssue, nil); err != nil || r.Block != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestACommitIsSeenThoughTheStreamBreaks(t *testing.T) {
	f, l := startPeer(t)
	f.submit = func(_ context.Context, r *gateway.SubmitRequest) error {
		f.cut()
		f.commit(peer.TxValidationCode_VALID, r.GetPreparedTransaction())
		f.cut()
		return nil
	}
	for want := uint64(1); want <= 3; want++ {
		if r, err := l.Submit(t.Context(), wire.FnIssue, nil); err != nil || r.Block != want {
			t.Errorf("%+v, %v", r, err)
		}
	}
}

func TestEvaluateErrors(t *testing.T) {
	f, l := startPeer(t)
	for _, c := range []struct {
		name   string
		answer *peer.ProposalResponse
		err    error
		class  error // nil: RejectedError
	}{
		{"the contract refuses", &peer.ProposalResponse{Payload: []byte("p"), Response: &peer.Response{Status: 500, Message: refusal.Message()}}, nil, nil},
		{"the chaincode refuses", &peer.ProposalResponse{Payload: []byte("p"), Response: &peer.Response{Status: 500, Message: "no"}}, nil, nil},
		{"the chaincode is away", &peer.ProposalResponse{Response: &peer.Response{Status: 500, Message: "could not launch chaincode"}}, nil, network.ErrUnavailable},
		{"the peer refuses", nil, status.Error(codes.Unknown, "access denied"), network.ErrUnavailable},
		{"an empty answer", &peer.ProposalResponse{}, nil, network.ErrUnavailable},
	} {
		f.answer = func(*peer.SignedProposal) (*peer.ProposalResponse, error) { return c.answer, c.err }
		_, err := l.Evaluate(t.Context(), wire.FnRead, nil)
		if c.class == nil && !network.IsRejected(err) || c.class != nil && !errors.Is(err, c.class) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestBlocksOfAPeerThatJoinedBySnapshot(t *testing.T) {
	f, l := startPeer(t)
	for range 5 {
		f.commit(peer.TxValidationCode_VALID)
	}
	f.mu.Lock()
	f.first = 3
	f.mu.Unlock()
	err := l.Blocks(t.Context(), 0, func(*network.Block) error { return nil })
	if !errors.Is(err, network.ErrUnavailable) || !strings.Contains(err.Error(), "snapshot") {
		t.Errorf("block 0: %v, want ErrUnavailable and a hint", err)
	}
	enough := errors.New("enough")
	if err := l.Blocks(t.Context(), 3, func(*network.Block) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("block 3: %v", err)
	}
}

func TestBlocksRefusesAnotherChain(t *testing.T) {
	f, l := startPeer(t)
	f.commit(peer.TxValidationCode_VALID)
	err := l.Blocks(t.Context(), 0, func(b *network.Block) error {
		if b.Number == 1 {
			f.mu.Lock()
			f.chain = append(f.chain[:0:0], newBlock(0, nil, nil, nil), newBlock(1, []byte("other"), nil, nil), newBlock(2, []byte("another"), nil, nil))
			f.mu.Unlock()
			f.cut()
		}
		return nil
	})
	if !errors.Is(err, network.ErrUnavailable) || !strings.Contains(err.Error(), "predecessor") {
		t.Errorf("%v, want ErrUnavailable about the chain", err)
	}
}
