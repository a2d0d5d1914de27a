package oplog

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/framelog"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/pemcert"
)

// Names in a CA's directory.
const (
	DirName      = "operators"
	lockName     = "lock"
	suffix       = ".log"
	certFile     = "ca.pem"
	RestoredFile = "restored" // see MarkRestored
)

const frameMagic framelog.Magic = 0xca1e0b1c

// Errors of Open and Record.
var (
	ErrLocked   = framelog.ErrLocked // by a running CA bridge: it has to be asked to act, or stopped
	ErrRestored = errors.New("the CA's directory was restored from a backup: the CA bridge must run first, to learn from the ledger what the backup lacks")
)

// Options of OpenWith.
type Options struct {
	Now func() time.Time // default time.Now
	Log *slog.Logger     // default slog.Default

	// Name is what the log must be called, for wire.CheckOperatorsName; nil: as it says itself, and one that is made here has that of the
	// backup, or none.
	Name *string

	// Each gets every record of the newest generation while it is read.
	Each func(*Record)
}

// Log is the open log of a CA. Its methods are safe for concurrent use.
type Log struct {
	dir  string // of the log
	caID wire.CAID
	now  func() time.Time
	log  *slog.Logger
	each func(*Record)
	lock *os.File

	mu       sync.Mutex
	frames   *framelog.Log
	restored bool // the file RestoredFile is there
	name     string
	tree     *tree
	last     []byte             // leaf hash of the newest record
	newest   *framelog.Pending  // nil: everything was durable when the log was opened
	begin    *Record            // of the generation
	open     map[uint64]*Record // about to begin, without an outcome
}

// Open opens the log of the CA in dir, and makes it if there is none. Errors: ErrLocked while another process has it;
// framelog.ErrDamaged.
func Open(dir string) (*Log, error) { return OpenWith(dir, Options{}) }

// OpenWith is Open with options.
func OpenWith(dir string, o Options) (_ *Log, err error) {
	certs, err := pemcert.Read(filepath.Join(dir, certFile))
	if err != nil {
		return nil, err
	}
	l := &Log{dir: filepath.Join(dir, DirName), caID: wire.CAIDOf(certs[0].RawSubjectPublicKeyInfo), now: o.Now, log: o.Log, each: o.Each}
	if l.now == nil {
		l.now = time.Now
	}
	if l.log == nil {
		l.log = slog.Default()
	}
	if l.restored, err = IsRestored(dir); err != nil {
		return nil, err
	}
	if err := l.takeLock(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.lock.Close())
		}
	}()
	all, err := generations(l.dir)
	if err != nil {
		return nil, err
	}
	if err := l.settleName(dir, o.Name, all); err != nil {
		return nil, err
	}
	if len(all) == 0 {
		if err := l.create(&Record{}); err != nil {
			return nil, err
		}
		all = []uint64{0}
	}
	return l, l.load(all[len(all)-1])
}

// takeLock also makes the directory.
func (l *Log) takeLock() (err error) {
	if err := os.Mkdir(l.dir, 0o700); err == nil {
		err = keyfile.SyncDir(filepath.Dir(l.dir))
		if err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return err
	}
	path := filepath.Join(l.dir, lockName)
	if l.lock, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return err
	}
	if err := syscall.Flock(int(l.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return errors.Join(fmt.Errorf("operators' log %s: %w: %w", l.dir, ErrLocked, err), l.lock.Close())
	}
	return nil
}

// generations returns the numbers of the generations in dir, ascending.
func generations(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []uint64
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), suffix)
		if n, err := strconv.ParseUint(name, 10, 64); ok && err == nil && fileName(n) == e.Name() {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return all, nil
}

func fileName(generation uint64) string { return strconv.FormatUint(generation, 10) + suffix }

// create makes the file of a generation with its first record; it appears whole or not at all.
func (l *Log) create(first *Record) error {
	first.V, first.Kind, first.Prev, first.Time, first.CAID, first.Name = recordVersion, Begins, noRecord, wire.MillisOf(l.now()), l.caID[:], l.name
	return keyfile.WriteNew(filepath.Join(l.dir, fileName(first.Generation)), frameMagic.Encode(0, [][]byte{encode(first)}), 0o600)
}

