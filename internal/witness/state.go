package witness

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/tlogproof"
)

// states keeps, for each origin, the size and root of the last checkpoint cosigned: one small file each, replaced as a whole. No
// signature is kept, so a bad one cannot stand in the way later.
type states struct {
	dir   string
	write func(path string, data []byte) error // durable when it returns nil; tests make it fail

	mu      sync.Mutex
	origins map[string]*state
}

// state is of one origin.
type state struct {
	mu     sync.Mutex // held from comparing the old size until the new one is durable
	loaded bool
	last   tlogproof.Checkpoint
}

const stateHeader = "certanchor witness state v1\n"

func newStates(dir string) (*states, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("witness: %w", err)
	}
	return &states{dir: dir, write: replaceFile, origins: map[string]*state{}}, nil
}

// lock returns the state of an origin, locked. The caller unlocks its mu. Origins are few: those of this ledger's logs.
func (s *states) lock(origin string) (*state, error) {
	s.mu.Lock()
	st := s.origins[origin]
	if st == nil {
		st = &state{}
		s.origins[origin] = st
	}
	s.mu.Unlock()
	st.mu.Lock()
	if st.loaded {
		return st, nil
	}
	last, err := s.load(origin)
	if err != nil {
		st.mu.Unlock()
		return nil, err
	}
	st.last, st.loaded = *last, true
	return st, nil
}

// load reads an origin's file. A damaged one is an error: to begin again from nothing could mean to cosign a smaller tree.
func (s *states) load(origin string) (*tlogproof.Checkpoint, error) {
	data, err := os.ReadFile(s.path(origin))
	if errors.Is(err, fs.ErrNotExist) {
		return &tlogproof.Checkpoint{Origin: origin, Root: emptyRoot}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("witness: %w", err)
	}
	text, ok := strings.CutPrefix(string(data), stateHeader)
	body, sum, cut := cutLast(text)
	if !ok || !cut || checksum(body) != sum {
		return nil, fmt.Errorf("witness: %s is damaged: restore it, or remove it to begin again from this organisation's own log", s.path(origin))
	}
	last, err := tlogproof.ParseText(body)
	if err != nil || last.Origin != origin {
		return nil, fmt.Errorf("witness: %s: must be the state of %q: %w", s.path(origin), origin, err)
	}
	return last, nil
}

// advance makes next the state, durably. Requires st.mu to be held. After an error the state on disk is either one, and next was right: only
// the cosignature must not leave.
func (s *states) advance(st *state, next *tlogproof.Checkpoint) error {
	if next.Size < st.last.Size {
		return fmt.Errorf("witness: %s: size %d: must not be less than %d", next.Origin, next.Size, st.last.Size)
	}
	if *next == st.last {
		return nil // a new cosignature of the same tree
	}
	text := next.Text()
	if err := s.write(s.path(next.Origin), []byte(stateHeader+text+checksum(text)+"\n")); err != nil {
		return fmt.Errorf("witness: state of %s: %w", next.Origin, err)
	}
	st.last = *next
	return nil
}

func (s *states) path(origin string) string {
	sum := sha256.Sum256([]byte(origin)) // origins have slashes, and may be longer than a file name
	return filepath.Join(s.dir, hex.EncodeToString(sum[:])+".state")
}

// cutLast splits off the last line.
func cutLast(text string) (before, last string, ok bool) {
	trimmed, ok := strings.CutSuffix(text, "\n")
	i := strings.LastIndexByte(trimmed, '\n')
	if !ok || i < 0 {
		return "", "", false
	}
	return trimmed[:i+1], trimmed[i+1:], true
}

func checksum(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// replaceFile puts data at path: wholly, and durably when it returns nil.
func replaceFile(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return err
	}
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// ownRoot recomputes the root that the own log had at a size.
func ownRoot(log merklelog.Log, size uint64) ([sha256.Size]byte, error) {
	root, err := merklelog.RootAt(log, size)
	if err != nil {
		return root, fmt.Errorf("witness: own log: %w", err)
	}
	return root, nil
}
