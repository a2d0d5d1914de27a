package index

import (
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
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/fxamacker/cbor/v2"
	"github.com/transparency-dev/merkle/compact"
)

// The store takes its memtables, two of them as a rule, from the cache: with a cache no larger than that nothing is cached at all.
const (
	cacheBytes    = 128 << 20
	memtableBytes = 16 << 20
)

// Options of Open.
type Options struct {
	Dir     string           // created if missing, mode 0700
	Channel string           // the ledger's name; an index of another one is refused
	Now     func() time.Time // local clock
	Log     *slog.Logger

	// Published, if not nil, is called by Apply with each block's height and changes once reads see that block, before the channel that
	// Changed has returned is closed. It must not block, nor keep changes.
	Published func(height uint64, changes []Change)
}

// Index is one ledger's index. Apply is called by one goroutine; everything else is safe for concurrent use.
type Index struct {
	opts Options

	closeMu sync.RWMutex // held for reading while db is used
	closed  bool
	db      *pebble.DB

	now       atomic.Pointer[moment]
	changed   atomic.Pointer[chan struct{}] // closed, and replaced, whenever now is
	published atomic.Uint64                 // height that Options.Published was told of
	oldest    atomic.Pointer[[]byte]        // a q key below which no pending change is; nil: not known

	// Owned by Apply's goroutine.
	trees  map[logID]*compact.Range
	mapped mapState
	failed error
	hook   func(step string) // tests: called between the steps of Apply; nil otherwise
}

// mapState is where the revocation map stands.
type mapState struct {
	statusSize uint64 // entries of the status log in it
	root       [sha256.Size]byte
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
	Height     uint64      `cbor:"0,keyasint"` // blocks applied
	Hash       []byte      `cbor:"1,keyasint"` // of the newest
	Time       wire.Millis `cbor:"2,keyasint"` // newest time of a valid transaction
	Changed    []byte      `cbor:"3,keyasint"` // of the newest change: the end of its e key
	Integrator string      `cbor:"4,keyasint,omitempty"`
}

// Open opens the index in opts.Dir, or creates an empty one, and checks that it is whole: that the stored nodes give each log's
// root, that pending changes are what their hashes say, and that the revocation map is the one of the newest Tick.
func Open(opts Options) (*Index, error) {
	if err := os.MkdirAll(opts.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	cache := pebble.NewCache(cacheBytes)
	defer cache.Unref()
	db, err := openStore(opts.Dir, func() *pebble.Options { return storeOptions(cache, opts.Log) })
	if err != nil {
		return nil, fmt.Errorf("index: open %s (it is derived: delete it and it is rebuilt from the ledger): %w", opts.Dir, err)
	}
	ix := &Index{opts: opts, db: db, trees: map[logID]*compact.Range{}}
	v, err := ix.load()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("index %s (it is derived: delete it and it is rebuilt from the ledger): %w", opts.Dir, err), db.Close())
	}
	ix.publish(v, nil)
	return ix, nil
}

// storeOptions: nearly all bytes are certificates, in the order of their log, which are written once and compacted mostly by moving
// files. They share much text with their neighbours, so they are compressed with zstd; BenchmarkApply is no faster with Snappy or MinLZ, or with
// values in files of their own, and each of these takes more space. All else is mostly hashes, and read one by one in no order: what
// unpacks fast is read fast (BenchmarkLarge). Blocks of 16 KiB would save 2.5 percent, and make a lookup that no cache knows a third slower.
// Most lookups of a serial number of which others know nothing, and of a new one, end at a filter.
func storeOptions(cache *pebble.Cache, log *slog.Logger) *pebble.Options {
	o := &pebble.Options{
		Cache:              cache,
		MemTableSize:       memtableBytes,
		FormatMajorVersion: pebble.FormatNewest,
		Logger:             storeLogger{log},
	}
	o.Experimental.SpanPolicyFunc = spanPolicy
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		o.Levels[i].BlockSize = 8 << 10
		o.Levels[i].Compression = func() *sstable.CompressionProfile { return sstable.BalancedCompression }
	}
	return o
}

// spanPolicy: fast compression for all but entries, which lie in files of their own for that reason.
func spanPolicy(start []byte) (policy pebble.SpanPolicy, end []byte, err error) {
	switch {
	case len(start) == 0 || start[0] < entryTag:
		return pebble.SpanPolicy{PreferFastCompression: true}, []byte{entryTag}, nil
	case start[0] == entryTag:
		return pebble.SpanPolicy{}, []byte{entryTag + 1}, nil
	}
	return pebble.SpanPolicy{PreferFastCompression: true}, nil, nil
}

// Close waits for running reads and closes the store.
func (ix *Index) Close() error {
	ix.closeMu.Lock()
	defer ix.closeMu.Unlock()
	if ix.closed {
		return nil
	}
	ix.closed = true
	ix.release(ix.now.Load())
	return ix.db.Close()
}

// ErrClosed is returned by reads after Close.
var ErrClosed = errors.New("index is closed")

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
