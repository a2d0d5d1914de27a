package fabric

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"strconv"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/msp"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
)

// stream is either end of a chaincode stream.
type stream interface {
	Send(*peer.ChaincodeMessage) error
	Recv() (*peer.ChaincodeMessage, error)
}

// fakePeer speaks the peer's side of the chaincode protocol over a stream, with state in memory. One call at a time.
type fakePeer struct {
	stream   stream
	params   *peer.ChaincodeAdditionalParams
	state    map[string][]byte
	shorten  bool // answer GET_STATE_MULTIPLE with a value less
	beforeOp func()

	calls    int
	messages map[peer.ChaincodeMessage_Type]int
}

// pipe returns both ends of an in-process stream.
func pipe(ctx context.Context) (peerEnd, chaincodeEnd *pipeEnd) {
	a, b := make(chan *peer.ChaincodeMessage, 16), make(chan *peer.ChaincodeMessage, 16)
	return &pipeEnd{ctx, a, b}, &pipeEnd{ctx, b, a}
}

type pipeEnd struct {
	ctx context.Context
	in  <-chan *peer.ChaincodeMessage
	out chan<- *peer.ChaincodeMessage
}

func (p *pipeEnd) Send(m *peer.ChaincodeMessage) error {
	select {
	case p.out <- m:
		return nil
	case <-p.ctx.Done():
		return io.EOF
	}
}

func (p *pipeEnd) Recv() (*peer.ChaincodeMessage, error) {
	select {
	case m := <-p.in:
		return m, nil
	case <-p.ctx.Done():
		return nil, io.EOF
	}
}

func (p *pipeEnd) CloseSend() error { return nil }

// shake does the handshake.
func (p *fakePeer) shake(t testing.TB) {
	t.Helper()
	p.messages = make(map[peer.ChaincodeMessage_Type]int)
	if p.state == nil {
		p.state = make(map[string][]byte)
	}
	m, err := p.stream.Recv()
	if err != nil || m.GetType() != peer.ChaincodeMessage_REGISTER {
		t.Fatalf("chaincode did not register: %v, %v", m.GetType(), err)
	}
	params := marshal(t, p.params)
	for _, m := range []*peer.ChaincodeMessage{
		{Type: peer.ChaincodeMessage_REGISTERED}, {Type: peer.ChaincodeMessage_READY, Payload: params},
	} {
		if err := p.stream.Send(m); err != nil {
			t.Fatal(err)
		}
	}
}

// invoke executes a transaction and returns the chaincode's response and its writes, which are applied when it succeeds.
func (p *fakePeer) invoke(t testing.TB, creator []byte, at *timestamppb.Timestamp, args ...[]byte) *peer.Response {
	t.Helper()
	p.calls++
	txID := "tx" + strconv.Itoa(p.calls)
	header := marshal(t, &common.Header{
		ChannelHeader:   marshal(t, &common.ChannelHeader{Type: int32(common.HeaderType_ENDORSER_TRANSACTION), TxId: txID, Timestamp: at}),
		SignatureHeader: marshal(t, &common.SignatureHeader{Creator: creator, Nonce: []byte(txID)}),
	})
	err := p.stream.Send(&peer.ChaincodeMessage{
		Type: peer.ChaincodeMessage_TRANSACTION, Txid: txID, ChannelId: "ch",
		Payload:  marshal(t, &peer.ChaincodeInput{Args: args}),
		Proposal: &peer.SignedProposal{ProposalBytes: marshal(t, &peer.Proposal{Header: header})},
	})
	if err != nil {
		t.Fatal(err)
	}
	writes := make(map[string][]byte)
	for {
		m, err := p.stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		p.messages[m.GetType()]++
		if m.GetType() == peer.ChaincodeMessage_COMPLETED {
			var r peer.Response
			unmarshal(t, m.GetPayload(), &r)
			if r.GetStatus() == 200 {
				p.apply(writes)
			}
			return &r
		}
		if p.beforeOp != nil {
			p.beforeOp()
		}
		answer := &peer.ChaincodeMessage{Type: peer.ChaincodeMessage_RESPONSE, Txid: txID, ChannelId: "ch", Payload: p.answer(t, m, writes)}
		if err := p.stream.Send(answer); err != nil {
			t.Fatal(err)
		}
	}
}

// answer does what one message of the chaincode asks for.
func (p *fakePeer) answer(t testing.TB, m *peer.ChaincodeMessage, writes map[string][]byte) []byte {
	t.Helper()
	switch m.GetType() {
	case peer.ChaincodeMessage_GET_STATE:
		var op peer.GetState
		unmarshal(t, m.GetPayload(), &op)
		return p.state[op.GetKey()]
	case peer.ChaincodeMessage_GET_STATE_MULTIPLE:
		var op peer.GetStateMultiple
		unmarshal(t, m.GetPayload(), &op)
		var values [][]byte
		for _, key := range op.GetKeys() {
			values = append(values, p.state[key])
		}
		if p.shorten {
			values = values[1:]
		}
		return marshal(t, &peer.GetStateMultipleResult{Values: values})
	case peer.ChaincodeMessage_PUT_STATE:
		var op peer.PutState
		unmarshal(t, m.GetPayload(), &op)
		writes[op.GetKey()] = op.GetValue()
	case peer.ChaincodeMessage_DEL_STATE:
		var op peer.DelState
		unmarshal(t, m.GetPayload(), &op)
		writes[op.GetKey()] = nil
	case peer.ChaincodeMessage_WRITE_BATCH_STATE:
		var op peer.WriteBatchState
		unmarshal(t, m.GetPayload(), &op)
		for _, r := range op.GetRec() {
			writes[r.GetKey()] = r.GetValue()
		}
	default:
		t.Fatalf("chaincode sent %v: %s", m.GetType(), m.GetPayload())
	}
	return nil
}

func (p *fakePeer) apply(writes map[string][]byte) {
	for key, value := range writes {
		if value == nil {
			delete(p.state, key)
		} else {
			p.state[key] = value
		}
	}
}

// identity makes a serialized identity, with role as its attribute unless it is empty.
func identity(t testing.TB, mspID, role string) []byte {
	t.Helper()
	der, _ := cctest.NewCA(t).Issue(t, func(c *x509.Certificate) {
		if role == "" {
			return
		}
		value, err := json.Marshal(map[string]any{"attrs": map[string]string{wire.RoleAttribute: role}})
		if err != nil {
			t.Fatal(err)
		}
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4, 5, 6, 7, 8, 1}, Value: value}}
	})
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return marshal(t, &msp.SerializedIdentity{Mspid: mspID, IdBytes: cert})
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func unmarshal(t testing.TB, b []byte, m proto.Message) {
	t.Helper()
	if err := proto.Unmarshal(b, m); err != nil {
		t.Fatal(err)
	}
}

func at(tm time.Time) *timestamppb.Timestamp { return timestamppb.New(tm) }

// refusalOf returns the refusal that a response carries.
func refusalOf(t testing.TB, r *peer.Response) *wire.Error {
	t.Helper()
	if r.GetStatus() < 400 {
		t.Fatalf("status %d, want a refusal", r.GetStatus())
	}
	e, ok := wire.ParseMessage(fmt.Sprintf("error in simulation: transaction returned with failure: %s", r.GetMessage()))
	if !ok {
		t.Fatalf("%q carries no refusal", r.GetMessage())
	}
	return e
}
