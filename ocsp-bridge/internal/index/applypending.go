package index

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/network"
)

// A change of status writes a record and a pending leaf that says the same. Each transaction is checked in both directions: its
// records say which leaves it must write (expect), and it writes those and no others.

// pendingTx is what one transaction does to pending changes.
type pendingTx struct {
	expected map[[sha256.Size]byte]string // leaves by hash, and the key of the record that each describes
	moved    map[[sha256.Size]byte]bool   // leaves that Integrate has appended, not deleted yet
	newest   wire.Millis                  // of those leaves
}

func (a *applier) expect(key string, leaf *wire.StatusLeaf) {
	if a.expected == nil {
		a.expected = map[[sha256.Size]byte]string{}
	}
	a.expected[leaf.Hash()] = key
}

// checkLeaves: the other direction.
func (a *applier) checkLeaves() error {
	for _, key := range a.expected {
		return a.diverges(key, "changed", "a transaction that changes it must write the status leaf that says so")
	}
	for hash := range a.moved {
		return a.diverges(wire.PendingKey(hash), "not deleted", "is in the status log now")
	}
	return nil
}

// applyPending takes a new pending change, or removes one that this transaction has moved to the status log. Status leaves come after
// all records in key order, so what to expect is known.
func (a *applier) applyPending(w network.Write) error {
	hash, err := wire.ParseCAID(strings.TrimPrefix(w.Key, wire.PendingPrefix)) // the same form
	if err != nil {
		return a.diverges("key", w.Key, "must end in a leaf hash")
	}
	if w.Value == nil {
		if !a.moved[hash] {
			return a.diverges(w.Key, "deleted", "only an Integrate may, that moves it to the status log")
		}
		delete(a.moved, hash)
		return nil
	}
	var leaf wire.StatusLeaf
	if err := wire.Decode(w.Value, &leaf); err != nil {
		return a.unreadable(w, err)
	}
	if leaf.Hash() != hash {
		return a.diverges("key", w.Key, "its value has the leaf hash %x", leaf.Hash())
	}
	if _, ok := a.expected[hash]; !ok {
		return a.diverges(w.Key, "written", "no record in this transaction changes as it says")
	}
	delete(a.expected, hash)
	key := queueKey(a.block.Number, a.queued)
	a.queued++
	a.view.Pending++
	if err := a.set(key, hash[:]); err != nil {
		return err
	}
	val := appendMillis(append([]byte{}, key[1:]...), wire.MillisOf(a.tx.Time))
	return a.set(key32(pendingTag, hash), append(val, w.Value...))
}

// applyIntegrate appends the pending changes that the argument names to the status log.
func (a *applier) applyIntegrate() error {
	var arg wire.IntegrateArg
	if err := wire.Decode(a.tx.Arg, &arg); err != nil {
		return a.diverges("Integrate argument", "unreadable", "%v", err)
	}
	if size := a.tree(statusLog).End(); arg.Size != size {
		return a.diverges("Integrate argument size", fmt.Sprint(arg.Size), "this index holds %d entries of the status log", size)
	}
	a.moved = map[[sha256.Size]byte]bool{}
	for _, h := range arg.Leaves {
		if len(h) != sha256.Size {
			return a.diverges("Integrate argument", hex.EncodeToString(h), "must name leaf hashes")
		}
		if err := a.integrate([sha256.Size]byte(h)); err != nil {
			return err
		}
	}
	return nil
}

func (a *applier) integrate(hash [sha256.Size]byte) error {
	key := key32(pendingTag, hash)
	raw, err := get(a.batch, key)
	if err != nil {
		return err
	}
	if raw == nil {
		return a.diverges(wire.PendingKey(hash), "integrated", "this index has no such pending change")
	}
	p, queue, err := parsePending(hash, raw)
	if err != nil {
		return err
	}
	index, err := a.grow(statusLog, hash, stored(&merklelog.Entry{Kind: merklelog.Status, Leaf: raw[pendingHead:]}))
	if err != nil {
		return err
	}
	a.moved[hash], a.newest = true, max(a.newest, p.Leaf.Time)
	a.view.Pending--
	if err := a.set(statusAtKey(p.Leaf.CAID, p.Leaf.Serial, index), nil); err != nil {
		return err
	}
	if err := a.batch.Delete(queue, nil); err != nil {
		return err
	}
	return a.batch.Delete(key, nil)
}

// applyStatusHead checks the head of the status log.
func (a *applier) applyStatusHead(w network.Write) error {
	var head wire.StatusHead
	if err := wire.Decode(w.Value, &head); err != nil {
		return a.unreadable(w, err)
	}
	if err := a.checkHead(w.Key, statusLog, head.Size, head.Root, max(head.Time, a.head(statusLog).Time)); err != nil {
		return err
	}
	log := a.newLogs[statusLog]
	a.view.Integrator = head.MSP
	log.Time = max(log.Time, a.newest) // a change may be dated after the Integrate, by the clock of whoever made it
	a.newLogs[statusLog] = log
	return nil
}

const pendingHead = queueKeyLen + 8

// parsePending reads a pending change and compares it with its hash.
func parsePending(hash [sha256.Size]byte, raw []byte) (p PendingLeaf, queue []byte, err error) {
	if len(raw) < pendingHead {
		return p, nil, fmt.Errorf("pending change %x has %d octets: the stored index is damaged", hash, len(raw))
	}
	p.Hash = hash
	if err := wire.Decode(raw[pendingHead:], &p.Leaf); err != nil {
		return p, nil, fmt.Errorf("pending change %x: the stored index is damaged: %w", hash, err)
	}
	if got := p.Leaf.Hash(); got != hash {
		return p, nil, fmt.Errorf("pending change %x has the leaf hash %x: the stored index is damaged", hash, got)
	}
	p.Since = millisAt(raw[queueKeyLen:]).Time()
	return p, append([]byte{queueTag}, raw[:queueKeyLen]...), nil
}

// pendingAt reads the change that an element of the queue stands for.
func pendingAt(r pebble.Reader, key, val []byte) (p PendingLeaf, err error) {
	if len(val) != sha256.Size {
		return p, fmt.Errorf("key %x: the stored index is damaged", key)
	}
	hash := [sha256.Size]byte(val)
	raw, err := get(r, key32(pendingTag, hash))
	if err != nil {
		return p, err
	}
	p, queue, err := parsePending(hash, raw)
	if err == nil && string(queue) != string(key) {
		err = fmt.Errorf("pending change %x is queued at %x and %x: the stored index is damaged", hash, key, queue)
	}
	return p, err
}

func appendMillis(b []byte, t wire.Millis) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(t))
}

func millisAt(b []byte) wire.Millis { return wire.Millis(binary.BigEndian.Uint64(b)) }
