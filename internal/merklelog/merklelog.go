// Package merklelog is what a log looks like to those who serve or prove it: issuance logs, the status log and the map log alike.
package merklelog

import (
	"crypto/sha256"
	"fmt"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// Log is one append-only log as this organisation's own blocks have it, hashed as RFC 6962 section 2.1 says. It is safe for
// concurrent use. What a Head covers stays readable as long as the Log.
type Log interface {
	// Head returns the newest head.
	Head() Head

	// Nodes returns the hashes of complete subtrees, in the order of ids. Each must lie within a Head that was returned before.
	Nodes(ids []compact.NodeID) ([][]byte, error)

	// Entries returns the entries from, from+1, ... below to. Requires from <= to <= the size of a Head that was returned before.
	Entries(from, to uint64) ([]Entry, error)

	// Find returns the index of the leaf with the given hash, and false if the log has none.
	Find(leafHash [sha256.Size]byte) (uint64, bool, error)
}

// Hashes is what proofs are made of: the Nodes of a Log.
type Hashes interface {
	Nodes(ids []compact.NodeID) ([][]byte, error)
}

// Head is a log's state.
type Head struct {
	Size uint64
	Root [sha256.Size]byte
	Time wire.Millis // of the ledger when it was like this: never before the newest leaf, and at least the newest Tick
}

// Kind tells what an entry is.
type Kind byte

// Kinds of entries.
const (
	X509    Kind = 1 // a certificate; Leaf is an RFC 6962 MerkleTreeLeaf
	Precert Kind = 2 // a precertificate; Leaf is an RFC 6962 MerkleTreeLeaf
	Status  Kind = 3 // a wire.StatusLeaf
	Map     Kind = 4 // a wire.MapLeaf
)

// Entry is one entry of a log.
type Entry struct {
	Kind Kind
	Time wire.Millis // of an issuance log: the leaf's timestamp
	Leaf []byte      // what is hashed
	DER  []byte      // of an issuance log: the certificate or precertificate as it was submitted
}

// Inclusion returns the RFC 6962 section 2.1.1 path of a leaf in the tree of the given size. Requires index < size, and size
// within a Head that was returned before.
func Inclusion(l Hashes, index, size uint64) ([][sha256.Size]byte, error) {
	if index >= size {
		return nil, fmt.Errorf("merklelog: leaf %d is not in a tree of size %d", index, size)
	}
	need, err := proof.Inclusion(index, size)
	if err != nil {
		return nil, err
	}
	return resolve(l, need)
}

// Consistency returns the RFC 6962 section 2.1.2 proof between two sizes; it is empty when first is 0 or equal to second.
// Requires first <= second, and second within a Head that was returned before.
func Consistency(l Hashes, first, second uint64) ([][sha256.Size]byte, error) {
	if first > second {
		return nil, fmt.Errorf("merklelog: a tree of size %d does not come before one of %d", first, second)
	}
	if first == 0 || first == second {
		return nil, nil
	}
	need, err := proof.Consistency(first, second)
	if err != nil {
		return nil, err
	}
	return resolve(l, need)
}

// RootAt returns the root that the log had at a size within a Head that was returned before.
func RootAt(l Hashes, size uint64) ([sha256.Size]byte, error) {
	if size == 0 {
		return [sha256.Size]byte(rfc6962.DefaultHasher.EmptyRoot()), nil
	}
	hashes, err := l.Nodes(compact.RangeNodes(0, size, nil))
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	ranges := compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}
	tree, err := ranges.NewRange(0, size, hashes)
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	root, err := tree.GetRootHash(nil)
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	return [sha256.Size]byte(root), nil
}

func resolve(l Hashes, need proof.Nodes) ([][sha256.Size]byte, error) {
	hashes, err := l.Nodes(need.IDs)
	if err != nil {
		return nil, err
	}
	if hashes, err = need.Rehash(hashes, rfc6962.DefaultHasher.HashChildren); err != nil {
		return nil, err
	}
	path := make([][sha256.Size]byte, len(hashes))
	for i, h := range hashes {
		if len(h) != sha256.Size {
			return nil, fmt.Errorf("merklelog: node hash of %d octets", len(h))
		}
		path[i] = [sha256.Size]byte(h)
	}
	return path, nil
}
