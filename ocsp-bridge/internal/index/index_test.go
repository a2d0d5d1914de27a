package index

import (
	"bytes"
	"crypto"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/transparency-dev/merkle/compact"
	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/ocspwire"
	"github.com/certanchor/certanchor/internal/rapidtest"
	"github.com/certanchor/certanchor/network"
)

func TestProofsAndRootsAgreeWithTlog(t *testing.T) {
	rapidtest.Check(t, 4, func(r *rapid.T) {
		c := newChain(t)
		ix := open(t, t.TempDir())
		var sizes []int64
		for _, batch := range rapid.SliceOfN(rapid.IntRange(1, 40), 1, 8).Draw(r, "batches") {
			c.block(c.issue(batch))
			sizes = append(sizes, c.log.size())
		}
		apply(t, ix, c.blocks...)
		log, _ := ix.Issuance(c.ca.ID)
		compareLog(r, log, c.log)
		size := rapid.SampledFrom(sizes).Draw(r, "size")
		if root, err := ix.RootAt(c.ca.ID, uint64(size)); err != nil || root != c.log.root(size) {
			r.Fatalf("root at %d is %x, %v", size, root, err)
		}
		n := rapid.Int64Range(0, size-1).Draw(r, "leaf")
		want, err := tlog.ProveRecord(size, n, c.log)
		if err != nil {
			r.Fatal(err)
		}
		got, err := merklelog.Inclusion(log, uint64(n), uint64(size))
		if err != nil || !slices.EqualFunc(got, want, func(a [32]byte, b tlog.Hash) bool { return a == b }) {
			r.Fatalf("path of %d in %d is %x, %v, tlog's is %x", n, size, got, err, want)
		}
		if first := rapid.Int64Range(1, size).Draw(r, "first"); first < size {
			tree, err := tlog.ProveTree(size, first, c.log)
			if err != nil {
				r.Fatal(err)
			}
			got, err := merklelog.Consistency(log, uint64(first), uint64(size))
			if err != nil || !slices.EqualFunc(got, tree, func(a [32]byte, b tlog.Hash) bool { return a == b }) {
				r.Fatalf("consistency of %d and %d is %x, %v, tlog's is %x", first, size, got, err, tree)
			}
		}
	})
}

// fataler is a test or a rapid check.
type fataler interface {
	Helper()
	Fatalf(string, ...any)
}

// compareLog compares every entry, every node and the head of a log with what tlog has.
func compareLog(t fataler, log merklelog.Log, want *oracle) {
	t.Helper()
	head := log.Head()
	if head.Size != uint64(want.size()) || head.Root != want.root(want.size()) {
		t.Fatalf("head is %d, %x, want %d, %x", head.Size, head.Root, want.size(), want.root(want.size()))
	}
	entries, err := log.Entries(0, head.Size)
	if err != nil || len(entries) != len(want.leaves) {
		t.Fatalf("%d entries, %v, want %d", len(entries), err, len(want.leaves))
	}
	for i, e := range entries {
		if !bytes.Equal(e.Leaf, want.leaves[i]) || e.Time > head.Time {
			t.Fatalf("entry %d is %x at %d, want %x", i, e.Leaf, e.Time, want.leaves[i])
		}
		hash := tlog.RecordHash(want.leaves[i])
		if at, ok, err := log.Find(hash); err != nil || !ok || at != uint64(i) {
			t.Fatalf("leaf %d is found at %d, %t, %v", i, at, ok, err)
		}
	}
	for level := 0; head.Size>>level > 0; level++ {
		var all []compact.NodeID
		for i := range head.Size >> level {
			all = append(all, compact.NewNodeID(uint(level), i))
			got, err := log.Nodes(all[i:])
			if err != nil || tlog.Hash(got[0]) != want.hashes[tlog.StoredHashIndex(level, int64(i))] {
				t.Fatalf("node %d of level %d is %x, %v", i, level, got, err)
			}
		}
		got, err := log.Nodes(all)
		for i := range all {
			if err != nil || tlog.Hash(got[i]) != want.hashes[tlog.StoredHashIndex(level, int64(i))] {
				t.Fatalf("level %d, read at once: node %d is wrong, %v", level, i, err)
			}
		}
		if _, err := log.Nodes([]compact.NodeID{compact.NewNodeID(uint(level), head.Size>>level)}); err == nil {
			t.Fatalf("a node of level %d that is not complete is there", level)
		}
	}
	if _, ok, err := log.Find([32]byte{1}); ok || err != nil {
		t.Fatalf("a leaf that is not there is found: %t, %v", ok, err)
	}
	for _, r := range [][2]uint64{{1, 0}, {0, head.Size + 1}, {head.Size + 1, head.Size + 2}} {
		if _, err := log.Entries(r[0], r[1]); err == nil {
			t.Fatalf("entries %d to %d of %d are given", r[0], r[1], head.Size)
		}
	}
}

