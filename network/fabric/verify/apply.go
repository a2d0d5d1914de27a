package verify

import (
	"bytes"
	"crypto/sha256"

	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/rwset/kvrwset"
)

// What a transaction does to one key (Fabric: validation, keyOps). A peer adds these up as numbers, so that a key named twice has an
// effect of its own: two values, for example, count as one change of metadata. One organisation can do that to its own collection.
const (
	upserted         = 1
	metadataWritten  = 2
	metadataRemoved  = 4
	removed          = 8
	policyOfMetadata = "VALIDATION_PARAMETER" // peer.MetaDataKeys
)

type operation struct {
	flags  uint8
	policy []byte
}

// emptyHash is what a peer takes for the hash of a deletion.
var emptyHash = sha256.Sum256(nil)

// operations sums up what a transaction writes.
func (t *transaction) operations() map[stateKey]*operation {
	all := map[stateKey]*operation{}
	at := func(k stateKey) *operation {
		if all[k] == nil {
			all[k] = &operation{}
		}
		return all[k]
	}
	value := func(k stateKey, gone bool) {
		if gone {
			at(k).flags += removed
		} else {
			at(k).flags += upserted
		}
	}
	metadata := func(k stateKey, entries []*kvrwset.KVMetadataEntry) {
		if entries == nil {
			at(k).flags += metadataRemoved
			return
		}
		op := at(k)
		op.flags += metadataWritten
		op.policy = nil
		for _, e := range entries {
			if e.GetName() == policyOfMetadata {
				op.policy = e.GetValue()
			}
		}
	}
	for _, n := range t.action.namespaces {
		for _, w := range n.set.GetWrites() {
			value(n.key(w.GetKey()), w.GetIsDelete() || len(w.GetValue()) == 0)
		}
		for _, w := range n.set.GetMetadataWrites() {
			metadata(n.key(w.GetKey()), w.GetEntries())
		}
		for _, c := range n.collections {
			for _, w := range c.set.GetHashedWrites() {
				value(c.key(n, w.GetKeyHash()), w.GetIsDelete() || len(w.GetValueHash()) == 0 || bytes.Equal(w.GetValueHash(), emptyHash[:]))
			}
			for _, w := range c.set.GetMetadataWrites() {
				metadata(c.key(n, w.GetKeyHash()), w.GetEntries())
			}
		}
	}
	return all
}

// apply adds what a valid transaction writes.
func (u *updates) apply(block uint64, t *transaction) error {
	version := encodeVersion(block, uint64(t.index))
	next := map[stateKey]state{}
	for k, op := range t.operations() {
		before, err := u.latest(k)
		if err != nil {
			return err
		}
		switch {
		case op.flags&removed != 0:
			next[k] = state{}
		case op.flags|upserted == upserted:
			next[k] = state{version, before.policy}
		case op.flags&upserted != 0 && op.flags&(metadataWritten|metadataRemoved) != 0, before.version != nil:
			next[k] = state{version, op.policy}
		} // else metadata of nothing
	}
	for k, s := range next {
		u.set(k, s)
	}
	for _, n := range t.action.namespaces {
		if n.name != lifecycleNamespace {
			continue
		}
		for _, w := range n.set.GetWrites() {
			u.changed[string(valueKey(w.GetKey()))] = w.GetValue()
			if w.GetIsDelete() || len(w.GetValue()) == 0 {
				u.changed[string(valueKey(w.GetKey()))] = nil
			}
		}
	}
	return nil
}

func (u *updates) set(k stateKey, s state) {
	u.written[k] = s
	u.changed[string(k.stored(versionPrefix))] = s.version
	if in := k.in(); len(s.policy) > 0 {
		u.keyed[in] = true
		u.changed[string(keyedKey(in))] = []byte{1}
		u.changed[string(k.stored(policyPrefix))] = s.policy
	} else if u.keyed[in] {
		u.changed[string(k.stored(policyPrefix))] = nil
	}
}

// latest is what there is at a key when a transaction's turn comes.
func (u *updates) latest(k stateKey) (s state, err error) {
	if s, ok := u.written[k]; ok {
		return s, nil
	}
	if s.version, err = u.store.Get(k.stored(versionPrefix)); err != nil || s.version == nil {
		return s, err
	}
	s.policy, err = keyPolicy(u.store, u.keyed, k)
	return s, err
}

// keyPolicy returns the policy that a key of the store has of its own. Nearly no namespace has such keys: known says which do.
func keyPolicy(store Store, known map[string]bool, k stateKey) ([]byte, error) {
	in := k.in()
	has, ok := known[in]
	if !ok {
		marker, err := store.Get(keyedKey(in))
		if err != nil {
			return nil, err
		}
		has = marker != nil
		known[in] = has
	}
	if !has {
		return nil, nil
	}
	return store.Get(k.stored(policyPrefix))
}
