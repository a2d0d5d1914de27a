package revmap

import (
	"bytes"
	"testing"
)

// decodeOps turns any octets into batches of entries and keys to ask for. An operation is two octets: the first chooses what to
// do and between which of the keys so far, the second is a bit or a value.
//
//	0..127    add a key: the one so far that is chosen, with the bit inverted (128 neighbours share up to 255 bits)
//	128..191  add a key of its own, a digest
//	192..223  replace the value of the chosen key
//	224..239  the batch ends
//	240..255  add 40 keys of their own: more than a bucket
func decodeOps(data []byte) (batches [][]Entry) {
	var keys [][32]byte
	batch := model{}
	add := func(k [32]byte, v byte) {
		keys = append(keys, k)
		batch[k] = valueOf(int(v))
	}
	for ; len(data) >= 2 && len(keys) < 2000; data = data[2:] {
		op, x := data[0], data[1]
		switch {
		case op >= 240:
			for range 40 {
				add(keyOf(len(keys)), x)
			}
		case op >= 224:
			batches = append(batches, batch.entries())
			batch = model{}
		case op >= 192:
			if len(keys) > 0 {
				batch[keys[int(op)%len(keys)]] = valueOf(int(x))
			}
		case op >= 128 || len(keys) == 0:
			add(keyOf(int(op)<<8|int(x)), x)
		default:
			add(flip(keys[len(keys)-1-int(op)%len(keys)], int(x)), op)
		}
	}
	return append(batches, batch.entries())
}

// FuzzAgainstReference: after any updates, root, walk and proofs are those of the recursive definition.
func FuzzAgainstReference(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{128, 1, 0, 255, 0, 254, 224, 0, 192, 7})
	f.Add([]byte{240, 1, 240, 2, 224, 0, 130, 3, 1, 200, 224, 0, 240, 9, 2, 6})
	f.Fuzz(func(t *testing.T, data []byte) {
		data = data[:min(len(data), 200)] // the reference is slow
		s, m, root := newMemory(), model{}, EmptyRoot
		for _, batch := range decodeOps(data) {
			m.add(batch...)
			var err error
			if root, err = Update(s, batch); err != nil {
				t.Fatal(err)
			}
			if want := m.root(); root != want {
				t.Fatalf("root %x, by the reference %x", root, want)
			}
		}
		checkStore(t, s, m)
		checkKey(t, s, m, root, keyOf(1<<20))
		asked := 0
		for k := range m {
			checkKey(t, s, m, root, k)
			checkKey(t, s, m, root, flip(k, 255))
			checkKey(t, s, m, root, flip(k, 9))
			if asked++; asked == 3 {
				break
			}
		}
	})
}

// fuzzedTree is one tree with one key present and one absent, for which the fuzzer looks for proofs.
func fuzzedTree(f *testing.F) (m model, root [32]byte, keys [][32]byte) {
	s, root, all := samples(f)
	m = model{}
	if err := Walk(s, func(e Entry) error { m.add(e); return nil }); err != nil {
		f.Fatal(err)
	}
	for _, sample := range all {
		f.Add(sample.proof)
		keys = append(keys, sample.key)
	}
	return m, root, keys
}

// FuzzVerify: whatever parses has no second encoding, and whatever verifies is the one proof that the reference makes.
func FuzzVerify(f *testing.F) {
	m, root, keys := fuzzedTree(f)
	f.Add([]byte{2, 0, 0})
	f.Add([]byte{1, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParseProof(b)
		if err != nil {
			return
		}
		if !bytes.Equal(p.Marshal(), b) {
			t.Fatalf("%x has a second encoding, %x", b, p.Marshal())
		}
		if len(b) > MaxProofSize {
			t.Fatalf("%d octets were read", len(b))
		}
		for _, key := range keys {
			if holds(root, key, m[key], b) && !bytes.Equal(b, refProof(m.entries(), key)) {
				t.Fatalf("a second proof for %x: %x", key, b)
			}
		}
	})
}

// FuzzPage: a page of any octets is refused or has one encoding.
func FuzzPage(f *testing.F) {
	s, _, _ := corruptible(f)
	for key, raw := range s.m {
		if key != string(rootKey) {
			f.Add(key[1], []byte(key[2:]), raw)
		}
	}
	f.Fuzz(func(t *testing.T, nibbles byte, prefix, raw []byte) {
		var p path
		for i := range min(int(nibbles)%64, 2*len(prefix)) {
			p = p.child(int(prefix[i/2]>>(4-i%2*4)) % fanout)
		}
		pg, st, err := parsePage(new(hasher), p, raw)
		if err != nil {
			return
		}
		var back []byte
		if pg.branch != nil {
			back = pg.branch.marshal()
		} else {
			back = marshalBucket(pg.leaves)
		}
		if !bytes.Equal(back, raw) || st.size > many {
			t.Fatalf("%x is read as %x, size %d", raw, back, st.size)
		}
	})
}
