package dual

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/keyfile"
)

// States of a Record.
const (
	Pending  = "pending"  // waits for approvals
	Approved = "approved" // has them, and is carried out, after a restart too
	Done     = "done"
	Failed   = "failed" // was refused when it was carried out
	Rejected = "rejected"
	Expired  = "expired"
)

// Limits of a Store.
const (
	maxPending  = 256
	maxOfClient = 64        // of those: one client leaves room for others
	MaxPayload  = 64 << 20  // octets
	maxPayloads = 256 << 20 // octets, of all that are pending
	keepFor     = 7 * 24 * time.Hour
	maxRecord   = 4 << 20 // octets of a record's file
)

const (
	operationsDir = "operations"
	windowFile    = "revoked.json"
)

// Record is an operation and what became of it.
type Record struct {
	Operation Operation `json:"-"`
	Text      string    `json:"text"` // of the operation
	Client    string    `json:"client"`
	State     string    `json:"state"`
	Approvals []Signed  `json:"approvals,omitempty"`
	Rejection *Signed   `json:"rejection,omitempty"`

	Finished *time.Time      `json:"finished,omitempty"`
	Result   json.RawMessage `json:"result,omitempty"` // of what was done
	Error    string          `json:"error,omitempty"`  // of what failed
}

// Signed is an approval or rejection and when it came.
type Signed struct {
	Approval
	Time time.Time `json:"time"`
}

func (r *Record) approvals() []Approval {
	all := make([]Approval, len(r.Approvals))
	for i, a := range r.Approvals {
		all[i] = a.Approval
	}
	return all
}

func (r *Record) clone() *Record {
	c := *r
	c.Approvals = slices.Clone(r.Approvals)
	return &c
}

// Store keeps the operations that wait for approvals at a running CA, durably: one file each, and one with the contents that it is about. One
// process at a time has it. It is safe for concurrent use.
type Store struct {
	dir string // of the CA
	now func() time.Time

	mu      sync.Mutex
	records map[string]*Record // by ID
	window  map[int64]int      // certificates revoked without approvals, by minute
}

// OpenStore reads the operations of the CA in dir.
func OpenStore(dir string, now func() time.Time) (*Store, error) {
	s := &Store{dir: dir, now: now, records: map[string]*Record{}, window: map[int64]int{}}
	entries, err := os.ReadDir(s.path())
	if errors.Is(err, fs.ErrNotExist) {
		return s, s.readWindow() // the directory is made with the first operation
	}
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		id, isRecord := strings.CutSuffix(e.Name(), ".json")
		if !isRecord || strings.HasPrefix(id, ".") {
			continue
		}
		data, err := readLimited(s.path(e.Name()), maxRecord)
		if err != nil {
			return nil, err
		}
		r, err := parseRecord(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.path(e.Name()), err)
		}
		if r.Operation.ID() != id {
			return nil, fmt.Errorf("%s: holds the operation %s", s.path(e.Name()), r.Operation.ID())
		}
		s.records[id] = r
	}
	return s, errors.Join(s.removeStray(entries), s.readWindow(), s.endRestored())
}

