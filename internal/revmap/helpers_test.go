package revmap

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"maps"
	"testing"
)

var errDisk = errors.New("disk")

// memory is a Store that can fail, and counts.
type memory struct {
	m          map[string][]byte
	gets, sets int
	failGet    int // the nth Get fails, counted from 1
	failSet    int
	last       []byte // that Get returned
}

func newMemory() *memory { return &memory{m: map[string][]byte{}} }

func (s *memory) clone() *memory { return &memory{m: maps.Clone(s.m)} }

// Get returns a value that the next Get overwrites: nobody may keep it.
func (s *memory) Get(key []byte) ([]byte, error) {
	if s.gets++; s.gets == s.failGet {
		return nil, errDisk
	}
	for i := range s.last {
		s.last[i] = 0xaa
	}
	s.last = bytes.Clone(s.m[string(key)])
	return s.last, nil
}

func (s *memory) Set(key, value []byte) error {
	if s.sets++; s.sets == s.failSet {
		return errDisk
	}
	s.m[string(key)] = value
	return nil
}

func (s *memory) Delete(key []byte) error {
	delete(s.m, string(key))
	return nil
}

// keyOf is the key of the nth test entry.
func keyOf(n int) [32]byte {
	return sha256.Sum256(binary.BigEndian.AppendUint64([]byte("key"), uint64(n)))
}

func valueOf(n int) [32]byte {
	return sha256.Sum256(binary.BigEndian.AppendUint64([]byte("value"), uint64(n)))
}

// numbered returns the test entries from n to n+k-1.
func numbered(n, k int) []Entry {
	out := make([]Entry, k)
	for i := range out {
		out[i] = Entry{keyOf(n + i), valueOf(n + i)}
	}
	return out
}

// flip returns key with bit i inverted: it shares i bits with key.
func flip(key [32]byte, i int) [32]byte {
	key[i/8] ^= 0x80 >> (i % 8)
	return key
}

func stored(t testing.TB, entries []Entry) (*memory, [32]byte) {
	t.Helper()
	s := newMemory()
	root, err := Update(s, entries)
	if err != nil {
		t.Fatal(err)
	}
	return s, root
}

func prove(t testing.TB, r Reader, key [32]byte) *Proof {
	t.Helper()
	p, err := Prove(r, key)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// holds says whether p, as bytes, parses and verifies for key under root; valueHash is that of inclusion.
func holds(root, key, valueHash [32]byte, b []byte) bool {
	p, err := ParseProof(b)
	if err != nil {
		return false
	}
	return VerifyInclusion(root, key, valueHash, p) == nil || VerifyAbsence(root, key, p) == nil
}

// fataler is what testing.T, testing.F and rapid.T have in common.
type fataler interface {
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// checkKey compares what the store proves of key with the reference, byte by byte, and verifies it both ways.
func checkKey(t fataler, r Reader, m model, root, key [32]byte) {
	p, err := Prove(r, key)
	if err != nil {
		t.Fatal(err)
	}
	b := p.Marshal()
	if want := refProof(m.entries(), key); !bytes.Equal(b, want) {
		t.Fatalf("proof of %x:\n%x, by the reference\n%x", key, b, want)
	}
	back, err := ParseProof(b)
	if err != nil {
		t.Fatal(err)
	}
	value, present := m[key]
	if err := VerifyInclusion(root, key, value, back); (err == nil) != present {
		t.Fatalf("key %x, present %v: VerifyInclusion says %v", key, present, err)
	}
	if err := VerifyAbsence(root, key, back); (err == nil) == present {
		t.Fatalf("key %x, present %v: VerifyAbsence says %v", key, present, err)
	}
}

// checkStore walks the store: exactly the entries of m, in order, and no page that nothing leads to.
func checkStore(t fataler, s *memory, m model) {
	want := m.entries()
	s.gets = 0
	if err := Walk(s, func(e Entry) error {
		if len(want) == 0 || e != want[0] {
			t.Fatalf("the walk comes to %x out of turn", e.Key)
		}
		want = want[1:]
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(want) != 0 {
		t.Fatalf("the walk misses %d entries, the first %x", len(want), want[0].Key)
	}
	if len(m) > 0 && s.gets != len(s.m) {
		t.Fatalf("the store has %d values, the walk read %d", len(s.m), s.gets)
	}
}
