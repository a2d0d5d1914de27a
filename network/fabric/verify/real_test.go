package verify_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"

	"github.com/certanchor/certanchor/chaincode"
	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/audit"
	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/network/fabric"
	"github.com/certanchor/certanchor/network/fabric/verify"
	testnetwork "github.com/certanchor/certanchor/test-network"
	"github.com/certanchor/certanchor/test-network/nettest"
)

// realChain is a network, what a few dozen transactions made of its ledger, and the keys of its orderers.
type realChain struct {
	net      *testnetwork.Network
	blocks   []*common.Block
	orderers map[uint32]*party
	revoked  string // ID of the transaction that revoked a certificate
	honest   uint64 // blocks before the first hostile transaction
}

// TestRealChain verifies what a Fabric 3.1.1 network wrote, hostile transactions among it, from a peer of another organisation than
// those that submitted; and then what a hostile peer, or a hostile quorum of orderers, makes of it.
func TestRealChain(t *testing.T) {
	n := nettest.Start(t, testnetwork.Options{})
	c := &realChain{net: n, orderers: map[uint32]*party{}}
	for org := 1; org <= n.Orgs(); org++ {
		c.orderers[uint32(org)] = loadParty(t, testnetwork.OrdererMSPID(org), filepath.Join(n.Dir(), "orgs", testnetwork.OrgName(org), "orderer", "msp", "signcerts", "cert.pem"),
			filepath.Join(n.Dir(), "orgs", testnetwork.OrgName(org), "orderer", "msp", "keystore", "key.pem"))
	}
	c.transact(t)
	height, err := c.connect(t, 1, testnetwork.Auditor).Height(t.Context())
	must(t, err)
	c.honest = height
	hostile := c.misbehave(t)
	c.reconfigure(t)
	c.fetch(t)
	if *record {
		writeChain(t, c.blocks)
	}
	t.Run("EveryBlockVerifies", func(t *testing.T) { verifyChain(t, c.blocks, hostile) })
	t.Run("AuditFindsWhatAMajorityForged", c.testAudit)
	t.Run("ChangesAreFound", func(t *testing.T) { testMutations(t, c.blocks, c.orderers, c.revoked) })
}

func loadParty(t testing.TB, mspID, certFile, keyFile string) *party {
	t.Helper()
	certPEM, err := os.ReadFile(certFile)
	must(t, err)
	keyPEM, err := os.ReadFile(keyFile)
	must(t, err)
	certBlock, _ := pem.Decode(certPEM)
	cert, err := x509.ParseCertificate(certBlock.Bytes)
	must(t, err)
	keyBlock, _ := pem.Decode(keyPEM)
	key, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	must(t, err)
	return &party{msp: mspID, cert: cert, key: key.(*ecdsa.PrivateKey)}
}

func (c *realChain) connect(t testing.TB, org int, user string) *fabric.Ledger {
	t.Helper()
	l, err := fabric.Open(t.Context(), c.net.Connection(org, user), fabric.WithLogger(slog.New(slog.DiscardHandler)))
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	return l
}

// insist submits until it commits; the result is the receipt.
func insist(t testing.TB, l network.Ledger, function string, arg []byte) network.Receipt {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		r, err := l.Submit(ctx, function, arg)
		if err == nil {
			return r
		}
		if network.IsRejected(err) || ctx.Err() != nil {
			t.Fatalf("%s: %v", function, err)
		}
	}
}

// transact registers a CA, records certificates from several writers at once, so that some lose, and revokes one.
func (c *realChain) transact(t *testing.T) {
	ca := cctest.NewCA(t)
	for org := 1; org <= 3; org++ {
		insist(t, c.connect(t, org, testnetwork.Admin), wire.FnRegisterCA, ca.RegisterArg(testnetwork.MSPID(1)))
	}
	operator := c.connect(t, 1, testnetwork.Operator)
	nettest.Level(t, c.net, func() { insist(t, operator, wire.FnRead, cctest.ReadArg(wire.ConsortiumKey)) })
	der, cert := ca.Issue(t)
	insist(t, operator, wire.FnIssue, ca.IssueArg(der))
	var wg sync.WaitGroup
	lost := make(chan error, 100)
	for range 8 {
		ders := ca.IssueMany(t, 3)
		wg.Go(func() {
			for _, der := range ders {
				var conflict *network.ConflictError
				if _, err := operator.Submit(t.Context(), wire.FnIssue, ca.IssueArg(der)); errors.As(err, &conflict) && conflict.Block > 0 {
					lost <- err
				}
			}
		})
	}
	wg.Wait()
	if len(lost) == 0 {
		t.Error("nobody lost: there is no conflict in the chain")
	}
	c.revoked = insist(t, operator, wire.FnSetStatus, ca.StatusArg(wire.StatusChange{Serial: cctest.Serial(t, cert), Op: wire.OpRevoke, Reason: wire.KeyCompromise})).TxID
}

