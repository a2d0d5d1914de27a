package verify

import (
	"encoding/binary"
	"errors"
	"slices"
)

// LoneWrite is a valid transaction that was let through without the strict rules, since no majority had to endorse it: it writes to
// collections of private data, as one organisation can alone to its implicit ones, and to no state that concerns this verifier.
type LoneWrite struct {
	Block       uint64
	Tx          int // index in the block
	TxID        string
	Collections []string // written to, as chaincode/collection, sorted
	Endorsers   []string // MSP IDs of those whose signatures count, sorted
	Approval    bool     // writes to no collections but _lifecycle's: how an organisation approves a chaincode's definition
}

// LoneCount is how many LoneWrites there were.
type LoneCount struct {
	Approvals uint64 // of chaincode definitions
	Others    uint64
}

// Lone counts the LoneWrites in all blocks so far, those that an earlier Verifier with the same store has let through included.
func (v *Verifier) Lone() (LoneCount, error) {
	encoded, err := v.store.Get([]byte{lonePrefix})
	if err != nil || encoded == nil {
		return LoneCount{}, err
	}
	if len(encoded) != 16 {
		return LoneCount{}, errors.New("verify: stored count of lone writes is damaged")
	}
	return LoneCount{Approvals: binary.BigEndian.Uint64(encoded), Others: binary.BigEndian.Uint64(encoded[8:])}, nil
}

// loneWrite describes a valid transaction that does not concern the verifier; nil if it writes nothing private.
func (t *transaction) loneWrite(block uint64) *LoneWrite {
	w := &LoneWrite{Block: block, Tx: t.index, TxID: t.id, Approval: true}
	for _, n := range t.action.namespaces {
		for _, c := range n.collections {
			if len(c.set.GetHashedWrites())+len(c.set.GetMetadataWrites()) > 0 {
				w.Collections = append(w.Collections, n.name+"/"+c.name)
				w.Approval = w.Approval && n.name == lifecycleNamespace
			}
		}
		w.Approval = w.Approval && n.public() == 0
	}
	if len(w.Collections) == 0 {
		return nil
	}
	for _, id := range t.action.signers {
		w.Endorsers = append(w.Endorsers, id.msp.id)
	}
	slices.Sort(w.Collections)
	slices.Sort(w.Endorsers)
	w.Endorsers = slices.Compact(w.Endorsers)
	return w
}

// countLone adds a block's lone writes to the stored count.
func (v *Verifier) countLone(up *updates) error {
	if len(up.lone) == 0 {
		return nil
	}
	n, err := v.Lone()
	if err != nil {
		return err
	}
	for _, w := range up.lone {
		if w.Approval {
			n.Approvals++
		} else {
			n.Others++
		}
	}
	up.changed[string([]byte{lonePrefix})] = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, n.Approvals), n.Others)
	return nil
}
