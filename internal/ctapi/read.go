package ctapi

import (
	"encoding/base64"
	"fmt"
	"net/http"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctleaf"
	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/tiles/intact"
)

type consistencyAnswer struct {
	Consistency [][]byte `json:"consistency"`
}

// getConsistency is RFC 6962 section 4.4.
func (l *Log) getConsistency(r *http.Request) (*answer, error) {
	q, err := query(r)
	if err != nil {
		return nil, err
	}
	first, err := q.number("first")
	if err != nil {
		return nil, err
	}
	second, err := q.number("second")
	if err != nil {
		return nil, err
	}
	if first > second {
		return nil, wire.Errorf(wire.InvalidArgument, "first", number(first), "must be at most second, %d", second)
	}
	if err := l.checkSize("second", second); err != nil {
		return nil, err
	}
	path, err := l.consistency(first, second)
	if err != nil {
		return nil, err
	}
	return &answer{body: consistencyAnswer{path}, cache: settled}, nil
}

// checkSize refuses the size of a tree that the log has not reached.
func (l *Log) checkSize(name string, size uint64) error {
	if now := l.log.Head().Size; size > now {
		return wire.Errorf(wire.InvalidArgument, name, number(size), "must be at most the size of the log, %d", now)
	}
	return nil
}

// consistency returns a proof that has been verified: a damaged hash is this server's to report, not a client's to be alarmed by.
func (l *Log) consistency(first, second uint64) ([][]byte, error) {
	hashes, err := merklelog.Consistency(l.log, first, second)
	if err != nil {
		return nil, err
	}
	path := hashList(hashes)
	if first == 0 || first == second {
		return path, nil
	}
	before, err := l.rootAt(first)
	if err != nil {
		return nil, err
	}
	after, err := l.rootAt(second)
	if err != nil {
		return nil, err
	}
	return path, l.damaged(proof.VerifyConsistency(rfc6962.DefaultHasher, first, second, path, before[:], after[:]))
}

// inclusion returns a proof that has been verified; see consistency.
func (l *Log) inclusion(index, size uint64, leafHash [32]byte) ([][]byte, error) {
	hashes, err := merklelog.Inclusion(l.log, index, size)
	if err != nil {
		return nil, err
	}
	root, err := l.rootAt(size)
	if err != nil {
		return nil, err
	}
	path := hashList(hashes)
	return path, l.damaged(proof.VerifyInclusion(rfc6962.DefaultHasher, index, size, leafHash[:], path, root[:]))
}

// rootAt returns the root of the tree of a size from 1 to the log's, which leads to the head that is signed.
func (l *Log) rootAt(size uint64) (root [32]byte, err error) {
	h, err := l.headOver(size)
	if err != nil {
		return root, err
	}
	if size == h.Size {
		return h.Root, nil
	}
	if root, err = merklelog.RootAt(l.log, size); err != nil {
		return root, err
	}
	path, err := merklelog.Consistency(l.log, size, h.Size)
	if err != nil {
		return root, err
	}
	return root, l.damaged(proof.VerifyConsistency(rfc6962.DefaultHasher, size, h.Size, hashList(path), root[:], h.Root[:]))
}

func (l *Log) damaged(err error) error {
	if err != nil {
		return fmt.Errorf("log %s: a stored hash is damaged: %w", l.caID, err)
	}
	return nil
}

// hashList is never nil: JSON must have an array.
func hashList(hashes [][32]byte) [][]byte {
	out := make([][]byte, len(hashes))
	for i := range hashes {
		out[i] = hashes[i][:]
	}
	return out
}

type proofAnswer struct {
	Index uint64   `json:"leaf_index"`
	Path  [][]byte `json:"audit_path"`
}

// getProofByHash is RFC 6962 section 4.5.
func (l *Log) getProofByHash(r *http.Request) (*answer, error) {
	q, err := query(r)
	if err != nil {
		return nil, err
	}
	hash, err := q.hash("hash")
	if err != nil {
		return nil, err
	}
	size, err := l.treeSize(q)
	if err != nil {
		return nil, err
	}
	index, found, err := l.log.Find(hash)
	if err != nil {
		return nil, err
	}
	if !found || index >= size {
		return nil, wire.Errorf(wire.NotFound, "hash", base64.StdEncoding.EncodeToString(hash[:]), "must be the hash of a leaf in the tree of size %d", size)
	}
	path, err := l.inclusion(index, size, hash)
	if err != nil {
		return nil, err
	}
	return &answer{body: proofAnswer{index, path}, cache: settled}, nil
}

// treeSize reads the size of a tree that has leaves.
func (l *Log) treeSize(q parameters) (uint64, error) {
	size, err := q.number("tree_size")
	if err != nil {
		return 0, err
	}
	if size == 0 {
		return 0, wire.Errorf(wire.InvalidArgument, "tree_size", "0", "must be at least 1: an empty tree includes nothing")
	}
	return size, l.checkSize("tree_size", size)
}

type entryAndProofAnswer struct {
	leafEntry
	Path [][]byte `json:"audit_path"`
}

// getEntryAndProof is RFC 6962 section 4.8.
func (l *Log) getEntryAndProof(r *http.Request) (*answer, error) {
	q, err := query(r)
	if err != nil {
		return nil, err
	}
	index, err := q.number("leaf_index")
	if err != nil {
		return nil, err
	}
	size, err := l.treeSize(q)
	if err != nil {
		return nil, err
	}
	if index >= size {
		return nil, wire.Errorf(wire.InvalidArgument, "leaf_index", number(index), "must be below tree_size, %d", size)
	}
	entries, err := intact.Entries(l.log, index, index+1)
	if err != nil {
		return nil, err
	}
	entry, err := l.leafEntry(entries[0])
	if err != nil {
		return nil, err
	}
	path, err := l.inclusion(index, size, ctleaf.HashLeaf(entries[0].Leaf))
	if err != nil {
		return nil, err
	}
	return &answer{body: entryAndProofAnswer{entry, path}, cache: settled}, nil
}

type rootsAnswer struct {
	Certificates [][]byte `json:"certificates"`
}

// getRoots is RFC 6962 section 4.7.
func (l *Log) getRoots(*http.Request) (*answer, error) {
	known, err := l.trusted()
	if err != nil {
		return nil, err
	}
	return &answer{body: rootsAnswer{known.roots}, cache: fresh}, nil
}
