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
	versionPrefix  = 'v' // a stateKey as a peer stores it -> version of a key that is there
	policyPrefix   = 'k' // the same -> the key's own endorsement policy
	keyedPrefix    = 'n' // namespace as a peer stores it -> there was such a policy in it
	txPrefix       = 't' // transaction ID -> block that had it first
	valuePrefix    = 'l' // key of _lifecycle -> its value
	positionPrefix = 'p' // position
	configPrefix   = 'c' // common.Config in force
	lonePrefix     = 'o' // LoneCount
)

func valueKey(key string) []byte { return append([]byte{valuePrefix}, key...) }
func txKey(id string) []byte     { return append([]byte{txPrefix}, id...) }

// stateKey is a key of the state; of a private one its hash.
type stateKey struct {
	namespace  string
	private    bool
	collection string // if private
	key        string
}

// in is the namespace under which a peer's database has the key (Fabric: privacyenabledstate, deriveHashedDataNs).
func (k stateKey) in() string {
	if k.private {
		return k.namespace + "$$h" + k.collection
	}
	return k.namespace
}

// stored is the key as a peer's database has it (Fabric: stateleveldb, encodeDataKey), because a transaction may read under any name
// whatever: two names that are one to a peer have to be one here.
func (k stateKey) stored(prefix byte) []byte {
	return bytes.Join([][]byte{{prefix}, []byte(k.in()), {0}, []byte(k.key)}, nil)
}

func keyedKey(in string) []byte { return append([]byte{keyedPrefix}, in...) }

func (k stateKey) String() string {
	if k.private {
		return fmt.Sprintf("%s/%s/%x", k.namespace, k.collection, k.key)
	}
	return k.namespace + "/" + k.key
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
	changed map[string][]byte  // by key of the store; nil: gone
	written map[stateKey]state // what the transactions of the block changed
	keyed   map[string]bool    // namespaces that are known to have, or not, keys with policies
	lone    []LoneWrite        // of the block, in order
}

// state is what there is at a key.
type state struct {
	version []byte // nil: nothing
	policy  []byte // the key's own, nil if it has none
}

func newUpdates(store Store) *updates {
	return &updates{store: store, changed: map[string][]byte{}, written: map[stateKey]state{}, keyed: map[string]bool{}}
}

// version returns what a version of key must be; a key that an earlier transaction of the block changed has none that would do.
func (u *updates) version(key stateKey) (version []byte, inBlock bool, err error) {
	if w, inBlock := u.written[key]; inBlock {
		return w.version, true, nil
	}
	version, err = u.store.Get(key.stored(versionPrefix))
	return version, false, err
}

// check compares what a transaction read with the state as it is when its turn comes (Fabric: kvledger/txmgmt/validation).
func (u *updates) check(t *transaction) (verdict, error) {
	for _, n := range t.action.namespaces {
		for _, r := range n.set.GetReads() {
			if v, err := u.checkRead(n.key(r.GetKey()), r.GetVersion()); v != valid || err != nil {
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
				if v, err := u.checkRead(c.key(n, r.GetKeyHash()), r.GetVersion()); v != valid || err != nil {
					return v, err
				}
			}
		}
	}
	return valid, nil
}

func (u *updates) checkRead(key stateKey, read *kvrwset.Version) (verdict, error) {
	has, inBlock, err := u.version(key)
	if err != nil {
		return verdict{}, err
	}
	if inBlock {
		return invalid(peer.TxValidationCode_MVCC_READ_CONFLICT, "it read %s, which an earlier transaction of the block changes", key), nil
	}
	if got := versionOf(read); !bytes.Equal(got, has) || (got == nil) != (has == nil) {
		return invalid(peer.TxValidationCode_MVCC_READ_CONFLICT, "it read %s %s, which is %s", key, describeVersion(got), describeVersion(has)), nil
	}
	return valid, nil
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
