package cabackup

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/oplog"
)

// RestoreOptions of Restore.
type RestoreOptions struct {
	Passphrase []byte           // of the backup's keys; nil: they stay in it
	Now        func() time.Time // default time.Now

	step func(string) // is called between steps. Tests die there.
}

// Steps of a backup or restore.
const (
	stepBegun = "begun"
	stepFile  = "file" // one is written
	stepFiles = "files"
	stepKeys  = "keys"
	stepDone  = "done" // it has its name
)

// Restore makes dir, which must not be there or be empty, from a backup, and marks it as restored: the CA bridge then asks the ledger what the
// backup lacks before it does anything. dir appears whole or not at all; a process that is killed leaves a hidden directory beside it, which
// the next Restore takes away. Errors: ErrFormat, ErrPassphrase; a directory that holds anything.
func Restore(file, dir string, o RestoreOptions) (_ *Manifest, err error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.step == nil {
		o.step = func(string) {}
	}
	dir = filepath.Clean(dir)
	if err := checkEmpty(dir); err != nil {
		return nil, err
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w, err := newWorkplace(dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close(err != nil)) }()
	o.step(stepBegun)
	m, keys, err := Read(f, func(name string, mode fs.FileMode, size int64, from io.Reader) error {
		defer o.step(stepFile)
		return w.create(name, mode, size, from)
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	o.step(stepFiles)
	if o.Passphrase != nil {
		if keys == nil {
			return nil, fmt.Errorf("%s: has no keys: it was made without --with-key", file)
		}
		if err := w.keys(keys, m, o.Passphrase); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	o.step(stepKeys)
	if id, err := caIDOf(w.tmp); err != nil || id != m.CAID {
		return nil, errors.Join(fmt.Errorf("%s: %w: the CA certificate is not that of %s", file, ErrFormat, m.CAID), err)
	}
	if name, err := oplog.NameOf(w.tmp); err != nil || name != m.OpLog && hasLog(m) {
		return nil, errors.Join(fmt.Errorf("%s: %w: the operators' log is called %q, and the manifest says %q", file, ErrFormat, name, m.OpLog), err)
	}
	if err := oplog.MarkRestored(w.tmp, oplog.Restored{Taken: m.Taken, Restored: o.Now().UTC().Truncate(time.Millisecond), From: filepath.Base(file), Name: m.OpLog}); err != nil {
		return nil, err
	}
	defer o.step(stepDone)
	return m, w.done()
}

func hasLog(m *Manifest) bool {
	return slices.ContainsFunc(m.Files, func(f File) bool { return path.Dir(f.Name) == oplog.DirName })
}

func checkEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && len(entries) > 0 {
		return fmt.Errorf("%s: must not be there or be empty, it holds %s: a restore never writes over a CA", dir, entries[0].Name())
	}
	return err
}

// workplace is the hidden directory that becomes the CA's.
type workplace struct {
	dir, tmp string
	lock     *os.File // the directory itself
	dirs     map[string]bool
}

func newWorkplace(dir string) (*workplace, error) {
	w := &workplace{dir: dir, tmp: filepath.Join(filepath.Dir(dir), "."+filepath.Base(dir)+".restoring"), dirs: map[string]bool{}}
	if err := os.Mkdir(w.tmp, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	var err error
	if w.lock, err = os.Open(w.tmp); err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(w.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: another process restores into it: %w", w.tmp, err), w.lock.Close())
	}
	// What an earlier process left.
	entries, err := os.ReadDir(w.tmp)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(w.tmp, e.Name())))
	}
	if err != nil {
		return nil, errors.Join(err, w.lock.Close())
	}
	return w, nil
}

// path makes the directories above a file, too.
func (w *workplace) path(name string) (string, error) {
	p := filepath.Join(w.tmp, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
		return "", err
	}
	for d := filepath.Dir(p); len(d) >= len(w.tmp); d = filepath.Dir(d) {
		w.dirs[d] = true
	}
	return p, nil
}

// create writes one file of the backup.
func (w *workplace) create(name string, mode fs.FileMode, _ int64, from io.Reader) error {
	p, err := w.path(name)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(p, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	if err == nil {
		err = f.Chmod(mode &^ 0o022) // others write nothing in a CA's directory
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func (w *workplace) keys(data []byte, m *Manifest, passphrase []byte) error {
	secrets, err := unwrap(data, m.CAID, passphrase)
	if err != nil {
		return err
	}
	for _, s := range secrets {
		p, err := w.path(s.Name)
		if err != nil {
			return err
		}
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) { // the clients, without keys
			return err
		}
		if err := keyfile.WriteNew(p, s.Data, s.Mode.Perm()&^0o077|0o400); err != nil {
			return err
		}
	}
	return nil
}

// done gives the directory its name.
func (w *workplace) done() error {
	for d := range w.dirs {
		if err := keyfile.SyncDir(d); err != nil {
			return err
		}
	}
	// os.Rename refuses a directory that is there; the system takes one that is empty, and no other.
	if err := errors.Join(keyfile.SyncDir(w.tmp), syscall.Rename(w.tmp, w.dir)); err != nil {
		return err
	}
	return keyfile.SyncDir(filepath.Dir(w.dir))
}

// close gives the directory up, or away.
func (w *workplace) close(failed bool) error {
	var err error
	if failed {
		err = os.RemoveAll(w.tmp)
	}
	return errors.Join(err, w.lock.Close())
}
