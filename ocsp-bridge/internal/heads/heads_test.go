package heads

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/merklelog/merklelogtest"
	"github.com/certanchor/certanchor/internal/policy/policytest"
	"github.com/certanchor/certanchor/internal/tlogproof"
	"github.com/certanchor/certanchor/internal/witness"
)

const (
	origin   = "testchannel/status"
	deadline = 20 * time.Second
)

// place is one organisation's heads of a log, with peers that tests hold.
type place struct {
	*Heads
	t    *testing.T
	cfg  Config
	tree *merklelogtest.Memory
	log  Log
	orgs *policytest.Consortium

	mu      sync.Mutex
	halted  error
	changed chan struct{}
}

// helper is a witness that cosigns whatever it is told to.
type helper struct {
	org *policytest.Org

	mu    sync.Mutex
	fail  error
	hang  bool
	asked int
}

func (p *helper) Name() string { return p.org.Cosigner.Name() }

func (p *helper) set(fail error, hang bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail, p.hang = fail, hang
}

func (p *helper) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

func (p *helper) Add(ctx context.Context, checkpoint []byte, _ merklelog.Log) (note.Signature, error) {
	p.mu.Lock()
	fail, hang := p.fail, p.hang
	p.asked++
	p.mu.Unlock()
	if hang {
		<-ctx.Done()
		return note.Signature{}, ctx.Err()
	}
	if fail != nil {
		return note.Signature{}, fail
	}
	_, n, err := tlogproof.ReadUnverified(checkpoint)
	if err != nil {
		return note.Signature{}, err
	}
	signed, err := note.Sign(&note.Note{Text: n.Text}, p.org.Cosigner)
	if err != nil {
		return note.Signature{}, err
	}
	_, n, err = tlogproof.ReadUnverified(signed)
	return n.UnverifiedSigs[0], err
}

func newPlace(t *testing.T, quorum int, mspIDs ...string) (*place, []*helper) {
	t.Helper()
	p := &place{t: t, tree: merklelogtest.New(), changed: make(chan struct{})}
	p.orgs = policytest.New(t, "testchannel", quorum, time.Minute, time.Now, mspIDs...)
	p.grow(3)
	p.log = Log{Name: "status", Origin: origin, Log: p.tree}
	var peers []*helper
	for _, o := range p.orgs.Orgs {
		peers = append(peers, &helper{org: o})
	}
	p.cfg = Config{
		Dir: t.TempDir(), Key: p.orgs.Orgs[0].Log, Own: peers[0], Quorum: func() int { return quorum },
		Changed: func() <-chan struct{} {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.changed
		},
		Halt: func(err error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.halted = err
		},
		Now: time.Now, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	for _, peer := range peers[1:] {
		p.cfg.Peers = append(p.cfg.Peers, peer)
	}
	p.open()
	return p, peers
}

// open opens the heads, as a process that (re)starts does.
func (p *place) open() {
	p.Heads = New(p.cfg)
	p.t.Cleanup(p.Close)
}

func (p *place) grow(n int) {
	for range n {
		p.tree.Append(1, merklelog.Entry{Kind: merklelog.Status, Leaf: fmt.Appendf(nil, "leaf %d", p.tree.Head().Size)})
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.changed)
	p.changed = make(chan struct{})
}

// want opens what is served with the policy.
func (p *place) want(cp *Checkpoint, err error, size uint64, cosigners ...string) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
	opened, err := p.orgs.Policy.OpenCheckpoint(cp.Note, origin, true)
	if err != nil {
		p.t.Fatal(err)
	}
	if opened.Size != size || cp.Size != size || len(cosigners) > 0 && !slices.Equal(opened.Cosigners, cosigners) {
		p.t.Errorf("size %d by %v, want %d by %v", opened.Size, opened.Cosigners, size, cosigners)
	}
}

func TestServesWhatAQuorumCosigned(t *testing.T) {
	p, peers := newPlace(t, 2, "A", "B", "C")
	ctx := t.Context()
	cp, err := p.Serve(ctx, p.log, 0)
	p.want(cp, err, 3)
	p.grow(2)
	cp, err = p.Serve(ctx, p.log, 5)
	p.want(cp, err, 5)
	asked := peers[1].count()
	for range 20 {
		cp, err = p.Serve(ctx, p.log, 0)
		p.want(cp, err, 5)
		cp, err = p.Quorate(ctx, p.log, 5)
		p.want(cp, err, 5)
	}
	if now := peers[1].count(); now != asked {
		t.Errorf("peers were asked %d times for what is there", now-asked)
	}
}

// One peer of three does not answer: a quorum is there without it, at once.
func TestFrozenPeerIsNotWaitedFor(t *testing.T) {
	p, peers := newPlace(t, 3, "A", "B", "C", "D")
	peers[3].set(nil, true)
	began := time.Now()
	cp, err := p.Quorate(t.Context(), p.log, 3)
	p.want(cp, err, 3, "A", "B", "C")
	if took := time.Since(began); took > time.Second {
		t.Errorf("took %v", took)
	}
}

