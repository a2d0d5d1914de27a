package failover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"google.golang.org/protobuf/proto"

	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/network/fabric"
)

// Pauses before another attempt.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 30 * time.Second
	ownPause   = time.Second // the longest for the own peer: everybody waits for it
)

// Ledger is a connection to a channel through the own peer, and through others' for what can be verified. It implements network.Ledger: what
// blocks say is as good from either. Submit and Evaluate need the own peer.
type Ledger struct {
	own     *fabric.Ledger
	foreign []*foreignPeer
	after   time.Duration
	store   *store
	gate    *gate
	log     *slog.Logger

	begun  time.Time
	asked  atomic.Int64 // when the own peer was first asked since it last answered, after begun; 0: it was not
	abroad atomic.Int64 // streams that are on foreign peers now

	ctx   context.Context // ends at Close
	close context.CancelFunc

	mu    sync.Mutex     // held to add to users, and to close
	users sync.WaitGroup // goroutines that use the store; none is added after ctx has ended
}

// use announces somebody who uses the store until it calls done. ok is false after Close, which waits for all of them.
func (l *Ledger) use() (done func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx.Err() != nil {
		return nil, false
	}
	l.users.Add(1)
	return l.users.Done, true
}

// foreignPeer is a peer of another organisation.
type foreignPeer struct {
	mspID, endpoint  string
	ledger           *fabric.Ledger
	passed, refusals atomic.Uint64
}

var _ network.Ledger = (*Ledger)(nil)

// ErrRefused is what errors.Is finds in a RefusedError.
var ErrRefused = errors.New("a block from another organisation's peer is not the channel's, or its validity flags are wrong")

// RefusedError says which peer sent what that does not verify. Nothing of the block was used.
type RefusedError struct {
	MSPID, Peer string // of the other organisation; the peer's address
	Err         error  // a *verify.Error: which block, which transaction, what is wrong
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("peer %s of %s: %v: %v", e.Peer, e.MSPID, ErrRefused, e.Err)
}
func (e *RefusedError) Unwrap() error        { return e.Err }
func (e *RefusedError) Is(target error) bool { return target == ErrRefused }

// DisagreementError: the own peer delivers, under a number, another block than the one that was verified, or other flags. One of the two is wrong, and nothing
// may be answered. It is no *network.UnavailableError: a new stream does not help.
type DisagreementError struct{ Err error }

func (e *DisagreementError) Error() string {
	return fmt.Sprintf("the own peer disagrees with a block that was verified: %v", e.Err)
}
func (e *DisagreementError) Unwrap() error { return e.Err }

// Open connects to the own peer and to cfg.FallbackPeers, of which there must be one at least. dir is for the verifier's state, which may be deleted. Errors
// are about cfg, the files it names, and dir. log may be nil, for slog.Default().
func Open(ctx context.Context, cfg fabric.Config, dir string, log *slog.Logger) (_ *Ledger, err error) {
	if len(cfg.FallbackPeers) == 0 {
		return nil, errors.New("fabric ledger: fallback_peers: empty, must name a peer")
	}
	l := &Ledger{after: cmp.Or(cfg.FallbackAfter, fabric.DefaultFallbackAfter), log: cmp.Or(log, slog.Default()), begun: time.Now()}
	l.ctx, l.close = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	if l.own, err = fabric.Open(ctx, cfg, fabric.WithLogger(l.log)); err != nil {
		return nil, err
	}
	for i, p := range cfg.FallbackPeers {
		at := cfg
		at.Endpoint, at.ServerName, at.TLSCA, at.FallbackPeers = p.Endpoint, p.ServerName, p.TLSCA, nil
		ledger, err := fabric.Open(ctx, at, fabric.WithLogger(l.log))
		if err != nil {
			return nil, fmt.Errorf("fallback_peers[%d]: %w", i, err)
		}
		l.foreign = append(l.foreign, &foreignPeer{mspID: p.MSPID, endpoint: p.Endpoint, ledger: ledger})
	}
	genesis, err := readGenesis(cfg.GenesisBlock)
	if err != nil {
		return nil, fmt.Errorf("fabric ledger: genesis_block: %w", err)
	}
	if l.store, err = openStore(dir, vfs.Default, l.log); err != nil {
		return nil, err
	}
	if l.gate, err = openGate(l.store, cfg.Channel, cfg.Chaincode, genesis); err != nil {
		return nil, fmt.Errorf("verifier's state %s: %w", dir, err)
	}
	l.users.Go(func() { l.feed(l.ctx) })
	return l, nil
}

