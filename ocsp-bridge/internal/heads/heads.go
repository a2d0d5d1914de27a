// Package heads signs the heads of an organisation's logs and has them cosigned: one round asks this organisation's own witness, then
// those of the peers. What was cosigned last is served at once; a larger head, or a fresher one, is what the next round brings.
//
// Reading order: heads.go, round.go, memory.go.
package heads

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/witness"
)

// Log is one of this organisation's logs.
type Log struct {
	Name   string // in paths; also the name of the file that remembers what was signed
	Origin string
	Log    merklelog.Log
}

// Config of Heads. All fields but Peers are required.
type Config struct {
	Dir    string            // of what was signed
	Key    note.Signer       // the log key
	Own    witness.Witness   // this organisation's: what it does not cosign does not leave
	Peers  []witness.Witness // the other organisations'
	Quorum func() int        // how many must cosign, the own one included; when it changes, call QuorumChanged

	// Changed returns a channel that is closed when a log may have grown.
	Changed func() <-chan struct{}
	// Halt is told that the ledger contradicts what was signed: nothing may be signed any more.
	Halt func(error)

	Now    func() time.Time
	Logger *slog.Logger
}

// ErrNoQuorum tells that too few organisations have cosigned what was asked for. An error that wraps it says why.
var ErrNoQuorum = errors.New("too few organisations have cosigned")

// How long a request waits for other organisations; and how far apart rounds of one log begin when there are others.
const (
	servePatience  = 500 * time.Millisecond
	quorumPatience = 3 * time.Second
	pace           = 250 * time.Millisecond
)

// Checkpoint is a signed and cosigned head. It does not change.
type Checkpoint struct {
	Size      uint64
	Root      [32]byte
	Note      []byte    // in canonical order
	Cosigners []string  // names of the keys
	At        time.Time // when the round began: no cosignature is older
}

// Heads keeps the newest checkpoint of each log. It is safe for concurrent use.
type Heads struct {
	cfg    Config
	ctx    context.Context // of the rounds
	cancel context.CancelFunc
	rounds sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	entries map[string]*entry // by log name
}

// entry is one log.
type entry struct {
	log Log

	signing sync.Mutex // held while a head is compared with what was signed, remembered and signed
	last    *signed    // guarded by signing; nil: not loaded, or nothing was signed

	mu      sync.Mutex
	best    *Checkpoint   // newest with a quorum
	latest  *Checkpoint   // newest, whoever cosigned it
	err     error         // of the newest round; nil: it brought a quorum
	running bool          // a round is
	anew    bool          // another one follows it
	ended   uint64        // rounds that have
	began   time.Time     // of the newest round, by the wall clock: it paces calls to others
	changed chan struct{} // closed, and replaced, when something above changes
}

// New makes Heads. Close ends its rounds.
func New(cfg Config) *Heads {
	ctx, cancel := context.WithCancel(context.Background())
	return &Heads{cfg: cfg, ctx: ctx, cancel: cancel, entries: map[string]*entry{}}
}

// Close ends running rounds and returns when they have.
func (h *Heads) Close() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.cancel()
	h.rounds.Wait()
}

func (h *Heads) entry(l Log) *entry {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.entries[l.Name]
	if e == nil {
		e = &entry{log: l, changed: make(chan struct{})}
		e.best = h.loadBest(l)
		e.latest = e.best
		h.entries[l.Name] = e
	}
	return e
}

// Refresh begins a round for each log, of the head that it has now or a later one.
func (h *Heads) Refresh(logs ...Log) error {
	for _, l := range logs {
		if err := h.begin(h.entry(l), true); err != nil {
			return err
		}
	}
	return nil
}

// QuorumChanged forgets what was cosigned by fewer than must now cosign. It begins no round.
func (h *Heads) QuorumChanged() {
	h.mu.Lock()
	entries := slices.Collect(maps.Values(h.entries))
	h.mu.Unlock()
	for _, e := range entries {
		e.update(func() {
			if e.best != nil && len(e.best.Cosigners) < h.cfg.Quorum() {
				e.best = nil
			}
		})
	}
}

