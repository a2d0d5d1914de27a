package revmap

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/certanchor/certanchor/internal/rapidtest"
)

// samples are proofs of all three kinds, of a tree small enough to try every change of every octet.
type sample struct {
	name       string
	key, value [32]byte
	proof      []byte
}

func samples(t testing.TB) (*memory, [32]byte, []sample) {
	t.Helper()
	entries := numbered(0, 20)
	deep := keyOf(3)
	entries = append(entries, Entry{flip(deep, 13), valueOf(100)}) // so that paths have empty siblings
	s, root := stored(t, entries)
	all := []sample{
		{"inclusion", keyOf(7), valueOf(7), nil},
		{"deep inclusion", deep, valueOf(3), nil},
		{"empty", flip(deep, 11), valueOf(0), nil},
		{"other leaf", flip(keyOf(7), 200), valueOf(7), nil},
		{"other deep leaf", flip(deep, 255), valueOf(3), nil},
	}
	kinds := map[Kind]int{}
	for i := range all {
		p := prove(t, s, all[i].key)
		kinds[p.Kind()]++
		all[i].proof = p.Marshal()
		if !holds(root, all[i].key, all[i].value, all[i].proof) {
			t.Fatalf("%s: does not hold", all[i].name)
		}
	}
	if kinds[Inclusion] != 2 || kinds[AbsentEmpty] != 1 || kinds[AbsentOther] != 2 {
		t.Fatalf("kinds %v", kinds)
	}
	return s, root, all
}

func TestEveryChangeOfAnOctetFails(t *testing.T) {
	_, root, all := samples(t)
	step := 1
	if rapidtest.Raced { // which shows nothing new in the sixteen values of a nibble; at the next octet they are others
		step = 17
	}
	for _, s := range all {
		for i := range s.proof {
			for x := 1 + i%step; x < 256; x += step {
				b := bytes.Clone(s.proof)
				b[i] ^= byte(x)
				if holds(root, s.key, s.value, b) {
					t.Errorf("%s: octet %d of %d changed by %08b: holds", s.name, i, len(b), x)
				}
			}
		}
	}
}

func TestTruncatedAndExtendedProofsFail(t *testing.T) {
	_, root, all := samples(t)
	for _, s := range all {
		for n := range len(s.proof) {
			if holds(root, s.key, s.value, s.proof[:n]) || holds(root, s.key, s.value, s.proof[n+1:]) {
				t.Errorf("%s: %d of %d octets hold", s.name, n, len(s.proof))
			}
		}
		for _, more := range [][]byte{{0}, {1}, make([]byte, 32), make([]byte, 64), emptyHash[:], s.proof} {
			if holds(root, s.key, s.value, slices.Concat(s.proof, more)) {
				t.Errorf("%s: holds with %d more octets", s.name, len(more))
			}
		}
	}
}

func TestPermutedProofsFail(t *testing.T) {
	_, root, all := samples(t)
	step := 1
	if rapidtest.Raced {
		step = 5
	}
	for _, s := range all {
		for i := range s.proof {
			for j := i % step; j < i; j += step {
				b := bytes.Clone(s.proof)
				b[i], b[j] = b[j], b[i]
				if !bytes.Equal(b, s.proof) && holds(root, s.key, s.value, b) {
					t.Fatalf("%s: octets %d and %d exchanged: holds", s.name, i, j)
				}
			}
		}
		p, err := ParseProof(s.proof)
		if err != nil {
			t.Fatal(err)
		}
		for i := range p.siblings {
			for j := range i {
				q := *p
				q.siblings = slices.Clone(p.siblings)
				q.siblings[i], q.siblings[j] = q.siblings[j], q.siblings[i]
				if q.siblings[i] != q.siblings[j] && holds(root, s.key, s.value, q.Marshal()) {
					t.Fatalf("%s: siblings %d and %d exchanged: holds", s.name, i, j)
				}
			}
		}
	}
}