func readGenesis(file string) (*common.Block, error) {
	if file == "" {
		return nil, nil
	}
	encoded, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block := &common.Block{}
	if err := proto.Unmarshal(encoded, block); err != nil || block.GetHeader() == nil {
		return nil, fmt.Errorf("%s: must be the channel's first block, as configtxgen writes it", file)
	}
	return block, nil
}

// Submit implements network.Ledger, through the own peer.
func (l *Ledger) Submit(ctx context.Context, function string, arg []byte) (network.Receipt, error) {
	return l.own.Submit(ctx, function, arg)
}

// Evaluate implements network.Ledger, on the own peer.
func (l *Ledger) Evaluate(ctx context.Context, function string, arg []byte) ([]byte, error) {
	return l.own.Evaluate(ctx, function, arg)
}

// Height implements network.Ledger. While the own peer is away it is the number of blocks that were verified, whatever anybody claims.
func (l *Ledger) Height(ctx context.Context) (uint64, error) {
	if l.abroad.Load() > 0 {
		if n, ok := l.gate.height(); ok && n > 0 {
			return n, nil
		}
	}
	l.asked.CompareAndSwap(0, int64(time.Since(l.begun)))
	patient, cancel := context.WithTimeout(ctx, max(l.after-l.silence(), firstPause))
	defer cancel()
	height, err := l.own.Height(patient)
	if err == nil {
		l.hear()
		return height, nil
	}
	if ctx.Err() == nil && l.silence() >= l.after {
		if n, ok := l.gate.height(); ok && n > 0 {
			return n, nil
		}
	}
	return 0, err
}

// hear notes that the own peer has answered.
func (l *Ledger) hear() { l.asked.Store(0) }

// silence is for how long the own peer has not answered. One that nobody has asked is not silent.
func (l *Ledger) silence() time.Duration {
	asked := l.asked.Load()
	if asked == 0 {
		return 0
	}
	return time.Since(l.begun) - time.Duration(asked)
}

// MSPID implements network.Ledger.
func (l *Ledger) MSPID() string { return l.own.MSPID() }

// Channel implements network.Ledger.
func (l *Ledger) Channel() string { return l.own.Channel() }

// State is how things stand, for metrics.
type State struct {
	Abroad   bool   // blocks come from other organisations' peers
	Verified uint64 // blocks that the verifier has let through
	Peers    []PeerState
}

// PeerState is about one peer of another organisation, since the start.
type PeerState struct {
	MSPID, Endpoint string
	Passed, Refused uint64 // blocks that were passed on, and that did not verify
}

// State may be called at any time.
func (l *Ledger) State() State {
	s := State{Abroad: l.abroad.Load() > 0}
	s.Verified, _ = l.gate.height()
	for _, p := range l.foreign {
		s.Peers = append(s.Peers, PeerState{MSPID: p.mspID, Endpoint: p.endpoint, Passed: p.passed.Load(), Refused: p.refusals.Load()})
	}
	return s
}

// Close implements network.Ledger. It returns when every stream has ended.
func (l *Ledger) Close() error {
	l.mu.Lock()
	closed := l.ctx.Err() != nil
	l.close()
	l.mu.Unlock()
	if closed {
		return nil
	}
	var errs []error
	if l.own != nil {
		errs = append(errs, l.own.Close())
	}
	for _, p := range l.foreign {
		errs = append(errs, p.ledger.Close())
	}
	l.users.Wait()
	if l.store != nil {
		errs = append(errs, l.store.db.Close())
	}
	return errors.Join(errs...)
}

// rest waits for a pause, which doubles, and tells whether ctx has not ended.
func (l *Ledger) rest(ctx context.Context, pause *time.Duration) bool {
	select {
	case <-time.After(*pause):
	case <-ctx.Done():
		return false
	}
	*pause = min(2**pause, lastPause)
	return true
}
