package session_test

import (
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"google.golang.org/protobuf/proto"

	"github.com/certanchor/certanchor/internal/audit/served"
	"github.com/certanchor/certanchor/internal/audit/session"
	"github.com/certanchor/certanchor/network"
)

// recordedLedger serves what a Fabric 3.1.1 network of four organisations made (network/fabric/verify, TestRealChain).
type recordedLedger struct {
	network.Ledger // nil: what is not here must not be asked for
	blocks         []*common.Block
}

func (l *recordedLedger) Channel() string                        { return "certanchor" }
func (l *recordedLedger) Height(context.Context) (uint64, error) { return uint64(len(l.blocks)), nil }
func (l *recordedLedger) RawBlocks(ctx context.Context, from uint64, fn func(*common.Block) error) error {
	for _, b := range l.blocks[from:] {
		if err := errors.Join(ctx.Err(), fn(b)); err != nil {
			return err
		}
	}
	<-ctx.Done() // as one that waits for further blocks
	return ctx.Err()
}

// forgedBlock is where a majority of that network's organisations colluded: Fabric accepted a write that the contract does not make.
const forgedBlock = 33

func readRecorded(t *testing.T) (honest, whole *recordedLedger) {
	t.Helper()
	f, err := os.Open("../../../network/fabric/verify/testdata/chain.blocks.gz")
	must(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	must(t, err)
	all, err := io.ReadAll(z)
	must(t, err)
	l := &recordedLedger{}
	for len(all) > 0 {
		size, n := binary.Uvarint(all)
		b := &common.Block{}
		must(t, proto.Unmarshal(all[n:n+int(size)], b))
		l.blocks, all = append(l.blocks, b), all[n+int(size):]
	}
	return &recordedLedger{blocks: l.blocks[:forgedBlock]}, l
}

func TestWhatAColludingMajoritySignedIsFound(t *testing.T) {
	_, l := readRecorded(t)
	r, err := session.Run(t.Context(), session.Options{Ledger: l, Chaincode: "certanchor", Dir: t.TempDir(), Log: quiet()})
	must(t, err)
	finds(t, r, served.KindBlock, "block 33, transaction 0", "Read write forged", "not written, by the contract's rules")
	if r.Blocks != forgedBlock {
		t.Errorf("%+v", r)
	}
}

func TestFabricBlocksAreVerifiedAndExecuted(t *testing.T) {
	l, _ := readRecorded(t)
	o := session.Options{Ledger: l, Chaincode: "certanchor", Dir: t.TempDir(), Log: quiet()}
	whole, err := session.Run(t.Context(), o)
	must(t, err)
	agrees(t, whole)
	if whole.Engine != session.Fabric || whole.Blocks != uint64(len(l.blocks)) || whole.Certificates == 0 || whole.Endorsement == "" {
		t.Errorf("%+v", whole)
	}

	if n := whole.LoneWrites; n == nil || n.Approvals == 0 { // by which the contract's definition came about
		t.Errorf("lone writes: %+v", n)
	}

	// In parts, each continuing where the one before ended: the verifier was ahead of what was executed.
	o.Dir = t.TempDir()
	all := l.blocks
	for n := 1; n < len(all); n += 5 {
		l.blocks = all[:n]
		r, err := session.Run(t.Context(), o)
		must(t, err)
		agrees(t, r)
	}
	l.blocks = all
	rest, err := session.Run(t.Context(), o)
	must(t, err)
	agrees(t, rest)
	if rest.LastHash != whole.LastHash || rest.Txs != whole.Txs || *rest.LoneWrites != *whole.LoneWrites || len(rest.Logs) != len(whole.Logs) {
		t.Errorf("%+v, want %+v", rest, whole)
	}
	for i := range rest.Logs {
		if rest.Logs[i] != whole.Logs[i] {
			t.Errorf("%+v, want %+v", rest.Logs[i], whole.Logs[i])
		}
	}
}

func TestAFlippedBitInAnyFabricBlockIsFound(t *testing.T) {
	l, _ := readRecorded(t)
	o := session.Options{Chaincode: "certanchor", Dir: t.TempDir(), Log: quiet()} // the audit goes on from block to block
	for n, b := range l.blocks {
		if n == 0 {
			continue // below
		}
		o.Ledger = &recordedLedger{blocks: l.blocks[:n]}
		r, err := session.Run(t.Context(), o)
		must(t, err)
		agrees(t, r)
		bad := proto.Clone(b).(*common.Block)
		data := bad.Data.Data[len(bad.Data.Data)-1]
		data[len(data)/2] ^= 1
		o.Ledger = &recordedLedger{blocks: append(append([]*common.Block{}, l.blocks[:n]...), append([]*common.Block{bad}, l.blocks[n+1:]...)...)}
		r, err = session.Run(t.Context(), o)
		must(t, err)
		if d := finds(t, r, served.KindBlock); !strings.HasPrefix(d.Where, "block ") {
			t.Errorf("block %d: %s", n, d)
		}
	}
	first, err := session.GenesisHash(func() []byte { b, err := proto.Marshal(l.blocks[0]); must(t, err); return b }())
	must(t, err)
	for _, pin := range [][]byte{first, make([]byte, 32)} {
		r, err := session.Run(t.Context(), session.Options{Ledger: l, Chaincode: "certanchor", Dir: t.TempDir(), Genesis: pin, Log: quiet()})
		must(t, err)
		if same := pin[0] == first[0]; same != (len(r.Differences) == 0) || !r.GenesisPinned {
			t.Errorf("pinned %x: %v", pin, r.Differences)
		}
	}
}
