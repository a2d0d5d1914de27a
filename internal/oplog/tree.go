package oplog

import (
	"crypto/sha256"
	"fmt"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"

	"github.com/certanchor/certanchor/internal/framelog"
)

// blockLevel is the height of the subtrees whose insides are not kept in memory but read from the file again.
const (
	blockLevel = 10
	blockSize  = 1 << blockLevel
)

var (
	hasher = rfc6962.DefaultHasher
	ranges = compact.RangeFactory{Hash: hasher.HashChildren}
)

// tree is the RFC 6962 tree over a generation's records.
type tree struct {
	left   *compact.Range
	recent [][]byte          // leaf hashes of the block that is not complete
	upper  [][][]byte        // from blockLevel up: the hashes of complete subtrees
	starts []func() position // of each block's first record; waits until it is durable
}

type position struct {
	framelog.Position
	err error
}

func newTree() *tree { return &tree{left: ranges.NewEmptyRange(0)} }

func (t *tree) size() uint64 { return t.left.End() }

// append adds a leaf; at tells where its record stands, once it does.
func (t *tree) append(leaf []byte, at func() position) error {
	if t.size()%blockSize == 0 {
		t.recent = t.recent[:0:0] // others may read the old one
		t.starts = append(t.starts, at)
	}
	t.recent = append(t.recent, leaf)
	return t.left.Append(leaf, func(id compact.NodeID, hash []byte) {
		if id.Level < blockLevel {
			return
		}
		for uint(len(t.upper)) <= id.Level-blockLevel {
			t.upper = append(t.upper, nil)
		}
		t.upper[id.Level-blockLevel] = append(t.upper[id.Level-blockLevel], hash)
	})
}

func (t *tree) root() ([]byte, error) {
	if t.size() == 0 {
		return hasher.EmptyRoot(), nil
	}
	return t.left.GetRootHash(nil)
}

// snapshot is a tree as it was, for proofs while it grows.
type snapshot struct {
	tree
	read func(framelog.Position, int) ([][]byte, error)
}

func (t *tree) snapshot(read func(framelog.Position, int) ([][]byte, error)) *snapshot {
	s := &snapshot{tree{left: t.left, recent: t.recent, starts: t.starts}, read}
	s.upper = append(s.upper, t.upper...) // the slices in it only grow
	return s
}

// Nodes returns the hashes of complete subtrees (merklelog.Hashes).
func (s *snapshot) Nodes(ids []compact.NodeID) ([][]byte, error) {
	hashes := make([][]byte, len(ids))
	for i, id := range ids {
		var err error
		if hashes[i], err = s.node(id); err != nil {
			return nil, err
		}
	}
	return hashes, nil
}

func (s *snapshot) node(id compact.NodeID) ([]byte, error) {
	if id.Level >= blockLevel {
		level := id.Level - blockLevel
		if level >= uint(len(s.upper)) || id.Index >= uint64(len(s.upper[level])) {
			return nil, fmt.Errorf("oplog: there is no node %d at level %d", id.Index, id.Level)
		}
		return s.upper[level][id.Index], nil
	}
	from := id.Index << id.Level
	leaves, err := s.leaves(from / blockSize)
	if err != nil {
		return nil, err
	}
	first, n := from%blockSize, uint64(1)<<id.Level
	if first+n > uint64(len(leaves)) {
		return nil, fmt.Errorf("oplog: there is no node %d at level %d", id.Index, id.Level)
	}
	sub := ranges.NewEmptyRange(0)
	for _, leaf := range leaves[first : first+n] {
		if err := sub.Append(leaf, nil); err != nil {
			return nil, err
		}
	}
	return sub.GetRootHash(nil)
}

// leaves returns the leaf hashes of a block.
func (s *snapshot) leaves(block uint64) ([][]byte, error) {
	switch n := uint64(len(s.starts)); {
	case block >= n:
		return nil, fmt.Errorf("oplog: there is no block %d", block)
	case block == n-1:
		return s.recent, nil
	}
	at := s.starts[block]()
	if at.err != nil {
		return nil, at.err
	}
	records, err := s.read(at.Position, blockSize)
	if err != nil {
		return nil, err
	}
	leaves := make([][]byte, len(records))
	for i, r := range records {
		leaves[i] = leafHash(r)
	}
	return leaves, nil
}

// leafHash is RFC 6962 section 2.1's.
func leafHash(record []byte) []byte { return hasher.HashLeaf(record) }

var noRecord = make([]byte, sha256.Size)
