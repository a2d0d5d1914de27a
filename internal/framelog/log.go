package framelog

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/certanchor/certanchor/internal/keyfile"
)

// LazyWait is how long a record may wait for another one to share its fsync, if nobody waits for it.
const LazyWait = 100 * time.Millisecond

// Errors of Open and Append.
var (
	ErrLocked = errors.New("another process is running this CA")
	ErrClosed = errors.New("the log is closed")
)

// Log is an open log. Its methods are safe for concurrent use.
type Log struct {
	name  string
	magic Magic
	log   *slog.Logger

	file *os.File
	size int64 // owned by flush

	mu      sync.Mutex
	pending []*Pending // waiting for flush
	lazy    bool       // a timer will kick
	broken  error      // once a write failed nothing more is accepted: what is on disk is not known any more
	closed  bool

	kick chan struct{} // capacity 1
	done chan struct{} // closed when flush has returned
}

// Pending is a record on its way to the disk.
type Pending struct {
	data []byte
	pos  Position
	err  error
	done chan struct{}
}

// Wait returns once the record is durable, or never will be.
func (p *Pending) Wait() (Position, error) {
	<-p.done
	return p.pos, p.err
}

// Open opens or creates the log in path, mode 0600, and calls replay for each of its records in order. An incomplete write at the end,
// which nobody was ever told about, is cut off; damage anywhere else is ErrDamaged. The file stays locked until Close: ErrLocked if
// another process has it. name names the log in errors and in log.
func Open(path, name string, magic Magic, log *slog.Logger, replay func(record []byte, pos Position) error) (_ *Log, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, fmt.Errorf("%s %s: %w: %w", name, path, ErrLocked, err)
	}
	l := &Log{name: name, magic: magic, file: f, log: log, kick: make(chan struct{}, 1), done: make(chan struct{})}
	if err := l.replay(replay); err != nil {
		return nil, fmt.Errorf("%s %s: %w", name, path, err)
	}
	if err := keyfile.SyncDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	go l.flush()
	return l, nil
}

func (l *Log) replay(fn func([]byte, Position) error) error {
	st, err := l.file.Stat()
	if err != nil {
		return err
	}
	if l.size, err = l.magic.Scan(l.file, st.Size(), fn); err != nil || l.size == st.Size() {
		return err
	}
	l.log.Warn(l.name+": cut off an incomplete write", "offset", l.size, "bytes", st.Size()-l.size)
	if err := l.file.Truncate(l.size); err != nil {
		return err
	}
	return l.file.Sync()
}

// Append makes a record durable and returns where it stands.
func (l *Log) Append(record []byte) (Position, error) {
	p, err := l.Enqueue(record, false)
	if err != nil {
		return Position{}, err
	}
	return p.Wait()
}

// Enqueue hands a record to the next write; records stand in the order of these calls. A lazy one, which nobody waits for, goes along
// with the next that is not, or alone after LazyWait.
func (l *Log) Enqueue(record []byte, lazy bool) (*Pending, error) {
	p := &Pending{data: record, done: make(chan struct{})}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.unusable(); err != nil {
		return nil, err
	}
	l.pending = append(l.pending, p)
	switch {
	case !lazy:
		l.wake()
	case !l.lazy:
		l.lazy = true
		time.AfterFunc(LazyWait, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.lazy = false
			if !l.closed {
				l.wake()
			}
		})
	}
	return p, nil
}

// wake requires mu, and that the log is not closed.
func (l *Log) wake() {
	select {
	case l.kick <- struct{}{}:
	default: // flush has yet to take the one before, and takes all that is pending then
	}
}

// unusable says why nothing can be appended. Requires mu.
func (l *Log) unusable() error {
	if l.closed {
		return fmt.Errorf("%s: %w", l.name, ErrClosed)
	}
	return l.broken
}

// Health is nil while the log accepts records.
func (l *Log) Health() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unusable()
}

// flush writes what is pending until Close.
func (l *Log) flush() {
	defer close(l.done)
	for open := true; open; {
		_, open = <-l.kick
		for {
			batch, err := l.take()
			if len(batch) == 0 {
				break
			}
			l.commit(batch, err)
		}
	}
}

