package index

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/cockroachdb/pebble/v2"
	"github.com/fxamacker/cbor/v2"
	"github.com/transparency-dev/merkle/compact"
)

// Options of Open.
type Options struct {
	Dir     string           // created if missing, mode 0700
	Channel string           // the ledger's name; an index of another one is refused
	Now     func() time.Time // local clock
	Log     *slog.Logger
}

// Index is one ledger's index. Apply is called by one goroutine; everything else is safe for concurrent use.
type Index struct {
	opts Options

	closeMu sync.RWMutex // held for reading while db is used
	closed  bool
	db      *pebble.DB

	view    atomic.Pointer[View]
	changed atomic.Pointer[chan struct{}] // closed, and replaced, whenever view is

	// Owned by Apply's goroutine.
	trees  map[wire.CAID]*compact.Range
	failed error
	hook   func(step string) // tests: called between the steps of Apply; nil otherwise
}

// DivergenceError: the blocks say something that this index's own computation contradicts. Nothing may be answered from here on.
type DivergenceError struct {
	Block uint64
	TxID  string
	Field string
	Value string
	Rule  string
}

func (e *DivergenceError) Error() string {
	return fmt.Sprintf("ledger diverges: block %d, transaction %q: %s is %s: %s", e.Block, e.TxID, e.Field, e.Value, e.Rule)
}

// meta is what the index belongs to.
type meta struct {
	Format  uint   `cbor:"0,keyasint"`
	Channel string `cbor:"1,keyasint"`
}

// position is how far the index has come.
type position struct {
	Height uint64      `cbor:"0,keyasint"` // blocks applied
	Hash   []byte      `cbor:"1,keyasint"` // of the newest
	Time   wire.Millis `cbor:"2,keyasint"` // newest time of a valid transaction
}

// Open opens the index in opts.Dir, or creates an empty one, and checks that it is whole.
func Open(opts Options) (*Index, error) {
	if err := os.MkdirAll(opts.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	cache := pebble.NewCache(64 << 20)
	defer cache.Unref()
	db, err := pebble.Open(opts.Dir, &pebble.Options{
		Cache:              cache,
		MemTableSize:       16 << 20,
		FormatMajorVersion: pebble.FormatNewest,
		Logger:             storeLogger{opts.Log},
	})
	if err != nil {
		return nil, fmt.Errorf("index: open %s (it is derived: delete it and it is rebuilt from the ledger): %w", opts.Dir, err)
	}
	ix := &Index{opts: opts, db: db, trees: map[wire.CAID]*compact.Range{}}
	ch := make(chan struct{})
	ix.changed.Store(&ch)
	v, err := ix.load()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("index %s (it is derived: delete it and it is rebuilt from the ledger): %w", opts.Dir, err), db.Close())
	}
	ix.view.Store(v)
	return ix, nil
}

// Close waits for running reads and closes the store.
func (ix *Index) Close() error {
	ix.closeMu.Lock()
	defer ix.closeMu.Unlock()
	if ix.closed {
		return nil
	}
	ix.closed = true
	return ix.db.Close()
}

// ErrClosed is returned by reads after Close.
var ErrClosed = errors.New("index is closed")

// View returns the newest view.
func (ix *Index) View() *View { return ix.view.Load() }

// Changed returns a channel that is closed when a view newer than any that View has returned before this call is there.
// Call it before View.
func (ix *Index) Changed() <-chan struct{} { return *ix.changed.Load() }

func (ix *Index) publish(v *View) {
	ix.view.Store(v)
	next := make(chan struct{})
	close(*ix.changed.Swap(&next))
}

