package index

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"errors"
	"math/big"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ocspwire"
	"github.com/certanchor/certanchor/network"
)

func TestProofsAndRootsAgreeWithTlog(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		c := newChain(t)
		ix := open(t, t.TempDir())
		var sizes []int64
		for _, batch := range rapid.SliceOfN(rapid.IntRange(1, 40), 1, 8).Draw(r, "batches") {
			c.block(c.issue(batch))
			sizes = append(sizes, c.size)
		}
		apply(t, ix, c.blocks...)
		if log, _ := ix.View().Log(c.ca.ID); log.Size != uint64(c.size) || log.Root != c.root(c.size) {
			r.Fatalf("head is %d, %x, want %d, %x", log.Size, log.Root, c.size, c.root(c.size))
		}
		size := rapid.SampledFrom(sizes).Draw(r, "size")
		n := rapid.Int64Range(0, size-1).Draw(r, "leaf")
		want, err := tlog.ProveRecord(size, n, c)
		if err != nil {
			r.Fatal(err)
		}
		got, err := ix.Inclusion(c.ca.ID, uint64(n), uint64(size))
		if err != nil {
			r.Fatal(err)
		}
		if len(got) != len(want) {
			r.Fatalf("path of %d in %d has %d hashes, tlog's has %d", n, size, len(got), len(want))
		}
		for i := range got {
			if got[i] != want[i] {
				r.Fatalf("path of %d in %d differs at %d", n, size, i)
			}
		}
		if root, err := ix.RootAt(c.ca.ID, uint64(size)); err != nil || root != c.root(size) {
			r.Fatalf("root at %d is %x, %v", size, root, err)
		}
	})
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

// Each case makes one thing wrong in a block that is otherwise right.
func TestBlocksThatContradictThemselvesAreNotApplied(t *testing.T) {
	var bad [sha256.Size]byte
	edit := func(b *network.Block, key string, fn func(*wire.CertRecord)) {
		for i, w := range b.Txs[0].Writes {
			if strings.HasPrefix(w.Key, key) {
				var rec wire.CertRecord
				if err := wire.Decode(w.Value, &rec); err != nil {
					t.Fatal(err)
				}
				fn(&rec)
				b.Txs[0].Writes[i].Value = wire.Encode(&rec)
				return
			}
		}
		t.Fatalf("no write of %s", key)
	}
	head := func(b *network.Block, fn func(*wire.LogHead)) {
		for i, w := range b.Txs[0].Writes {
			if strings.HasPrefix(w.Key, wire.LogPrefix) {
				var h wire.LogHead
				if err := wire.Decode(w.Value, &h); err != nil {
					t.Fatal(err)
				}
				fn(&h)
				b.Txs[0].Writes[i].Value = wire.Encode(&h)
			}
		}
	}
	result := func(b *network.Block, fn func(*wire.IssueResult)) {
		var r wire.IssueResult
		if err := wire.Decode(b.Txs[0].Result, &r); err != nil {
			t.Fatal(err)
		}
		fn(&r)
		b.Txs[0].Result = wire.Encode(&r)
	}
	for what, spoil := range map[string]func(*chain, *network.Block){
		"root of the head": func(_ *chain, b *network.Block) { head(b, func(h *wire.LogHead) { h.Root = bad[:] }) },
		"size of the head": func(_ *chain, b *network.Block) { head(b, func(h *wire.LogHead) { h.Size++ }) },
		"head left out":    func(_ *chain, b *network.Block) { b.Txs[0].Writes = b.Txs[0].Writes[:2] },
		"leaf hash in the result": func(_ *chain, b *network.Block) {
			result(b, func(r *wire.IssueResult) { r.Entries[1].LeafHash = bad[:] })
		},
		"time in the result": func(_ *chain, b *network.Block) { result(b, func(r *wire.IssueResult) { r.Entries[1].Time++ }) },
		"index skipped":      func(_ *chain, b *network.Block) { result(b, func(r *wire.IssueResult) { r.Entries = r.Entries[1:] }) },
		"another certificate": func(_ *chain, b *network.Block) {
			b.Txs[0].Arg = bytes.Replace(b.Txs[0].Arg, []byte{2, 2, 3, 0xea}, []byte{2, 2, 3, 0xeb}, 1)
		},
		"leaf hash in the record": func(_ *chain, b *network.Block) {
			edit(b, wire.CertPrefix, func(r *wire.CertRecord) { r.Final.LeafHash = bad[:] })
		},
		"leaf of another record": func(_ *chain, b *network.Block) {
			edit(b, wire.CertPrefix, func(r *wire.CertRecord) { r.Final.Index, r.Final.LeafHash = 0, nil })
		},
		"record without a leaf": func(_ *chain, b *network.Block) { edit(b, wire.CertPrefix, func(r *wire.CertRecord) { r.Final = nil }) },
		"record deleted":        func(_ *chain, b *network.Block) { b.Txs[0].Writes[0].Value = nil },
		"key of no known family": func(_ *chain, b *network.Block) {
			b.Txs[0].Writes = append(b.Txs[0].Writes, network.Write{Key: "rule/1", Value: []byte{1}})
		},
		"previous hash":       func(_ *chain, b *network.Block) { b.PrevHash = bad[:] },
		"number":              func(_ *chain, b *network.Block) { b.Number++ },
		"argument unreadable": func(_ *chain, b *network.Block) { b.Txs[0].Arg = []byte{1} },
		"result unreadable":   func(_ *chain, b *network.Block) { b.Txs[0].Result = nil },
		"clock unreadable": func(_ *chain, b *network.Block) {
			b.Txs[0].Writes = append(b.Txs[0].Writes, network.Write{Key: "clock/0"})
		},
		"clock key": func(_ *chain, b *network.Block) {
			b.Txs[0].Writes = append(b.Txs[0].Writes, network.Write{Key: "clock/7"})
		},
		"CA record under other ID": func(c *chain, b *network.Block) {
			b.Txs[0].Writes = append(b.Txs[0].Writes, network.Write{Key: wire.CAKey(wire.CAID{1}), Value: c.blocks[1].Txs[0].Writes[0].Value})
		},
		"revocation undone": func(c *chain, b *network.Block) { b.Txs = append(b.Txs, valid(c.set(0, wire.CertValid))) },
		"revocation moved":  func(c *chain, b *network.Block) { b.Txs = append(b.Txs, valid(c.set(0, wire.CertRevoked))) },
	} {
		t.Run(what, func(t *testing.T) {
			c := newChain(t)
			c.block(c.issue(2))
			c.block(c.set(0, wire.CertRevoked))
			dir := t.TempDir()
			ix := open(t, dir)
			apply(t, ix, c.blocks...)
			before := ix.View()
			b := c.block(c.issue(2))
			spoil(c, b)
			err := ix.Apply(b)
			if d := new(DivergenceError); !errors.As(err, &d) {
				t.Fatalf("error is %v, want a *DivergenceError", err)
			}
			t.Log(err)
			if ix.View() != before {
				t.Error("the view has changed")
			}
			if again := ix.Apply(b); !errors.Is(again, err) {
				t.Errorf("second attempt: %v", again)
			}
			if err := ix.Close(); err != nil {
				t.Fatal(err)
			}
			if v := open(t, dir).View(); v.Height != before.Height {
				t.Errorf("height after reopening is %d, want %d", v.Height, before.Height)
			}
		})
	}
}

func valid(tx network.Tx) network.Tx {
	tx.Valid = true
	return tx
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
