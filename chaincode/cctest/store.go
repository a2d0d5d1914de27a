package cctest

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"github.com/certanchor/certanchor/chaincode"
)

// Store is a committed state with Fabric's version checks: every key remembers which commit wrote it, a deleted or absent key
// has version 0. It is for one goroutine.
type Store struct {
	values   map[string][]byte
	versions map[string]uint64
	commits  uint64
}

// NewStore returns an empty state.
func NewStore() *Store {
	return &Store{values: make(map[string][]byte), versions: make(map[string]uint64)}
}

// Write is one key's new value; a nil Value deletes.
type Write struct {
	Key   string
	Value []byte
}

// Envelope is an endorsed transaction: what it read and what it would write.
type Envelope struct {
	Reads  map[string]uint64 // version of each key read
	Writes []Write           // in key order
	Result []byte
}

// Simulation is the state as one execution sees it: the Store at this moment, without the execution's own writes, as in
// Fabric. It implements chaincode.State.
type Simulation struct {
	store  *Store
	reads  map[string]uint64
	writes map[string][]byte
}

var _ chaincode.State = (*Simulation)(nil)

// Simulate begins an execution.
func (s *Store) Simulate() *Simulation {
	return &Simulation{store: s, reads: make(map[string]uint64), writes: make(map[string][]byte)}
}

// Get implements chaincode.State.
func (x *Simulation) Get(key string) ([]byte, error) {
	if len(x.writes) > 0 {
		return nil, fmt.Errorf("read of %q after a write", key)
	}
	x.reads[key] = x.store.versions[key]
	return bytes.Clone(x.store.values[key]), nil
}

// GetMany implements chaincode.State.
func (x *Simulation) GetMany(keys []string) ([][]byte, error) {
	values := make([][]byte, len(keys))
	for i, key := range keys {
		var err error
		if values[i], err = x.Get(key); err != nil {
			return nil, err
		}
	}
	return values, nil
}

// Put implements chaincode.State.
func (x *Simulation) Put(key string, value []byte) error {
	if len(value) == 0 {
		return fmt.Errorf("put of %q without a value", key)
	}
	return x.write(key, bytes.Clone(value))
}

// Delete implements chaincode.State.
func (x *Simulation) Delete(key string) error { return x.write(key, nil) }

func (x *Simulation) write(key string, value []byte) error {
	if _, twice := x.writes[key]; twice || key == "" {
		return fmt.Errorf("second write of %q", key)
	}
	x.writes[key] = value
	return nil
}

// Envelope returns what the execution read and wrote so far.
func (x *Simulation) Envelope(result []byte) *Envelope {
	e := &Envelope{Reads: maps.Clone(x.reads), Result: result}
	for _, key := range slices.Sorted(maps.Keys(x.writes)) {
		e.Writes = append(e.Writes, Write{key, x.writes[key]})
	}
	return e
}

// Commit applies a block and reports which envelopes were valid: those whose reads nobody has overwritten since, neither an
// earlier block nor an earlier envelope of this one.
func (s *Store) Commit(block ...*Envelope) []bool {
	valid := make([]bool, len(block))
	for i, e := range block {
		valid[i] = s.current(e)
		if !valid[i] {
			continue
		}
		s.commits++
		for _, w := range e.Writes {
			if w.Value == nil {
				delete(s.values, w.Key)
				delete(s.versions, w.Key)
			} else {
				s.values[w.Key], s.versions[w.Key] = w.Value, s.commits
			}
		}
	}
	return valid
}

func (s *Store) current(e *Envelope) bool {
	for key, version := range e.Reads {
		if s.versions[key] != version {
			return false
		}
	}
	return true
}

// Value returns a key's committed value, nil if absent.
func (s *Store) Value(key string) []byte { return bytes.Clone(s.values[key]) }

// Keys returns all keys in order.
func (s *Store) Keys() []string { return slices.Sorted(maps.Keys(s.values)) }

// Set changes a key behind the contract's back, for tests that need a state it cannot reach yet.
func (s *Store) Set(key string, value []byte) {
	s.Commit(&Envelope{Writes: []Write{{key, value}}})
}

// Snapshot returns a copy of all keys and values, for comparison.
func (s *Store) Snapshot() map[string][]byte { return maps.Clone(s.values) }
