package failover

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/certanchor/certanchor/network/fabric/verify"
)

// Keys of the store: a letter, then what it is about.
const (
	verifierPrefix = 'v' // then the verifier's key
	knownPrefix    = 'b' // then a block's number, 8 octets: its hash and which of its transactions are valid (known)
	genesisKey     = "g" // the channel's first block, as the own peer served it
)

// store is a verify.Store on disk. With each block's changes goes what known has of that block.
type store struct {
	db *pebble.DB
	// beside is committed together with the verifier's next changes. Owned by who holds gate.mu.
	beside []verify.Change
}

// openStore opens or makes the store. Nothing is synced: what a crash of the machine takes is derived again.
func openStore(dir string, fs vfs.FS, log *slog.Logger) (*store, error) {
	db, err := pebble.Open(dir, &pebble.Options{
		FS: fs, FormatMajorVersion: pebble.FormatTableFormatV6, Logger: storeLog{log}, CacheSize: 16 << 20, MemTableSize: 8 << 20,
		EventListener: &pebble.EventListener{DataCorruption: func(i pebble.DataCorruptionInfo) {
			log.Error("the verifier's state is damaged: delete its directory", "path", i.Path, "error", i.Details)
		}},
	})
	if err != nil {
		return nil, fmt.Errorf("verifier's state %s: %w", dir, err)
	}
	return &store{db: db}, nil
}

// Get implements verify.Store.
func (s *store) Get(key []byte) ([]byte, error) { return s.read(prefixed(verifierPrefix, key)) }

// Scan implements verify.Store.
func (s *store) Scan(from, to []byte, fn func(key, value []byte) bool) error {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: prefixed(verifierPrefix, from), UpperBound: prefixed(verifierPrefix, to)})
	if err != nil {
		return err
	}
	for ok := it.First(); ok; ok = it.Next() {
		if !fn(bytes.Clone(it.Key()[1:]), bytes.Clone(it.Value())) {
			break
		}
	}
	return errors.Join(it.Error(), it.Close())
}

// Commit implements verify.Store.
func (s *store) Commit(changes []verify.Change) error {
	b := s.db.NewBatch()
	for _, c := range changes {
		s.change(b, prefixed(verifierPrefix, c.Key), c.Value)
	}
	for _, c := range s.beside {
		s.change(b, c.Key, c.Value)
	}
	return b.Commit(pebble.NoSync)
}

// change adds to a batch, which has no errors before it is committed.
func (s *store) change(b *pebble.Batch, key, value []byte) {
	if value == nil {
		_ = b.Delete(key, nil)
		return
	}
	_ = b.Set(key, value, nil)
}

// read returns a copy of what is at key, nil if there is nothing.
func (s *store) read(key []byte) ([]byte, error) {
	value, done, err := s.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	value = bytes.Clone(value)
	return value, done.Close()
}

func prefixed(prefix byte, key []byte) []byte { return append([]byte{prefix}, key...) }

// storeLog is what Pebble logs to. A write that fails ends the process, as one of the bridge's index does: what is on the disk is whole.
type storeLog struct{ log *slog.Logger }

func (l storeLog) Infof(format string, args ...any) {
	l.log.Debug("store: " + fmt.Sprintf(format, args...))
}
func (l storeLog) Errorf(format string, args ...any) {
	l.log.Error("store: " + fmt.Sprintf(format, args...))
}

// Fatalf implements pebble.Logger, which must not return.
func (l storeLog) Fatalf(format string, args ...any) {
	pebble.DefaultLogger.Fatalf("verifier's state: "+format, args...)
}
