package revmap

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
)

// Only leaves and the hashes of other pages are stored; every hash in between is recomputed when a page is read. So a page is
// small, and nothing in it can be changed without its hash, which the page above holds, telling.
//
// A page is the subtree at a path whose depth is a multiple of 4. With up to maxBucket entries it is a bucket, their list. With
// more it is a branch: 16 slots, each empty, one entry, or the hash of a page 4 bits further down. As entries are never
// removed, a bucket may become a branch and nothing ever becomes a bucket again.
const (
	pageBits  = 4
	fanout    = 1 << pageBits
	maxBucket = 32 // a bucket of 2 kB; with a million entries there are 65,536 of 15 on average
	entrySize = 2 * sha256.Size

	bucketTag = 0x01 // then entries, ascending
	branchTag = 0x02 // then two bits for each slot (a size), then their contents in order: nothing, an entry, or a hash
	slotsSize = fanout * 2 / 8
)

// path is the place of a page: the first depth bits of every key in it. Bits of prefix after them are 0.
type path struct {
	prefix digest
	depth  int
}

// child is the path that slot i of a branch at p leads to.
func (p path) child(i int) path {
	p.prefix[p.depth/8] |= byte(i) << (pageBits - p.depth%8)
	p.depth += pageBits
	return p
}

// slot is the number of the slot of a branch at p that key belongs to.
func (p path) slot(key *digest) int {
	return int(key[p.depth/8]>>(pageBits-p.depth%8)) % fanout
}

func (p path) has(key *digest) bool { return sharedBits(&p.prefix, key) >= p.depth }

func (p path) String() string {
	if p.depth == 0 {
		return "root page"
	}
	return "page " + hex.EncodeToString(p.prefix[:])[:p.depth/4]
}

// page has either leaves or a branch.
type page struct {
	leaves []leaf
	branch *branch
}

// branch is a complete binary tree of nodes: 1 is the root of the page, node n has the children 2n and 2n+1, and node fanout+i is
// slot i.
type branch struct {
	nodes   [2 * fanout]subtree
	entries [fanout]Entry // of slots with one entry
}

func newBranch() *branch {
	b := new(branch)
	for i := range b.nodes {
		b.nodes[i] = emptySubtree
	}
	return b
}

func (b *branch) slot(i int) *subtree { return &b.nodes[fanout+i] }

func (b *branch) setEntry(i int, l *leaf) {
	b.entries[i] = l.Entry
	*b.slot(i) = subtree{l.hash, one}
}

// rehash recomputes the nodes above the slots in dirty, a bit for each.
func (b *branch) rehash(h *hasher, dirty uint16) {
	changed := uint32(dirty) << fanout // by node
	for n := fanout - 1; n > 0; n-- {
		if changed>>(2*n)&3 != 0 {
			b.nodes[n] = h.join(&b.nodes[2*n], &b.nodes[2*n+1])
			changed |= 1 << n
		}
	}
}

// only returns the entry of node n, whose size is one.
func (b *branch) only(n int) *Entry {
	for n < fanout {
		n *= 2
		if b.nodes[n].size == none {
			n++
		}
	}
	return &b.entries[n-fanout]
}

func appendEntry(out []byte, e *Entry) []byte {
	return append(append(out, e.Key[:]...), e.ValueHash[:]...)
}

func marshalBucket(leaves []leaf) []byte {
	out := append(make([]byte, 0, 1+len(leaves)*entrySize), bucketTag)
	for i := range leaves {
		out = appendEntry(out, &leaves[i].Entry)
	}
	return out
}

func (b *branch) marshal() []byte {
	out := append(make([]byte, 0, 1+slotsSize+fanout*entrySize), branchTag)
	out = append(out, make([]byte, slotsSize)...)
	for i := range fanout {
		s := b.slot(i)
		out[1+i/4] |= byte(s.size) << (6 - i%4*2)
		switch s.size {
		case one:
			out = appendEntry(out, &b.entries[i])
		case many:
			out = append(out, s.hash[:]...)
		}
	}
	return slices.Clip(out)
}

// parsePage decodes the page at p and computes its hashes. It keeps nothing of raw.
func parsePage(h *hasher, p path, raw []byte) (*page, subtree, error) {
	if len(raw) == 0 {
		return nil, subtree{}, fmt.Errorf("empty: must begin with octet %d or %d", bucketTag, branchTag)
	}
	switch raw[0] {
	case bucketTag:
		leaves, err := parseBucket(h, p, raw[1:])
		if err != nil {
			return nil, subtree{}, err
		}
		return &page{leaves: leaves}, h.list(leaves, p.depth), nil
	case branchTag:
		b, err := parseBranch(h, p, raw[1:])
		if err != nil {
			return nil, subtree{}, err
		}
		return &page{branch: b}, b.nodes[1], nil
	}
	return nil, subtree{}, fmt.Errorf("begins with octet %d: must be %d or %d", raw[0], bucketTag, branchTag)
}

func parseBucket(h *hasher, p path, raw []byte) ([]leaf, error) {
	n, least := len(raw)/entrySize, 1
	if p.depth > 0 {
		least = 2 // a single entry is in the page above
	}
	if len(raw)%entrySize != 0 || n < least || n > maxBucket {
		return nil, fmt.Errorf("bucket of %d octets: must be %d to %d entries of %d", len(raw), least, maxBucket, entrySize)
	}
	leaves := make([]leaf, n)
	for i := range leaves {
		l := &leaves[i]
		l.Entry = Entry{digest(raw), digest(raw[sha256.Size:])}
		raw = raw[entrySize:]
		if !p.has(&l.Key) {
			return nil, fmt.Errorf("has key %x, which does not belong there", l.Key)
		}
		if i > 0 && bytes.Compare(leaves[i-1].Key[:], l.Key[:]) >= 0 {
			return nil, fmt.Errorf("has key %x after %x: keys must ascend", l.Key, leaves[i-1].Key)
		}
		l.hash = h.leaf(&l.Entry)
	}
	return leaves, nil
}

func parseBranch(h *hasher, p path, raw []byte) (*branch, error) {
	if len(raw) < slotsSize {
		return nil, fmt.Errorf("branch of %d octets: must have at least %d", len(raw), slotsSize)
	}
	if p.depth > keyBits-2*pageBits {
		return nil, fmt.Errorf("is a branch: at depth %d must be a bucket", p.depth)
	}
	slots, raw := raw[:slotsSize], raw[slotsSize:]
	b := newBranch()
	for i := range fanout {
		s := size(slots[i/4] >> (6 - i%4*2) & 3)
		want := [...]int{none: 0, one: entrySize, many: sha256.Size, 3: -1}[s]
		if want < 0 || len(raw) < want {
			return nil, fmt.Errorf("slot %d of type %d, %d octets left: must be empty, an entry or a page's hash", i, s, len(raw))
		}
		switch s {
		case one:
			l := leaf{Entry: Entry{digest(raw), digest(raw[sha256.Size:])}}
			if !p.child(i).has(&l.Key) {
				return nil, fmt.Errorf("has key %x in slot %d, where it does not belong", l.Key, i)
			}
			l.hash = h.leaf(&l.Entry)
			b.setEntry(i, &l)
		case many:
			*b.slot(i) = subtree{digest(raw), many}
		}
		raw = raw[want:]
	}
	if len(raw) != 0 {
		return nil, fmt.Errorf("branch with %d octets after its last slot", len(raw))
	}
	b.rehash(h, 1<<fanout-1)
	return b, nil
}
