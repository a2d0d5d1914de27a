package revmap

import (
	"errors"
	"go/parser"
	"go/token"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/certanchor/certanchor/internal/rapidtest"
)

// drawKey gives keys that are often close to earlier ones.
func drawKey(r *rapid.T, m model) [32]byte {
	if len(m) == 0 || rapid.IntRange(0, 2).Draw(r, "fresh") == 0 {
		return keyOf(rapid.IntRange(0, 1000).Draw(r, "n"))
	}
	near := rapid.SampledFrom(m.entries()).Draw(r, "near").Key
	if rapid.Bool().Draw(r, "same") {
		return near
	}
	return flip(near, rapid.IntRange(0, keyBits-1).Draw(r, "bit"))
}

func TestTreeEqualsReference(t *testing.T) {
	rapidtest.Check(t, 4, func(r *rapid.T) {
		s, m, root := newMemory(), model{}, EmptyRoot
		for range rapid.IntRange(1, 6).Draw(r, "batches") {
			batch := model{}
			for range rapid.IntRange(0, 60).Draw(r, "entries") {
				batch[drawKey(r, m)] = valueOf(rapid.IntRange(0, 9).Draw(r, "value"))
			}
			m.add(batch.entries()...)
			entries := batch.entries()
			rand.Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
			var err error
			if root, err = Update(s, entries); err != nil {
				r.Fatal(err)
			}
			if want := m.root(); root != want {
				r.Fatalf("root %x, by the reference %x", root, want)
			}
			if got, err := Root(s); err != nil || got != root {
				r.Fatalf("Root %x, %v; Update returned %x", got, err, root)
			}
		}
		checkStore(r, s, m)
		for range 20 {
			checkKey(r, s, m, root, drawKey(r, m))
		}
	})
}

func TestOrderAndBatchesDoNotMatter(t *testing.T) {
	const n = 3000
	whole, want := stored(t, numbered(0, n))
	entries := numbered(0, n)
	rand.Shuffle(n, func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
	s, root := newMemory(), EmptyRoot
	for len(entries) > 0 {
		k := min(len(entries), 1+rand.IntN(200))
		var err error
		if root, err = Update(s, entries[:k]); err != nil {
			t.Fatal(err)
		}
		entries = entries[k:]
	}
	if root != want {
		t.Errorf("root %x, of one batch %x", root, want)
	}
	if !maps.EqualFunc(s.m, whole.m, slices.Equal) {
		t.Error("the stores differ")
	}
}

func TestDeepestPossibleLeaves(t *testing.T) {
	m := model{}
	key := keyOf(0)
	for i := range keyBits { // one key at every distance from the first: a comb of 256 levels, through 63 pages
		m.add(Entry{flip(key, i), valueOf(i)})
	}
	m.add(Entry{key, valueOf(1000)})
	for i := range 200 { // and whole buckets at the bottom
		k := key
		k[31] ^= byte(i)
		m.add(Entry{k, valueOf(i)})
	}
	s, root := stored(t, m.entries())
	if root != m.root() {
		t.Fatalf("root %x, by the reference %x", root, m.root())
	}
	checkStore(t, s, m)
	for _, i := range []int{0, 1, 3, 4, 5, 7, 8, 100, 127, 128, 240, 247, 248, 251, 252, 253, 254, 255} {
		checkKey(t, s, m, root, flip(key, i))
		checkKey(t, s, m, root, flip(flip(key, i), 255))
	}
	p := prove(t, s, key)
	if b := p.Marshal(); p.Depth() != keyBits || len(b) > MaxProofSize {
		t.Errorf("depth %d in %d octets", p.Depth(), len(b))
	}
	checkKey(t, s, m, root, key)
}

func TestEmptyTree(t *testing.T) {
	s := newMemory()
	if root, err := Root(s); err != nil || root != EmptyRoot {
		t.Fatalf("root %x, %v", root, err)
	}
	if root, err := Update(s, nil); err != nil || root != EmptyRoot || len(s.m) != 0 {
		t.Fatalf("an update with nothing: root %x, %v, %d values", root, err, len(s.m))
	}
	checkKey(t, s, model{}, EmptyRoot, keyOf(1))
	checkStore(t, s, model{})
}

func TestZeroRootProvesNothing(t *testing.T) {
	s := newMemory()
	p := prove(t, s, keyOf(1))
	if err := VerifyAbsence([32]byte{}, keyOf(1), p); err == nil {
		t.Error("absence proved by a root that nobody filled in")
	}
}

func TestKeyTwiceInOneUpdateIsRefused(t *testing.T) {
	s, root := stored(t, numbered(0, 5))
	before := maps.Clone(s.m)
	_, err := Update(s, []Entry{{keyOf(7), valueOf(1)}, {keyOf(8), valueOf(1)}, {keyOf(7), valueOf(2)}})
	if err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("error %v", err)
	}
	if got, err := Root(s); err != nil || got != root || !maps.EqualFunc(before, s.m, slices.Equal) {
		t.Errorf("the store has changed: root %x, %v", got, err)
	}
}

