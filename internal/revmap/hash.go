package revmap

import (
	"crypto/sha256"
	"math/bits"
)

type digest = [sha256.Size]byte

// keyBits is the length of a key, and the greatest depth of a leaf: two keys that differ only in their last bit share 255.
const keyBits = 8 * sha256.Size

// Every hash is of one of three inputs, told apart by the first octet. The empty subtree has a hash like any other, not zeros: a
// root that somebody forgot to fill in must not prove the absence of everything.
const (
	leafPrefix  = 0x00
	nodePrefix  = 0x01
	emptyPrefix = 0x02
)

var emptyHash = sha256.Sum256([]byte{emptyPrefix})

// EmptyRoot is the root of the tree without entries. It is not all zeros.
var EmptyRoot [32]byte = emptyHash

// Entry is one key with the SHA-256 of its value. The values themselves are kept by the caller.
type Entry struct{ Key, ValueHash [32]byte }

func leafHash(e *Entry) digest {
	var in [1 + 2*sha256.Size]byte
	in[0] = leafPrefix
	copy(in[1:], e.Key[:])
	copy(in[1+sha256.Size:], e.ValueHash[:])
	return sha256.Sum256(in[:])
}

func nodeHash(left, right *digest) digest {
	var in [1 + 2*sha256.Size]byte
	in[0] = nodePrefix
	copy(in[1:], left[:])
	copy(in[1+sha256.Size:], right[:])
	return sha256.Sum256(in[:])
}

// bit returns bit i of key; bit 0 is the most significant of the first octet. Requires 0 <= i < keyBits.
func bit(key *digest, i int) byte { return key[i/8] >> (7 - i%8) & 1 }

// sharedBits is the number of leading bits that a and b have in common.
func sharedBits(a, b *digest) int {
	for i := range a {
		if x := a[i] ^ b[i]; x != 0 {
			return 8*i + bits.LeadingZeros8(x)
		}
	}
	return keyBits
}

// size says how many entries a subtree has, as far as its hash depends on it.
type size byte

const (
	none size = iota // represented by emptyHash
	one              // represented by the entry's leaf hash, at whatever depth
	many             // an interior node
)

// subtree is what its parent needs to know of it.
type subtree struct {
	hash digest
	size size
}

var emptySubtree = subtree{emptyHash, none}

// hasher counts what it hashes, so that tests can hold updates to their cost.
type hasher struct{ count int }

func (h *hasher) leaf(e *Entry) digest {
	h.count++
	return leafHash(e)
}

// join is the one place that decides the shape of the tree: a subtree with a single entry is that entry's leaf, so it rises until
// it meets another.
func (h *hasher) join(l, r *subtree) subtree {
	switch {
	case l.size == none && r.size != many:
		return *r
	case r.size == none && l.size != many:
		return *l
	}
	h.count++
	return subtree{nodeHash(&l.hash, &r.hash), many}
}

// leaf is an entry with its hash.
type leaf struct {
	Entry
	hash digest
}

// list is the subtree at depth that holds exactly leaves, which are in ascending order of keys and share their first depth bits.
func (h *hasher) list(leaves []leaf, depth int) subtree {
	switch len(leaves) {
	case 0:
		return emptySubtree
	case 1:
		return subtree{leaves[0].hash, one}
	}
	mid := split(leaves, depth)
	l, r := h.list(leaves[:mid], depth+1), h.list(leaves[mid:], depth+1)
	return h.join(&l, &r)
}

// split returns the index of the first leaf whose key has bit depth set.
func split(leaves []leaf, depth int) int {
	for i := range leaves {
		if bit(&leaves[i].Key, depth) == 1 {
			return i
		}
	}
	return len(leaves)
}