func TestProofsHoldForOneKeyOneValueOneRoot(t *testing.T) {
	store, root, all := samples(t)
	if _, err := Update(store, numbered(1000, 1)); err != nil {
		t.Fatal(err)
	}
	later, err := Root(store)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		p, err := ParseProof(s.proof)
		if err != nil {
			t.Fatal(err)
		}
		if VerifyInclusion(root, s.key, valueOf(99), p) == nil {
			t.Errorf("%s: holds for another value", s.name)
		}
		if holds(later, s.key, s.value, s.proof) || holds(EmptyRoot, s.key, s.value, s.proof) || holds([32]byte{}, s.key, s.value, s.proof) {
			t.Errorf("%s: holds for another root", s.name)
		}
		// An absence proof covers its whole empty or singly occupied subtree, and no key outside; it must never cover a present key.
		for i := range keyBits {
			k := flip(s.key, i)
			present := slices.ContainsFunc(append(numbered(0, 20), Entry{Key: flip(keyOf(3), 13)}), func(e Entry) bool { return e.Key == k })
			covered := p.Kind() != Inclusion && i >= p.Depth() && !present
			if got := VerifyAbsence(root, k, p) == nil; got != covered {
				t.Errorf("%s: bit %d of the key changed: absent %v, want %v", s.name, i, got, covered)
			}
			if VerifyInclusion(root, k, s.value, p) == nil {
				t.Errorf("%s: bit %d of the key changed: included", s.name, i)
			}
		}
		for _, o := range all {
			if o.key != s.key && VerifyInclusion(root, o.key, o.value, p) == nil {
				t.Errorf("%s: proves inclusion for %s", s.name, o.name)
			}
		}
	}
}

// forged is a proof that an enemy writes by hand.
func forged(k Kind, siblings []digest, other Entry) *Proof {
	return &Proof{kind: k, siblings: siblings, other: other}
}

func TestPresentKeyCannotBeProvedAbsent(t *testing.T) {
	store, root, _ := samples(t)
	for n := range 20 {
		key, value := keyOf(n), valueOf(n)
		p := prove(t, store, key)
		own := Entry{key, value}
		near := Entry{flip(key, 255), value}
		for d := range len(p.siblings) + 1 {
			// Every prefix of the path, with every end that absence allows; then deeper than the leaf.
			for _, q := range []*Proof{
				forged(AbsentEmpty, p.siblings[:d], Entry{}),
				forged(AbsentOther, p.siblings[:d], own),
				forged(AbsentOther, p.siblings[:d], near),
				forged(AbsentEmpty, slices.Concat(p.siblings[:d], []digest{leafHash(&own)}), Entry{}),
				forged(AbsentEmpty, slices.Concat(p.siblings[:d], []digest{key, value}), Entry{}),
				forged(AbsentOther, slices.Concat(p.siblings[:d], []digest{leafHash(&own)}), near),
				forged(AbsentOther, slices.Concat(p.siblings[:d], []digest{emptyHash}), near),
			} {
				if VerifyAbsence(root, key, q) == nil {
					t.Errorf("key %d proved absent by %v of depth %d", n, q.kind, len(q.siblings))
				}
			}
		}
		for i := range 20 { // any other leaf of the tree, wherever it stands
			if i == n {
				continue
			}
			q := prove(t, store, keyOf(i))
			if VerifyAbsence(root, key, forged(AbsentOther, q.siblings, Entry{keyOf(i), valueOf(i)})) == nil {
				t.Errorf("key %d proved absent by the leaf of key %d", n, i)
			}
		}
	}
}

// A leaf hashes 64 octets under prefix 0, a node 64 octets under prefix 1: neither can stand for the other.
func TestLeafCannotStandForNodeNorNodeForLeaf(t *testing.T) {
	e := Entry{keyOf(1), valueOf(1)}
	_, root := stored(t, []Entry{e})
	asNode := flip(e.Key, 0)
	for _, key := range [][32]byte{e.Key, asNode} {
		// The leaf's preimage offered as two children.
		for _, sib := range [][32]byte{e.Key, e.ValueHash} {
			if VerifyInclusion(root, key, e.ValueHash, forged(Inclusion, []digest{sib}, Entry{})) == nil {
				t.Error("leaf taken for a node")
			}
		}
	}
	l, r := Entry{flip(e.Key, 0), valueOf(2)}, e
	if bit(&l.Key, 0) == 1 {
		l, r = r, l
	}
	_, root = stored(t, []Entry{l, r})
	node := Entry{leafHash(&l), leafHash(&r)} // the root's children offered as key and value
	if VerifyInclusion(root, node.Key, node.ValueHash, forged(Inclusion, nil, Entry{})) == nil {
		t.Error("node taken for a leaf")
	}
	if VerifyAbsence(root, e.Key, forged(AbsentOther, nil, node)) == nil {
		t.Error("node taken for another leaf")
	}
}

