package failover_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"

	"github.com/certanchor/certanchor/network/fabric"
	"github.com/certanchor/certanchor/network/fabric/failover"
)

const (
	channel   = "certanchor"
	chaincode = "certanchor"
)

// fakePeer serves a chain as a test tells it to.
type fakePeer struct {
	peer.UnimplementedEndorserServer
	peer.UnimplementedDeliverServer

	t       testing.TB
	address string
	tlsCA   string

	mu      sync.Mutex
	changed chan struct{}                                // closed and replaced at every change; guarded by mu
	chain   []*common.Block                              // guarded by mu
	waiting int                                          // questions for the height that found it frozen; guarded by mu
	frozen  bool                                         // answers nothing; guarded by mu
	claims  uint64                                       // height that it claims; 0: the true one; guarded by mu
	sends   func(*common.Block) ([]*common.Block, error) // what goes out for a block; nil: the block; guarded by mu
}

func startPeer(t testing.TB, chain []*common.Block) *fakePeer {
	t.Helper()
	f := &fakePeer{t: t, chain: chain, changed: make(chan struct{}), tlsCA: filepath.Join(t.TempDir(), "tls.pem")}
	key, certPEM, _ := selfSigned(t)
	must(t, os.WriteFile(f.tlsCA, certPEM, 0o600))
	block, _ := pem.Decode(certPEM)
	server := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: key})))
	peer.RegisterEndorserServer(server, f)
	peer.RegisterDeliverServer(server, f)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	f.address = l.Addr().String()
	go func() { _ = server.Serve(l) }() // ends at Stop
	t.Cleanup(server.Stop)
	return f
}

// change does something to the peer and wakes its streams.
func (f *fakePeer) change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *fakePeer) grow(chain []*common.Block) { f.change(func() { f.chain = chain }) }
func (f *fakePeer) freeze()                    { f.change(func() { f.frozen = true }) }
func (f *fakePeer) thaw()                      { f.change(func() { f.frozen = false }) }

// ProcessProposal is asked for the height and nothing else.
func (f *fakePeer) ProcessProposal(ctx context.Context, _ *peer.SignedProposal) (*peer.ProposalResponse, error) {
	for {
		f.mu.Lock()
		changed, frozen, height := f.changed, f.frozen, uint64(len(f.chain))
		if f.claims > 0 {
			height = f.claims
		}
		f.mu.Unlock()
		if !frozen {
			info, err := proto.Marshal(&common.BlockchainInfo{Height: height})
			return &peer.ProposalResponse{Response: &peer.Response{Status: 200, Payload: info}}, err
		}
		f.mu.Lock()
		f.waiting++
		f.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Deliver is the deliver service's.
func (f *fakePeer) Deliver(s grpc.BidiStreamingServer[common.Envelope, peer.DeliverResponse]) error {
	request, err := s.Recv()
	if err != nil {
		return err
	}
	var payload common.Payload
	var seek orderer.SeekInfo
	must(f.t, proto.Unmarshal(request.GetPayload(), &payload))
	must(f.t, proto.Unmarshal(payload.GetData(), &seek))
	for next := seek.GetStart().GetSpecified().GetNumber(); ; {
		f.mu.Lock()
		changed, sends := f.changed, f.sends
		var out []*common.Block
		if !f.frozen && next < uint64(len(f.chain)) {
			out = []*common.Block{f.chain[next]}
		}
		f.mu.Unlock()
		if len(out) == 0 {
			select {
			case <-changed:
				continue
			case <-s.Context().Done():
				return s.Context().Err()
			}
		}
		var end error
		if sends != nil {
			out, end = sends(out[0])
		}
		for _, b := range out {
			if err := s.Send(&peer.DeliverResponse{Type: &peer.DeliverResponse_Block{Block: b}}); err != nil {
				return err
			}
		}
		if end != nil {
			return end
		}
		next++
	}
}

// connection is what an organisation has.
type connection struct {
	cfg fabric.Config
	dir string
}

func connectionTo(t testing.TB, own *fakePeer, foreign ...*fakePeer) *connection {
	t.Helper()
	dir := t.TempDir()
	_, certPEM, keyPEM := selfSigned(t)
	must(t, os.WriteFile(filepath.Join(dir, "cert.pem"), certPEM, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "key.pem"), keyPEM, 0o600))
	c := &connection{dir: filepath.Join(dir, "verified"), cfg: fabric.Config{
		Endpoint: own.address, TLSCA: own.tlsCA, MSPID: "Org1MSP", Channel: channel, Chaincode: chaincode,
		Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), FallbackAfter: time.Second,
	}}
	for i, f := range foreign {
		c.cfg.FallbackPeers = append(c.cfg.FallbackPeers, fabric.FallbackPeer{MSPID: []string{"Org2MSP", "Org3MSP"}[i], Endpoint: f.address, TLSCA: f.tlsCA})
	}
	return c
}

func (c *connection) open(t testing.TB) *failover.Ledger {
	t.Helper()
	return c.openLogging(t, slog.New(slog.DiscardHandler))
}

func (c *connection) openLogging(t testing.TB, log *slog.Logger) *failover.Ledger {
	t.Helper()
	l, err := failover.Open(t.Context(), c.cfg, c.dir, log)
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	return l
}

// refusals is a log that keeps the errors of blocks that were refused.
type refusals struct {
	slog.Handler

	mu   sync.Mutex
	seen []*failover.RefusedError // guarded by mu
}

func (h *refusals) Enabled(context.Context, slog.Level) bool { return true }
func (h *refusals) WithAttrs([]slog.Attr) slog.Handler       { return h }

func (h *refusals) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		var refused *failover.RefusedError
		if err, ok := a.Value.Any().(error); ok && errors.As(err, &refused) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.seen = append(h.seen, refused)
		}
		return true
	})
	return nil
}

// recordedChain is of a Fabric 3.1.1 network: see network/fabric/verify, TestRealChain.
func recordedChain(t testing.TB) []*common.Block {
	t.Helper()
	f, err := os.Open(filepath.Join("..", "verify", "testdata", "chain.blocks.gz"))
	must(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	must(t, err)
	all, err := io.ReadAll(z)
	must(t, err)
	var blocks []*common.Block
	for len(all) > 0 {
		size, n := binary.Uvarint(all)
		b := &common.Block{}
		must(t, proto.Unmarshal(all[n:n+int(size)], b))
		blocks, all = append(blocks, b), all[n+int(size):]
	}
	return blocks
}

// flipped is a block in which one transaction has another flag.
func flipped(b *common.Block, tx int, flag peer.TxValidationCode) *common.Block {
	b = proto.Clone(b).(*common.Block)
	filter := bytes.Clone(b.Metadata.Metadata[common.BlockMetadataIndex_TRANSACTIONS_FILTER])
	filter[tx] = byte(flag)
	b.Metadata.Metadata[common.BlockMetadataIndex_TRANSACTIONS_FILTER] = filter
	return b
}

func selfSigned(t testing.TB) (key *ecdsa.PrivateKey, certPEM, keyPEM []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "peer"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	return key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
