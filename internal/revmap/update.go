package revmap

import (
	"bytes"
	"fmt"
	"slices"
)

// Update adds entries, replacing those that have a key already, and returns the new root. Their order does not matter; a key
// that occurs twice is an error. Entries are never removed. Each page that it touches is read, checked and written once,
// however many entries are in it.
//
// It writes only to s, and only when all is computed; it commits nothing. After an error of s itself some of the writes may be
// in s: drop the batch.
func Update(s Store, entries []Entry) ([32]byte, error) {
	t := &tree{r: s}
	return t.apply(s, entries)
}

func (t *tree) apply(s Store, entries []Entry) (digest, error) {
	leaves, err := t.sorted(entries)
	if err != nil {
		return digest{}, err
	}
	root, err := t.root()
	if err != nil {
		return digest{}, err
	}
	var next subtree
	if root.size == none && len(leaves) > 0 {
		next = t.build(path{}, leaves)
	} else if next = root; root.size != none {
		if next, err = t.merge(path{}, &root.hash, leaves); err != nil {
			return digest{}, err
		}
	}
	if next.hash != root.hash {
		t.put(rootKey, append([]byte{rootVersion}, next.hash[:]...))
	}
	for _, w := range t.writes {
		if err := s.Set(w.key, w.value); err != nil {
			return digest{}, fmt.Errorf("revmap: write %q: %w", w.key, err)
		}
	}
	return next.hash, nil
}

func (t *tree) put(key, value []byte) { t.writes = append(t.writes, write{key, value}) }

func (t *tree) sorted(entries []Entry) ([]leaf, error) {
	leaves := make([]leaf, len(entries))
	for i := range entries {
		leaves[i] = leaf{entries[i], t.leaf(&entries[i])}
	}
	slices.SortFunc(leaves, func(a, b leaf) int { return bytes.Compare(a.Key[:], b.Key[:]) })
	for i := 1; i < len(leaves); i++ {
		if leaves[i-1].Key == leaves[i].Key {
			return nil, fmt.Errorf("revmap: key %x occurs twice in one update: must occur once", leaves[i].Key)
		}
	}
	return leaves, nil
}

// merge adds leaves to the stored page at p, whose hash must be want.
func (t *tree) merge(p path, want *digest, leaves []leaf) (subtree, error) {
	pg, err := t.load(p, want)
	if err != nil {
		return subtree{}, err
	}
	var st subtree
	before := len(t.writes)
	if pg.branch == nil {
		st = t.build(p, mergeLeaves(pg.leaves, leaves))
	} else if st, err = t.fill(p, pg.branch, leaves); err != nil {
		return subtree{}, err
	}
	if st.hash == *want {
		t.writes = t.writes[:before] // nothing under p has changed
	}
	return st, nil
}

// build makes the page at p, and those under it, from leaves alone. Requires at least one, and two unless p is the root.
func (t *tree) build(p path, leaves []leaf) subtree {
	if len(leaves) <= maxBucket {
		t.put(p.key(), marshalBucket(leaves))
		return t.list(leaves, p.depth)
	}
	st, err := t.fill(p, newBranch(), leaves)
	if err != nil {
		panic(err) // an empty branch has no pages to read
	}
	return st
}

// fill adds leaves to the branch b at p.
func (t *tree) fill(p path, b *branch, leaves []leaf) (subtree, error) {
	var dirty uint16
	for len(leaves) > 0 {
		i, n := p.slot(&leaves[0].Key), 1
		for n < len(leaves) && p.slot(&leaves[n].Key) == i {
			n++
		}
		group := leaves[:n]
		leaves = leaves[n:]
		dirty |= 1 << i
		s := b.slot(i)
		if s.size == many {
			st, err := t.merge(p.child(i), &s.hash, group)
			if err != nil {
				return subtree{}, err
			}
			*s = st
			continue
		}
		if s.size == one {
			group = mergeLeaves([]leaf{{b.entries[i], s.hash}}, group)
		}
		if len(group) == 1 {
			b.setEntry(i, &group[0])
		} else {
			*s = t.build(p.child(i), group)
		}
	}
	b.rehash(&t.hasher, dirty)
	t.put(p.key(), b.marshal())
	return b.nodes[1], nil
}

// mergeLeaves returns the leaves of both, in order; where both have a key, the newer.
func mergeLeaves(older, newer []leaf) []leaf {
	out := make([]leaf, 0, len(older)+len(newer))
	for len(older) > 0 && len(newer) > 0 {
		switch bytes.Compare(older[0].Key[:], newer[0].Key[:]) {
		case -1:
			out, older = append(out, older[0]), older[1:]
		case 0:
			older = older[1:]
		case 1:
			out, newer = append(out, newer[0]), newer[1:]
		}
	}
	return append(append(out, older...), newer...)
}
