package heads

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/tlogproof"
	"github.com/certanchor/certanchor/internal/witness"
)

const (
	roundTime = 2 * time.Second        // for all peers together
	grace     = 50 * time.Millisecond  // for the others, once a quorum has cosigned
	catchUp   = 500 * time.Millisecond // for the own log, when a peer has cosigned a larger head
	attempts  = 4                      // in one round, when peers have cosigned larger heads
)

// begin starts a round unless one is running; with anew, one that is running is followed by another: it may have begun too soon.
func (h *Heads) begin(e *entry, anew bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return errors.New("this bridge is ending")
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.running {
		e.anew = e.anew || anew
		return nil
	}
	e.running = true
	h.rounds.Go(func() {
		for h.round(e) {
		}
	})
	return nil
}

// round reports whether another one is to follow.
func (h *Heads) round(e *entry) (anew bool) {
	h.space(e)
	err := h.cosigned(e)
	e.update(func() {
		if err != nil && e.err == nil && h.ctx.Err() == nil { // once, not at every retry
			h.cfg.Logger.Warn("no cosigned checkpoint", "log", e.log.Name, "error", err)
		}
		e.err, e.ended = err, e.ended+1
		anew = e.anew && h.ctx.Err() == nil
		e.anew, e.running = false, anew
	})
	return anew
}

// update changes e under its lock and wakes those who wait.
func (e *entry) update(change func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	change()
	close(e.changed)
	e.changed = make(chan struct{})
}

// space keeps rounds of one log apart, so that requests do not make a round of calls to the peers each.
func (h *Heads) space(e *entry) {
	e.mu.Lock()
	rest := pace - time.Since(e.began)
	e.mu.Unlock()
	if len(h.cfg.Peers) > 0 && rest > 0 {
		timer := time.NewTimer(rest)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-h.ctx.Done():
		}
	}
	e.mu.Lock()
	e.began = time.Now()
	e.mu.Unlock()
}

// cosigned signs the newest head and has it cosigned. A peer that has cosigned a larger head than this organisation's blocks show
// yet is asked again when they do.
func (h *Heads) cosigned(e *entry) error {
	for attempt := 1; ; attempt++ {
		err := h.attempt(e)
		var ahead *witness.AheadError
		if !errors.As(err, &ahead) || attempt == attempts || !errors.Is(err, ErrNoQuorum) {
			return err
		}
		if !h.grows(e.log.Log, ahead.Size) {
			return err
		}
	}
}

// grows waits a moment for the own log to have size entries.
func (h *Heads) grows(log merklelog.Log, size uint64) bool {
	ctx, cancel := context.WithTimeout(h.ctx, catchUp)
	defer cancel()
	for {
		changed := h.cfg.Changed()
		if log.Head().Size >= size {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

func (h *Heads) attempt(e *entry) error {
	at := h.cfg.Now()
	own, head, err := h.sign(e)
	if err != nil {
		return err
	}
	cp := &Checkpoint{Size: head.Size, Root: head.Root, Note: own, Cosigners: []string{h.cfg.Own.Name()}, At: at}
	h.publish(e, cp, len(h.cfg.Peers) == 0)
	if len(h.cfg.Peers) == 0 {
		return h.enough(e, cp, nil)
	}
	ctx, cancel := context.WithTimeout(h.ctx, roundTime)
	defer cancel()
	got, err := witness.Gather(ctx, own, e.log.Log, max(h.cfg.Quorum()-1, 1), grace, h.cfg.Peers...)
	if got == nil {
		return err
	}
	all := &Checkpoint{Size: head.Size, Root: head.Root, Note: got.Note, Cosigners: append(got.Cosigners, cp.Cosigners...), At: at}
	h.publish(e, all, true)
	return h.enough(e, all, err)
}

// enough is nil for a quorum.
func (h *Heads) enough(e *entry, cp *Checkpoint, why error) error {
	quorum := h.cfg.Quorum()
	if len(cp.Cosigners) >= quorum {
		return nil
	}
	err := fmt.Errorf("%w: %s: %d, must be at least %d", ErrNoQuorum, e.log.Origin, len(cp.Cosigners), quorum)
	if why != nil {
		err = fmt.Errorf("%w: %w", err, why)
	}
	return err
}

// sign returns the newest head, signed with the log key and cosigned by this organisation.
func (h *Heads) sign(e *entry) ([]byte, merklelog.Head, error) {
	e.signing.Lock()
	defer e.signing.Unlock()
	head := e.log.Log.Head()
	if err := e.remember(h.cfg.Dir, head); err != nil {
		if two := (*TwoHistoriesError)(nil); errors.As(err, &two) {
			h.cfg.Halt(err)
		}
		return nil, head, err
	}
	cp := tlogproof.Checkpoint{Origin: e.log.Origin, Size: head.Size, Root: head.Root}
	signed, err := cp.Sign(h.cfg.Key)
	if err != nil {
		return nil, head, fmt.Errorf("sign checkpoint: %w", err)
	}
	sig, err := h.cfg.Own.Add(h.ctx, signed, e.log.Log)
	if errors.Is(err, witness.ErrForked) {
		h.cfg.Halt(err)
	}
	if err != nil {
		return nil, head, err
	}
	_, n, err := tlogproof.ReadUnverified(signed)
	if err != nil {
		return nil, head, err
	}
	signed, err = tlogproof.Assemble(n.Text, append([]note.Signature{sig}, n.UnverifiedSigs...)...)
	return signed, head, err
}

// publish makes cp what is served, if it is better than what is. final tells that the round is over: what it brought then counts more than
// an older round's, even with fewer cosignatures, for it is fresher.
func (h *Heads) publish(e *entry, cp *Checkpoint, final bool) {
	quorum := len(cp.Cosigners) >= h.cfg.Quorum()
	better := func(old *Checkpoint) bool {
		return old == nil || old.Size < cp.Size || final && quorum || len(cp.Cosigners) >= len(old.Cosigners)
	}
	e.update(func() {
		if better(e.latest) {
			e.latest = cp
		}
		if quorum && better(e.best) {
			e.best = cp
		}
	})
	if quorum && final && len(h.cfg.Peers) > 0 {
		// After a restart there is something to serve while peers are away. It is compared with the log before, so it need not be durable.
		if err := replace(h.bestFile(e.log.Name), cp.Note, false); err != nil {
			h.cfg.Logger.Warn("cosigned checkpoint is not kept", "log", e.log.Name, "error", err)
		}
	}
}

func (h *Heads) bestFile(name string) string { return filepath.Join(h.cfg.Dir, name+".note") }

// loadBest returns the checkpoint that an earlier run left, if the log still has that root; nil otherwise.
func (h *Heads) loadBest(l Log) *Checkpoint {
	data, err := os.ReadFile(h.bestFile(l.Name))
	if err != nil {
		return nil
	}
	cp, n, err := tlogproof.ReadUnverified(data)
	if err != nil || cp.Origin != l.Origin || cp.Size > l.Log.Head().Size {
		return nil
	}
	if root, err := merklelog.RootAt(l.Log, cp.Size); err != nil || root != cp.Root {
		return nil
	}
	best := &Checkpoint{Size: cp.Size, Root: cp.Root, Note: data}
	for _, s := range n.UnverifiedSigs {
		if s.Name == h.cfg.Own.Name() {
			best.Cosigners = append(best.Cosigners, s.Name)
		}
		for _, p := range h.cfg.Peers {
			if s.Name == p.Name() {
				best.Cosigners = append(best.Cosigners, s.Name)
			}
		}
	}
	if len(best.Cosigners) < h.cfg.Quorum() {
		return nil
	}
	return best
}
