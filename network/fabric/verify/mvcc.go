package verify

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/rwset/kvrwset"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
)

// Keys of the store: a letter, then what follows it.
const (
	versionPrefix  = 'v' // namespace NUL collection NUL key -> version of a key that is there
	txPrefix       = 't' // transaction ID -> block that had it first
	valuePrefix    = 'l' // key of _lifecycle -> its value
	positionPrefix = 'p' // position
	configPrefix   = 'c' // common.Config in force
)

func valueKey(key string) []byte { return append([]byte{valuePrefix}, key...) }
func txKey(id string) []byte     { return append([]byte{txPrefix}, id...) }

// versionKey is of a public key when collection is empty, else of a private key's hash.
func versionKey(namespace, collection, key string) []byte {
	return bytes.Join([][]byte{{versionPrefix}, []byte(namespace), {0}, []byte(collection), {0}, []byte(key)}, nil)
}

// encodeVersion is where a key was written last: the octets of block and transaction number.
func encodeVersion(block, tx uint64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(nil, block), tx)
}

func versionOf(v *kvrwset.Version) []byte {
	if v == nil {
		return nil
	}
	return encodeVersion(v.GetBlockNum(), v.GetTxNum())
}

func describeVersion(v []byte) string {
	if v == nil {
		return "absent"
	}
	block, n := binary.Uvarint(v)
	tx, _ := binary.Uvarint(v[n:])
	return fmt.Sprintf("of block %d, transaction %d", block, tx)
}

// updates is the state with the changes of the block that is being looked at.
type updates struct {
	store   Store
	changed map[string][]byte // by key of the store; nil: gone
}

func newUpdates(store Store) *updates { return &updates{store: store, changed: map[string][]byte{}} }

// version returns what a version of key must be; a key that an earlier transaction of the block changed has none that would do.
func (u *updates) version(key []byte) (version []byte, inBlock bool, err error) {
	if version, inBlock = u.changed[string(key)]; inBlock {
		return version, true, nil
	}
	version, err = u.store.Get(key)
	return version, false, err
}

// check compares what a transaction read with the state as it is when its turn comes (Fabric: kvledger/txmgmt/validation).
func (u *updates) check(t *transaction) (verdict, error) {
	for _, n := range t.action.namespaces {
		for _, r := range n.set.GetReads() {
			if v, err := u.checkRead(n.name, "", r.GetKey(), r.GetVersion()); v != valid || err != nil {
				return v, err
			}
		}
		for _, q := range n.set.GetRangeQueriesInfo() {
			if v, err := u.checkRange(n.name, q); v != valid || err != nil {
				return v, err
			}
		}
		for _, c := range n.collections {
			for _, r := range c.set.GetHashedReads() {
				if v, err := u.checkRead(n.name, c.name, string(r.GetKeyHash()), r.GetVersion()); v != valid || err != nil {
					return v, err
				}
			}
		}
	}
	return valid, nil
}

func (u *updates) checkRead(namespace, collection, key string, read *kvrwset.Version) (verdict, error) {
	has, inBlock, err := u.version(versionKey(namespace, collection, key))
	if err != nil {
		return verdict{}, err
	}
	name := fmt.Sprintf("%s/%s", namespace, key)
	if collection != "" {
		name = fmt.Sprintf("%s/%s/%x", namespace, collection, key)
	}
	if inBlock {
		return invalid(peer.TxValidationCode_MVCC_READ_CONFLICT, "it read %s, which an earlier transaction of the block changes", name), nil
	}
	if got := versionOf(read); !bytes.Equal(got, has) || (got == nil) != (has == nil) {
		return invalid(peer.TxValidationCode_MVCC_READ_CONFLICT, "it read %s %s, which is %s", name, describeVersion(got), describeVersion(has)), nil
	}
	return valid, nil
}

// checkRange compares the keys that a range query gave with those that it would give now.
func (u *updates) checkRange(namespace string, q *kvrwset.RangeQueryInfo) (verdict, error) {
	if q.GetReadsMerkleHashes() != nil {
		return verdict{}, faultf("range query of "+namespace, fmt.Sprintf("%q to %q", q.GetStartKey(), q.GetEndKey()), "is not supported: its results are only hashed")
	}
	present, err := u.scan(namespace, q)
	if err != nil {
		return verdict{}, err
	}
	read := q.GetRawReads().GetKvReads()
	same := slices.EqualFunc(read, present, func(r *kvrwset.KVRead, p entry) bool {
		return r.GetKey() == p.key && bytes.Equal(versionOf(r.GetVersion()), p.version)
	})
	if !same {
		return invalid(peer.TxValidationCode_PHANTOM_READ_CONFLICT, "its range query of %s from %q to %q gave %d keys, which is not what is there now",
			namespace, q.GetStartKey(), q.GetEndKey(), len(read)), nil
	}
	return valid, nil
}

type entry struct {
	key     string
	version []byte
}

// scan lists the keys of a range as of now. A query that was not read to its end names the last key read as its end.
func (u *updates) scan(namespace string, q *kvrwset.RangeQueryInfo) ([]entry, error) {
	prefix := versionKey(namespace, "", "")
	from, to := append(slices.Clone(prefix), q.GetStartKey()...), append(slices.Clone(prefix), q.GetEndKey()...)
	if q.GetEndKey() == "" {
		to[len(to)-1]++ // the NUL before the key
	} else if !q.GetItrExhausted() {
		to = append(to, 0) // includes the end
	}
	all := map[string][]byte{}
	err := u.store.Scan(from, to, func(key, version []byte) bool {
		all[string(key)] = slices.Clone(version)
		return true
	})
	if err != nil {
		return nil, err
	}
	for key, version := range u.changed {
		if key >= string(from) && key < string(to) {
			all[key] = version
		}
	}
	var present []entry
	for key, version := range all {
		if version != nil {
			present = append(present, entry{key[len(prefix):], version})
		}
	}
	slices.SortFunc(present, func(a, b entry) int { return bytes.Compare([]byte(a.key), []byte(b.key)) })
	return present, nil
}

// apply adds what a valid transaction writes.
func (u *updates) apply(block uint64, t *transaction) {
	version := encodeVersion(block, uint64(t.index))
	set := func(namespace, collection, key string, gone bool) {
		v := version
		if gone {
			v = nil
		}
		u.changed[string(versionKey(namespace, collection, key))] = v
	}
	for _, n := range t.action.namespaces {
		for _, w := range n.set.GetWrites() {
			gone := w.GetIsDelete() || len(w.GetValue()) == 0
			set(n.name, "", w.GetKey(), gone)
			if n.name == lifecycleNamespace {
				u.changed[string(valueKey(w.GetKey()))] = w.GetValue()
				if gone {
					u.changed[string(valueKey(w.GetKey()))] = nil
				}
			}
		}
		for _, c := range n.collections {
			for _, w := range c.set.GetHashedWrites() {
				set(n.name, c.name, string(w.GetKeyHash()), w.GetIsDelete() || len(w.GetValueHash()) == 0)
			}
		}
	}
}

// changes lists what the block changes, in the order of the keys.
func (u *updates) changes() []Change {
	all := make([]Change, 0, len(u.changed))
	for key, value := range u.changed {
		all = append(all, Change{Key: []byte(key), Value: value})
	}
	slices.SortFunc(all, func(a, b Change) int { return bytes.Compare(a.Key, b.Key) })
	return all
}
