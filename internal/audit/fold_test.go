package audit

import (
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"slices"
	"testing"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/revmap"
)

// folding is a derivation on an empty audit to which status leaves are given without blocks.
func folding(t *testing.T) (d *derivation, fold func(...wire.StatusLeaf) [32]byte) {
	d = &derivation{a: open(t, Options{}), next: &position{}, writes: map[string][]byte{}}
	var size uint64
	return d, func(leaves ...wire.StatusLeaf) [32]byte {
		t.Helper()
		for _, l := range leaves {
			d.writes[string(entryKey(StatusLog, size))] = append([]byte{byte(merklelog.Status)}, wire.Encode(&l)...)
			size++
		}
		root, err := d.fold(size)
		must(t, err)
		return root
	}
}

// rootOf is the root of a map with these values.
func rootOf(t *testing.T, values map[[32]byte]any) [32]byte {
	t.Helper()
	var entries []revmap.Entry
	for key, v := range values {
		entries = append(entries, revmap.Entry{Key: key, ValueHash: sha256.Sum256(wire.Encode(v))})
	}
	d := &derivation{a: open(t, Options{}), next: &position{}, writes: map[string][]byte{}}
	root, err := revmap.Update(mapStore{d}, entries)
	must(t, err)
	return root
}

// Each thing that changes has its own entry, and the highest change number wins in whatever order and parts the log has them.
func TestFoldOfEveryKindOfLeaf(t *testing.T) {
	ca, serial, one, two := wire.CAID{1}, wire.Serial{7}, [32]byte{1}, [32]byte{2}
	leaf := func(kind wire.LeafKind, change uint64, edit func(*wire.StatusLeaf)) wire.StatusLeaf {
		l := wire.StatusLeaf{V: 1, Kind: kind, CAID: ca, Serial: serial, Change: change, Time: wire.Millis(change), Reason: wire.Reason(change)}
		edit(&l)
		return l
	}
	none := func(*wire.StatusLeaf) {}
	by := func(source wire.Source, key []byte) func(*wire.StatusLeaf) {
		return func(l *wire.StatusLeaf) { l.Source, l.SPKIHash = source, key }
	}
	leaves := []wire.StatusLeaf{
		leaf(wire.LeafCA, 1, func(l *wire.StatusLeaf) { l.Serial, l.State = nil, uint(wire.CAActive) }),
		leaf(wire.LeafCert, 1, func(l *wire.StatusLeaf) { l.State = uint(wire.CertHeld) }),
		leaf(wire.LeafCert, 2, func(l *wire.StatusLeaf) { l.State = uint(wire.CertRevoked) }),
		leaf(wire.LeafRevocation, 1, by(wire.SourceQuorum, nil)),
		leaf(wire.LeafRevocation, 2, by(wire.SourceQuorum, nil)),
		leaf(wire.LeafRevocation, 1, by(wire.SourceHolder, one[:])),
		leaf(wire.LeafRevocation, 2, by(wire.SourceHolder, one[:])),
		leaf(wire.LeafRevocation, 1, by(wire.SourceHolder, two[:])),
	}
	want := rootOf(t, map[[32]byte]any{
		wire.CAMapKey(ca): &wire.MapCA{V: 1, Change: 1, State: wire.CAActive, Time: 1, RulesHash: wire.RulesHash(nil)},
		wire.CertMapKey(ca, serial): &wire.MapCert{
			V: 1, Change: 2, State: wire.CertRevoked, Reason: 2, Time: 2, Quorum: &wire.MapQuorum{Reason: 2, Time: 2, Change: 2},
		},
		wire.HolderMapKey(ca, serial, one): &wire.MapHolder{V: 1, Reason: 2, Time: 2, Change: 2},
		wire.HolderMapKey(ca, serial, two): &wire.MapHolder{V: 1, Reason: 1, Time: 1, Change: 1},
	})
	backwards := slices.Clone(leaves)
	slices.Reverse(backwards)
	for _, order := range [][]wire.StatusLeaf{leaves, backwards} {
		_, fold := folding(t)
		if root := fold(order...); root != want {
			t.Errorf("at once: root %x, want %x", root, want)
		}
		_, fold = folding(t)
		var root [32]byte
		for _, l := range order {
			root = fold(l)
		}
		if root != want {
			t.Errorf("one by one: root %x, want %x", root, want)
		}
	}
	for what, l := range map[string]wire.StatusLeaf{
		"kind": leaf(9, 1, none), "source": leaf(wire.LeafRevocation, 1, by(3, nil)), "holder without a key": leaf(wire.LeafRevocation, 1, by(wire.SourceHolder, nil)),
	} {
		d, _ := folding(t)
		if err := d.foldLeaf(&l, map[[32]byte]*mapEntry{}); err == nil {
			t.Errorf("a leaf of an unknown %s is folded", what)
		}
	}
}

// The holders of thousands of keys with one serial number revoke: what the audit stores for each does not grow.
func TestFoldOfTwinsOfOneSerialCostsTheSameEach(t *testing.T) {
	const rounds, each = 30, 100
	d, fold := folding(t)
	var octets [rounds]int
	for round := range rounds {
		var leaves []wire.StatusLeaf
		for n := range each {
			key := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(round*each+n)))
			leaves = append(leaves, wire.StatusLeaf{
				V: 1, Kind: wire.LeafRevocation, CAID: wire.CAID{1}, Serial: wire.Serial{7}, Change: 1, State: uint(wire.CertRevoked),
				Time: 5, Source: wire.SourceHolder, SPKIHash: key[:],
			})
		}
		before := maps.Clone(d.writes)
		fold(leaves...)
		for key, value := range d.writes {
			if was, ok := before[key]; (!ok || string(was) != string(value)) && key[0] == mapValuePrefix {
				octets[round] += len(value)
			}
		}
	}
	for round, n := range octets {
		if n != octets[0] || n > each*100 {
			t.Fatalf("%d revocations changed values of %d octets in the first round, %d in round %d", each, octets[0], n, round)
		}
	}
}