func configIn(t testing.TB, envelope []byte) *common.ConfigEnvelope {
	e := unmarshal(t, envelope, &common.Envelope{})
	return unmarshal(t, unmarshal(t, e.GetPayload(), &common.Payload{}).GetData(), &common.ConfigEnvelope{})
}

// fetch reads all blocks from the auditing organisation's peer, after one more transaction.
func (c *realChain) fetch(t *testing.T) {
	last := insist(t, c.connect(t, 2, testnetwork.Auditor), wire.FnTick, cctest.TickArg())
	done := errors.New("done")
	err := c.connect(t, 4, testnetwork.Auditor).RawBlocks(t.Context(), 0, func(b *common.Block) error {
		if c.blocks = append(c.blocks, b); b.GetHeader().GetNumber() == last.Block {
			return done
		}
		return nil
	})
	if !errors.Is(err, done) {
		t.Fatal(err)
	}
}

func newReal(t testing.TB, blocks []*common.Block) *verify.Verifier {
	t.Helper()
	v, err := verify.New(verify.Config{Channel: testnetwork.Channel, Chaincode: testnetwork.Chaincode, GenesisHash: hashOf(t, blocks[0])})
	must(t, err)
	return v
}

// verifyChain verifies blocks and looks for the hostile transactions among them.
func verifyChain(t *testing.T, blocks []*common.Block, hostile map[[sha256.Size]byte]peer.TxValidationCode) {
	v := newReal(t, blocks)
	begun, txs, codes := time.Now(), 0, map[string]int{}
	for _, b := range blocks {
		parsed, err := v.Block(b)
		must(t, err)
		for _, tx := range parsed.Txs {
			codes[tx.Code]++
			if tx.Valid && tx.Function == wire.FnIssue && tx.Role != wire.RoleOperator {
				t.Errorf("%s was submitted in the role %q", tx.ID, tx.Role)
			}
		}
		for i, raw := range b.GetData().GetData() {
			txs++
			sum := sha256.Sum256(unmarshal(t, raw, &common.Envelope{}).GetPayload())
			if want, ok := hostile[sum]; ok {
				delete(hostile, sum)
				if got := peer.TxValidationCode(b.GetMetadata().GetMetadata()[2][i]); got != want {
					t.Errorf("a peer flags a transaction %v, expected %v", got, want)
				}
			}
		}
	}
	took := time.Since(begun)
	says, found, err := v.EndorsementPolicy()
	must(t, err)
	t.Logf("%d blocks, %d transactions in %v (%v each); %v; endorsement: %s", len(blocks), txs, took.Round(time.Millisecond), (took / time.Duration(txs)).Round(time.Microsecond), codes, says)
	if !found || len(hostile) > 0 || codes["MVCC_READ_CONFLICT"] == 0 {
		t.Errorf("definition found: %v; hostile transactions that did not come: %v; %v", found, hostile, codes)
	}
}

// testAudit executes the verified chain again, opening audit and verifier anew after every few blocks. Fabric accepted what a colluding
// majority of endorsers signed; the rules do not.
func (c *realChain) testAudit(t *testing.T) {
	dir := t.TempDir()
	part := func(to uint64) error {
		a, err := audit.Open(audit.Options{Dir: dir, Channel: testnetwork.Channel, Consortium: chaincode.Config{MSPs: c.net.MSPIDs(), TickInterval: c.net.TickInterval()}})
		must(t, err)
		defer func() { must(t, a.Close()) }()
		v, err := verify.New(verify.Config{Channel: testnetwork.Channel, Chaincode: testnetwork.Chaincode, GenesisHash: hashOf(t, c.blocks[0]), Store: a.VerifierStore()})
		must(t, err)
		if v.Height() != a.Height() {
			t.Errorf("the verifier stands at %d, the audit at %d", v.Height(), a.Height())
		}
		return a.Run(t.Context(), v.Blocks(func(_ context.Context, from uint64, fn func(*common.Block) error) error {
			for _, b := range c.blocks[from:] {
				if err := fn(b); err != nil {
					return err
				}
			}
			return nil
		}), to)
	}
	for to := uint64(3); to < c.honest; to += 7 {
		must(t, part(to))
	}
	must(t, part(c.honest))
	var d *audit.Difference
	for range 2 { // and again
		if err := part(uint64(len(c.blocks))); !errors.As(err, &d) || d.Function != wire.FnRead || d.Field != "write forged" {
			t.Errorf("%v, want what the majority forged", err)
		}
	}
}
