package ca

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/certanchor/certanchor/internal/cabackup"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/oplog"
)

// A restored directory is marked as a whole, and the mark goes away once the CA has caught up with the ledger. A generation of its key that cannot be
// opened then, since its key is put in its place later, gets a mark of its own before that.

// findMark tells a later generation that the ledger may know more than its journal.
func (s *Server) findMark(cfg Config) error {
	if cfg.line == nil {
		return nil
	}
	marked, err := oplog.IsRestored(cfg.Dir)
	if marked {
		s.lags = make(chan struct{})
	}
	return err
}

// awaitCaughtUp waits until the generation has caught up by itself, if it must; false: ctx has ended.
func (s *Server) awaitCaughtUp(ctx context.Context) bool {
	if s.lags == nil {
		return true
	}
	select {
	case <-s.lags:
		return true
	case <-ctx.Done():
		return false
	}
}

// catchUpAll has the generations that are there catch up, all of a restored CA or those with a mark of their own, and leaves one for those that are not there.
// It is repeated until it succeeds.
func (s *Server) catchUpAll(ctx context.Context, restored bool, say func(error)) error {
	for _, g := range s.line.list() {
		if !restored && !g.lagging() {
			continue
		}
		if err := g.catchUp(ctx, say); err != nil {
			return err
		}
		if err := g.unmark(); err != nil {
			return err
		}
	}
	if !restored {
		return nil
	}
	for dir := s.nextPath(); ; dir = filepath.Join(dir, nextDir) {
		if st, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) || err == nil && !st.IsDir() {
			return nil
		} else if err != nil {
			return err
		}
		if err := oplog.MarkRestored(dir, oplog.Restored{Restored: s.now().UTC().Truncate(time.Millisecond), From: "the generation before it"}); err != nil {
			return err
		}
	}
}

// caughtUp is for a generation that is taken up once the CA runs; before, settle sees to all that are there.
func (s *Server) caughtUp(ctx context.Context) error {
	if !s.operators.settled.Load() || !s.lagging() {
		return nil
	}
	s.log.Info("a generation of the CA's key comes from a backup, and reads the ledger first", "ca_id", s.issuer.id.String())
	if err := s.catchUp(ctx, func(error) {}); err != nil {
		return err
	}
	return s.unmark()
}

// lagging is of who catches up.
func (s *Server) lagging() bool {
	if s.lags == nil {
		return false
	}
	select {
	case <-s.lags:
		return false
	default:
		return true
	}
}

func (s *Server) unmark() error {
	if !s.lagging() {
		return nil
	}
	if err := os.Remove(filepath.Join(s.dir, oplog.RestoredFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := keyfile.SyncDir(s.dir); err != nil {
		return err
	}
	close(s.lags)
	return nil
}

// keysPutIn refuses profiles from a backup without keys, whose keys nobody has put in again.
func keysPutIn(profiles []byte) error {
	if names := cabackup.MissingKeys(profiles); len(names) > 0 {
		return fmt.Errorf("the keys %s were left out of the backup, which has none: each must be put in again, in the place of %q", strings.Join(names, ", "), cabackup.LeftOutKey)
	}
	return nil
}
