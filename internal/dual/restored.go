package dual

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/oplog"
)

// restoredFile says when the CA's directory was last restored from a backup, beside the mark of package oplog, which goes away when the CA has caught up with
// the ledger. What was used up after the backup was made nobody knows any more, so no operation from before the restore counts.
const restoredFile = "restored"

// restoredAt returns that time, zero if there is none, and makes it outlive the mark.
func restoredAt(dir string) (at time.Time, err error) {
	path := filepath.Join(dir, stateDir, restoredFile)
	text, err := readLimited(path, maxSpent)
	switch {
	case err == nil:
		if at, err = time.Parse(time.RFC3339Nano, strings.TrimSpace(string(text))); err != nil {
			return at, fmt.Errorf("%s: %w", path, err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return at, err
	}
	mark, err := oplog.ReadRestored(dir)
	if err != nil || mark == nil || !mark.Restored.After(at) {
		return at, err
	}
	unlock, err := lock(dir)
	if err != nil {
		return at, err
	}
	defer unlock()
	at = mark.Restored.UTC()
	return at, keyfile.Replace(path, []byte(at.Format(time.RFC3339Nano)+"\n"), 0o600)
}

// outlived refuses an operation that was made before the restore.
func outlived(op Operation, restored time.Time) error {
	if op.Created.Before(restored) {
		return denied("operation.created", op.Created.Format(time.RFC3339),
			"must not be before the CA was restored from a backup, %s: it may have been carried out already; ask for it again", restored.Format(time.RFC3339Nano))
	}
	return nil
}

// endRestored ends what waits since before the restore. It requires that nobody else has s yet.
func (s *Store) endRestored() error {
	at, err := restoredAt(s.dir)
	if err != nil {
		return err
	}
	for _, r := range s.records {
		why := outlived(r.Operation, at)
		if why == nil || r.State != Pending && r.State != Approved {
			continue
		}
		now := s.now().UTC()
		if _, err := s.change(r, func(r *Record) { r.State, r.Error, r.Finished = Failed, why.Error(), &now }); err != nil {
			return err
		}
	}
	return nil
}
