package index

import (
	"bytes"
	"crypto/sha256"
	"testing"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/merklelog"
)

// FuzzParseEntry: the store's octets are a disk's. What is read as an entry would be written in the same way.
func FuzzParseEntry(f *testing.F) {
	ca := cctest.NewCA(f)
	cert, _ := ca.Issue(f)
	pre, _, _ := ca.Precert(f)
	for _, e := range []merklelog.Entry{
		{Kind: merklelog.X509, Time: 1767225600123, DER: cert},
		{Kind: merklelog.Precert, Time: 1767225600123, DER: pre},
		{Kind: merklelog.X509, Time: -1, DER: []byte{0x30, 0}},
		{Kind: merklelog.Status, Leaf: wire.Encode(&wire.StatusLeaf{V: 1, Kind: wire.LeafCA, CAID: ca.ID, Change: 1, State: uint(wire.CAActive), Time: 1767225600123})},
		{Kind: merklelog.Map, Leaf: wire.Encode(&wire.MapLeaf{V: 1, Time: 1767225600123})},
	} {
		f.Add(uint64(7), stored(&e))
	}
	f.Add(uint64(1)<<40, []byte{99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, index uint64, b []byte) {
		e, err := parseEntry(logID(ca.ID), index, b)
		if err != nil {
			return
		}
		if len(e.Leaf) == 0 || !bytes.Equal(stored(&e), b) {
			t.Fatalf("%x reads as an entry that would be stored as %x", b, stored(&e))
		}
	})
}

// FuzzParsePending: what is read is what the hash names.
func FuzzParsePending(f *testing.F) {
	leaf := wire.StatusLeaf{V: 1, Kind: wire.LeafCA, CAID: wire.CAID{1}, Change: 1, State: uint(wire.CAActive), Time: 1767225600123}
	raw := append(appendMillis(queueKey(5, 1)[1:], leaf.Time), wire.Encode(&leaf)...)
	if _, _, err := parsePending(leaf.Hash(), raw); err != nil {
		f.Fatal(err)
	}
	hash := leaf.Hash()
	f.Add(hash[:], raw)
	f.Add(make([]byte, sha256.Size), raw)
	f.Add(hash[:], raw[:pendingHead])
	f.Add(hash[:], []byte{})
	f.Fuzz(func(t *testing.T, hash, raw []byte) {
		if len(hash) != sha256.Size {
			return
		}
		p, queue, err := parsePending([sha256.Size]byte(hash), raw)
		if err != nil {
			return
		}
		again := append(appendMillis(queue[1:], wire.MillisOf(p.Since)), wire.Encode(&p.Leaf)...)
		if h := p.Leaf.Hash(); !bytes.Equal(h[:], hash) || !bytes.Equal(p.Hash[:], hash) || queue[0] != queueTag || !bytes.Equal(again, raw) {
			t.Fatalf("%x reads as what would be stored as %x", raw, again)
		}
	})
}
