package catalogue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// Layout of the database. Keys begin with one letter; serials and hashes are in binary.
//
//	M                    format, CA, channel
//	P                    position
//	c <serial>           Cert
//	s <key> <serial>     the certificates with a key
//	k <key>              a key of which a certificate was revoked for keyCompromise, by the CA or by the key's holder
//	p <leaf hash>        pending: a change of status that the status log does not have yet
const (
	formatVersion = 1

	certTag    = 'c'
	keyTag     = 's'
	lostTag    = 'k'
	pendingTag = 'p'
)

var (
	metaKey     = []byte("M")
	positionKey = []byte("P")
)

type meta struct {
	Format  uint   `cbor:"0,keyasint"`
	CAID    []byte `cbor:"1,keyasint"`
	Channel string `cbor:"2,keyasint"`
}

type position struct {
	Next uint64      `cbor:"0,keyasint"` // number of the next block
	Hash []byte      `cbor:"1,keyasint"` // of the one before; empty before block 0
	Time wire.Millis `cbor:"2,keyasint"` // the newest time of a valid transaction
}

type pending struct {
	Serial []byte `cbor:"0,keyasint"`
	Change uint64 `cbor:"1,keyasint"`
}

// Options of a Store.
type Options struct {
	Dir     string // made if it is not there
	CAID    wire.CAID
	Channel string
	Log     *slog.Logger     // default slog.Default
	Now     func() time.Time // default time.Now

	// Recorded is called for each certificate that a block is the first to have, once the block is applied. It must not wait.
	Recorded func(*Cert)
}

// Store is the catalogue of one CA. Its methods are safe for concurrent use.
type Store struct {
	opts Options
	db   *pebble.DB

	mu      sync.Mutex
	at      position
	lost    map[Key]struct{}
	changed chan struct{} // closed, and replaced, with each block
	skew    Skew
	live    uint64 // the ledger's height when following began
	failed  error  // why following ended
}

// lockPatience: a process that was killed may hold its locks for some moments after it has become invisible.
const (
	lockPatience = 5 * time.Second
	lockPause    = 50 * time.Millisecond
)

// Open opens or makes the store in opts.Dir. One that is damaged, of another format, CA or ledger is made anew.
func Open(opts Options) (*Store, error) {
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Recorded == nil {
		opts.Recorded = func(*Cert) {}
	}
	s := &Store{opts: opts, changed: make(chan struct{})}
	err := s.open()
	if err != nil && !errors.Is(err, syscall.EAGAIN) {
		opts.Log.Warn("the catalogue of certificates is made anew from the ledger", "dir", opts.Dir, "error", err)
		if err = os.RemoveAll(opts.Dir); err == nil {
			err = s.open()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("catalogue %s (it is derived: delete it and it is rebuilt from the ledger): %w", opts.Dir, err)
	}
	return s, nil
}

func (s *Store) open() (err error) {
	for deadline := time.Now().Add(lockPatience); ; {
		s.db, err = pebble.Open(s.opts.Dir, &pebble.Options{FormatMajorVersion: pebble.FormatNewest, Logger: quiet{s.opts.Log}})
		if !errors.Is(err, syscall.EAGAIN) || time.Now().After(deadline) {
			break
		}
		<-time.After(lockPause)
	}
	if err != nil {
		return err
	}
	if err := s.load(); err != nil {
		return errors.Join(err, s.db.Close())
	}
	return nil
}

// load reads what is kept in memory.
func (s *Store) load() error {
	want := encode(meta{formatVersion, s.opts.CAID[:], s.opts.Channel})
	have, err := s.read(metaKey)
	switch {
	case err != nil:
		return err
	case have == nil:
		if err := s.db.Set(metaKey, want, pebble.Sync); err != nil {
			return err
		}
	case string(have) != string(want):
		return errors.New("it is of another CA, ledger or version")
	}
	s.at, s.lost = position{}, map[Key]struct{}{}
	if b, err := s.read(positionKey); err != nil {
		return err
	} else if b != nil {
		if err := dec.Unmarshal(b, &s.at); err != nil {
			return err
		}
	}
	return s.scan(s.db, []byte{lostTag}, func(key, _ []byte) error {
		if len(key) != 1+len(Key{}) {
			return fmt.Errorf("key %x: bad length", key)
		}
		s.lost[Key(key[1:])] = struct{}{}
		return nil
	})
}

// read returns a copy of a value, nil if there is none.
func (s *Store) read(key []byte) ([]byte, error) { return readFrom(s.db, key) }

func readFrom(r pebble.Reader, key []byte) ([]byte, error) {
	v, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := append(make([]byte, 0, len(v)), v...)
	return out, closer.Close()
}

// scan calls fn for all keys that begin with prefix, in order. Key and value are good during the call only.
func (s *Store) scan(r pebble.Reader, prefix []byte, fn func(key, value []byte) error) (err error) {
	end := append(append([]byte{}, prefix[:len(prefix)-1]...), prefix[len(prefix)-1]+1)
	if prefix[len(prefix)-1] == 0xff {
		end = nil // filtered below
	}
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: end})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		if string(it.Key()[:min(len(prefix), len(it.Key()))]) != string(prefix) {
			break
		}
		if err := fn(it.Key(), it.Value()); err != nil {
			return err
		}
	}
	return it.Error()
}

// Close ends it. Nothing may follow any more.
func (s *Store) Close() error { return s.db.Close() }

// Height is how many blocks are applied.
func (s *Store) Height() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at.Next
}

// WaitHeight returns nil once height blocks are applied. Errors: ctx's, or why following has ended.
func (s *Store) WaitHeight(ctx context.Context, height uint64) error {
	for {
		s.mu.Lock()
		next, changed, failed := s.at.Next, s.changed, s.failed
		s.mu.Unlock()
		if next >= height {
			return nil
		}
		if failed != nil {
			return failed
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("the catalogue of certificates has %d of %d blocks: %w", next, height, ctx.Err())
		}
	}
}

// Skew compares this machine's clock with the ledger's.
type Skew struct {
	Behind time.Duration // how much later than now the newest transaction's time is; negative: it is not
	Ahead  time.Duration // how much later than its own time the newest Tick got here; 0: none was made since following began
	Every  time.Duration // between that Tick and the one before it, at most maxEvery; 0: not known. A stream that was interrupted may bring a Tick so late

	last wire.Millis // time of the newest Tick
}

// maxEvery is longer than ticks are apart anywhere.
const maxEvery = 10 * time.Minute

// Skew compares the clocks as they are now.
func (s *Store) Skew() Skew {
	s.mu.Lock()
	defer s.mu.Unlock()
	sk := s.skew
	if s.at.Time > 0 {
		sk.Behind = s.at.Time.Time().Sub(s.opts.Now())
	}
	return sk
}

// Err returns why following has ended; nil while it has not.
func (s *Store) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// Compromised reports whether a certificate with the key was revoked for keyCompromise.
func (s *Store) Compromised(k Key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.lost[k]
	return ok
}

// quiet keeps the database's own reports from the log.
type quiet struct{ log *slog.Logger }

func (quiet) Infof(string, ...any) {}
func (q quiet) Errorf(format string, args ...any) {
	q.log.Error("catalogue: " + fmt.Sprintf(format, args...))
}
func (q quiet) Fatalf(format string, args ...any) {
	panic("catalogue: " + fmt.Sprintf(format, args...))
}