func TestWithoutAQuorumTheOldOneIsServed(t *testing.T) {
	p, peers := newPlace(t, 2, "A", "B")
	cp, err := p.Serve(t.Context(), p.log, 0)
	p.want(cp, err, 3, "A", "B")
	peers[1].set(errors.New("away"), false)
	p.grow(1)
	if _, err := p.Quorate(t.Context(), p.log, 4); !errors.Is(err, ErrNoQuorum) {
		t.Errorf("got %v", err)
	}
	cp, err = p.Serve(t.Context(), p.log, 0)
	p.want(cp, err, 3, "A", "B")
	cp, err = p.Serve(t.Context(), p.log, 4) // a proof that needs the newer one gets it with fewer
	if err != nil || cp.Size != 4 || len(cp.Cosigners) != 1 {
		t.Errorf("got %+v, %v", cp, err)
	}
	// A restart while the peer is away.
	p.Close()
	p.open()
	cp, err = p.Serve(t.Context(), p.log, 0)
	p.want(cp, err, 3, "A", "B")
	peers[1].set(nil, false)
	p.grow(1)
	cp, err = p.Quorate(t.Context(), p.log, 5)
	p.want(cp, err, 5, "A", "B")
}

// A peer that is ahead is asked again once the own blocks are as far.
func TestPeerThatIsAheadIsAskedAgain(t *testing.T) {
	p, peers := newPlace(t, 2, "A", "B")
	peers[1].set(&witness.AheadError{Witness: "B", Size: 4}, false)
	done := make(chan error, 1)
	go func() {
		_, err := p.Quorate(t.Context(), p.log, 3)
		done <- err
	}()
	for start := time.Now(); peers[1].count() == 0; {
		if time.Since(start) > deadline {
			t.Fatal("the peer was not asked")
		}
	}
	peers[1].set(nil, false)
	p.grow(1)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	cp, err := p.Serve(t.Context(), p.log, 0)
	p.want(cp, err, 4, "A", "B")
}

// A log restored from an old backup, or forked: nothing is signed that contradicts what was.
func TestForkIsNotSigned(t *testing.T) {
	p, _ := newPlace(t, 1, "A")
	cp, err := p.Serve(t.Context(), p.log, 0)
	p.want(cp, err, 3)
	p.Close()

	other := merklelogtest.New()
	p.tree, p.log.Log = other, other
	p.open()
	p.tree.Append(1, merklelog.Entry{Leaf: []byte("another")})
	var behind *BehindError
	if _, err := p.Serve(t.Context(), p.log, 0); !errors.As(err, &behind) || behind.Signed != 3 || behind.Have != 1 {
		t.Errorf("smaller: %v", err)
	}
	if p.halted != nil {
		t.Errorf("halted: %v", p.halted)
	}
	p.grow(4)
	var two *TwoHistoriesError
	if _, err := p.Serve(t.Context(), p.log, 0); !errors.As(err, &two) || two.Size != 3 {
		t.Errorf("another: %v", err)
	}
	if !errors.As(p.halted, &two) {
		t.Errorf("halted: %v", p.halted)
	}
}

func TestWhatTheOwnWitnessRefusesDoesNotLeave(t *testing.T) {
	p, peers := newPlace(t, 2, "A", "B")
	peers[0].set(witness.ErrForked, false)
	if cp, err := p.Serve(t.Context(), p.log, 0); !errors.Is(err, witness.ErrForked) {
		t.Errorf("got %+v, %v", cp, err)
	}
	if st := p.State(p.log); st.Latest != nil || peers[1].count() != 0 {
		t.Errorf("it left: %+v", st)
	}
}

// A memory that cannot be written, or read, signs nothing.
func TestNothingIsSignedThatCannotBeRemembered(t *testing.T) {
	p, _ := newPlace(t, 1, "A")
	if err := os.WriteFile(filepath.Join(p.cfg.Dir, "status"), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if cp, err := p.Serve(t.Context(), p.log, 0); err == nil {
		t.Errorf("a damaged memory: %+v", cp)
	}
	p.Close()
	p.cfg.Dir = filepath.Join(p.cfg.Dir, "status", "below-a-file")
	p.open()
	if cp, err := p.Serve(t.Context(), p.log, 0); err == nil {
		t.Errorf("no memory: %+v", cp)
	}
}

func TestManyRequestsShareRounds(t *testing.T) {
	p, peers := newPlace(t, 2, "A", "B")
	cp, err := p.Serve(t.Context(), p.log, 0)
	p.want(cp, err, 3)
	p.grow(1)
	before := peers[1].count()
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if cp, err := p.Quorate(t.Context(), p.log, 4); err != nil || cp.Size != 4 {
				t.Errorf("got %+v, %v", cp, err)
			}
		})
	}
	all.Wait()
	if n := peers[1].count() - before; n > 2 {
		t.Errorf("the peer was asked %d times", n)
	}
}