func TestUpdateLeavesItsArgumentAlone(t *testing.T) {
	entries := numbered(0, 50)
	slices.Reverse(entries)
	want := slices.Clone(entries)
	stored(t, entries)
	if !slices.Equal(entries, want) {
		t.Error("entries were sorted in place")
	}
}

func TestUpdateWithNothingNewWritesNothing(t *testing.T) {
	s, root := stored(t, numbered(0, 1000))
	s.sets = 0
	if got, err := Update(s, numbered(100, 50)); err != nil || got != root || s.sets != 0 {
		t.Errorf("root %x, %v; %d writes", got, err, s.sets)
	}
}

// Every read and every write fails in turn. A failed read leaves the store as it was; dropping the batch is enough for a write.
func TestEachReadAndWriteFailsInTurn(t *testing.T) {
	base, root := stored(t, numbered(0, 2000))
	more := numbered(2000, 20)
	clean := base.clone()
	if _, err := Update(clean, more); err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= clean.gets; n++ {
		s := base.clone()
		s.failGet = n
		if _, err := Update(s, more); !errors.Is(err, errDisk) {
			t.Fatalf("read %d failed, Update says %v", n, err)
		}
		if s.sets != 0 {
			t.Fatalf("read %d failed, Update wrote", n)
		}
		s.failGet = 0
		if got, err := Root(s); err != nil || got != root {
			t.Fatalf("read %d failed: root %x, %v", n, got, err)
		}
	}
	for n := 1; n <= clean.sets; n++ {
		s := base.clone()
		s.failSet = n
		if _, err := Update(s, more); !errors.Is(err, errDisk) {
			t.Fatalf("write %d failed, Update says %v", n, err)
		}
	}
	for n := 1; ; n++ {
		s := base.clone()
		s.failGet = n
		_, err := Prove(s, keyOf(3))
		if err == nil {
			break
		}
		if !errors.Is(err, errDisk) {
			t.Fatalf("read %d failed, Prove says %v", n, err)
		}
	}
}

// A revocation costs a number of hashes and reads in proportion to the depth, whatever the number of entries.
func TestOneUpdateCostsItsDepth(t *testing.T) {
	s := newMemory()
	for n := 1; n <= 1<<16; n *= 4 {
		if _, err := Update(s, numbered(n/4, n-n/4)); err != nil {
			t.Fatal(err)
		}
		for i := range 50 {
			c := s.clone()
			tree := &tree{r: c}
			if _, err := tree.apply(c, numbered(1<<20+i, 1)); err != nil {
				t.Fatal(err)
			}
			pages := len(tree.writes) - 1
			// Of a branch all nodes are checked (15, and up to 16 leaves) and 4 renewed; of the bucket at the end all twice.
			if limit := 35*pages + 4*maxBucket; tree.count > limit || c.gets > pages+1 || pages > 2+sharedPages(n) {
				t.Fatalf("%d entries: %d hashes, %d reads, %d pages", n, tree.count, c.gets, pages)
			}
		}
	}
}

// sharedPages is the depth of a tree of n random entries, in pages.
func sharedPages(n int) int {
	d := 0
	for ; n > 1; n /= fanout {
		d++
	}
	return d
}

func TestOnlyTheStandardLibraryIsImported(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("files %v, %v", files, err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range f.Imports {
			if strings.Contains(i.Path.Value, ".") {
				t.Errorf("%s imports %s: package client could not import this one", name, i.Path.Value)
			}
		}
	}
}