// load reads the index's position and its small tables, and recomputes each log's root from the stored nodes.
func (ix *Index) load() (*View, error) {
	if err := ix.checkMeta(); err != nil {
		return nil, err
	}
	v := &View{cas: map[wire.CAID]*CA{}, ids: map[idKey]*CA{}, logs: map[wire.CAID]Log{}}
	raw, err := get(ix.db, positionKey)
	if err != nil || raw == nil {
		return v, err
	}
	var pos position
	if err := cbor.Unmarshal(raw, &pos); err != nil {
		return nil, fmt.Errorf("position: %w", err)
	}
	v.Height, v.Hash, v.Time, v.Seen = pos.Height, pos.Hash, pos.Time, ix.opts.Now()
	if raw, err = get(ix.db, consortiumKey); err != nil {
		return nil, err
	} else if raw != nil {
		v.Consortium = new(wire.Consortium)
		if err := wire.Decode(raw, v.Consortium); err != nil {
			return nil, err
		}
	}
	for n := range byte(wire.ClockKeys) {
		raw, err := get(ix.db, clockKey(n))
		if err != nil {
			return nil, err
		}
		if raw != nil {
			if err := v.addClock(raw); err != nil {
				return nil, err
			}
		}
	}
	if err := ix.each(caTag, func(id wire.CAID, val []byte) error { return v.addCA(id, val) }); err != nil {
		return nil, err
	}
	return v, ix.each(headTag, func(id wire.CAID, val []byte) error { return ix.loadLog(v, id, val) })
}

// checkMeta founds a new index, or checks that an old one is this format's and this ledger's.
func (ix *Index) checkMeta() error {
	want := meta{Format: formatVersion, Channel: ix.opts.Channel}
	raw, err := get(ix.db, metaKey)
	if err != nil {
		return err
	}
	if raw == nil {
		enc, err := cbor.Marshal(want)
		if err != nil {
			return err
		}
		return ix.db.Set(metaKey, enc, pebble.Sync)
	}
	var got meta
	if err := cbor.Unmarshal(raw, &got); err != nil {
		return fmt.Errorf("format record: %w", err)
	}
	if got.Format != want.Format {
		return fmt.Errorf("format is %d, this program reads %d", got.Format, want.Format)
	}
	if got.Channel != want.Channel {
		return fmt.Errorf("belongs to the ledger %q, this is %q", got.Channel, want.Channel)
	}
	return nil
}

// each calls fn with every value of one family; the values are copies.
func (ix *Index) each(tag byte, fn func(wire.CAID, []byte) error) error {
	it, err := ix.db.NewIter(&pebble.IterOptions{LowerBound: []byte{tag}, UpperBound: []byte{tag + 1}})
	if err != nil {
		return err
	}
	for it.First(); it.Valid(); it.Next() {
		var id wire.CAID
		if len(it.Key()) != 1+len(id) {
			return errors.Join(fmt.Errorf("key %x is damaged", it.Key()), it.Close())
		}
		copy(id[:], it.Key()[1:])
		if err := fn(id, bytes.Clone(it.Value())); err != nil {
			return errors.Join(err, it.Close())
		}
	}
	return it.Close()
}

// View is what one moment's blocks say. It never changes, and reads of the store through a View may only find more than was
// there at that moment, never less: take the View first.
type View struct {
	Height     uint64      // blocks applied
	Hash       []byte      // of the newest block
	Time       wire.Millis // newest time that a valid transaction carries; 0: none yet
	Seen       time.Time   // local time when Time was learnt (or the index opened)
	Consortium *wire.Consortium
	Tick       wire.Clock // newest tick; Time 0: none yet

	cas  map[wire.CAID]*CA
	ids  map[idKey]*CA
	logs map[wire.CAID]Log
}

// Log is the head of an issuance log, recomputed by this index.
type Log struct {
	Size uint64
	Root [sha256.Size]byte
	Time wire.Millis // of the newest leaf
}

// storeLogger passes what the store says to slog. Its Fatalf must not return; dying is right, since every start recovers.
type storeLogger struct{ log *slog.Logger }

func (l storeLogger) Infof(f string, args ...any) {
	l.log.Debug("store", "message", fmt.Sprintf(f, args...))
}
func (l storeLogger) Errorf(f string, args ...any) {
	l.log.Error("store", "message", fmt.Sprintf(f, args...))
}
func (l storeLogger) Fatalf(f string, args ...any) {
	l.log.Error("store failed", "message", fmt.Sprintf(f, args...))
	panic(fmt.Sprintf("index store: "+f, args...))
}
