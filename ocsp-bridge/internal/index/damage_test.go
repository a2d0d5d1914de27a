package index

import (
	"bytes"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/transparency-dev/merkle/compact"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/merklelog"
)

// flip changes one bit of a stored value behind the index's back, with the store's own checksums intact: memory that was bad when the
// value was written, which is how Yeti 2022 got a wrong hash into its tree.
func flip(t *testing.T, ix *Index, key []byte, bit int) (restore func()) {
	t.Helper()
	good, err := get(ix.db, key)
	if err != nil || len(good) == 0 {
		t.Fatalf("no value at %x: %v", key, err)
	}
	damaged := bytes.Clone(good)
	bit %= 8 * len(good)
	damaged[bit/8] ^= 1 << (bit % 8)
	write := func(val []byte) {
		if err := ix.db.Set(key, val, pebble.NoSync); err != nil {
			t.Fatal(err)
		}
		ix.publish(ix.View(), nil)
	}
	write(damaged)
	return func() { write(good) }
}

// keys lists the stored keys of a family.
func keys(t *testing.T, ix *Index, tag byte) (all [][]byte) {
	t.Helper()
	if err := each(ix.db, []byte{tag}, func(key, _ []byte) error { all = append(all, key); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatalf("the store has nothing under %q", tag)
	}
	return all
}

// answers is everything that the index proves or serves, and the first error.
func answers(ix *Index, c *chain) (out [][]byte, err error) {
	note := func(hashes [][32]byte) {
		for _, h := range hashes {
			out = append(out, bytes.Clone(h[:]))
		}
	}
	for _, log := range []merklelog.Log{&treeLog{ix, logID(c.ca.ID)}, ix.StatusLog(), ix.MapLog()} {
		size := log.Head().Size
		entries, err := log.Entries(0, size)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			out = append(out, e.Leaf, e.DER)
		}
		for n := range size {
			path, err := merklelog.Inclusion(log, n, size)
			if err != nil {
				return nil, err
			}
			note(path)
			if path, err = merklelog.Consistency(log, n, size); err != nil {
				return nil, err
			}
			note(path)
			hash, err := log.Nodes([]compact.NodeID{compact.NewNodeID(0, n)})
			if err != nil {
				return nil, err
			}
			out = append(out, hash...)
		}
		for level := uint(0); size>>level > 0; level++ { // as tiles do
			var all []compact.NodeID
			for n := range size >> level {
				all = append(all, compact.NewNodeID(level, n))
			}
			hashes, err := log.Nodes(all)
			if err != nil {
				return nil, err
			}
			out = append(out, hashes...)
		}
	}
	var all [][32]byte
	for n := range int64(7) {
		all = append(all, wire.CertMapKey(c.ca.ID, serialAt(n).Bytes()))
	}
	_, leaf, entries, err := ix.MapProof(append(all, wire.CAMapKey(c.ca.ID))...)
	if err != nil {
		return nil, err
	}
	out = append(out, wire.Encode(&leaf))
	for _, e := range entries {
		out = append(out, e.Value, e.Proof.Marshal())
	}
	pending, err := ix.Pending(100)
	if err != nil {
		return nil, err
	}
	for _, p := range pending {
		out = append(out, p.Hash[:], wire.Encode(&p.Leaf))
	}
	return out, nil
}

// damage flips bits all over one family, and wants an error, or the very answers from before when the value is not part of any.
func damage(t *testing.T, tag byte) {
	c := story(t)
	ix := open(t, t.TempDir())
	apply(t, ix, c.blocks...)
	good, err := answers(ix, c)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for i, key := range keys(t, ix, tag) {
		for bit := i; bit < i+9*53; bit += 53 {
			restore := flip(t, ix, key, bit)
			got, err := answers(ix, c)
			if err != nil {
				found++
			} else if !equal(got, good) {
				t.Fatalf("bit %d of the value at %x flipped: other answers, and no error", bit, key)
			}
			restore()
		}
	}
	if found == 0 {
		t.Error("no flipped bit was found")
	}
	if got, err := answers(ix, c); err != nil || !equal(got, good) {
		t.Errorf("repaired, and not the same: %v", err)
	}
}

func equal(a, b [][]byte) bool {
	return bytes.Equal(bytes.Join(a, []byte{0}), bytes.Join(b, []byte{0})) && len(a) == len(b)
}

// Yeti 2022: a bit flipped in a hash on its way into the store, the log signed tree heads over it, and no proof through that hash
// verified any more.
func TestBitFlipInStoredHashYeti2022(t *testing.T)         { damage(t, nodeTag) }
func TestBitFlipInEntryIsNeverServed(t *testing.T)         { damage(t, entryTag) }
func TestBitFlipInMapNodeIsNeverServed(t *testing.T)       { damage(t, mapNodeTag) }
func TestBitFlipInMapValueIsNeverServed(t *testing.T)      { damage(t, mapValueTag) }
func TestBitFlipInMapRuleIsNeverServed(t *testing.T)       { damage(t, mapRuleTag) }
func TestBitFlipInPendingChangeIsNeverServed(t *testing.T) { damage(t, pendingTag) }

// At the next start, what is checked then is found before anything is answered.
func TestBitFlipIsFoundAtStart(t *testing.T) {
	first := func(tag byte) func(*testing.T, *Index) []byte {
		return func(t *testing.T, ix *Index) []byte { return keys(t, ix, tag)[0] }
	}
	for what, at := range map[string]struct {
		key  func(*testing.T, *Index) []byte
		want string
	}{
		"node at the edge of a log": {func(t *testing.T, ix *Index) []byte { all := keys(t, ix, nodeTag); return all[len(all)-1] }, "damaged"},
		"head":                      {first(headTag), "head"},
		"pending change":            {first(pendingTag), "pending change"},
		"map node":                  {first(mapNodeTag), "revocation map"},
		"rule":                      {first(ruleTag), "rule"},
		"newest map leaf":           {func(_ *testing.T, ix *Index) []byte { return entryKey(mapLog, ix.View().MapLog().Size-1) }, "log map"},
	} {
		t.Run(what, func(t *testing.T) {
			c := story(t)
			dir := t.TempDir()
			ix := open(t, dir)
			apply(t, ix, c.blocks...)
			flip(t, ix, at.key(t, ix), 11)
			if err := ix.Close(); err != nil {
				t.Fatal(err)
			}
			again, err := tryOpen(dir)
			if err == nil {
				_ = again.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(strings.ToLower(err.Error()), at.want) {
				t.Errorf("error is %v", err)
			}
			t.Log(err)
		})
	}
}

// A damaged value is not folded into the next map: the block that would do so is not applied.
func TestDamagedMapValueIsNotFolded(t *testing.T) {
	c := story(t)
	ix := open(t, t.TempDir())
	apply(t, ix, c.blocks...)
	flip(t, ix, key32(mapValueTag, wire.CertMapKey(c.ca.ID, serialAt(0).Bytes())), 40)
	apply(t, ix, c.block(c.set(0, wire.CertRevoked)), c.block(c.integrate(len(c.queue))))
	err := ix.Apply(c.block(c.tick()))
	if err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("error is %v", err)
	}
}

// A pending change that is damaged after it was read from its block does not enter the status log.
func TestDamagedPendingChangeIsNotIntegrated(t *testing.T) {
	c := story(t)
	ix := open(t, t.TempDir())
	apply(t, ix, c.blocks...)
	flip(t, ix, key32(pendingTag, c.queue[0].Hash()), 8*pendingHead+77)
	err := ix.Apply(c.block(c.integrate(1)))
	if err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("error is %v", err)
	}
}
