package audit

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
)

// What is in the directory. Only the store can be made anew from the blocks, so nothing else is ever deleted here.
const (
	storeDir    = "audit"
	SeenFile    = "seen.json" // what was served at earlier audits
	EvidenceDir = "evidence"
)

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
		if n := e.Name(); n != storeDir && n != SeenFile && n != EvidenceDir && !strings.HasPrefix(n, ".new-") {
			return fmt.Errorf("holds %q, must be empty or an audit's directory", e.Name())
		}
	}
	return nil
}

// Remove deletes the state of an audit that is not open. What was seen at earlier audits, and evidence, stays: no block has it.
func Remove(dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := prepareDir(dir); err != nil {
		return fmt.Errorf("remove audit state %s: %w", dir, err)
	}
	if err := os.RemoveAll(filepath.Join(dir, storeDir)); err != nil {
		return err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, syscall.ENOTEMPTY) && !errors.Is(err, syscall.EEXIST) {
		return err
	}
	return nil
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
