package crls

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/crl"
	"github.com/certanchor/certanchor/internal/metrics"
	"github.com/certanchor/certanchor/internal/problem"
)

// Config of a Store.
type Config struct {
	Dir    string // <CA ID>/<name>: may be deleted, and is filled again when the CAs publish
	Ledger Ledger
	Maker  *Maker // default one of its own

	// Changed is index.Changed: closed when there is a newer view.
	Changed func() <-chan struct{}
	// Decide is what OCSP answers about a certificate now.
	Decide func(wire.CAID, wire.Serial) (Decision, error)
	// Usable says why the bridge vouches for nothing, nil if it does: a ledger that contradicts itself.
	Usable func() error
	// Tolerance is how far clocks may be apart.
	Tolerance time.Duration

	Now     func() time.Time
	After   func(time.Duration) <-chan time.Time
	Metrics *metrics.Registry
	Log     *slog.Logger

	write func(*os.File, []byte) (int, error) // to a disk that tests fill; default (*os.File).Write
}

// List is a CRL that is kept. It never changes.
type List struct {
	CAID       wire.CAID
	Name       string // below /crl/<CA ID>/
	DER        []byte
	Contents   *crl.Contents
	NextUpdate time.Time
	ETag       string
	// Modified is when it was taken, in whole seconds, and later than that of the one before: two CRLs within a second differ for caches.
	Modified time.Time
}

// Store keeps the newest CRL of each name. It is safe for concurrent use.
type Store struct {
	cfg     Config
	maker   *Maker
	metrics *metrics.BridgeCRLs

	checkedEntries atomic.Int64 // compared with what OCSP answers

	accepting chan struct{} // held by the one that judges a CRL: memory and processors for one at a time

	mu    sync.RWMutex
	lists map[key]*slot    // guarded by mu
	bases map[key][]uint64 // numbers of the newest complete CRLs of each name, oldest first; guarded by mu
}

// keptBases is how many complete CRLs of a name a delta may be against without more than usual work.
const keptBases = 8

type key struct {
	id   wire.CAID
	name string
}

// slot is replaced, never changed.
type slot struct {
	list  *List
	state state
	why   string // of states disagrees and overdue
}

type state int

const (
	unchecked state = iota // read from disk, and not compared yet with an index that has reached its number
	agrees
	disagrees
	overdue // right for its number, and hides a change for longer than maxHidden
)

