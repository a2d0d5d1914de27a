package index

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/cockroachdb/pebble/v2"
	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
)

var ranges = compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}

// rootOf is the RFC 6962 section 2.1 root of a range that begins at 0.
func rootOf(r *compact.Range) ([sha256.Size]byte, error) {
	root, err := r.GetRootHash(nil)
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	if root == nil { // the empty tree
		root = rfc6962.DefaultHasher.EmptyRoot()
	}
	return [sha256.Size]byte(root), nil
}

// loadLog rebuilds one log's compact range from the stored nodes and checks it against the stored head.
func (ix *Index) loadLog(v *View, id wire.CAID, val []byte) error {
	var head wire.LogHead
	if err := wire.Decode(val, &head); err != nil {
		return err
	}
	hashes, err := nodes(ix.db, id, compact.RangeNodes(0, head.Size, nil))
	if err != nil {
		return err
	}
	tree, err := ranges.NewRange(0, head.Size, hashes)
	if err != nil {
		return fmt.Errorf("log %s: %w", id, err)
	}
	root, err := rootOf(tree)
	if err != nil {
		return fmt.Errorf("log %s: %w", id, err)
	}
	if !bytes.Equal(root[:], head.Root) {
		return fmt.Errorf("log %s: root of the stored nodes is %x: the stored head of size %d has %x", id, root, head.Size, head.Root)
	}
	ix.trees[id] = tree
	v.logs[id] = Log{Size: head.Size, Root: root, Time: head.Time}
	return nil
}

// nodes reads the hashes of complete subtrees, all of which must be there.
func nodes(r pebble.Reader, id wire.CAID, ids []compact.NodeID) ([][]byte, error) {
	hashes := make([][]byte, 0, len(ids))
	for _, n := range ids {
		h, err := get(r, nodeKey(id, n))
		if err != nil {
			return nil, err
		}
		if len(h) != sha256.Size {
			return nil, fmt.Errorf("log %s: node %d of level %d is missing", id, n.Index, n.Level)
		}
		hashes = append(hashes, h)
	}
	return hashes, nil
}

// Inclusion returns the RFC 6962 section 2.1.1 path of a leaf in the tree of the given size.
// Requires index < size <= the size of the log in some View that was returned before.
func (ix *Index) Inclusion(id wire.CAID, index, size uint64) ([][sha256.Size]byte, error) {
	if index >= size {
		return nil, fmt.Errorf("index: leaf %d is not in a tree of size %d", index, size)
	}
	need, err := proof.Inclusion(index, size)
	if err != nil {
		return nil, err
	}
	var hashes [][]byte
	if err := ix.read(func(db *pebble.DB) (err error) {
		hashes, err = nodes(db, id, need.IDs)
		return err
	}); err != nil {
		return nil, err
	}
	if hashes, err = need.Rehash(hashes, rfc6962.DefaultHasher.HashChildren); err != nil {
		return nil, err
	}
	path := make([][sha256.Size]byte, len(hashes))
	for i, h := range hashes {
		path[i] = [sha256.Size]byte(h)
	}
	return path, nil
}

// appendLeaf adds a leaf to a log's tree and its new complete subtrees to the batch.
func (a *applier) appendLeaf(id wire.CAID, hash [sha256.Size]byte, e Entry) error {
	tree := a.trees[id]
	var storeErr error
	store := func(n compact.NodeID, h []byte) {
		if err := a.batch.Set(nodeKey(id, n), h, nil); err != nil {
			storeErr = err
		}
	}
	index := tree.End()
	if err := tree.Append(hash[:], store); err != nil {
		return err
	}
	if storeErr != nil {
		return storeErr
	}
	return a.batch.Set(entryKey(id, index), e.encode(), nil)
}

// checkHead compares a recorded head with the tree that this index computed.
func (a *applier) checkHead(id wire.CAID, head *wire.LogHead) error {
	tree := a.tree(id)
	if head.Size != tree.End() {
		return a.diverges(wire.LogHeadKey(id)+" size", fmt.Sprint(head.Size), "this index holds %d leaves", tree.End())
	}
	root, err := rootOf(tree)
	if err != nil {
		return err
	}
	if !bytes.Equal(head.Root, root[:]) {
		return a.diverges(wire.LogHeadKey(id)+" root", hex.EncodeToString(head.Root), "the root of its %d leaves is %x", head.Size, root)
	}
	a.newLogs[id] = Log{Size: head.Size, Root: root, Time: head.Time}
	delete(a.grown, id)
	return nil
}

// tree returns a log's compact range, an empty one for a new log.
func (a *applier) tree(id wire.CAID) *compact.Range {
	t := a.trees[id]
	if t == nil {
		t = ranges.NewEmptyRange(0)
		a.trees[id] = t
	}
	return t
}

// RootAt returns the root that a log had at a size. Requires size <= the size of the log in some View that was returned before.
func (ix *Index) RootAt(id wire.CAID, size uint64) ([sha256.Size]byte, error) {
	var hashes [][]byte
	if err := ix.read(func(db *pebble.DB) (err error) {
		hashes, err = nodes(db, id, compact.RangeNodes(0, size, nil))
		return err
	}); err != nil {
		return [sha256.Size]byte{}, err
	}
	tree, err := ranges.NewRange(0, size, hashes)
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	return rootOf(tree)
}
