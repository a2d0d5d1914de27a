package embedded

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/certanchor/certanchor/chaincode"
)

// overlay is the state that one transaction sees: the durable state, the writes of the transactions before it in the block
// that is being built, and its own.
type overlay struct {
	base   pebble.Reader
	block  map[string][]byte // writes of earlier transactions; a nil value is a deletion
	writes map[string][]byte // the transaction's own
	broken error             // the first failure of the store; whatever the contract made of it must not be used
}

var _ chaincode.State = (*overlay)(nil)

// Get implements chaincode.State.
func (o *overlay) Get(key string) ([]byte, error) {
	if v, ok := o.writes[key]; ok {
		return v, nil
	}
	if v, ok := o.block[key]; ok {
		return v, nil
	}
	v, err := get(o.base, stateKey(key))
	if err != nil && o.broken == nil {
		o.broken = err
	}
	return v, err
}

// GetMany implements chaincode.State.
func (o *overlay) GetMany(keys []string) ([][]byte, error) {
	values := make([][]byte, len(keys))
	for i, k := range keys {
		v, err := o.Get(k)
		if err != nil {
			return nil, err
		}
		values[i] = v
	}
	return values, nil
}

// Put implements chaincode.State.
func (o *overlay) Put(key string, value []byte) error {
	if len(value) == 0 {
		return fmt.Errorf("put %s: an empty value, which Fabric would take for a deletion", key)
	}
	o.writes[key] = slices.Clone(value)
	return nil
}

// Delete implements chaincode.State.
func (o *overlay) Delete(key string) error {
	o.writes[key] = nil
	return nil
}

// sorted returns the transaction's writes in key order.
func (o *overlay) sorted() []writeRecord {
	writes := make([]writeRecord, 0, len(o.writes))
	for _, k := range slices.Sorted(maps.Keys(o.writes)) {
		writes = append(writes, writeRecord{Key: k, Value: o.writes[k]})
	}
	return writes
}

// get returns a copy of key's value, nil when it is absent.
func get(from pebble.Reader, key []byte) ([]byte, error) {
	v, done, err := from.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the store: %w", err)
	}
	v = slices.Clone(v)
	if err := done.Close(); err != nil {
		return nil, fmt.Errorf("read the store: %w", err)
	}
	return v, nil
}