// Open reads what is in cfg.Dir. What is not a CRL there is reported in the log and left alone. Nothing is served before Run has compared it.
func Open(cfg Config) (*Store, error) {
	s := &Store{cfg: cfg, maker: cfg.Maker, lists: map[key]*slot{}, bases: map[key][]uint64{}, accepting: make(chan struct{}, 1)}
	if s.maker == nil {
		s.maker = NewMaker(cfg.Ledger)
	}
	if s.cfg.write == nil {
		s.cfg.write = (*os.File).Write
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("CRLs: %w", err)
	}
	if err := removeUnfinished(cfg.Dir); err != nil {
		return nil, fmt.Errorf("CRLs: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(cfg.Dir, "*", "*.crl"))
	if err != nil {
		return nil, fmt.Errorf("CRLs: %w", err)
	}
	for _, file := range files {
		list, err := readList(file)
		if err != nil {
			cfg.Log.Error("a stored CRL is left out; the CA's next one replaces it", "file", file, "error", err)
			continue
		}
		s.put(list, unchecked, "")
	}
	if cfg.Metrics != nil {
		s.metrics = cfg.Metrics.BridgeCRLs(s.states)
	}
	return s, nil
}

// unfinished is what a file is called while it is written.
const unfinished = ".new-*"

// removeUnfinished removes what a process was killed over.
func removeUnfinished(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*", unfinished))
	for _, file := range files {
		err = errors.Join(err, os.Remove(file))
	}
	return err
}

func readList(file string) (*List, error) {
	id, err := wire.ParseCAID(filepath.Base(filepath.Dir(file)))
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	der, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	parsed, err := crl.Parse(der)
	if err != nil {
		return nil, err
	}
	list, err := newList(id, der, parsed)
	if err == nil && list.Name != filepath.Base(file) {
		err = fmt.Errorf("is %s by what it says", list.Name)
	}
	if err == nil {
		list.Modified = info.ModTime().UTC().Truncate(time.Second)
	}
	return list, err
}

func newList(id wire.CAID, der []byte, l *crl.List) (*List, error) {
	c, err := l.Contents(id)
	if err != nil {
		return nil, err
	}
	name, err := Name(c.Scope, c.Base != 0)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(der)
	return &List{
		CAID: id, Name: name, DER: der, Contents: c, NextUpdate: l.NextUpdate, ETag: `"` + hex.EncodeToString(sum[:16]) + `"`,
	}, nil
}

const (
	suffix      = ".crl"
	deltaSuffix = "-delta" + suffix
)

// Names of CRLs that are no shard's.
const (
	NameFull     = "full.crl"
	NameDelta    = "delta.crl"
	NameIndirect = "indirect.crl"
)

var shardName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.crl$`)

// Name is what a CRL is called below /crl/<CA ID>/: of a shard, what the last slash of its URL is followed by; of its delta, with -delta before
// .crl. Errors: a scope whose URL ends in no such name.
func Name(scope string, delta bool) (string, error) {
	if scope == "" {
		if delta {
			return NameDelta, nil
		}
		return NameFull, nil
	}
	name := scope[strings.LastIndexByte(scope, '/')+1:]
	reserved := name == NameFull || name == NameDelta || name == NameIndirect || strings.HasSuffix(name, deltaSuffix)
	if !shardName.MatchString(name) || reserved {
		return "", wire.Errorf(wire.InvalidArgument, "scope", scope, "must end in a name of letters, digits, dots, dashes and underscores with .crl, other than full.crl, delta.crl, indirect.crl and *-delta.crl")
	}
	if delta {
		return strings.TrimSuffix(name, suffix) + deltaSuffix, nil
	}
	return name, nil
}

// Get returns a CRL that may be served now. Errors: *problem.Problem, 404 if there is none, 503 if there is one that must not be served.
func (s *Store) Get(id wire.CAID, name string) (*List, error) {
	if err := s.cfg.Usable(); err != nil {
		return nil, problem.New(http.StatusServiceUnavailable, problem.CodeUnavailable, "bridge", "not usable", err.Error())
	}
	s.mu.RLock()
	sl := s.lists[key{id, name}]
	s.mu.RUnlock()
	if sl == nil {
		return nil, problem.New(http.StatusNotFound, string(wire.NotFound), "crl", id.String()+"/"+name, "must be one that the CA has published here")
	}
	withheld := func(rule string) error {
		return problem.New(http.StatusServiceUnavailable, problem.CodeUnavailable, "crl", id.String()+"/"+name, rule)
	}
	switch {
	case sl.state == disagrees:
		return nil, withheld("is not served: it disagrees with the ledger or with OCSP: " + sl.why)
	case sl.state == overdue:
		return nil, withheld("is not served: it hides a change: " + sl.why)
	case sl.state == unchecked:
		return nil, withheld(fmt.Sprintf("is not served yet: it is about height %d and not compared with the ledger since the start", sl.list.Contents.Number))
	case !s.cfg.Now().Before(sl.list.NextUpdate):
		return nil, withheld("is not served: its nextUpdate, " + sl.list.NextUpdate.Format(time.RFC3339) + ", has passed, and the CA has published none since")
	}
	return sl.list, nil
}

// Problems names the CRLs that disagree with the ledger or with OCSP, and why; empty: all is well.
func (s *Store) Problems() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var all []string
	for k, sl := range s.lists {
		if sl.state == disagrees || sl.state == overdue {
			all = append(all, fmt.Sprintf("CRL %s/%s, number %d, is not served: %s", k.id, k.name, sl.list.Contents.Number, sl.why))
		}
	}
	slices.Sort(all)
	return all
}

func (s *Store) states() (all []metrics.CRLState) {
	now := s.cfg.Now()
	s.mu.RLock()
	defer s.mu.RUnlock()
	for k, sl := range s.lists {
		all = append(all, metrics.CRLState{
			CA: k.id.String(), Name: k.name, Number: sl.list.Contents.Number, Entries: len(sl.list.Contents.Entries),
			NextUpdate: float64(sl.list.NextUpdate.Unix()), Served: sl.state == agrees && now.Before(sl.list.NextUpdate), Disagrees: sl.state == disagrees,
		})
	}
	return all
}

func (s *Store) slot(id wire.CAID, name string) *slot {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.lists[key{id, name}]
}

// names is how many CRLs of a CA there are.
func (s *Store) names(id wire.CAID) (n int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for k := range s.lists {
		if k.id == id {
			n++
		}
	}
	return n
}

func (s *Store) slots() (all []*slot) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, sl := range s.lists {
		all = append(all, sl)
	}
	slices.SortFunc(all, func(a, b *slot) int {
		return cmp.Or(bytes.Compare(a.list.CAID[:], b.list.CAID[:]), strings.Compare(a.list.Name, b.list.Name))
	})
	return all
}

// keep writes a CRL to disk and then serves it.
func (s *Store) keep(list *List) error {
	dir := filepath.Join(s.cfg.Dir, list.CAID.String())
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	list.Modified = s.cfg.Now().UTC().Truncate(time.Second)
	if old := s.slot(list.CAID, list.Name); old != nil && !list.Modified.After(old.list.Modified) {
		list.Modified = old.list.Modified.Add(time.Second)
	}
	if err := replaceFile(filepath.Join(dir, list.Name), list.DER, list.Modified, s.cfg.write); err != nil {
		return fmt.Errorf("couldn't keep the CRL %s of %s: %w", list.Name, list.CAID, err)
	}
	s.put(list, agrees, "")
	return nil
}

func (s *Store) put(list *List, st state, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := key{list.CAID, list.Name}
	s.lists[k] = &slot{list: list, state: st, why: why}
	if all := append(s.bases[k], list.Contents.Number); list.Contents.Base == 0 {
		s.bases[k] = all[max(0, len(all)-keptBases):]
	}
}

// HasBase reports whether the CA has published a complete CRL of that scope and number here, one of the newest eight, or a delta against it:
// deltas go back to the oldest complete CRL that is still valid.
func (s *Store) HasBase(id wire.CAID, scope string, number uint64) bool {
	complete, err := Name(scope, false)
	if err != nil {
		return false
	}
	delta, err := Name(scope, true)
	if err != nil {
		return false
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	k := key{id, complete}
	if sl := s.lists[k]; sl != nil && sl.list.Contents.Scope == scope && slices.Contains(s.bases[k], number) {
		return true
	}
	sl := s.lists[key{id, delta}]
	return sl != nil && sl.list.Contents.Scope == scope && sl.list.Contents.Base == number && number != 0
}

// replaceFile writes path, whole or not at all, and syncs it and its directory.
func replaceFile(path string, data []byte, modified time.Time, write func(*os.File, []byte) (int, error)) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, unfinished)
	if err != nil {
		return err
	}
	_, err = write(f, data)
	if err = errors.Join(err, f.Sync(), f.Close(), os.Chtimes(f.Name(), modified, modified)); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	for _, name := range []string{dir, filepath.Dir(dir)} {
		d, err := os.Open(name)
		if err != nil {
			return err
		}
		if err := errors.Join(d.Sync(), d.Close()); err != nil {
			return err
		}
	}
	return nil
}

// enter waits for the turn to judge a CRL.
func (s *Store) enter(ctx context.Context) (leave func(), err error) {
	select {
	case s.accepting <- struct{}{}:
		return func() { <-s.accepting }, nil
	case <-ctx.Done():
		return nil, problem.New(http.StatusServiceUnavailable, problem.CodeUnavailable, "bridge", "busy", "is judging another CRL; ask again")
	}
}
