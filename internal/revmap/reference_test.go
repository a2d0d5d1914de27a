package revmap

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"
)

// The reference is docs/revocation-map.md word by word: recursive, on the whole list of entries, sharing no code with the
// package. It is what the package, the fuzz targets and the test vectors are compared with.

func refHash(prefix byte, parts ...[]byte) []byte {
	h := sha256.Sum256(append([]byte{prefix}, bytes.Join(parts, nil)...))
	return h[:]
}

func refBit(key [32]byte, i int) bool { return key[i/8]&(0x80>>(i%8)) != 0 }

// refHalves divides entries by bit d of their keys.
func refHalves(entries []Entry, d int) (left, right []Entry) {
	for _, e := range entries {
		if refBit(e.Key, d) {
			right = append(right, e)
		} else {
			left = append(left, e)
		}
	}
	return left, right
}

func refRoot(entries []Entry, d int) []byte {
	switch len(entries) {
	case 0:
		return refHash(2)
	case 1:
		return refHash(0, entries[0].Key[:], entries[0].ValueHash[:])
	}
	left, right := refHalves(entries, d)
	return refHash(1, refRoot(left, d+1), refRoot(right, d+1))
}

// refProof returns the encoded proof of key.
func refProof(entries []Entry, key [32]byte) []byte {
	var siblings [][]byte
	d := 0
	for ; len(entries) > 1; d++ {
		on, off := refHalves(entries, d)
		if refBit(key, d) {
			on, off = off, on
		}
		siblings = append(siblings, refRoot(off, d+1))
		entries = on
	}
	kind, tail := byte(1), []byte(nil)
	if len(entries) == 0 {
		kind = 2
	} else if entries[0].Key != key {
		kind, tail = 3, append(entries[0].Key[:], entries[0].ValueHash[:]...)
	}
	out := binary.BigEndian.AppendUint16([]byte{kind}, uint16(d))
	for i := 0; i < d; i += 8 {
		octet := byte(0)
		for j := range 8 {
			if i+j < d && !bytes.Equal(siblings[i+j], refHash(2)) {
				octet |= 1 << (7 - j)
			}
		}
		out = append(out, octet)
	}
	for _, s := range siblings {
		if !bytes.Equal(s, refHash(2)) {
			out = append(out, s...)
		}
	}
	return append(out, tail...)
}

// model is the map as a Go map.
type model map[[32]byte][32]byte

func (m model) add(entries ...Entry) {
	for _, e := range entries {
		m[e.Key] = e.ValueHash
	}
}

func (m model) entries() []Entry {
	out := make([]Entry, 0, len(m))
	for k, v := range m {
		out = append(out, Entry{k, v})
	}
	slices.SortFunc(out, func(a, b Entry) int { return bytes.Compare(a.Key[:], b.Key[:]) })
	return out
}

func (m model) root() [32]byte { return [32]byte(refRoot(m.entries(), 0)) }