// load opens a generation and makes it the log's.
func (l *Log) load(generation uint64) error {
	c := newChain(l.caID[:], generation)
	c.name = &l.name
	path := filepath.Join(l.dir, fileName(generation))
	frames, err := framelog.Open(path, "operators' log", frameMagic, l.log, func(data []byte, pos framelog.Position) error {
		r, err := c.add(data, pos)
		if err == nil && l.each != nil {
			l.each(r)
		}
		return err
	})
	if err != nil {
		return err
	}
	if c.begin == nil {
		return errors.Join(fmt.Errorf("operators' log %s: %w: it has no first record", path, framelog.ErrDamaged), frames.Close())
	}
	l.frames, l.tree, l.last, l.begin, l.open, l.newest = frames, c.tree, c.last, c.begin, c.open, nil
	return nil
}

// chain is a generation that is being read.
type chain struct {
	caID       []byte // nil: of any CA
	generation uint64
	name       *string // nil: any
	tree       *tree
	last       []byte
	begin      *Record
	open       map[uint64]*Record
}

func newChain(caID []byte, generation uint64) *chain {
	return &chain{caID: caID, generation: generation, tree: newTree(), last: noRecord, open: map[uint64]*Record{}}
}

// add takes the next record. Errors: framelog.ErrDamaged for one that does not follow the one before.
func (c *chain) add(data []byte, pos framelog.Position) (*Record, error) {
	seq := c.tree.size()
	r, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("record %d: %w: %w", seq, framelog.ErrDamaged, err)
	}
	damaged := func(format string, args ...any) error {
		return fmt.Errorf("record %d: %w: %s", seq, framelog.ErrDamaged, fmt.Sprintf(format, args...))
	}
	switch {
	case r.Seq != seq:
		return nil, damaged("it has the number %d", r.Seq)
	case !bytes.Equal(r.Prev, c.last):
		return nil, damaged("it does not follow the record before, which was changed or is another one")
	case (r.Kind == Begins) != (seq == 0):
		return nil, damaged("the first record, and no other, must begin the log")
	case r.Kind == Begins && c.caID != nil && !bytes.Equal(r.CAID, c.caID):
		return nil, fmt.Errorf("the log belongs to the CA %x, not to %x", r.CAID, c.caID)
	case r.Kind == Begins && c.name != nil && r.Name != *c.name:
		return nil, fmt.Errorf("the log is called %q, not %q", r.Name, *c.name)
	case r.Kind != Begins && r.Name != "":
		return nil, damaged("it has a name, which only the first record has")
	case r.Kind == Begins && r.Generation != c.generation:
		return nil, damaged("it begins generation %d, not %d", r.Generation, c.generation)
	case r.Kind == Ends && c.open[r.Of] == nil:
		return nil, damaged("it is the outcome of record %d, which waits for none", r.Of)
	}
	switch {
	case r.Kind == Begins:
		c.begin = r
	case r.Kind == Tells && r.Outcome == "":
		c.open[seq] = r
	case r.Kind == Ends:
		delete(c.open, r.Of)
	}
	c.last = leafHash(data)
	return r, c.tree.append(c.last, func() position { return position{Position: pos} })
}

// Record makes an entry durable and returns its number; concurrent callers share the fsync. Errors: ErrRestored; whatever keeps the log from
// being written, after which nothing is recorded until a restart, so nothing must be done.
func (l *Log) Record(e Entry) (seq uint64, err error) {
	return l.append(e.record(l.now()), false)
}

// RecordLater is Record for what need not be durable at once: it is within framelog.LazyWait.
func (l *Log) RecordLater(e Entry) error {
	_, err := l.append(e.record(l.now()), true)
	return err
}

// End records the outcome of the entry seq, which had none, without waiting for the disk: after a crash it counts as unfinished. target and
// detail add to what the entry says.
func (l *Log) End(seq uint64, outcome, target string, detail map[string]string) error {
	e := Entry{Target: target, Detail: detail, Outcome: outcome}
	r := e.record(l.now())
	r.Kind, r.Of = Ends, seq
	_, err := l.append(r, true)
	return err
}

