package fabric

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/gateway"
	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/rwset"
	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/rwset/kvrwset"
	"github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// fakePeer answers as a test tells it to, and serves the chain that the test builds.
type fakePeer struct {
	gateway.UnimplementedGatewayServer
	peer.UnimplementedEndorserServer
	peer.UnimplementedDeliverServer

	t       *testing.T
	endorse func(context.Context, *gateway.EndorseRequest) (*gateway.EndorseResponse, error)
	submit  func(context.Context, *gateway.SubmitRequest) error
	answer  func(*peer.SignedProposal) (*peer.ProposalResponse, error) // to anything but qscc

	mu     sync.Mutex
	chain  []*common.Block // guarded by mu
	first  uint64          // blocks below it are not served; guarded by mu
	grown  chan struct{}   // closed and replaced when chain changes; guarded by mu
	hangUp chan struct{}   // closed and replaced to end all streams; guarded by mu
}

// startPeer runs a fake peer with a genesis block and opens a connection to it.
func startPeer(t *testing.T) (*fakePeer, *Ledger) {
	t.Helper()
	dir := t.TempDir()
	key, certPEM, keyPEM := selfSigned(t)
	for name, content := range map[string][]byte{"cert.pem": certPEM, "key.pem": keyPEM} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f := &fakePeer{t: t, grown: make(chan struct{}), hangUp: make(chan struct{})}
	f.endorse = func(_ context.Context, r *gateway.EndorseRequest) (*gateway.EndorseResponse, error) {
		return &gateway.EndorseResponse{PreparedTransaction: envelopeOf(t, r.GetProposedTransaction(), "cc", nil)}, nil
	}
	f.submit = func(_ context.Context, r *gateway.SubmitRequest) error {
		f.commit(peer.TxValidationCode_VALID, r.GetPreparedTransaction())
		return nil
	}
	f.answer = func(*peer.SignedProposal) (*peer.ProposalResponse, error) {
		// No consortium yet, so that the gateway picks the endorsers.
		nothing := wire.Encode(&wire.ReadResult{V: wire.Version, Values: [][]byte{nil}})
		return &peer.ProposalResponse{Response: &peer.Response{Status: 200, Payload: nothing}}, nil
	}
	f.commit(peer.TxValidationCode_VALID)
	block, _ := pem.Decode(certPEM)
	server := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: key})))
	gateway.RegisterGatewayServer(server, f)
	peer.RegisterEndorserServer(server, f)
	peer.RegisterDeliverServer(server, f)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(l) }() // ends at Stop
	t.Cleanup(server.Stop)

	ledger, err := Open(t.Context(), Config{
		Endpoint: l.Addr().String(), TLSCA: filepath.Join(dir, "cert.pem"), MSPID: "Org1MSP",
		Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), Channel: "ch", Chaincode: "cc",
	}, WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ledger.Close(); err != nil {
			t.Error(err)
		}
	})
	return f, ledger
}

func selfSigned(t *testing.T) (key *ecdsa.PrivateKey, certPEM, keyPEM []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "peer"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

// commit appends a block of envelopes, all with one validation code.
func (f *fakePeer) commit(code peer.TxValidationCode, envelopes ...*common.Envelope) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var prev []byte
	if n := len(f.chain); n > 0 {
		var err error
		if prev, err = headerHash(f.chain[n-1].GetHeader()); err != nil {
			f.t.Error(err)
		}
	}
	var data, flags [][]byte
	for _, e := range envelopes {
		data, flags = append(data, marshal(f.t, e)), append(flags, []byte{byte(code)})
	}
	f.chain = append(f.chain, newBlock(uint64(len(f.chain)), prev, data, bytes.Join(flags, nil)))
	close(f.grown)
	f.grown = make(chan struct{})
}

func newBlock(number uint64, prev []byte, data [][]byte, flags []byte) *common.Block {
	sum := sha256.Sum256(bytes.Join(data, nil))
	return &common.Block{
		Header:   &common.BlockHeader{Number: number, PreviousHash: prev, DataHash: sum[:]},
		Data:     &common.BlockData{Data: data},
		Metadata: &common.BlockMetadata{Metadata: [][]byte{nil, nil, flags}},
	}
}

// cut ends all streams.
func (f *fakePeer) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.hangUp)
	f.hangUp = make(chan struct{})
}

// Endorse is the gateway's.
func (f *fakePeer) Endorse(ctx context.Context, r *gateway.EndorseRequest) (*gateway.EndorseResponse, error) {
	return f.endorse(ctx, r)
}

// Submit is the gateway's.
func (f *fakePeer) Submit(ctx context.Context, r *gateway.SubmitRequest) (*gateway.SubmitResponse, error) {
	return &gateway.SubmitResponse{}, f.submit(ctx, r)
}

