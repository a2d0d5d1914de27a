package ocspbridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/certanchor/certanchor/internal/tlogproof"
	"github.com/certanchor/certanchor/internal/witness"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/heads"
)

const (
	watchWait  = 5 * time.Second // for blocks that a peer has already
	maxAlarms  = 16 << 20        // octets of a peer's list of alarms
	maxNote    = 64 << 10        // octets of a checkpoint
	alarmTries = 200             // alarms of a peer that are looked at: the list begins with one of each set of signers
)

// sight is what is known about a peer.
type sight struct {
	mu   sync.Mutex
	seen map[string]peerState // by MSP ID
}

// peerState is the last comparison with a peer.
type peerState struct {
	At  time.Time
	Err error // nil: everything was fetched, and is the own history
}

func (s *sight) set(mspID string, st peerState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen == nil {
		s.seen = map[string]peerState{}
	}
	s.seen[mspID] = st
}

func (s *sight) get(mspID string) peerState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[mspID]
}

// alarm is told of new evidence of a split view. OCSP goes on: the evidence shows that somebody lies, and not that it is this
// organisation's ledger.
func (b *Bridge) alarm(e *witness.Evidence) {
	b.alarms.Add(1)
	b.log.Error("ALARM: split view: an organisation has signed another history than this organisation's blocks have",
		"signed_by", e.Signers, "own_root", fmt.Sprintf("%x", e.OwnRoot), "checkpoint", string(e.Note))
}

// watchPeer compares what a peer serves with the own logs at each Tick, until ctx ends; what failed is tried again sooner.
func (b *Bridge) watchPeer(ctx context.Context, p *peer) {
	var (
		due, failed = true, false
		ticks       uint64
		again       = b.cfg.After(headRetry)
	)
	for {
		changed := b.index.Changed()
		size := b.index.View().MapLog().Size
		if b.confirmed.Load() && (due || size != ticks) {
			err := b.compare(ctx, p)
			if ctx.Err() != nil {
				return
			}
			if err != nil && !failed {
				b.log.Warn("peer cannot be compared", "peer", p.MSPID, "error", err)
			}
			b.sight.set(p.MSPID, peerState{At: b.cfg.Now(), Err: err})
			due, failed, ticks = false, err != nil, size
		}
		select {
		case <-changed:
		case <-again:
			again, due = b.cfg.After(headRetry), due || failed
		case <-ctx.Done():
			return
		}
	}
}

// compare looks at a peer's checkpoints of all logs, and at the evidence that it has.
func (b *Bridge) compare(ctx context.Context, p *peer) error {
	var errs []error
	for _, log := range b.logs(b.index.View()) {
		signed, err := p.fetch(ctx, "/logs/"+log.Name+"/checkpoint", maxNote)
		if err == nil {
			err = b.compareNote(ctx, signed, log)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("log %s: %w", log.Name, err))
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return errors.Join(append(errs, b.compareAlarms(ctx, p))...)
}

// compareNote compares a signed checkpoint of a log, as soon as the own one is as large.
func (b *Bridge) compareNote(ctx context.Context, signed []byte, log heads.Log) error {
	cp, _, err := tlogproof.ReadUnverified(signed)
	if err != nil {
		return err
	}
	if cp.Origin != log.Origin {
		return fmt.Errorf("checkpoint's origin is %.200q: must be %q", cp.Origin, log.Origin)
	}
	err = b.watch.Compare(signed, log.Log)
	if !errors.Is(err, witness.ErrAhead) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, watchWait)
	defer cancel()
	if b.waitSize(ctx, log.Log, cp.Size) != nil {
		return err // the own log is too short to tell
	}
	return b.watch.Compare(signed, log.Log)
}

// compareAlarms takes over a peer's evidence, as far as it is any: what it convicts is the note, not the peer's word.
func (b *Bridge) compareAlarms(ctx context.Context, p *peer) error {
	body, err := p.fetch(ctx, pathAlarms, maxAlarms)
	if err != nil {
		return err
	}
	var alarms []alarmInfo
	if err := json.Unmarshal(body, &alarms); err != nil {
		return fmt.Errorf("alarms: %w", err)
	}
	var errs []error
	for i, a := range alarms {
		if i == alarmTries {
			break
		}
		cp, _, err := tlogproof.ReadUnverified([]byte(a.Note))
		if err != nil {
			errs = append(errs, fmt.Errorf("alarm %d: %w", i, err))
			continue
		}
		log, ok := b.logOf(cp.Origin)
		if !ok {
			continue
		}
		err = b.watch.Compare([]byte(a.Note), log)
		switch {
		case errors.Is(err, witness.ErrSplitView): // the alarm is raised
		case err == nil: // the note is this organisation's history: so the peer has another
			errs = append(errs, fmt.Errorf("its blocks contradict a checkpoint of %s, size %d, that is in accord with this organisation's", cp.Origin, cp.Size))
		default:
			errs = append(errs, fmt.Errorf("alarm %d: %w", i, err))
		}
	}
	return errors.Join(errs...)
}

// fetch gets a path below the peer's URL.
func (p *peer) fetch(ctx context.Context, path string, most int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, peerTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := p.HTTP.Do(req)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: HTTP status %d: %.300q", path, resp.StatusCode, body)
	}
	if int64(len(body)) > most {
		return nil, fmt.Errorf("%s: answer is longer than %d octets", path, most)
	}
	return body, nil
}
