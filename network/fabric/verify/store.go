package verify

import (
	"cmp"
	"slices"
	"sync"
)

// Store keeps what a Verifier knows between blocks: the position, the configuration, the version of every key, the
// transaction IDs. Keys and values are opaque. It is used by one goroutine at a time.
type Store interface {
	// Get returns a key's value, nil if it is absent; values are never empty. The caller does not change it.
	Get(key []byte) ([]byte, error)
	// Scan calls fn for the keys in [from, to) in order until fn returns false.
	Scan(from, to []byte, fn func(key, value []byte) bool) error
	// Commit applies a block's changes: all of them or none. When they are durable is the store's affair: a verifier that is
	// opened again continues after the last block whose changes it finds.
	Commit(changes []Change) error
}

// Change sets a key, or deletes it when Value is nil.
type Change struct{ Key, Value []byte }

// memory is a Store that is gone with the process.
type memory struct {
	mu     sync.Mutex
	values map[string][]byte // guarded by mu
	sorted []string          // the keys in order, nil when that is to be found out; guarded by mu
}

// NewMemory returns a Store in memory.
func NewMemory() Store { return &memory{values: map[string][]byte{}} }

func (m *memory) Get(key []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.values[string(key)], nil
}

func (m *memory) Scan(from, to []byte, fn func(key, value []byte) bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sorted == nil {
		for key := range m.values {
			m.sorted = append(m.sorted, key)
		}
		slices.Sort(m.sorted)
	}
	at, _ := slices.BinarySearchFunc(m.sorted, string(from), cmp.Compare[string])
	for _, key := range m.sorted[at:] {
		if key >= string(to) || !fn([]byte(key), m.values[key]) {
			break
		}
	}
	return nil
}

func (m *memory) Commit(changes []Change) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sorted = nil
	for _, c := range changes {
		if c.Value == nil {
			delete(m.values, string(c.Key))
		} else {
			m.values[string(c.Key)] = c.Value
		}
	}
	return nil
}