// removeStray removes contents whose record was never written: the proposal died in between.
func (s *Store) removeStray(entries []fs.DirEntry) error {
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), ".payload"); ok && s.records[id] == nil {
			if err := os.Remove(s.path(e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

func parseRecord(data []byte) (*Record, error) {
	var r Record
	dec := json.NewDecoder(strings.NewReader(string(data)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return nil, err
	}
	if !slices.Contains([]string{Pending, Approved, Done, Failed, Rejected, Expired}, r.State) {
		return nil, fmt.Errorf("state %q: is not one", r.State)
	}
	var err error
	r.Operation, err = ParseOperation([]byte(r.Text))
	return &r, err
}

func (s *Store) path(name ...string) string {
	return filepath.Join(append([]string{s.dir, stateDir, operationsDir}, name...)...)
}

// save requires the lock, and that the directory exists.
func (s *Store) save(r *Record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if len(data) > maxRecord { // of a result that is too long to keep
		short := *r
		short.Result = nil
		if data, err = json.Marshal(&short); err != nil {
			return err
		}
	}
	return keyfile.Replace(s.path(r.Operation.ID()+".json"), data, 0o600)
}

// change saves what edit makes of a record, and only then lets others see it. It requires the lock.
func (s *Store) change(r *Record, edit func(*Record)) (*Record, error) {
	next := r.clone()
	edit(next)
	if err := s.save(next); err != nil {
		return nil, err
	}
	s.records[next.Operation.ID()] = next
	return next.clone(), nil
}

// Propose keeps op, which client asked for, with the contents that it is about, and returns its record. A pending one that asks for the same is
// returned instead: a repeated request does not make another. Errors: too many wait.
func (s *Store) Propose(op Operation, client string, payload []byte) (*Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.sweep(); err != nil {
		return nil, err
	}
	pending, own, octets := 0, 0, len(payload)
	for _, r := range s.records {
		if r.State != Pending {
			continue
		}
		if same(r.Operation, op) {
			return r.clone(), nil
		}
		pending++
		if r.Client == client {
			own++
		}
		if st, err := os.Stat(s.path(r.Operation.ID() + ".payload")); err == nil {
			octets += int(st.Size())
		}
	}
	switch {
	case own >= maxOfClient:
		return nil, wire.Errorf(wire.FailedPrecondition, "operations", fmt.Sprint(own), "at most %d of one client may wait for approvals; approve or reject some", maxOfClient)
	case pending >= maxPending:
		return nil, wire.Errorf(wire.FailedPrecondition, "operations", fmt.Sprint(pending), "at most %d may wait for approvals; approve or reject some", maxPending)
	case len(payload) > MaxPayload || octets > maxPayloads:
		return nil, wire.Errorf(wire.FailedPrecondition, "operations", fmt.Sprintf("%d octets", octets), "contents must have at most %d octets, those of all that wait %d", MaxPayload, maxPayloads)
	}
	if err := op.CheckContents(payload); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.path(), 0o700); err != nil {
		return nil, err
	}
	if err := keyfile.Replace(s.path(op.ID()+".payload"), payload, 0o600); err != nil {
		return nil, err
	}
	return s.change(&Record{Operation: op, Text: string(op.Bytes()), Client: client, State: Pending}, func(*Record) {})
}

// same: everything but when and which.
func same(a, b Operation) bool {
	b.Created, b.Expires, b.Nonce = a.Created, a.Expires, a.Nonce
	return a.ID() == b.ID()
}

// Payload returns the contents that an operation is about.
func (s *Store) Payload(id string) ([]byte, error) {
	r, err := s.Get(id)
	if err != nil {
		return nil, err
	}
	data, err := readLimited(s.path(r.Operation.ID()+".payload"), MaxPayload)
	if err != nil {
		return nil, err
	}
	return data, r.Operation.CheckContents(data)
}

// Get returns one operation. Errors: *wire.Error of code not_found.
func (s *Store) Get(id string) (*Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.sweep(); err != nil {
		return nil, err
	}
	return s.get(id)
}

func (s *Store) get(id string) (*Record, error) {
	r := s.records[id]
	if r == nil {
		return nil, wire.Errorf(wire.NotFound, "operation", id, "must be one that this CA knows; finished ones are kept for %v", keepFor)
	}
	return r.clone(), nil
}

// List returns all operations, the newest first.
func (s *Store) List() ([]*Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.sweep(); err != nil {
		return nil, err
	}
	all := make([]*Record, 0, len(s.records))
	for _, r := range s.records {
		all = append(all, r.clone())
	}
	slices.SortFunc(all, func(a, b *Record) int {
		if c := b.Operation.Created.Compare(a.Operation.Created); c != 0 {
			return c
		}
		return strings.Compare(a.Operation.Nonce, b.Operation.Nonce)
	})
	return all, nil
}

// sweep ends what has expired and forgets what ended long ago; changes of the policy are kept. It requires the lock.
func (s *Store) sweep() error {
	now := s.now()
	for id, r := range s.records {
		if r.State == Pending && !now.Before(r.Operation.Expires) {
			if _, err := s.change(r, func(r *Record) { r.State, r.Finished = Expired, &r.Operation.Expires }); err != nil {
				return err
			}
		}
		r = s.records[id]
		if r.Finished == nil || now.Sub(*r.Finished) < keepFor || r.Operation.Kind == KindPolicy && r.State == Done {
			continue
		}
		// The record last: without its contents it is a record still, contents without it are removed by OpenStore.
		if err := os.Remove(s.path(id + ".payload")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.Remove(s.path(id + ".json")); err != nil {
			return err
		}
		delete(s.records, id)
	}
	return nil
}

// Approve adds an approval, which p must take. The one that completes the quorum makes the operation Approved, and complete true, for one
// caller: it carries the operation out and calls Finish. An approval that is there already changes nothing.
func (s *Store) Approve(p *Policy, id string, a Approval) (_ *Record, complete bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.open(p, id)
	if err != nil {
		return nil, false, err
	}
	now := s.now()
	if err := p.CheckApproval(r.Operation, a, now); err != nil {
		return nil, false, err
	}
	if slices.ContainsFunc(r.Approvals, func(b Signed) bool { return b.Operator == a.Operator }) {
		return r, false, nil
	}
	r.Approvals = append(r.Approvals, Signed{a, now.UTC()})
	// A policy that came in between decides about earlier approvals too.
	r.Approvals = slices.DeleteFunc(r.Approvals, func(b Signed) bool { return p.CheckApproval(r.Operation, b.Approval, now) != nil })
	if complete = p.Check(r.Operation, r.approvals(), now) == nil; complete {
		if err := p.spendInStore(r.Operation, now); err != nil {
			return nil, false, err
		}
		r.State = Approved
	}
	r, err = s.change(r, func(*Record) {})
	return r, complete && err == nil, err
}

// spendInStore uses op up for its Store.
func (p *Policy) spendInStore(op Operation, now time.Time) error {
	unlock, err := lock(p.dir)
	if err != nil {
		return err
	}
	defer unlock()
	return p.spend(op, byStore, now)
}

// Apply is Policy.Apply for an approved operation of the Store. The approvals were complete when the last of them came, and need not be now.
func (s *Store) Apply(p *Policy, id string) error {
	contents, err := s.Payload(id)
	if err != nil {
		return err
	}
	r, err := s.Get(id)
	if err != nil {
		return err
	}
	if r.State != Approved {
		return wire.Errorf(wire.FailedPrecondition, "operation.state", r.State, "must be %s", Approved)
	}
	return p.apply(r.Operation, r.approvals(), contents, byStore, r.Approvals[len(r.Approvals)-1].Time)
}

// open returns a pending operation that may be signed. It requires the lock.
func (s *Store) open(p *Policy, id string) (*Record, error) {
	if err := s.sweep(); err != nil {
		return nil, err
	}
	r, err := s.get(id)
	if err != nil {
		return nil, err
	}
	if r.State != Pending {
		return nil, wire.Errorf(wire.FailedPrecondition, "operation.state", r.State, "must be %s", Pending)
	}
	return r, p.CheckOperation(r.Operation, s.now())
}

// Reject ends a pending operation: one operator who might approve it suffices.
func (s *Store) Reject(p *Policy, id string, a Approval) (*Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.open(p, id)
	if err != nil {
		return nil, err
	}
	now := s.now().UTC()
	if err := p.CheckRejection(r.Operation, a, now); err != nil {
		return nil, err
	}
	return s.change(r, func(r *Record) { r.State, r.Rejection, r.Finished = Rejected, &Signed{a, now}, &now })
}

// Finish records how an approved operation ended: with a result, or with the error that makes it Failed.
func (s *Store) Finish(id string, result json.RawMessage, failure error) (*Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.get(id)
	if err != nil {
		return nil, err
	}
	if r.State != Approved {
		return nil, fmt.Errorf("operation %s is %s, not %s", id, r.State, Approved)
	}
	now := s.now().UTC()
	return s.change(r, func(r *Record) {
		r.State, r.Result, r.Finished = Done, result, &now
		if failure != nil {
			r.State, r.Error = Failed, failure.Error()
		}
	})
}

// Unfinished returns the IDs of operations that were approved and whose outcome is not recorded.
func (s *Store) Unfinished() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []string
	for id, r := range s.records {
		if r.State == Approved {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}
