package keystate

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/certanchor/certanchor/internal/keyfile"
)

// File is the name of the history within a CA's directory.
const File = "key.states"

// ErrLocked says that another process has the history open and is the one to ask for changes.
var ErrLocked = errors.New("another process has it open")

// adopted is why a key without a history is active.
const adopted = "was there before states were kept"

// Store is the history of one key, open for changes. It is safe for concurrent use; one process at a time has it.
type Store struct {
	path, key string

	mu      sync.Mutex // guards what follows
	file    *os.File
	history []Record
	prev    string // hash of the last line
	size    int64
	closed  bool
	failed  error // of a write: what the file has is not known any more
}

// Open opens the history at path about key (the hexadecimal SHA-256 of its SubjectPublicKeyInfo), and makes it when it is absent: the key is active then,
// from before states were kept. Errors: ErrLocked; those of ParseHistory.
func Open(path, key string) (*Store, error) {
	return open(path, key, &Change{To: Active, By: "certanchor", How: "adoption", Why: adopted, At: time.Now()})
}

// Create makes the history of a new key, in the state that c says.
func Create(path, key string, c Change) (*Store, error) { return open(path, key, &c) }

func open(path, key string, first *Change) (_ *Store, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("key states %s: %w", path, ErrLocked)
	} else if err != nil {
		return nil, fmt.Errorf("key states %s: couldn't lock: %w", path, err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("is larger than %d octets", maxFile)
	}
	s := &Store{path: path, key: key, file: f}
	var whole int
	if err == nil {
		s.history, whole, err = ParseHistory(data, key)
	}
	if err != nil {
		return nil, fmt.Errorf("key states %s: %w", path, err)
	}
	s.size = int64(whole)
	if whole < len(data) {
		if err := errors.Join(f.Truncate(s.size), f.Sync()); err != nil {
			return nil, fmt.Errorf("key states %s: %w", path, err)
		}
	}
	if len(s.history) > 0 {
		s.prev = lastHash(data[:whole])
		return s, nil
	}
	if _, err := s.Change(*first); err != nil {
		return nil, err
	}
	return s, keyfile.SyncDir(filepath.Dir(path))
}

func lastHash(data []byte) string {
	data = data[:len(data)-1]
	for i := len(data) - 1; i >= 0; i-- {
		if data[i] == '\n' {
			return hashOf(data[i+1:])
		}
	}
	return hashOf(data)
}

// Read returns the history at path without opening it for changes. That of a key without one is empty.
func Read(path, key string) ([]Record, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	history, _, err := ParseHistory(data, key)
	if err != nil {
		return nil, fmt.Errorf("key states %s: %w", path, err)
	}
	return history, nil
}

// StateOf is the state that a history ends in: active for an empty one.
func StateOf(history []Record) State {
	if len(history) == 0 {
		return Active
	}
	return history[len(history)-1].To
}

// Last returns the newest record.
func (s *Store) Last() Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.history[len(s.history)-1]
}

// History returns all records, oldest first.
func (s *Store) History() []Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.history)
}

// Check returns what Change would refuse.
func (s *Store) Check(c Change) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.check(c)
}

// check requires mu.
func (s *Store) check(c Change) error {
	if err := checkText(c.By, c.How, c.Why); err != nil {
		return err
	}
	from, before := State(""), State("")
	for _, r := range s.history {
		from = r.To
		if r.To == Suspended {
			before = r.From
		}
	}
	return check(from, before, c.To)
}

// Before is the state that a suspended key goes back to.
func (s *Store) Before() State {
	last := s.Last()
	if last.To == Suspended {
		return last.From
	}
	return last.To
}

// Change records a change and returns when it is durable. Errors: *wire.Error for one that may not follow; after any other error the change may
// or may not be found when the history is next opened, and no further one is taken.
func (s *Store) Change(c Change) (Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(c); err != nil {
		return Record{}, err
	}
	if s.failed != nil {
		return Record{}, s.failed
	}
	r := Record{Seq: uint64(len(s.history)) + 1, Key: s.key, To: c.To, Time: c.At.UTC().Truncate(time.Millisecond), By: c.By, How: c.How, Why: c.Why, Prev: s.prev}
	if n := len(s.history); n > 0 {
		r.From = s.history[n-1].To
	}
	line, err := json.Marshal(&r)
	if err != nil {
		return Record{}, err
	}
	_, err = s.file.WriteAt(append(line, '\n'), s.size)
	if err == nil {
		err = s.file.Sync()
	}
	if err != nil {
		s.failed = fmt.Errorf("key states %s: couldn't write: %w", s.path, err)
		return Record{}, s.failed
	}
	s.history, s.prev, s.size = append(s.history, r), hashOf(line), s.size+int64(len(line))+1
	return r, nil
}

// Close releases the file.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed, s.failed = true, fmt.Errorf("key states %s: closed", s.path)
	return s.file.Close()
}