// take returns what goes into the next frame, and why it must not be written, if so.
func (l *Log) take() ([]*Pending, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, size := 0, 0
	for n < min(len(l.pending), maxRecords) && (n == 0 || size+len(l.pending[n].data)+4 <= MaxBody) {
		size += len(l.pending[n].data) + 4
		n++
	}
	batch := l.pending[:n:n]
	l.pending = l.pending[n:]
	return batch, l.broken
}

// commit writes one batch, unless an earlier write failed with err, and answers everyone in it.
func (l *Log) commit(batch []*Pending, err error) {
	data := make([][]byte, len(batch))
	for i, p := range batch {
		data[i] = p.data
	}
	offset := l.size
	if err == nil {
		if err = l.write(data); err != nil {
			err = fmt.Errorf("%s: %w", l.name, err)
			l.log.Error(l.name+" is broken, nothing more is done until a restart", "error", err)
			l.mu.Lock()
			l.broken = err
			l.mu.Unlock()
		}
	}
	for i, p := range batch {
		p.pos = Position{offset, int32(l.size - offset), int32(i)} //nolint:gosec // bounded by MaxBody, maxRecords
		p.err = err
		close(p.done)
	}
}

// write appends one frame and syncs it. After an error the file's contents behind size are not known (fsync may have dropped
// the pages), so the caller never writes again.
func (l *Log) write(records [][]byte) error {
	frame := l.magic.Encode(l.size, records)
	if _, err := l.file.WriteAt(frame, l.size); err != nil {
		return err
	}
	if err := l.file.Sync(); err != nil {
		return err
	}
	l.size += int64(len(frame))
	return nil
}

// Read returns the record at pos. The frame's checksum is verified again.
func (l *Log) Read(pos Position) ([]byte, error) {
	data := make([]byte, pos.Size)
	if _, err := l.file.ReadAt(data, pos.Offset); err != nil {
		return nil, fmt.Errorf("%s: %w", l.name, err)
	}
	frame, err := l.magic.Next(pos.Offset, data)
	if err != nil {
		return nil, fmt.Errorf("%s: offset %d: %w", l.name, pos.Offset, err)
	}
	records, err := Records(frame)
	if err == nil && int(pos.Index) >= len(records) {
		err = fmt.Errorf("there are %d records", len(records))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: offset %d: record %d: %w", l.name, pos.Offset, pos.Index, err)
	}
	return records[pos.Index], nil
}

// Swap puts another file under the log and returns the one it had. Tests make disks fail with it.
func (l *Log) Swap(f *os.File) *os.File {
	old := l.file
	l.file = f
	return old
}

// Close writes what is pending and releases the lock.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return fs.ErrClosed
	}
	l.closed = true
	close(l.kick) // under mu, as is every send
	l.mu.Unlock()
	<-l.done
	return l.file.Close()
}

// ReadFrom returns n records from the one at pos on, which must be durable.
func (l *Log) ReadFrom(pos Position, n int) ([][]byte, error) {
	var got [][]byte
	head := make([]byte, HeaderBytes)
	for len(got) < n {
		if _, err := l.file.ReadAt(head, pos.Offset); err != nil {
			return nil, fmt.Errorf("%s: %w", l.name, err)
		}
		data := make([]byte, frameLength(head))
		if _, err := l.file.ReadAt(data, pos.Offset); err != nil {
			return nil, fmt.Errorf("%s: %w", l.name, err)
		}
		frame, err := l.magic.Next(pos.Offset, data)
		if err != nil {
			return nil, fmt.Errorf("%s: offset %d: %w", l.name, pos.Offset, err)
		}
		records, err := Records(frame)
		if err != nil {
			return nil, fmt.Errorf("%s: offset %d: %w", l.name, pos.Offset, err)
		}
		records = records[min(int(pos.Index), len(records)):]
		got = append(got, records[:min(len(records), n-len(got))]...)
		pos = Position{Offset: pos.Offset + int64(len(frame))}
	}
	return got, nil
}
