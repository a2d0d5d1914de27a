package index

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctleaf"
	"github.com/certanchor/certanchor/internal/merklelog"
)

var (
	hasher    = rfc6962.DefaultHasher
	ranges    = compact.RangeFactory{Hash: hasher.HashChildren}
	emptyRoot = [sha256.Size]byte(hasher.EmptyRoot())
)

// rootOf is the RFC 6962 section 2.1 root of a range that begins at 0.
func rootOf(r *compact.Range) ([sha256.Size]byte, error) {
	if r.End() == 0 {
		return emptyRoot, nil
	}
	root, err := r.GetRootHash(nil)
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	return [sha256.Size]byte(root), nil
}

// nodeReader reads hashes of complete subtrees of one log, for one request.
type nodeReader struct {
	r    pebble.Reader
	log  logID
	size uint64 // of the log in r

	seen  map[compact.NodeID][]byte
	right map[compact.NodeID]bool // nodes that are the hash of their children
}

// tree returns the compact range of the log's first leaves, and their root.
func (n *nodeReader) tree(size uint64) (*compact.Range, [sha256.Size]byte, error) {
	var root [sha256.Size]byte
	hashes, err := n.checked(compact.RangeNodes(0, size, nil))
	if err != nil {
		return nil, root, err
	}
	tree, err := ranges.NewRange(0, size, hashes)
	if err != nil {
		return nil, root, fmt.Errorf("log %s: %w", n.log, err)
	}
	root, err = rootOf(tree)
	return tree, root, err
}

// checked returns hashes, each compared with its parent, or at the right edge of the log, where there is no parent yet, with
// its children or its entry. So a flipped bit in the store is an error here and not a proof that does not verify.
func (n *nodeReader) checked(ids []compact.NodeID) ([][]byte, error) {
	if err := n.loadRuns(ids); err != nil {
		return nil, err
	}
	hashes := make([][]byte, len(ids))
	for i, id := range ids {
		if id.Index >= n.size>>id.Level {
			return nil, fmt.Errorf("log %s: node %d of level %d is not in a tree of size %d", n.log, id.Index, id.Level, n.size)
		}
		hash, err := n.hash(id)
		if err != nil {
			return nil, err
		}
		if err := n.check(id, hash); err != nil {
			return nil, err
		}
		hashes[i] = hash
	}
	return hashes, nil
}

// loadRuns reads ahead what a tile asks for: many nodes side by side, and their parents.
func (n *nodeReader) loadRuns(ids []compact.NodeID) error {
	const worthIt = 8
	for len(ids) > 0 {
		run := 1
		for run < len(ids) && ids[run].Level == ids[0].Level && ids[run].Index == ids[run-1].Index+1 {
			run++
		}
		if first, last := ids[0], ids[run-1]; run >= worthIt && last.Index < n.size>>first.Level {
			if err := n.load(first.Level, first.Index&^1, last.Index|1); err != nil {
				return err
			}
			if err := n.load(first.Level+1, first.Index/2, last.Index/2); err != nil {
				return err
			}
		}
		ids = ids[run:]
	}
	return nil
}

// load reads the nodes of a level from first to last that are there. What is missing shows when it is used.
func (n *nodeReader) load(level uint, first, last uint64) error {
	if n.seen == nil {
		n.seen = map[compact.NodeID][]byte{}
	}
	from := nodeKey(n.log, compact.NewNodeID(level, first))
	return eachIn(n.r, from, nodeKey(n.log, compact.NewNodeID(level, last+1)), func(key, hash []byte) error {
		if len(hash) != sha256.Size {
			return fmt.Errorf("log %s: node at %x has %d octets: the stored index is damaged", n.log, key, len(hash))
		}
		n.seen[compact.NewNodeID(level, binary.BigEndian.Uint64(key[len(key)-8:]))] = hash
		return nil
	})
}

func (n *nodeReader) check(id compact.NodeID, hash []byte) error {
	if parent := compact.NewNodeID(id.Level+1, id.Index/2); parent.Index < n.size>>parent.Level {
		return n.checkChildren(parent)
	}
	if id.Level > 0 {
		return n.checkChildren(id)
	}
	e, err := readEntry(n.r, n.log, id.Index)
	if err != nil {
		return err
	}
	return n.agree(id, hash, hasher.HashLeaf(e.Leaf))
}

