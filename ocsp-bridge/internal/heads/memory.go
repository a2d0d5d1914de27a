package heads

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/fxamacker/cbor/v2"

	"github.com/certanchor/certanchor/internal/merklelog"
)

// signed is the largest head of a log that the log key has signed. The index may be deleted, and the ledger behind it may be put back to
// an older copy; what is on disk here keeps the key from signing two histories then.
type signed struct {
	Size uint64   `cbor:"0,keyasint"`
	Root [32]byte `cbor:"1,keyasint"`
}

// TwoHistoriesError: the ledger contradicts what this organisation has signed.
type TwoHistoriesError struct {
	Name         string
	Size         uint64
	Root, Signed [32]byte
}

func (e *TwoHistoriesError) Error() string {
	return fmt.Sprintf("log %s: root at size %d is %x, but this bridge has signed %x: the ledger shows two histories", e.Name, e.Size, e.Root, e.Signed)
}

// BehindError: the own log is smaller than what this organisation has signed of it.
type BehindError struct {
	Name         string
	Signed, Have uint64
}

func (e *BehindError) Error() string {
	return fmt.Sprintf("log %s: this bridge has signed a checkpoint of size %d and read %d entries: it is still reading, or the ledger went back", e.Name, e.Signed, e.Have)
}

// remember checks head against what was signed before, and makes it what was signed last, durably. C2SP tlog-checkpoint: a log must not
// sign a checkpoint that is inconsistent with one it signed before. Within one run the log only grows, so an earlier run's head is
// compared once. Requires e.signing.
func (e *entry) remember(dir string, head merklelog.Head) error {
	if e.last == nil {
		last, err := loadSigned(filepath.Join(dir, e.log.Name))
		if err != nil {
			return err
		}
		if last != nil {
			if last.Size > head.Size {
				return &BehindError{Name: e.log.Name, Signed: last.Size, Have: head.Size}
			}
			root, err := merklelog.RootAt(e.log.Log, last.Size)
			if err != nil {
				return err
			}
			if root != last.Root {
				return &TwoHistoriesError{Name: e.log.Name, Size: last.Size, Root: root, Signed: last.Root}
			}
			e.last = last
		}
	}
	if e.last != nil && e.last.Size >= head.Size {
		return nil // the same: heads of one run do not shrink
	}
	next := &signed{Size: head.Size, Root: head.Root}
	data, err := cbor.Marshal(next)
	if err != nil {
		return err
	}
	if err := replace(filepath.Join(dir, e.log.Name), data, true); err != nil {
		return fmt.Errorf("remember checkpoint: %w", err)
	}
	e.last = next
	return nil
}

// loadSigned reads what an earlier run has signed; nil: nothing.
func loadSigned(path string) (*signed, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("last signed checkpoint: %w", err)
	}
	s := new(signed)
	if err := cbor.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("last signed checkpoint %s: %w", path, err)
	}
	return s, nil
}

// replace puts data at path, wholly; with sync durably as well.
func replace(path string, data []byte, sync bool) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil && sync {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil || !sync {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
