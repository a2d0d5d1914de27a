// Package intact reads a log for those who hand it out as immutable: what was damaged in storage is an error, not an answer that caches
// keep for a year. One flipped bit in a stored hash ended the log Yeti 2022.
//
// It compares what a log stores twice, leaves with their hashes and subtrees with their roots. Whether the whole is what the
// ledger decided is for the audit to find out.
package intact

import (
	"bytes"
	"fmt"
	"math/bits"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"

	"github.com/certanchor/certanchor/internal/merklelog"
)

// Entries returns the entries from, from+1, ... below to, each of which hashes to the stored leaf hash. Requirements are those
// of merklelog.Log.
func Entries(l merklelog.Log, from, to uint64) ([]merklelog.Entry, error) {
	entries, err := l.Entries(from, to)
	if err != nil {
		return nil, err
	}
	if uint64(len(entries)) != to-from {
		return nil, fmt.Errorf("log: %d entries from %d: must be %d", len(entries), from, to-from)
	}
	ids := make([]compact.NodeID, len(entries))
	for i := range ids {
		ids[i] = compact.NewNodeID(0, from+uint64(i))
	}
	hashes, err := nodes(l, ids)
	if err != nil {
		return nil, err
	}
	for i := range entries {
		if !bytes.Equal(rfc6962.DefaultHasher.HashLeaf(entries[i].Leaf), hashes[i]) {
			return nil, fmt.Errorf("log: entry %d does not hash to its stored leaf hash %x: one of them is damaged", from+uint64(i), hashes[i])
		}
	}
	return entries, nil
}

// Hashes returns the width hashes from index on of a level, which agree with the stored roots of every complete subtree over
// them. Requires level < 64 and nodes within a Head that was returned before.
func Hashes(l merklelog.Log, level uint, index uint64, width int) ([][]byte, error) {
	ids := make([]compact.NodeID, width)
	for i := range ids {
		ids[i] = compact.NewNodeID(level, index+uint64(i))
	}
	var roots []subtree
	for at := 0; at < width; {
		// The largest complete subtree that begins here. Aligned at a tile's index, these are the binary digits of width.
		n := 1 << (bits.Len(uint(width-at)) - 1)
		for (index+uint64(at))%uint64(n) != 0 {
			n /= 2
		}
		if n > 1 {
			height := uint(bits.Len(uint(n)) - 1)
			roots = append(roots, subtree{at: at, n: n})
			ids = append(ids, compact.NewNodeID(level+height, (index+uint64(at))>>height))
		}
		at += n
	}
	hashes, err := nodes(l, ids)
	if err != nil {
		return nil, err
	}
	for i, tree := range roots {
		if stored := hashes[width+i]; !bytes.Equal(root(hashes[tree.at:tree.at+tree.n]), stored) {
			return nil, fmt.Errorf("log: hashes %d to %d of level %d do not hash to the stored root %x: one of them is damaged",
				index+uint64(tree.at), index+uint64(tree.at+tree.n-1), level, stored)
		}
	}
	return hashes[:width], nil
}

// subtree is n hashes from at on, n a power of two.
type subtree struct{ at, n int }

func root(hashes [][]byte) []byte {
	if len(hashes) == 1 {
		return hashes[0]
	}
	half := len(hashes) / 2
	return rfc6962.DefaultHasher.HashChildren(root(hashes[:half]), root(hashes[half:]))
}

func nodes(l merklelog.Log, ids []compact.NodeID) ([][]byte, error) {
	hashes, err := l.Nodes(ids)
	if err != nil {
		return nil, err
	}
	if len(hashes) != len(ids) {
		return nil, fmt.Errorf("log: %d node hashes: must be %d", len(hashes), len(ids))
	}
	for i, h := range hashes {
		if len(h) != rfc6962.DefaultHasher.Size() {
			return nil, fmt.Errorf("log: node %d of level %d has %d octets: must have %d", ids[i].Index, ids[i].Level, len(h), rfc6962.DefaultHasher.Size())
		}
	}
	return hashes, nil
}
