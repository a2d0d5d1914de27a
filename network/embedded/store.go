package embedded

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Keys of the store.
var (
	foundingKey = []byte("m/founding")
	headKey     = []byte("m/head")
)

const (
	blockPrefix = 'b' // then the number, 8 octets big-endian
	statePrefix = 's' // then the contract's key
)

func stateKey(key string) []byte { return append([]byte{statePrefix}, key...) }

func blockKey(number uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{blockPrefix}, number)
}

// head is how far the ledger has come, at headKey. It is in the same batch as the block it points to.
type head struct {
	V      uint   `cbor:"0,keyasint"`
	Height uint64 `cbor:"1,keyasint"` // number of blocks
	Hash   []byte `cbor:"2,keyasint"` // of the last one
}

// Files in a ledger's directory.
const (
	storeDir = "store"
	lockFile = "ledger.lock"
)

// openStore opens the Pebble database of a ledger. fatal is called, once or more, with failures after which the database must
// not be used again, from the goroutine that met them; that goroutine then ends.
func openStore(o Options, fatal func(error)) (*pebble.DB, error) {
	options := &pebble.Options{
		FS: o.fs,
		// Fixed, so that a newer Pebble does not silently make stores that an older program cannot open.
		FormatMajorVersion: pebble.FormatTableFormatV6,
		Logger:             storeLog{log: o.Log, fatal: fatal},
		CacheSize:          64 << 20,
		MemTableSize:       32 << 20,
	}
	for i := range options.Levels {
		// Nine of ten reads ask whether a serial number is new.
		options.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	db, err := pebble.Open(filepath.Join(o.Dir, storeDir), options)
	if err != nil {
		return nil, fmt.Errorf("open the store: %w", err)
	}
	return db, nil
}

// storeLog is what Pebble logs to.
type storeLog struct {
	log   *slog.Logger
	fatal func(error)
}

// Infof implements pebble.Logger. It is Pebble's account of its own housekeeping.
func (l storeLog) Infof(format string, args ...any) {
	l.log.Debug("store: " + fmt.Sprintf(format, args...))
}

// Errorf implements pebble.Logger.
func (l storeLog) Errorf(format string, args ...any) {
	l.log.Error("store: " + fmt.Sprintf(format, args...))
}

// Fatalf implements pebble.Logger. It does not return, as Pebble expects, but it does not end the whole process either: the
// ledger's callers are told, and who runs it decides.
func (l storeLog) Fatalf(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	l.log.Error("store failed", "error", err)
	l.fatal(err)
	runtime.Goexit()
}

var errNoLedger = errors.New("there is no ledger")

// lockDir makes dir, unless it must exist, refuses one that holds something else, and takes the lock that keeps a second
// process out.
func lockDir(dir string, mustExist bool) (io.Closer, error) {
	if mustExist {
		if _, err := os.Stat(filepath.Join(dir, lockFile)); err != nil {
			return nil, fmt.Errorf("%w: %w", errNoLedger, err)
		}
	} else if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := mustBeLedger(dir); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, rerr := io.ReadAll(io.LimitReader(f, 4096))
		err = errors.Join(fmt.Errorf("in use by %s (%w)", describeHolder(holder), err), rerr, f.Close())
		return nil, err
	}
	note := fmt.Sprintf("process %d: %s", os.Getpid(), strings.Join(os.Args, " "))
	if err := errors.Join(f.Truncate(0), writeAt(f, note)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func writeAt(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}

func describeHolder(note []byte) string {
	if len(note) == 0 {
		return "another process"
	}
	return string(note)
}

// mustBeLedger keeps a mistyped path from growing a ledger among somebody's files.
func mustBeLedger(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == storeDir || e.Name() == lockFile {
			return nil
		}
	}
	if len(entries) > 0 {
		return fmt.Errorf("holds %q, must be empty or a ledger's directory", entries[0].Name())
	}
	return nil
}

// syncDir makes the entry of a new ledger's store survive a power failure; the store syncs what is inside.
func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