// Even the author of a root cannot answer twice for one key, nor make one answer look like two.
func TestRootsBuiltByAnEnemyAreStillCanonical(t *testing.T) {
	e := Entry{keyOf(1), valueOf(1)}
	leaf := leafHash(&e)
	deeper := nodeHash(&leaf, &emptyHash)
	if bit(&e.Key, 0) == 1 {
		deeper = nodeHash(&emptyHash, &leaf)
	}
	if VerifyInclusion(deeper, e.Key, e.ValueHash, forged(Inclusion, []digest{emptyHash}, Entry{})) == nil {
		t.Error("a leaf deeper than needed is accepted")
	}
	if VerifyAbsence(deeper, flip(e.Key, 255), forged(AbsentOther, []digest{emptyHash}, e)) == nil {
		t.Error("another leaf deeper than needed is accepted")
	}
	misplaced := flip(e.Key, 0) // its place has the leaf of e
	sibling := [32]byte{1}
	swapped := nodeHash(&leaf, &sibling)
	if bit(&e.Key, 0) == 0 {
		swapped = nodeHash(&sibling, &leaf)
	}
	if VerifyAbsence(swapped, misplaced, forged(AbsentOther, []digest{sibling}, e)) == nil {
		t.Error("a leaf in the place of another key is accepted")
	}
	empty := nodeHash(&emptyHash, &emptyHash)
	if VerifyAbsence(empty, e.Key, forged(AbsentEmpty, []digest{emptyHash}, Entry{})) == nil {
		t.Error("two empty subtrees are accepted as a node")
	}
}

func TestMalformedProofsAreRefused(t *testing.T) {
	h := keyOf(1)
	u16 := func(n int) []byte { return binary.BigEndian.AppendUint16(nil, uint16(n)) }
	cat := slices.Concat[[]byte]
	for name, b := range map[string][]byte{
		"nothing":                 {},
		"no depth":                {1, 0},
		"kind 0":                  {0, 0, 0},
		"kind 4":                  {4, 0, 0},
		"depth 257":               cat([]byte{1}, u16(257), make([]byte, 33)),
		"absence of depth 256":    cat([]byte{2}, u16(256), make([]byte, 31), []byte{1}, h[:]),
		"depth without bitmap":    {1, 0, 1},
		"bits after the bitmap":   cat([]byte{1}, u16(1), []byte{0xc0}, h[:], h[:]),
		"last bit of the bitmap":  cat([]byte{1}, u16(1), []byte{0x81}, h[:]),
		"sibling missing":         cat([]byte{1}, u16(1), []byte{0x80}),
		"sibling cut":             cat([]byte{1}, u16(1), []byte{0x80}, h[:31]),
		"empty sibling in full":   cat([]byte{1}, u16(2), []byte{0xc0}, emptyHash[:], h[:]),
		"last sibling empty":      cat([]byte{1}, u16(2), []byte{0x80}, h[:]),
		"other leaf of inclusion": cat([]byte{1}, u16(0), h[:], h[:]),
		"other leaf missing":      {3, 0, 0},
		"other leaf cut":          cat([]byte{3}, u16(0), h[:], h[:31]),
		"too long":                make([]byte, MaxProofSize+1),
		"far too long":            cat([]byte{1}, u16(0xffff), make([]byte, 1<<20)),
	} {
		if p, err := ParseProof(b); err == nil || p != nil {
			t.Errorf("%s: read as %+v, %v", name, p, err)
		}
	}
	for name, p := range map[string]*Proof{"nil": nil, "zero": {}} {
		if VerifyAbsence(EmptyRoot, h, p) == nil || VerifyInclusion(EmptyRoot, h, h, p) == nil {
			t.Errorf("%s proof: holds", name)
		}
	}
	ok, err := ParseProof([]byte{2, 0, 0})
	if err != nil || VerifyAbsence(EmptyRoot, h, ok) != nil {
		t.Errorf("absence in the empty tree: %v", err)
	}
}
