package sct

import (
	"bytes"
	"testing"

	ct "github.com/google/certificate-transparency-go"
	"github.com/google/certificate-transparency-go/tls"

	"github.com/certanchor/certanchor/internal/tlogproof"
)

const fuzzOrigin = "log.example/logs/1"

// What is signed has one form, which is what is read again.
func FuzzParseBody(f *testing.F) {
	f.Add([]byte(fuzzOrigin + "\n7\nR1h4xuHBjLPCh6zv4Xb6jHzkXtBKpcAWuDO1vyXcLdQ=\n"))
	f.Add([]byte(fuzzOrigin + "\n0\nR1h4xuHBjLPCh6zv4Xb6jHzkXtBKpcAWuDO1vyXcLdR=\n"))
	f.Add([]byte(fuzzOrigin + "\n7\nR1h4xuHBjLPCh6zv4Xb6jHzkXtBKpcAWuDO1vyXcLdQ=\nextension\n"))
	f.Add([]byte("another\n7\nR1h4\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		head, err := parseBody(fuzzOrigin, text)
		if err != nil {
			return
		}
		again := (&tlogproof.Checkpoint{Origin: fuzzOrigin, Size: head.Size, Root: head.Root}).Text()
		if again != string(text) {
			t.Fatalf("%q has a second form, %q", text, again)
		}
	})
}

// What this package takes for a leaf, certificate-transparency-go takes for the same one.
func FuzzParseLeaf(f *testing.F) {
	for _, leaf := range leaves(f) {
		f.Add(leaf)
		f.Add(leaf[:len(leaf)-1])
		f.Add(append(bytes.Clone(leaf), 0))
	}
	f.Fuzz(func(t *testing.T, leaf []byte) {
		at, extensions, err := parseLeaf(leaf)
		if err != nil {
			return
		}
		var other ct.MerkleTreeLeaf
		if rest, err := tls.Unmarshal(leaf, &other); err != nil || len(rest) > 0 {
			t.Fatalf("%x is none to others: %v, %d octets left", leaf, err, len(rest))
		}
		e := other.TimestampedEntry
		if e.Timestamp != uint64(at) || !bytes.Equal(e.Extensions, extensions) {
			t.Fatalf("%x: time %d and extensions %x, to others %d and %x", leaf, at, extensions, e.Timestamp, e.Extensions)
		}
	})
}
