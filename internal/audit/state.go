package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/certanchor/certanchor/chaincode"
	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/network/fabric/verify"
)

// Keys of the store: a letter, then what it is about.
const (
	statePrefix    = 's' // then the contract's key
	verifierPrefix = 'v' // then the verifier's key
	entryPrefix    = 'e' // then a log's name, '/' and the index: an entry
	mapNodePrefix  = 'm' // then a key of package revmap
	mapValuePrefix = 'y' // then a key of the map: mapEntry
	changedPrefix  = 't' // then the contract's key: when it changed last what is answered; not: that a certificate was recorded, valid
)

var positionKey = []byte("p")

func stateKey(key string) []byte { return append([]byte{statePrefix}, key...) }

// execution is the state as one transaction sees it: what the transactions before it left. It collects what the transaction writes.
type execution struct {
	auditor *Auditor
	block   map[string][]byte // writes of the block's earlier transactions; nil is a deletion
	writes  map[string][]byte
	broken  error // the first failure of the store; whatever the contract made of it must not be used
}

var _ chaincode.State = (*execution)(nil)

// Get implements chaincode.State.
func (x *execution) Get(key string) ([]byte, error) {
	if value, ok := x.block[key]; ok {
		return value, nil
	}
	value, err := x.auditor.Get(key)
	if err != nil && x.broken == nil {
		x.broken = err
	}
	return value, err
}

// GetMany implements chaincode.State.
func (x *execution) GetMany(keys []string) ([][]byte, error) {
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
func (x *execution) Put(key string, value []byte) error {
	if len(value) == 0 {
		return fmt.Errorf("put of %q without a value", key)
	}
	x.writes[key] = bytes.Clone(value)
	return nil
}

// Delete implements chaincode.State.
func (x *execution) Delete(key string) error {
	x.writes[key] = nil
	return nil
}

func (x *execution) sorted() []network.Write {
	all := make([]network.Write, 0, len(x.writes))
	for _, key := range slices.Sorted(maps.Keys(x.writes)) {
		all = append(all, network.Write{Key: key, Value: x.writes[key]})
	}
	return all
}

// digest is of a whole state: the sum, bit by bit without carry, of one hash for each key with its value. It follows changes
// without looking at the rest, and finds what changed by accident, not what somebody made to fit.
type digest [sha256.Size]byte

// toggle adds an entry, or takes it away again.
func (d *digest) toggle(key string, value []byte) {
	h := sha256.New()
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(key))))
	h.Write([]byte(key))
	h.Write(value)
	for i, b := range h.Sum(nil) {
		d[i] ^= b
	}
}

// read returns a copy of what the store has at key, nil if it has nothing.
func (a *Auditor) read(key []byte) ([]byte, error) {
	value, done, err := a.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("audit state %s: damaged, delete it to start again: %w", a.opts.Dir, err)
	}
	value = bytes.Clone(value)
	return value, done.Close()
}

// scan calls fn for the keys in [from, to) until it returns false; to may be nil for no end. What it is given holds during the call.
func (a *Auditor) scan(from, to []byte, fn func(key, value []byte) bool) error {
	it, err := a.db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return err
	}
	for ok := it.First(); ok && fn(it.Key(), it.Value()); ok = it.Next() {
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		return fmt.Errorf("audit state %s: damaged, delete it to start again: %w", a.opts.Dir, err)
	}
	return nil
}

// verifierStore keeps a verifier's state in the same store, in step with the audit's.
type verifierStore struct{ a *Auditor }

func verifierKey(key []byte) []byte { return append([]byte{verifierPrefix}, key...) }

// Get implements verify.Store.
func (s verifierStore) Get(key []byte) ([]byte, error) { return s.a.read(verifierKey(key)) }

// Scan implements verify.Store.
func (s verifierStore) Scan(from, to []byte, fn func(key, value []byte) bool) error {
	return s.a.scan(verifierKey(from), verifierKey(to), func(key, value []byte) bool { return fn(key[1:], value) })
}

// Commit implements verify.Store. The changes are kept with the block that they are about, when that has been audited.
func (s verifierStore) Commit(changes []verify.Change) error {
	if s.a.verified != nil {
		return errors.New("the block verified before was not audited; open the audit again")
	}
	s.a.verified = changes
	return nil
}
