package chaincode

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
)

const stepBack = wire.Millis(wire.StepBack / time.Millisecond)

// integrate appends pending changes to the status log, in the order given. Of transactions that build on one head one wins: a
// follower checks order and completeness against the blocks, where every change is written before it is integrated.
func integrate(t *transaction, arg []byte) ([]byte, error) {
	var a wire.IntegrateArg
	if err := wire.Decode(arg, &a); err != nil {
		return nil, badArgument(arg, err)
	}
	if err := checkBatch("leaves", len(a.Leaves)); err != nil {
		return nil, err
	}
	keys, err := pendingKeys(&a)
	if err != nil {
		return nil, err
	}
	values, err := t.admit(anyRole, append([]string{wire.StatusHeadKey}, keys...)...)
	if err != nil {
		return nil, err
	}
	head, err := statusHead(values[0])
	if err != nil {
		return nil, err
	}
	if a.Size != head.Size {
		return nil, wire.Errorf(wire.FailedPrecondition, "size", fmt.Sprint(a.Size), "must be the status log's, which is %d", head.Size)
	}
	if err := t.checkTurn(head); err != nil {
		return nil, err
	}
	tree, err := openTree(wire.StatusHeadKey, head.Size, head.Range, head.Root)
	if err != nil {
		return nil, err
	}
	for i, leaf := range a.Leaves {
		value := values[i+1]
		if value == nil {
			return nil, wire.Errorf(wire.NotFound, fmt.Sprintf("leaves[%d]", i), hexPrefix(leaf), "must be the leaf hash of a pending change")
		}
		// RFC 6962 2.1
		if hash := sha256.Sum256(append([]byte{0}, value...)); !bytes.Equal(hash[:], leaf) {
			return nil, corrupt(keys[i], errors.New("its value has another leaf hash"))
		}
		if err := tree.Append(leaf, nil); err != nil {
			return nil, corrupt(wire.StatusHeadKey, err)
		}
		t.delete(keys[i])
	}
	root, err := rootOf(tree)
	if err != nil {
		return nil, corrupt(wire.StatusHeadKey, err)
	}
	t.put(wire.StatusHeadKey, wire.Encode(&wire.StatusHead{
		V: wire.Version, Size: tree.End(), Root: root, Time: max(t.now, head.Time), Range: tree.Hashes(), MSP: t.caller.MSPID,
	}))
	return wire.Encode(&wire.IntegrateResult{V: wire.Version, Size: tree.End(), Root: root}), nil
}

// pendingKeys returns the keys of the changes, each of which must be named once.
func pendingKeys(a *wire.IntegrateArg) ([]string, error) {
	keys := make([]string, len(a.Leaves))
	first := make(map[string]int, len(a.Leaves))
	for i, leaf := range a.Leaves {
		field := fmt.Sprintf("leaves[%d]", i)
		if len(leaf) != sha256.Size {
			return nil, invalid(field, hexPrefix(leaf), "must be the %d octets of a leaf hash", sha256.Size)
		}
		keys[i] = wire.PendingKey([sha256.Size]byte(leaf))
		if other, twice := first[keys[i]]; twice {
			return nil, invalid(field, hexPrefix(leaf), "must not repeat: it is also leaves[%d]", other)
		}
		first[keys[i]] = i
	}
	return keys, nil
}

// statusHead reads the status log's head.
func statusHead(value []byte) (*wire.StatusHead, error) {
	if value == nil {
		return &wire.StatusHead{Root: hasher.EmptyRoot()}, nil
	}
	var head wire.StatusHead
	if err := wire.Decode(value, &head); err != nil {
		return nil, corrupt(wire.StatusHeadKey, err)
	}
	return &head, nil
}

// checkTurn has who wrote the head leave the next one to the others for a moment, so that nobody can keep a change out of the log by
// being the quickest; alone there is nobody to leave it to.
func (t *transaction) checkTurn(head *wire.StatusHead) error {
	until := head.Time + stepBack
	if len(t.consortium.MSPs) == 1 || head.MSP != t.caller.MSPID || t.now >= until {
		return nil
	}
	return wire.Errorf(wire.FailedPrecondition, "caller.msp", t.caller.MSPID,
		"integrated last: must leave the status log to the others for %v, until %d ms; the transaction's time is %d ms", wire.StepBack, until, t.now)
}
