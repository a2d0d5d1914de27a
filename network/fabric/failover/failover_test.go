package failover_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/protobuf/proto"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/network/fabric"
	"github.com/certanchor/certanchor/network/fabric/failover"
	"github.com/certanchor/certanchor/network/fabric/verify"
)

const patience = 30 * time.Second

// reader collects what Blocks gives.
type reader struct {
	t testing.TB

	mu     sync.Mutex
	grown  chan struct{}
	blocks []*network.Block
	ended  chan error
}

func read(t testing.TB, l *failover.Ledger, from uint64) *reader {
	r := &reader{t: t, grown: make(chan struct{}, 1), ended: make(chan error, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.ended <- l.Blocks(ctx, from, func(b *network.Block) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.blocks = append(r.blocks, b)
			return nil
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	return r
}

func (r *reader) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.blocks)
}

// awaitAll returns when as many blocks came as the chain has, and compares them with it.
func (r *reader) awaitAll(chain []*common.Block) {
	r.t.Helper()
	eventually(r.t, func() bool { return r.count() >= len(chain) })
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, raw := range chain {
		want, err := fabric.ParseBlock(raw, chaincode)
		must(r.t, err)
		if !reflect.DeepEqual(r.blocks[i], want) {
			r.t.Fatalf("block %d of the stream differs from that of the chain", i)
		}
	}
}

func eventually(t testing.TB, true func() bool) {
	t.Helper()
	for deadline := time.After(patience); !true(); {
		select {
		case <-deadline:
			t.Fatalf("not within %v", patience)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// find returns the newest block with a contract transaction that matches, and the transaction's place.
func find(t testing.TB, chain []*common.Block, matches func(*network.Tx) bool) (block, tx int) {
	t.Helper()
	for i := len(chain) - 1; i >= 0; i-- {
		b, err := fabric.ParseBlock(chain[i], chaincode)
		must(t, err)
		for j := range b.Txs {
			if matches(&b.Txs[j]) {
				return i, b.Txs[j].Index
			}
		}
	}
	t.Fatal("the recorded chain has none")
	return 0, 0
}

func revocation(tx *network.Tx) bool { return tx.Valid && tx.Function == wire.FnSetStatus }
func conflict(tx *network.Tx) bool   { return !tx.Valid && tx.Code == "MVCC_READ_CONFLICT" }

func TestVerifiedBlocksOfAnotherPeerWhileTheOwnIsAwayAndBackAgain(t *testing.T) {
	chain := recordedChain(t)
	k := len(chain) / 2
	own, foreign := startPeer(t, chain[:k]), startPeer(t, chain[:k])
	l := connectionTo(t, own, foreign).open(t)
	r := read(t, l, 0)
	r.awaitAll(chain[:k])
	eventually(t, func() bool { return l.State().Verified == uint64(k) })

	own.freeze()
	foreign.grow(chain[:len(chain)-1])
	r.awaitAll(chain[:len(chain)-1])
	if s := l.State(); !s.Abroad || s.Peers[0].Passed == 0 || s.Peers[0].Refused != 0 {
		t.Errorf("state while the own peer is away: %+v", s)
	}
	foreign.change(func() { foreign.claims = 1 << 40 })
	if h, err := l.Height(t.Context()); err != nil || h != uint64(len(chain)-1) {
		t.Errorf("height %d, %v: want the %d blocks that were verified, whatever is claimed", h, err, len(chain)-1)
	}

	passed := l.State().Peers[0].Passed
	own.grow(chain[:len(chain)-1])
	own.thaw()
	eventually(t, func() bool { return !l.State().Abroad })
	own.grow(chain)
	r.awaitAll(chain)
	if got := l.State().Peers[0].Passed; got != passed {
		t.Errorf("%d blocks came from the other peer after the own one was back", got-passed)
	}
}

// A stream that breaks in whatever way: nothing is missing, doubled or out of order.
func TestForeignStreamThatIsCutDelayedOrDuplicated(t *testing.T) {
	chain := recordedChain(t)
	k := len(chain) / 2
	cut := errors.New("cut")
	for name, sends := range map[string]func(*common.Block) ([]*common.Block, error){
		"cut after each block":       func(b *common.Block) ([]*common.Block, error) { return []*common.Block{b}, cut },
		"each block twice":           func(b *common.Block) ([]*common.Block, error) { return []*common.Block{b, b}, nil },
		"the first block after each": func(b *common.Block) ([]*common.Block, error) { return []*common.Block{b, chain[0]}, nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			own, foreign := startPeer(t, chain[:k]), startPeer(t, chain[:k+8])
			foreign.sends = sends
			l := connectionTo(t, own, foreign).open(t)
			r := read(t, l, 0)
			r.awaitAll(chain[:k])
			own.freeze()
			r.awaitAll(chain[:k+8])
		})
	}
	t.Run("delayed", func(t *testing.T) {
		t.Parallel()
		own, foreign := startPeer(t, chain[:k]), startPeer(t, chain[:k])
		l := connectionTo(t, own, foreign).open(t)
		r := read(t, l, 0)
		r.awaitAll(chain[:k])
		own.freeze()
		eventually(t, func() bool { return l.State().Abroad })
		if n := r.count(); n != k {
			t.Errorf("%d blocks, want %d: nobody has more", n, k)
		}
		for n := k + 1; n <= k+8; n++ {
			foreign.grow(chain[:n])
			r.awaitAll(chain[:n])
		}
	})
}

func TestPeerThatLiesIsRefusedAndAnotherOneHelps(t *testing.T) {
	chain := recordedChain(t)
	hidden, hiddenTx := find(t, chain, revocation)
	made, madeTx := find(t, chain, conflict)
	for _, c := range []struct {
		name    string
		at      int
		lie     func(*common.Block) []*common.Block
		refused bool
	}{
		{"a revocation that it marks invalid", hidden, func(b *common.Block) []*common.Block {
			return []*common.Block{flipped(b, hiddenTx, peer.TxValidationCode_MVCC_READ_CONFLICT)}
		}, true},
		{"an invalid transaction that it marks valid", made, func(b *common.Block) []*common.Block {
			return []*common.Block{flipped(b, madeTx, peer.TxValidationCode_VALID)}
		}, true},
		{"a block without orderers' signatures", hidden, func(b *common.Block) []*common.Block {
			b = proto.Clone(b).(*common.Block)
			b.Metadata.Metadata[common.BlockMetadataIndex_SIGNATURES] = nil
			return []*common.Block{b}
		}, true},
		{"a transaction that it leaves out", hidden, func(b *common.Block) []*common.Block {
			b = proto.Clone(b).(*common.Block)
			b.Data.Data = b.Data.Data[:hiddenTx]
			return []*common.Block{b}
		}, true},
		{"a block that it drops", hidden, func(*common.Block) []*common.Block { return nil }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			own, hostile, honest := startPeer(t, chain[:c.at]), startPeer(t, chain[:min(c.at+4, len(chain))]), startPeer(t, chain[:c.at])
			hostile.sends = func(b *common.Block) ([]*common.Block, error) {
				if b.GetHeader().GetNumber() == uint64(c.at) {
					return c.lie(b), nil
				}
				return []*common.Block{b}, nil
			}
			log := &refusals{Handler: slog.DiscardHandler}
			l := connectionTo(t, own, hostile, honest).openLogging(t, slog.New(log))
			r := read(t, l, 0)
			r.awaitAll(chain[:c.at])
			own.freeze()
			eventually(t, func() bool { return l.State().Abroad && (!c.refused || l.State().Peers[0].Refused > 1) })
			if n := r.count(); n != c.at {
				t.Fatalf("%d blocks came, want %d: the next one is a lie", n, c.at)
			}
			if h, err := l.Height(t.Context()); err != nil || h != uint64(c.at) {
				t.Errorf("height %d, %v, want %d", h, err, c.at)
			}
			honest.grow(chain)
			r.awaitAll(chain)
			checkRefusals(t, log, c.refused, c.at, hostile)
			if s := l.State(); s.Peers[1].Passed == 0 || s.Peers[1].Refused != 0 {
				t.Errorf("the honest peer: %+v", s.Peers[1])
			}
		})
	}
}

// checkRefusals: the log names the peer and what is wrong, and nobody else.
func checkRefusals(t *testing.T, log *refusals, want bool, block int, hostile *fakePeer) {
	t.Helper()
	log.mu.Lock()
	defer log.mu.Unlock()
	if want != (len(log.seen) > 0) {
		t.Errorf("%d refusals in the log", len(log.seen))
	}
	for _, e := range log.seen {
		var wrong *verify.Error
		if !errors.Is(e, failover.ErrRefused) || e.MSPID != "Org2MSP" || e.Peer != hostile.address || !errors.As(e, &wrong) || wrong.Block != uint64(block) {
			t.Errorf("refused: %v", e)
		}
	}
}

// It answers, but has lost its orderers: nobody would notice but by the blocks that do not come.
func TestOwnPeerThatAnswersButGetsNoBlocksIsAway(t *testing.T) {
	chain := recordedChain(t)
	k := len(chain) - 5
	own, foreign := startPeer(t, chain[:k]), startPeer(t, chain[:k])
	l := connectionTo(t, own, foreign).open(t)
	r := read(t, l, 0)
	r.awaitAll(chain[:k])
	foreign.grow(chain)
	r.awaitAll(chain)
	if h, err := l.Height(t.Context()); err != nil || h != uint64(len(chain)) {
		t.Errorf("height %d, %v, want %d", h, err, len(chain))
	}
	own.grow(chain)
	eventually(t, func() bool { return !l.State().Abroad })
}

// The bridge has applied the blocks, but the verifier's state is gone, or was never there: it is built from the first block on, and
// what was let through before is compared and not believed.
func TestStateIsBuiltFromOtherPeersWhenItIsNotThere(t *testing.T) {
	chain := recordedChain(t)
	own, foreign := startPeer(t, chain), startPeer(t, chain)
	own.freeze()
	c := connectionTo(t, own, foreign)
	c.cfg.GenesisBlock = filepath.Join(t.TempDir(), "genesis.block")
	encoded, err := proto.Marshal(chain[0])
	must(t, err)
	must(t, os.WriteFile(c.cfg.GenesisBlock, encoded, 0o600))
	l := c.open(t)
	k := len(chain) - 3
	r := read(t, l, uint64(k))
	eventually(t, func() bool { return r.count() == 3 })
	for i, b := range r.blocks {
		if b.Number != uint64(k+i) {
			t.Errorf("block %d came as number %d", b.Number, i)
		}
	}
	must(t, l.Close())

	// Another process has the state: it needs no block again but those that are wanted, and holds them against it.
	hidden, tx := find(t, chain, revocation)
	again := c.open(t)
	if n := again.State().Verified; n != uint64(len(chain)) {
		t.Fatalf("%d blocks are verified after a restart, want %d", n, len(chain))
	}
	foreign.change(func() {
		foreign.sends = func(b *common.Block) ([]*common.Block, error) {
			if b.GetHeader().GetNumber() == uint64(hidden) {
				b = flipped(b, tx, peer.TxValidationCode_MVCC_READ_CONFLICT)
			}
			return []*common.Block{b}, nil
		}
	})
	old := read(t, again, uint64(hidden-1))
	// The lie may be refused before the reader has taken the block before it.
	eventually(t, func() bool { return again.State().Peers[0].Refused > 0 && old.count() > 0 })
	if n := old.count(); n != 1 {
		t.Errorf("%d blocks came, want the one before the lie", n)
	}
	if h, err := again.Height(t.Context()); err != nil || h != uint64(len(chain)) {
		t.Errorf("height %d, %v, want %d: what was verified before the restart is not given up", h, err, len(chain))
	}
}

func TestNothingIsTakenBeforeTheFirstBlockIsKnown(t *testing.T) {
	chain := recordedChain(t)
	own, foreign := startPeer(t, chain), startPeer(t, chain)
	own.freeze()
	l := connectionTo(t, own, foreign).open(t)
	r := read(t, l, 0)
	eventually(t, func() bool { return l.State().Abroad })
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if h, err := l.Height(ctx); !errors.Is(err, network.ErrUnavailable) {
		t.Errorf("height %d, %v, want unavailable", h, err)
	}
	if n := r.count(); n != 0 {
		t.Errorf("%d blocks came from a peer that nobody can check", n)
	}
	own.thaw()
	r.awaitAll(chain)
	eventually(t, func() bool { return l.State().Verified == uint64(len(chain)) })
}

// Verified blocks and the own peer's must be the same: otherwise nothing may be answered any more.
func TestOwnPeerThatComesBackWithOtherFlagsStopsTheStream(t *testing.T) {
	chain := recordedChain(t)
	hidden, tx := find(t, chain, revocation)
	own, foreign := startPeer(t, chain[:hidden]), startPeer(t, chain)
	l := connectionTo(t, own, foreign).open(t)
	r := read(t, l, 0)
	r.awaitAll(chain[:hidden])
	own.freeze()
	r.awaitAll(chain)
	other := append([]*common.Block(nil), chain...)
	other[hidden] = flipped(chain[hidden], tx, peer.TxValidationCode_MVCC_READ_CONFLICT)
	own.grow(other)
	own.thaw()
	select {
	case err := <-r.ended:
		var disagree *failover.DisagreementError
		if !errors.As(err, &disagree) || errors.Is(err, network.ErrUnavailable) {
			t.Errorf("the stream ended with %v, want a disagreement that no new stream mends", err)
		}
		r.ended <- nil
	case <-time.After(patience):
		t.Fatal("the stream goes on")
	}
}

// Invariant 2: after a start, nothing is answered before the height that the own peer tells. One that nobody has asked yet is not away.
func TestOwnPeerIsGivenTimeToTellItsHeight(t *testing.T) {
	chain := recordedChain(t)
	own, foreign := startPeer(t, chain[:3]), startPeer(t, chain)
	c := connectionTo(t, own, foreign)
	c.cfg.FallbackAfter = 2 * time.Second
	l := c.open(t)
	opened := time.Now()
	eventually(t, func() bool { return l.State().Verified == 3 && time.Since(opened) > c.cfg.FallbackAfter })
	own.change(func() { own.claims, own.frozen = 1000, true })
	height := make(chan uint64, 1)
	go func() {
		h, err := l.Height(t.Context())
		if err != nil {
			t.Error(err)
		}
		height <- h
	}()
	eventually(t, func() bool {
		own.mu.Lock()
		defer own.mu.Unlock()
		return own.waiting > 0
	})
	own.thaw()
	if h := <-height; h != 1000 {
		t.Errorf("height %d, want the own peer's, 1000", h)
	}
	own.freeze()
	if h, err := l.Height(t.Context()); err != nil || h != 3 {
		t.Errorf("height %d, %v: want 3, what was verified, when the own peer does not answer at all", h, err)
	}
}

func TestStreamEndsAsTheInterfaceSays(t *testing.T) {
	chain := recordedChain(t)
	own, foreign := startPeer(t, chain), startPeer(t, chain)
	l := connectionTo(t, own, foreign).open(t)
	enough := errors.New("enough")
	if err := l.Blocks(t.Context(), 2, func(b *network.Block) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("the caller's error becomes %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := l.Blocks(ctx, 0, func(*network.Block) error { cancel(); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled, it ends with %v", err)
	}
	own.freeze()
	r := read(t, l, uint64(len(chain)))
	eventually(t, func() bool { return l.State().Abroad })
	must(t, l.Close())
	select {
	case err := <-r.ended:
		if !errors.Is(err, network.ErrUnavailable) || !errors.Is(err, network.ErrClosed) {
			t.Errorf("closed, it ends with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("it does not end when the connection is closed")
	}
	if l.State().Abroad {
		t.Error("the streams of other organisations' peers are still open")
	}
}

func TestConfigNamesWhatIsWrongWithFallbackPeers(t *testing.T) {
	chain := recordedChain(t)
	own := startPeer(t, chain)
	for name, edit := range map[string]func(*fabric.Config){
		"own organisation": func(c *fabric.Config) { c.FallbackPeers[0].MSPID = c.MSPID },
		"no endpoint":      func(c *fabric.Config) { c.FallbackPeers[0].Endpoint = "" },
		"no roots":         func(c *fabric.Config) { c.FallbackPeers[0].TLSCA = "" },
		"too short":        func(c *fabric.Config) { c.FallbackAfter = time.Millisecond },
		"no such genesis":  func(c *fabric.Config) { c.GenesisBlock = filepath.Join(t.TempDir(), "none") },
	} {
		c := connectionTo(t, own, own)
		edit(&c.cfg)
		if l, err := failover.Open(t.Context(), c.cfg, c.dir, nil); err == nil {
			t.Errorf("%s: accepted", name)
			must(t, l.Close())
		}
	}
}

// What keeping the verifier fed costs for each block.
func BenchmarkFeed(b *testing.B) {
	chain := recordedChain(b)
	own := startPeer(b, chain)
	for b.Loop() {
		c := connectionTo(b, own, own)
		l := c.open(b)
		eventually(b, func() bool { return l.State().Verified == uint64(len(chain)) })
		must(b, l.Close())
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*len(chain)), "us/block")
}
