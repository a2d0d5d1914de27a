package index

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/revmap"
	"github.com/cockroachdb/pebble/v2"
	"github.com/fxamacker/cbor/v2"
)

// load reads the index's position and its small tables, and checks what can be checked without reading everything.
func (ix *Index) load() (*View, error) {
	if err := ix.checkMeta(); err != nil {
		return nil, err
	}
	v := &View{
		cas: map[wire.CAID]*CA{}, ids: map[idKey]wire.CAID{}, mapped: map[[sha256.Size]byte]wire.CAID{}, logs: map[logID]Log{},
	}
	ix.mapped.root = revmap.EmptyRoot
	raw, err := get(ix.db, positionKey)
	if err != nil || raw == nil {
		return v, err
	}
	var pos position
	if err := cbor.Unmarshal(raw, &pos); err != nil {
		return nil, fmt.Errorf("position: %w", err)
	}
	v.Height, v.Hash, v.Time, v.Seen, v.Integrator = pos.Height, pos.Hash, pos.Time, ix.opts.Now(), pos.Integrator
	if v.Changed, err = posOf(pos.Changed); err != nil {
		return nil, err
	}
	for _, step := range []func(*View) error{ix.loadClock, ix.loadTrustList, ix.loadLogs, ix.loadChanges, ix.loadPending, ix.loadMap} {
		if err := step(v); err != nil {
			return nil, err
		}
	}
	return v, nil
}

func (ix *Index) loadClock(v *View) error {
	raw, err := get(ix.db, consortiumKey)
	if err != nil {
		return err
	}
	if raw != nil {
		v.Consortium = new(wire.Consortium)
		if err := wire.Decode(raw, v.Consortium); err != nil {
			return err
		}
	}
	for n := range byte(wire.ClockKeys) {
		raw, err := get(ix.db, clockKey(n))
		if err != nil {
			return err
		}
		if raw != nil {
			if err := v.addClock(raw); err != nil {
				return err
			}
		}
	}
	return nil
}

func (ix *Index) loadTrustList(v *View) error {
	if err := each(ix.db, []byte{caTag}, func(key, val []byte) error {
		id, _, err := caOf(key)
		if err != nil {
			return err
		}
		return v.addCA(id, val)
	}); err != nil {
		return err
	}
	if err := each(ix.db, []byte{ruleTag}, func(key, val []byte) error {
		id, n, err := numbered(key)
		if err == nil {
			err = v.addRule(id, n, val)
		}
		if err != nil {
			return fmt.Errorf("rules: %w", err)
		}
		return nil
	}); err != nil {
		return err
	}
	for id, ca := range v.cas {
		if n := uint64(len(ca.Rules)); n != ca.Record.Rules {
			return fmt.Errorf("CA %s: %d rules are stored, its record counts %d", id, n, ca.Record.Rules)
		}
		first := errors.New("found")
		err := each(ix.db, key32(revokedTag, id), func(_, _ []byte) error { return first })
		if err != nil && !errors.Is(err, first) {
			return err
		}
		ca.revokedByOthers = err != nil
	}
	return nil
}

// loadLogs rebuilds each log's compact range from the stored nodes and checks it against the stored head.
func (ix *Index) loadLogs(v *View) error {
	return each(ix.db, []byte{headTag}, func(key, val []byte) error {
		id, _, err := caOf(key)
		if err != nil {
			return err
		}
		log := logID(id)
		var head Log
		if err := cbor.Unmarshal(val, &head); err != nil {
			return fmt.Errorf("log %s: head: %w", log, err)
		}
		nodes := nodeReader{r: ix.db, log: log, size: head.Size}
		tree, root, err := nodes.tree(head.Size)
		if err != nil {
			return err
		}
		if root != head.Root {
			return fmt.Errorf("log %s: root of the stored nodes is %x: the stored head of size %d has %x", log, root, head.Size, head.Root)
		}
		ix.trees[log], v.logs[log] = tree, head
		return nil
	})
}

// loadChanges checks that the newest change is there.
func (ix *Index) loadChanges(v *View) error {
	if v.Changed == (Pos{}) {
		return nil
	}
	changes, err := changesIn(ix.db, Pos{v.Changed.Block, v.Changed.N - 1}, 2)
	if err == nil && (len(changes) != 1 || changes[0].Pos != v.Changed) {
		err = fmt.Errorf("changes of status: %d are stored from the newest one on", len(changes))
	}
	return err
}

// loadPending counts pending changes and checks that each is what its hash says.
func (ix *Index) loadPending(v *View) error {
	queued := 0
	if err := each(ix.db, []byte{queueTag}, func(key, hash []byte) error {
		queued++
		_, err := pendingAt(ix.db, key, hash)
		return err
	}); err != nil {
		return err
	}
	if err := each(ix.db, []byte{pendingTag}, func(_, _ []byte) error { v.Pending++; return nil }); err != nil {
		return err
	}
	if queued != v.Pending {
		return fmt.Errorf("%d pending changes of status are stored, %d are queued", v.Pending, queued)
	}
	return nil
}

// loadMap checks the revocation map, and the status log that it was made of, against the newest leaf of the map log.
func (ix *Index) loadMap(v *View) error {
	root, err := revmap.Root(mapNodes{r: ix.db})
	if err != nil {
		return fmt.Errorf("revocation map: %w", err)
	}
	ix.mapped.root = root
	size := v.MapLog().Size
	if size == 0 {
		if root != revmap.EmptyRoot {
			return fmt.Errorf("revocation map: root is %x before the first tick", root)
		}
		return nil
	}
	leaf, err := mapLeaf(ix.db, size-1)
	if err != nil {
		return err
	}
	if !bytes.Equal(leaf.MapRoot, root[:]) {
		return fmt.Errorf("revocation map: root of the stored nodes is %x: the map log's newest leaf has %x", root, leaf.MapRoot)
	}
	if leaf.StatusSize > v.StatusLog().Size {
		return fmt.Errorf("revocation map: is made of %d entries of the status log, which has %d", leaf.StatusSize, v.StatusLog().Size)
	}
	nodes := nodeReader{r: ix.db, log: statusLog, size: v.StatusLog().Size}
	_, statusRoot, err := nodes.tree(leaf.StatusSize)
	if err != nil {
		return err
	}
	if !bytes.Equal(leaf.StatusRoot, statusRoot[:]) {
		return fmt.Errorf("status log: root at size %d is %x: the map log's newest leaf has %x", leaf.StatusSize, statusRoot, leaf.StatusRoot)
	}
	ix.mapped.statusSize = leaf.StatusSize
	return nil
}

// each calls fn with every key that begins with prefix, in order, and its value, both copies, until fn fails.
func each(r pebble.Reader, prefix []byte, fn func(key, val []byte) error) error {
	return eachIn(r, prefix, after(prefix), fn)
}

func eachIn(r pebble.Reader, from, to []byte, fn func(key, val []byte) error) error {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return fmt.Errorf("index: read: %w", err)
	}
	for it.First(); it.Valid(); it.Next() {
		val, err := it.ValueAndErr()
		if err == nil {
			err = fn(bytes.Clone(it.Key()), append([]byte{}, val...))
		}
		if err != nil {
			return errors.Join(err, it.Close())
		}
	}
	return it.Close()
}

// get returns a copy of a value, nil if there is none.
func get(r pebble.Reader, key []byte) ([]byte, error) {
	val, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("index: read: %w", err)
	}
	out := append([]byte{}, val...) // not nil, even when empty
	return out, closer.Close()
}