func (n *nodeReader) checkChildren(id compact.NodeID) error {
	if n.right[id] {
		return nil
	}
	var hashes [3][]byte
	for i, of := range []compact.NodeID{id, compact.NewNodeID(id.Level-1, 2*id.Index), compact.NewNodeID(id.Level-1, 2*id.Index+1)} {
		var err error
		if hashes[i], err = n.hash(of); err != nil {
			return err
		}
	}
	if err := n.agree(id, hashes[0], hasher.HashChildren(hashes[1], hashes[2])); err != nil {
		return err
	}
	if n.right == nil {
		n.right = map[compact.NodeID]bool{}
	}
	n.right[id] = true
	return nil
}

func (n *nodeReader) agree(id compact.NodeID, stored, computed []byte) error {
	if !bytes.Equal(stored, computed) {
		return fmt.Errorf("log %s: node %d of level %d is %x, what is below gives %x: the stored index is damaged", n.log, id.Index, id.Level, stored, computed)
	}
	return nil
}

// hash reads a node, which must be there, without comparing it with anything.
func (n *nodeReader) hash(id compact.NodeID) ([]byte, error) {
	if h := n.seen[id]; h != nil {
		return h, nil
	}
	h, err := get(n.r, nodeKey(n.log, id))
	if err != nil {
		return nil, err
	}
	if len(h) != sha256.Size {
		return nil, fmt.Errorf("log %s: node %d of level %d is missing: the stored index is damaged", n.log, id.Index, id.Level)
	}
	if n.seen == nil {
		n.seen = map[compact.NodeID][]byte{}
	}
	n.seen[id] = h
	return h, nil
}

// stored is how an entry lies in the store: its kind, the leaf's timestamp if it is a certificate, then the DER or the leaf.
func stored(e *merklelog.Entry) []byte {
	b := append(make([]byte, 0, 16+len(e.DER)+len(e.Leaf)), byte(e.Kind))
	switch e.Kind {
	case merklelog.X509, merklelog.Precert:
		return append(appendMillis(b, e.Time), e.DER...)
	default:
		return append(b, e.Leaf...)
	}
}

// parseEntry undoes stored and rebuilds the leaf.
func parseEntry(log logID, index uint64, b []byte) (e merklelog.Entry, err error) {
	if len(b) < 10 {
		return e, fmt.Errorf("log %s: entry %d has %d octets: the stored index is damaged", log, index, len(b))
	}
	e.Kind = merklelog.Kind(b[0])
	switch e.Kind {
	case merklelog.X509, merklelog.Precert:
		e.Time, e.DER = millisAt(b[1:]), b[9:]
		e.Leaf, err = issuanceLeaf(wire.CAID(log), index, e.Kind, e.Time, e.DER)
	case merklelog.Status:
		var leaf wire.StatusLeaf
		e.Leaf = b[1:]
		err = wire.Decode(e.Leaf, &leaf)
		e.Time = leaf.Time
	case merklelog.Map:
		var leaf wire.MapLeaf
		e.Leaf = b[1:]
		err = wire.Decode(e.Leaf, &leaf)
		e.Time = leaf.Time
	default:
		err = fmt.Errorf("kind %d is unknown", e.Kind)
	}
	if err != nil {
		err = fmt.Errorf("log %s: entry %d: the stored index is damaged: %w", log, index, err)
	}
	return e, err
}

// issuanceLeaf builds the MerkleTreeLeaf of a certificate or precertificate.
func issuanceLeaf(id wire.CAID, index uint64, kind merklelog.Kind, t wire.Millis, der []byte) ([]byte, error) {
	if kind == merklelog.X509 {
		return ctleaf.X509(index, t, der)
	}
	tbs, err := ctleaf.PrecertTBS(der)
	if err != nil {
		return nil, err
	}
	return ctleaf.Precert(index, t, id, tbs)
}

// readEntry reads an entry and compares it with its leaf hash.
func readEntry(r pebble.Reader, log logID, index uint64) (merklelog.Entry, error) {
	raw, err := get(r, entryKey(log, index))
	if err != nil {
		return merklelog.Entry{}, err
	}
	n := nodeReader{r: r, log: log}
	return n.entry(index, raw)
}

// entry parses a stored entry and compares it with its leaf hash.
func (n *nodeReader) entry(index uint64, raw []byte) (merklelog.Entry, error) {
	e, err := parseEntry(n.log, index, raw)
	if err != nil {
		return merklelog.Entry{}, err
	}
	id := compact.NewNodeID(0, index)
	hash, err := n.hash(id)
	if err != nil {
		return merklelog.Entry{}, err
	}
	if err := n.agree(id, hash, hasher.HashLeaf(e.Leaf)); err != nil {
		return merklelog.Entry{}, err
	}
	return e, nil
}
