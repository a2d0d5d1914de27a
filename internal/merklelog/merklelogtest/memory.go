// Package merklelogtest is a Log in memory, for tests.
package merklelogtest

import (
	"crypto/sha256"
	"fmt"
	"sync"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/merklelog"
)

// Memory is a growing log. The zero value is not ready: use New.
type Memory struct {
	mu      sync.Mutex
	tree    *compact.Range
	nodes   map[compact.NodeID][]byte
	entries []merklelog.Entry
	at      map[[sha256.Size]byte]uint64
	time    wire.Millis
}

// New returns an empty log.
func New() *Memory {
	ranges := compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}
	return &Memory{tree: ranges.NewEmptyRange(0), nodes: map[compact.NodeID][]byte{}, at: map[[sha256.Size]byte]uint64{}}
}

// Append adds entries and moves the head's time to at, if that is later.
func (m *Memory) Append(at wire.Millis, entries ...merklelog.Entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range entries {
		hash := rfc6962.DefaultHasher.HashLeaf(e.Leaf)
		m.at[[sha256.Size]byte(hash)] = m.tree.End()
		if err := m.tree.Append(hash, func(id compact.NodeID, h []byte) { m.nodes[id] = h }); err != nil {
			panic(err)
		}
		m.entries = append(m.entries, e)
	}
	m.time = max(m.time, at)
}

// Head implements merklelog.Log.
func (m *Memory) Head() merklelog.Head {
	m.mu.Lock()
	defer m.mu.Unlock()
	root := rfc6962.DefaultHasher.EmptyRoot()
	if m.tree.End() > 0 {
		var err error
		if root, err = m.tree.GetRootHash(nil); err != nil {
			panic(err)
		}
	}
	return merklelog.Head{Size: m.tree.End(), Root: [sha256.Size]byte(root), Time: m.time}
}

// Nodes implements merklelog.Log.
func (m *Memory) Nodes(ids []compact.NodeID) ([][]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([][]byte, len(ids))
	for i, id := range ids {
		if out[i] = m.nodes[id]; out[i] == nil {
			return nil, fmt.Errorf("no node %d of level %d", id.Index, id.Level)
		}
	}
	return out, nil
}

// Entries implements merklelog.Log.
func (m *Memory) Entries(from, to uint64) ([]merklelog.Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if from > to || to > uint64(len(m.entries)) {
		return nil, fmt.Errorf("entries %d to %d of %d", from, to, len(m.entries))
	}
	return append([]merklelog.Entry(nil), m.entries[from:to]...), nil
}

// Find implements merklelog.Log.
func (m *Memory) Find(leafHash [sha256.Size]byte) (uint64, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i, ok := m.at[leafHash]
	return i, ok, nil
}