func (l *Log) append(r *Record, lazy bool) (uint64, error) {
	p, err := l.enqueue(r, lazy)
	if err == nil && !lazy {
		_, err = p.Wait()
	}
	return r.Seq, err
}

func (l *Log) enqueue(r *Record, lazy bool) (*framelog.Pending, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.restored {
		return nil, ErrRestored
	}
	if r.Kind == Ends && l.open[r.Of] == nil {
		return nil, fmt.Errorf("operators' log: record %d waits for no outcome", r.Of)
	}
	r.Seq, r.Prev = l.tree.size(), l.last
	data := encode(r)
	p, err := l.frames.Enqueue(data, lazy)
	if err != nil {
		return nil, err
	}
	l.newest, l.last = p, leafHash(data)
	switch {
	case r.Kind == Ends:
		delete(l.open, r.Of)
	case r.Outcome == "":
		l.open[r.Seq] = r
	}
	return p, l.tree.append(l.last, func() position {
		pos, err := p.Wait()
		return position{pos, err}
	})
}

// Unfinished returns the entries without an outcome, in their order.
func (l *Log) Unfinished() []*Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.SortedFunc(maps.Values(l.open), func(a, b *Record) int { return int(int64(a.Seq) - int64(b.Seq)) }) //nolint:gosec // sizes of files
}

// Health is nil while the log can be written.
func (l *Log) Health() error {
	l.mu.Lock()
	frames, restored := l.frames, l.restored
	l.mu.Unlock()
	if restored {
		return ErrRestored
	}
	return frames.Health()
}

// CAID is whose log it is.
func (l *Log) CAID() wire.CAID { return l.caID }

// Name is that under which the log is anchored; empty: that of the CA's first bridge.
func (l *Log) Name() string { return l.name }

// Size is the number of records, of which the newest may not be durable yet.
func (l *Log) Size() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tree.size()
}

// Head returns the log's head, once all of it is durable.
func (l *Log) Head() (wire.OperatorsHead, error) {
	h, p, err := l.head()
	if err == nil && p != nil {
		_, err = p.Wait()
	}
	return h, err
}

func (l *Log) head() (wire.OperatorsHead, *framelog.Pending, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	root, err := l.tree.root()
	return wire.OperatorsHead{Generation: l.begin.Generation, Size: l.tree.size(), Root: root}, l.newest, err
}

// Lost is the last anchored head before the generation; nil for the first generation.
func (l *Log) Lost() *wire.OperatorsHead {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.begin.Lost
}

// Consistency returns the RFC 6962 section 2.1.2 proof between two sizes of the generation. Requires from <= to <= the size of a Head.
func (l *Log) Consistency(from, to uint64) ([][]byte, error) {
	l.mu.Lock()
	s := l.tree.snapshot(l.frames.ReadFrom)
	l.mu.Unlock()
	path, err := merklelog.Consistency(s, from, to)
	if err != nil {
		return nil, err
	}
	proof := make([][]byte, len(path))
	for i := range path {
		proof[i] = path[i][:]
	}
	return proof, nil
}

// RootAt returns the root that the generation had at a size up to that of a Head.
func (l *Log) RootAt(size uint64) ([]byte, error) {
	l.mu.Lock()
	s := l.tree.snapshot(l.frames.ReadFrom)
	l.mu.Unlock()
	root, err := merklelog.RootAt(s, size)
	return root[:], err
}

// Close makes everything durable and releases the lock.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.frames.Close(), l.lock.Close())
}

// Generation is the log's.
func (l *Log) Generation() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.begin.Generation
}

// IsRestored tells whether the log waits for a Settle, because its directory was restored from a backup.
func (l *Log) IsRestored() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.restored
}

// Swap puts another file under the log and returns the one it had. Tests make disks fail with it.
func (l *Log) Swap(f *os.File) *os.File {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.frames.Swap(f)
}
