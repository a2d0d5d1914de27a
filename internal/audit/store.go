package audit

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2"
)

// Files in the directory.
const storeDir = "audit"

// prepareDir makes dir; a mistyped path must not grow a store among somebody's files.
func prepareDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != storeDir {
			return fmt.Errorf("holds %q, must be empty or an audit's directory", e.Name())
		}
	}
	return nil
}

// Remove deletes the state of an audit that is not open.
func Remove(dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := prepareDir(dir); err != nil {
		return fmt.Errorf("remove audit state %s: %w", dir, err)
	}
	return os.RemoveAll(dir)
}

func openStore(o Options) (*pebble.DB, error) {
	return pebble.Open(filepath.Join(o.Dir, storeDir), &pebble.Options{
		FS:                 o.fs,
		FormatMajorVersion: pebble.FormatTableFormatV6,
		Logger:             storeLog{o.Log},
		// What is damaged comes back as an error of the read; Pebble's default is to end the process.
		EventListener: &pebble.EventListener{DataCorruption: func(i pebble.DataCorruptionInfo) {
			o.Log.Error("audit store is damaged", "path", i.Path, "error", i.Details)
		}},
		CacheSize:    64 << 20,
		MemTableSize: 32 << 20,
	})
}

// storeLog is what Pebble logs to.
type storeLog struct{ log *slog.Logger }

func (l storeLog) Infof(format string, args ...any) {
	l.log.Debug("store: " + fmt.Sprintf(format, args...))
}
func (l storeLog) Errorf(format string, args ...any) {
	l.log.Error("store: " + fmt.Sprintf(format, args...))
}

// storeFailure is what Pebble calls fatal: a disk that is full, for example.
type storeFailure struct{ error }

// Fatalf implements pebble.Logger, which must not return. What is on the disk stays consistent: the audit is opened again.
func (l storeLog) Fatalf(format string, args ...any) {
	panic(storeFailure{fmt.Errorf(format, args...)})
}
