package chaincode

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctleaf"
)

// issuanceLog is a CA's log while one transaction appends to it: the head and what stands to its left.
type issuanceLog struct {
	id    wire.CAID
	tree  *compact.Range
	time  wire.Millis // of every leaf that this transaction appends: never before that of the leaf before
	grown bool
}

var hasher = rfc6962.DefaultHasher

// openLog reads the head of a registered CA's log.
func openLog(id wire.CAID, value []byte, now wire.Millis) (*issuanceLog, error) {
	key := wire.LogHeadKey(id)
	var head wire.LogHead
	if err := wire.Decode(value, &head); err != nil {
		return nil, corrupt(key, err)
	}
	tree, err := openTree(key, head.Size, head.Range, head.Root)
	if err != nil {
		return nil, err
	}
	return &issuanceLog{id: id, tree: tree, time: max(now, head.Time)}, nil
}

// openTree returns what stands to the left of a log's next leaf, as the head at key has it.
func openTree(key string, size uint64, hashes [][]byte, root []byte) (*compact.Range, error) {
	ranges := compact.RangeFactory{Hash: hasher.HashChildren}
	tree, err := ranges.NewRange(0, size, hashes)
	if err != nil {
		return nil, corrupt(key, err)
	}
	got, err := rootOf(tree)
	if err != nil {
		return nil, corrupt(key, err)
	}
	if !bytes.Equal(got, root) {
		return nil, corrupt(key, errors.New("its root is not the hash of its compact range"))
	}
	return tree, nil
}

// append adds a certificate or precertificate and returns its place.
func (l *issuanceLog) append(s *submission) (*wire.LogEntry, error) {
	index := l.tree.End()
	// static-ct-api: leaf_index has 40 bits.
	if index > ctleaf.MaxIndex {
		return nil, wire.Errorf(wire.FailedPrecondition, "log", l.id.String(), "is full: a log has at most %s entries", strconv.Itoa(ctleaf.MaxIndex+1))
	}
	hash, err := s.leafHash(l.id, index, l.time)
	if err != nil {
		return nil, fmt.Errorf("leaf %d of log %s: %w", index, l.id, err)
	}
	if err := l.tree.Append(hash[:], nil); err != nil {
		return nil, corrupt(wire.LogHeadKey(l.id), err)
	}
	l.grown = true
	return &wire.LogEntry{Index: index, Time: l.time, LeafHash: hash[:]}, nil
}

// save writes the head if the log has grown.
func (l *issuanceLog) save(t *transaction) error {
	if !l.grown {
		return nil
	}
	root, err := rootOf(l.tree)
	if err != nil {
		return corrupt(wire.LogHeadKey(l.id), err)
	}
	t.put(wire.LogHeadKey(l.id), wire.Encode(&wire.LogHead{
		V: wire.Version, Size: l.tree.End(), Root: root, Time: l.time, Range: l.tree.Hashes(),
	}))
	return nil
}

func rootOf(tree *compact.Range) ([]byte, error) {
	if tree.End() == 0 {
		return hasher.EmptyRoot(), nil
	}
	return tree.GetRootHash(nil)
}
