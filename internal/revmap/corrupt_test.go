package revmap

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/internal/rapidtest"
)

// corruptible is a tree of a root branch, buckets, entries in branches, and one deep page.
func corruptible(t testing.TB) (*memory, model, [32]byte) {
	t.Helper()
	m := model{}
	m.add(numbered(0, 150)...)
	for i := range maxBucket + 3 { // a branch two pages down
		k := keyOf(0)
		k[1] ^= byte(i)
		m.add(Entry{k, valueOf(i)})
	}
	k := keyOf(1)
	m.add(Entry{flip(k, 60), valueOf(1)})
	s, root := stored(t, m.entries())
	return s, m, root
}

func nodeName(key string) string {
	if key == string(rootKey) {
		return "root"
	}
	p := path{depth: int(key[1]) * pageBits}
	copy(p.prefix[:], key[2:])
	return p.String()
}

// checkDamaged: the walk finds the damage and names the place; no proof and no root is wrong, whatever the damage.
func checkDamaged(t *testing.T, what, key string, s *memory, m model, root [32]byte) {
	t.Helper()
	var corrupt *CorruptionError
	err := Walk(s, func(Entry) error { return nil })
	if !errors.As(err, &corrupt) {
		t.Fatalf("%s: the walk says %v", what, err)
	}
	if !strings.Contains(err.Error(), nodeName(key)) {
		t.Fatalf("%s: does not name %s: %v", what, nodeName(key), err)
	}
	if got, err := Root(s); got != root && !errors.As(err, &corrupt) {
		t.Fatalf("%s: root %x, %v", what, got, err)
	}
	for _, n := range []int{0, 1, 2, 3, 4, 500, 501} {
		p, err := Prove(s, keyOf(n))
		if err != nil {
			if !errors.As(err, &corrupt) {
				t.Fatalf("%s: Prove says %v", what, err)
			}
			continue
		}
		if !holds(root, keyOf(n), m[keyOf(n)], p.Marshal()) {
			t.Fatalf("%s: wrong proof of key %d", what, n)
		}
	}
	for n := range 3 {
		u := s.clone()
		e := Entry{keyOf(n), valueOf(1000)}
		got, err := Update(u, []Entry{e})
		if err != nil {
			if !errors.As(err, &corrupt) || u.sets != 0 {
				t.Fatalf("%s: Update wrote %d values and says %v", what, u.sets, err)
			}
			continue
		}
		want := maps.Clone(m)
		want.add(e)
		if got != want.root() {
			t.Fatalf("%s: Update made root %x, want %x", what, got, want.root())
		}
	}
}

// After Yeti 2022, a CT log that ended because one bit of a stored hash had flipped.
func TestYeti2022EachFlippedBitIsFound(t *testing.T) {
	s, m, root := corruptible(t)
	some := 13
	if rapidtest.Raced {
		some = 37
	}
	for n, key := range slices.Sorted(maps.Keys(s.m)) {
		whole := s.m[key]
		first, step := 0, 1
		if n > 0 && n < len(s.m)-1 { // root page and root record in full, of the others a bit in 13, or in 37 under the race detector
			first, step = n%some, some
		}
		for i := first; i < 8*len(whole); i += step {
			bad := bytes.Clone(whole)
			bad[i/8] ^= 1 << (i % 8)
			s.m[key] = bad
			if i%200 == 0 || i < 2*step {
				checkDamaged(t, nodeName(key)+" flipped", key, s, m, root)
				continue
			}
			var corrupt *CorruptionError
			if err := Walk(s, func(Entry) error { return nil }); !errors.As(err, &corrupt) || !strings.Contains(err.Error(), nodeName(key)) {
				t.Fatalf("%s: bit %d flipped: the walk says %v", nodeName(key), i, err)
			}
		}
		s.m[key] = whole
	}
}

func TestDamagedPagesAreFound(t *testing.T) {
	s, m, root := corruptible(t)
	older, _ := stored(t, numbered(0, 100))
	keys := slices.Sorted(maps.Keys(s.m))
	for i, key := range keys {
		whole := s.m[key]
		damage := map[string][]byte{
			"absent":    nil,
			"empty":     {},
			"cut":       whole[:len(whole)-1],
			"extended":  append(bytes.Clone(whole), 0),
			"doubled":   append(bytes.Clone(whole), whole[1:]...),
			"exchanged": s.m[keys[(i+1)%len(keys)]],
			"one short": whole[:max(1, len(whole)-entrySize)],
		}
		if old := older.m[key]; old != nil {
			damage["from a backup"] = old
		}
		for what, bad := range damage {
			if s.m[key] = bad; bad == nil {
				delete(s.m, key)
			}
			checkDamaged(t, nodeName(key)+" "+what, key, s, m, root)
		}
		s.m[key] = whole
	}
	checkStore(t, s, m)
}

func TestForeignEntriesInAPageAreRefused(t *testing.T) {
	h := new(hasher)
	p := path{}.child(3).child(9)
	in := func(n byte) leaf { return leaf{Entry: Entry{Key: [32]byte{0x39, n}}} }
	out := leaf{Entry: Entry{Key: [32]byte{0x38, 1}}}
	deep := path{depth: keyBits - pageBits}
	for name, raw := range map[string][]byte{
		"order":    marshalBucket([]leaf{in(2), in(1)}),
		"twice":    marshalBucket([]leaf{in(2), in(2)}),
		"foreign":  marshalBucket([]leaf{out, in(2)}),
		"single":   marshalBucket([]leaf{in(2)}),
		"no entry": marshalBucket(nil),
		"too many": marshalBucket(make([]leaf, maxBucket+1)),
		"type 3":   append([]byte{branchTag, 0xc0, 0, 0, 0}, make([]byte, 64)...),
		"no slots": {branchTag, 0, 0},
		"slot 3":   append([]byte{branchTag, 1 << 0, 0, 0, 0}, make([]byte, 64)...),
		"tag 3":    {3},
	} {
		if _, _, err := parsePage(h, p, raw); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, _, err := parsePage(h, deep, newBranch().marshal()); err == nil {
		t.Error("a branch below which there are no keys: accepted")
	}
	if pg, st, err := parsePage(h, p, marshalBucket([]leaf{in(1), in(2)})); err != nil || len(pg.leaves) != 2 || st.size != many {
		t.Errorf("a good bucket: %v", err)
	}
}