// Retry begins a round for each log whose newest round brought no quorum.
func (h *Heads) Retry() error {
	h.mu.Lock()
	entries := slices.Collect(maps.Values(h.entries))
	h.mu.Unlock()
	for _, e := range entries {
		e.mu.Lock()
		failed := e.err != nil
		e.mu.Unlock()
		if !failed {
			continue
		}
		if err := h.begin(e, false); err != nil {
			return err
		}
	}
	return nil
}

// Serve returns a checkpoint of at least the size least, which the log must have: one with a quorum where that can be had at once, else
// one with fewer cosignatures. With least 0 it is the newest one that a quorum has cosigned; a round is under way then if the log
// has grown, and is waited for a moment, but not while the peers are away.
func (h *Heads) Serve(ctx context.Context, l Log, least uint64) (*Checkpoint, error) {
	e, head := h.entry(l), l.Log.Head().Size
	ctx, cancel := context.WithTimeout(ctx, servePatience)
	defer cancel()
	alone := least // what is shown without a quorum
	if least == 0 {
		alone = head
	}
	cp, err := h.await(ctx, e, func() *Checkpoint {
		switch {
		case e.best != nil && e.best.Size >= head:
			return e.best
		case e.err == nil: // the round will bring a quorum
			return nil
		case e.best != nil && e.best.Size >= least:
			return e.best
		case e.latest != nil && e.latest.Size >= alone:
			return e.latest
		}
		return nil
	})
	if cp != nil && cp.Size >= head {
		return cp, nil
	}
	if cp != nil { // shown because the last round failed; the next one may not
		return cp, h.begin(e, false)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, cp := range []*Checkpoint{e.best, e.latest} {
		if cp != nil && cp.Size >= least {
			return cp, nil
		}
	}
	return nil, err
}

// Quorate returns a checkpoint that a quorum has cosigned, of at least the size least, which the log must have. Errors: ErrNoQuorum when it
// does not come about in time, or what keeps this organisation from signing.
func (h *Heads) Quorate(ctx context.Context, l Log, least uint64) (*Checkpoint, error) {
	e := h.entry(l)
	ctx, cancel := context.WithTimeout(ctx, quorumPatience)
	defer cancel()
	return h.await(ctx, e, func() *Checkpoint {
		if e.best != nil && e.best.Size >= least {
			return e.best
		}
		return nil
	})
}

// await returns what found finds, beginning rounds until it does, one has failed that began after the call, or ctx ends. found is
// called with e.mu held.
func (h *Heads) await(ctx context.Context, e *entry, found func() *Checkpoint) (*Checkpoint, error) {
	e.mu.Lock()
	enough := e.ended + 1
	if e.running { // it may have begun with a smaller head
		enough++
	}
	e.mu.Unlock()
	for {
		e.mu.Lock()
		cp, changed, running, err := found(), e.changed, e.running, e.err
		ended := e.ended
		e.mu.Unlock()
		switch {
		case cp != nil:
			return cp, nil
		case ended >= enough && err != nil:
			return nil, err
		case !running:
			if err := h.begin(e, false); err != nil {
				return nil, err
			}
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if err == nil {
				err = fmt.Errorf("%w: %s: not in time", ErrNoQuorum, e.log.Origin)
			}
			return nil, errors.Join(err, context.Cause(ctx))
		}
	}
}

// State is what is known about one log's checkpoints.
type State struct {
	Name   string
	Origin string
	Best   *Checkpoint // nil: none yet
	Latest *Checkpoint // nil: none yet
	Err    error       // why the newest round brought no quorum
}

// State returns the state of a log, without beginning anything.
func (h *Heads) State(l Log) State {
	e := h.entry(l)
	e.mu.Lock()
	defer e.mu.Unlock()
	return State{Name: l.Name, Origin: l.Origin, Best: e.best, Latest: e.latest, Err: e.err}
}