// ProcessProposal is the endorser's. qscc is asked for the height.
func (f *fakePeer) ProcessProposal(_ context.Context, p *peer.SignedProposal) (*peer.ProposalResponse, error) {
	if !bytes.Contains(p.GetProposalBytes(), []byte("qscc")) {
		return f.answer(p)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	info := marshal(f.t, &common.BlockchainInfo{Height: uint64(len(f.chain))})
	return &peer.ProposalResponse{Response: &peer.Response{Status: 200, Payload: info}}, nil
}

// Deliver is the deliver service's.
func (f *fakePeer) Deliver(s grpc.BidiStreamingServer[common.Envelope, peer.DeliverResponse]) error {
	return f.deliver(s, func(b *common.Block) *peer.DeliverResponse {
		return &peer.DeliverResponse{Type: &peer.DeliverResponse_Block{Block: b}}
	})
}

// DeliverFiltered is the deliver service's.
func (f *fakePeer) DeliverFiltered(s grpc.BidiStreamingServer[common.Envelope, peer.DeliverResponse]) error {
	return f.deliver(s, func(b *common.Block) *peer.DeliverResponse {
		filtered := &peer.FilteredBlock{ChannelId: "ch", Number: b.GetHeader().GetNumber()}
		for i, data := range b.GetData().GetData() {
			tx, err := parseTx(data, "cc")
			if err != nil {
				f.t.Error(err)
				continue
			}
			filtered.FilteredTransactions = append(filtered.FilteredTransactions, &peer.FilteredTransaction{
				Txid: tx.ID, TxValidationCode: peer.TxValidationCode(b.GetMetadata().GetMetadata()[2][i]),
			})
		}
		return &peer.DeliverResponse{Type: &peer.DeliverResponse_FilteredBlock{FilteredBlock: filtered}}
	})
}

// deliver does what Fabric's deliver service does, as far as the client can tell.
func (f *fakePeer) deliver(s grpc.BidiStreamingServer[common.Envelope, peer.DeliverResponse], form func(*common.Block) *peer.DeliverResponse) error {
	request, err := s.Recv()
	if err != nil {
		return err
	}
	next := startOf(f.t, request)
	f.mu.Lock()
	hangUp, height, first := f.hangUp, uint64(len(f.chain)), f.first
	f.mu.Unlock()
	if next > height || next < first {
		return s.Send(&peer.DeliverResponse{Type: &peer.DeliverResponse_Status{Status: common.Status_NOT_FOUND}})
	}
	for {
		f.mu.Lock()
		grown := f.grown
		var block *common.Block
		if next < uint64(len(f.chain)) {
			block = f.chain[next]
		}
		f.mu.Unlock()
		if block != nil {
			if err := s.Send(form(block)); err != nil {
				return err
			}
			next++
			continue
		}
		select {
		case <-grown:
		case <-hangUp:
			return net.ErrClosed
		case <-s.Context().Done():
			return s.Context().Err()
		}
	}
}

func startOf(t *testing.T, request *common.Envelope) uint64 {
	t.Helper()
	var (
		payload common.Payload
		seek    orderer.SeekInfo
	)
	for _, err := range []error{proto.Unmarshal(request.GetPayload(), &payload), proto.Unmarshal(payload.GetData(), &seek)} {
		if err != nil {
			t.Error(err)
		}
	}
	return seek.GetStart().GetSpecified().GetNumber()
}

// envelopeOf makes the envelope that a gateway makes of an endorsed proposal: the answer is "answer", and chaincode writes.
func envelopeOf(t *testing.T, proposal *peer.SignedProposal, chaincode string, writes []*kvrwset.KVWrite) *common.Envelope {
	t.Helper()
	var (
		p      peer.Proposal
		header common.Header
	)
	for _, err := range []error{proto.Unmarshal(proposal.GetProposalBytes(), &p), proto.Unmarshal(p.GetHeader(), &header)} {
		if err != nil {
			t.Error(err)
		}
	}
	action := &peer.ChaincodeAction{
		Response: &peer.Response{Status: 200, Payload: []byte("answer")},
		Results: marshal(t, &rwset.TxReadWriteSet{NsRwset: []*rwset.NsReadWriteSet{
			{Namespace: "_lifecycle", Rwset: marshal(t, &kvrwset.KVRWSet{})},
			{Namespace: chaincode, Rwset: marshal(t, &kvrwset.KVRWSet{Writes: writes})},
		}}),
	}
	tx := &peer.Transaction{Actions: []*peer.TransactionAction{{
		Header: header.GetSignatureHeader(),
		Payload: marshal(t, &peer.ChaincodeActionPayload{
			ChaincodeProposalPayload: p.GetPayload(),
			Action: &peer.ChaincodeEndorsedAction{
				ProposalResponsePayload: marshal(t, &peer.ProposalResponsePayload{Extension: marshal(t, action)}),
			},
		}),
	}}}
	return &common.Envelope{Payload: marshal(t, &common.Payload{Header: &header, Data: marshal(t, tx)})}
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
