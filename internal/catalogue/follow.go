package catalogue

import (
	"context"
	"errors"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/certanchor/certanchor/network"
)

// followPause is how long an unreachable ledger is left alone.
const followPause = 500 * time.Millisecond

// Follow applies the ledger's blocks until ctx ends, which is no error. Any other error ends it for good: the store cannot be written, or
// the ledger says what it never should.
func (s *Store) Follow(ctx context.Context, ledger network.Ledger) error {
	var err error
	for ctx.Err() == nil {
		if err = s.follow(ctx, ledger); ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errForked) {
			s.opts.Log.Warn("the catalogue of certificates is made anew: the ledger is another one", "error", err)
			if err = s.clear(); err == nil {
				continue
			}
		}
		if !errors.Is(err, network.ErrUnavailable) {
			s.opts.Log.Error("the catalogue of certificates does not follow the ledger any more", "error", err)
			s.mu.Lock()
			s.failed = err
			close(s.changed)
			s.changed = make(chan struct{})
			s.mu.Unlock()
			return err
		}
		s.opts.Log.Debug("the catalogue of certificates waits for the ledger", "error", err)
		pause := time.NewTimer(followPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
		pause.Stop()
	}
	return nil
}

func (s *Store) follow(ctx context.Context, ledger network.Ledger) error {
	height, err := ledger.Height(ctx)
	if err != nil {
		return err
	}
	if height < s.at.Next {
		return errForked
	}
	s.mu.Lock()
	s.live = height
	s.mu.Unlock()
	return ledger.Blocks(ctx, s.at.Next, s.apply)
}

// clear begins again at block 0.
func (s *Store) clear() error {
	if err := s.db.DeleteRange([]byte{0}, []byte{0xff}, pebble.Sync); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.load()
}
