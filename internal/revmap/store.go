package revmap

import (
	"crypto/sha256"
	"fmt"
)

// Reader is where the tree is: a prefix of the caller's store, used for nothing else. Get returns nil for an absent key; the
// value need stay valid only until the next call, and is not modified. During Root, Prove and Walk the store must not change:
// pass a snapshot if somebody may be writing.
type Reader interface {
	Get(key []byte) ([]byte, error)
}

// Store is a Reader that Update writes to, usually a batch that reads its own writes. Key and value belong to the Store once
// passed to it. Update never deletes, because entries are never removed.
type Store interface {
	Reader
	Set(key, value []byte) error
	Delete(key []byte) error
}

// CorruptionError says which part of the store is not what was written there. Nothing derived from it was returned. The cure is
// to delete the tree and to build it again from the status log.
type CorruptionError struct {
	Node    string // "root record", "root page", or "page " and the first hexadecimal digits of its keys
	Problem string
}

func (e *CorruptionError) Error() string {
	return fmt.Sprintf("revmap: stored %s is corrupt: %s", e.Node, e.Problem)
}

const (
	rootRecord  = "root record"
	rootVersion = 1 // of the layout of the whole store; first octet of the root record
)

var rootKey = []byte{'r'}

// key in the store. Pages of one depth are neighbours, in the order of their keys.
func (p path) key() []byte {
	return append([]byte{'p', byte(p.depth / pageBits)}, p.prefix[:(p.depth+7)/8]...)
}

// tree is one call's view of the store. It believes nothing there that does not hash to what the page above says.
type tree struct {
	hasher
	r      Reader
	writes []write // of Update
}

type write struct{ key, value []byte }

// root reads the root record: the hash of the root page, or of the empty tree.
func (t *tree) root() (subtree, error) {
	raw, err := t.r.Get(rootKey)
	if err != nil {
		return subtree{}, fmt.Errorf("revmap: read %s: %w", rootRecord, err)
	}
	if raw == nil {
		page, err := t.r.Get(path{}.key())
		if err != nil {
			return subtree{}, fmt.Errorf("revmap: read %v: %w", path{}, err)
		}
		if page != nil {
			return subtree{}, &CorruptionError{rootRecord, "absent, but there is a root page"}
		}
		return emptySubtree, nil
	}
	if len(raw) != 1+sha256.Size {
		return subtree{}, &CorruptionError{rootRecord, fmt.Sprintf("%d octets: must be %d", len(raw), 1+sha256.Size)}
	}
	if raw[0] != rootVersion {
		return subtree{}, &CorruptionError{rootRecord, fmt.Sprintf("version %d: must be %d", raw[0], rootVersion)}
	}
	return subtree{digest(raw[1:]), many}, nil
}

// load reads the page at p and checks that its hash is want.
func (t *tree) load(p path, want *digest) (*page, error) {
	raw, err := t.r.Get(p.key())
	if err != nil {
		return nil, fmt.Errorf("revmap: read %v: %w", p, err)
	}
	if raw == nil {
		return nil, &CorruptionError{p.String(), fmt.Sprintf("absent: must have hash %x", *want)}
	}
	pg, st, err := parsePage(&t.hasher, p, raw)
	if err != nil {
		return nil, &CorruptionError{p.String(), err.Error()}
	}
	if st.hash != *want {
		by := "page above"
		if p.depth == 0 {
			by = rootRecord // or it is the record that was changed; nothing above it can tell
		}
		return nil, &CorruptionError{p.String(), fmt.Sprintf("hash is %x: must be %x by the %s", st.hash, *want, by)}
	}
	return pg, nil
}
