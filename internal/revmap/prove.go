package revmap

import "fmt"

// Root returns the root of the stored tree, EmptyRoot when nothing is stored. It fails with a *CorruptionError if root record and
// root page do not agree. A store that lost everything looks empty: compare with the root that the map log has.
func Root(r Reader) ([32]byte, error) {
	t := &tree{r: r}
	root, err := t.root()
	if err != nil || root.size == none {
		return root.hash, err
	}
	if _, err := t.load(path{}, &root.hash); err != nil {
		return digest{}, err
	}
	return root.hash, nil
}

// Prove returns the proof of key against Root: of inclusion if the tree has it, else of absence. It has been verified. A damaged
// store gives a *CorruptionError.
func Prove(r Reader, key [32]byte) (*Proof, error) {
	t := &tree{r: r}
	root, err := t.root()
	if err != nil {
		return nil, err
	}
	end, siblings, err := t.descend(&root, &key)
	if err != nil {
		return nil, err
	}
	p := &Proof{kind: AbsentEmpty, siblings: siblings}
	switch {
	case end == nil:
		err = VerifyAbsence(root.hash, key, p)
	case end.Key == key:
		p.kind = Inclusion
		err = VerifyInclusion(root.hash, key, end.ValueHash, p)
	default:
		p.kind, p.other = AbsentOther, *end
		err = VerifyAbsence(root.hash, key, p)
	}
	if err != nil {
		return nil, fmt.Errorf("revmap: made a proof that does not hold: %w", err)
	}
	return p, nil
}

// descend follows key from the root to the first subtree with at most one entry, which it returns, and collects the siblings.
func (t *tree) descend(root *subtree, key *digest) (*Entry, []digest, error) {
	var siblings []digest
	if root.size == none {
		return nil, siblings, nil
	}
	for p, want := (path{}), root.hash; ; {
		pg, err := t.load(p, &want)
		if err != nil {
			return nil, nil, err
		}
		if pg.branch == nil {
			leaves := pg.leaves
			for depth := p.depth; len(leaves) > 1; depth++ {
				mid := split(leaves, depth)
				on, off := leaves[:mid], leaves[mid:]
				if bit(key, depth) == 1 {
					on, off = off, on
				}
				siblings = append(siblings, t.list(off, depth+1).hash)
				leaves = on
			}
			if len(leaves) == 0 {
				return nil, siblings, nil
			}
			return &leaves[0].Entry, siblings, nil
		}
		b, n := pg.branch, 1
		for n < fanout && b.nodes[n].size == many {
			n = 2*n + int(bit(key, len(siblings)))
			siblings = append(siblings, b.nodes[n^1].hash)
		}
		switch b.nodes[n].size {
		case none:
			return nil, siblings, nil
		case one:
			return b.only(n), siblings, nil
		}
		want, p = b.nodes[n].hash, p.child(n-fanout)
	}
}

// Walk calls visit with every entry in ascending order of keys, and checks every stored hash on the way: an audit of the whole
// store. It ends at the first error, visit's or its own.
func Walk(r Reader, visit func(Entry) error) error {
	t := &tree{r: r}
	root, err := t.root()
	if err != nil || root.size == none {
		return err
	}
	return t.walk(path{}, &root.hash, visit)
}

func (t *tree) walk(p path, want *digest, visit func(Entry) error) error {
	pg, err := t.load(p, want)
	if err != nil {
		return err
	}
	for i := range pg.leaves {
		if err := visit(pg.leaves[i].Entry); err != nil {
			return err
		}
	}
	if pg.branch == nil {
		return nil
	}
	for i := range fanout {
		switch s := pg.branch.slot(i); s.size {
		case one:
			err = visit(pg.branch.entries[i])
		case many:
			err = t.walk(p.child(i), &s.hash, visit)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