func TestRetriedIssueAddsNothing(t *testing.T) {
	c := newChain(t)
	first := c.issue(3)
	c.block(first)
	retry := network.Tx{Function: wire.FnIssue, Arg: first.Arg, Result: first.Result}
	c.block(retry, c.issue(2))
	ix := open(t, t.TempDir())
	apply(t, ix, c.blocks...)
	if log, _ := ix.View().Log(c.ca.ID); log.Size != 5 {
		t.Errorf("log has %d leaves, want 5", log.Size)
	}
}

func TestInvalidTransactionsHaveNoEffect(t *testing.T) {
	c := newChain(t)
	c.block(c.issue(1))
	b := c.block(c.set(0, wire.CertRevoked))
	b.Txs[0].Valid = false
	ix := open(t, t.TempDir())
	apply(t, ix, c.blocks...)
	rec, err := ix.Record(c.ca.ID, big.NewInt(1000).Bytes())
	if err != nil || rec.State != wire.CertValid {
		t.Errorf("record is %+v, %v", rec, err)
	}
	if v := ix.View(); v.Time != wire.MillisOf(c.blocks[2].Txs[0].Time) {
		t.Errorf("view time is %s: an invalid transaction proves nothing about now", v.Time.Time())
	}
}

func TestIssuerIsFoundByEveryHash(t *testing.T) {
	c := newChain(t)
	ix := open(t, t.TempDir())
	apply(t, ix, c.blocks...)
	for _, h := range ocspwire.Hashes() {
		id, err := ocspwire.NewCertID(h, c.ca.Cert, big.NewInt(7))
		if err != nil {
			t.Fatal(err)
		}
		if ca := ix.View().Issuer(id); ca == nil || ca.ID != c.ca.ID {
			t.Errorf("%s: CA is %v", h, ca)
		}
		id.NameHash = bytes.Repeat([]byte{1}, h.Size())
		if ix.View().Issuer(id) != nil {
			t.Errorf("%s: found by its key alone", h)
		}
	}
	if ix.View().Issuer(ocspwire.CertID{Hash: crypto.Hash(0)}) != nil {
		t.Error("found by nothing")
	}
}

func TestIndexOfAnotherLedgerIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := open(t, dir).Close(); err != nil {
		t.Fatal(err)
	}
	_, err := Open(Options{Dir: dir, Channel: "other", Now: nil, Log: open(t, t.TempDir()).opts.Log})
	if err == nil || !strings.Contains(err.Error(), `belongs to the ledger "test"`) {
		t.Errorf("error is %v", err)
	}
}

func TestReadsAfterCloseFail(t *testing.T) {
	c := newChain(t)
	ix := open(t, t.TempDir())
	apply(t, ix, c.blocks...)
	if err := ix.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := ix.Record(c.ca.ID, wire.Serial{1}); !errors.Is(err, ErrClosed) {
		t.Errorf("read: %v", err)
	}
	if err := ix.Apply(c.block(c.issue(1))); !errors.Is(err, ErrClosed) {
		t.Errorf("apply: %v", err)
	}
}
