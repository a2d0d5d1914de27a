package index

import (
	"crypto/sha256"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
)

// edit changes the first write of b whose key has the prefix; the value is decoded into v and encoded again after fn.
func edit[T any](t *testing.T, b *network.Block, prefix string, fn func(*T)) {
	t.Helper()
	for i := range b.Txs {
		for k, w := range b.Txs[i].Writes {
			if strings.HasPrefix(w.Key, prefix) && w.Value != nil {
				v := new(T)
				decode(t, w.Value, v)
				fn(v)
				b.Txs[i].Writes[k].Value = wire.Encode(v)
				return
			}
		}
	}
	t.Fatalf("no write of %s", prefix)
}

func decode(t *testing.T, raw []byte, v any) {
	t.Helper()
	var err error
	switch v := v.(type) {
	case *wire.CertRecord:
		err = wire.Decode(raw, v)
	case *wire.LogHead:
		err = wire.Decode(raw, v)
	case *wire.IssueResult:
		err = wire.Decode(raw, v)
	case *wire.Revocation:
		err = wire.Decode(raw, v)
	case *wire.Rule:
		err = wire.Decode(raw, v)
	case *wire.CARecord:
		err = wire.Decode(raw, v)
	case *wire.StatusHead:
		err = wire.Decode(raw, v)
	case *wire.IntegrateArg:
		err = wire.Decode(raw, v)
	default:
		t.Fatalf("%T", v)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// without leaves out the writes whose keys have the prefix.
func without(b *network.Block, prefix string) {
	for i := range b.Txs {
		b.Txs[i].Writes = slices.DeleteFunc(b.Txs[i].Writes, func(w network.Write) bool { return strings.HasPrefix(w.Key, prefix) })
	}
}

func add(b *network.Block, key string, value []byte) {
	b.Txs[0].Writes = sorted(append(b.Txs[0].Writes, network.Write{Key: key, Value: value}))
}

func result(t *testing.T, b *network.Block, fn func(*wire.IssueResult)) {
	var r wire.IssueResult
	decode(t, b.Txs[0].Result, &r)
	fn(&r)
	b.Txs[0].Result = wire.Encode(&r)
}

func integrateArg(t *testing.T, b *network.Block, fn func(*wire.IntegrateArg)) {
	var a wire.IntegrateArg
	decode(t, b.Txs[0].Arg, &a)
	fn(&a)
	b.Txs[0].Arg = wire.Encode(&a)
}

// spoiled is a block that is right but for what spoil does to it.
type spoiled struct {
	make  func(*chain) network.Tx
	spoil func(*testing.T, *chain, *network.Block)
}

func issues(spoil func(*testing.T, *chain, *network.Block)) spoiled {
	return spoiled{func(c *chain) network.Tx { return c.issue(2) }, spoil}
}

func holds(spoil func(*testing.T, *chain, *network.Block)) spoiled {
	return spoiled{func(c *chain) network.Tx { return c.set(1, wire.CertHeld) }, spoil}
}

func revokes(spoil func(*testing.T, *chain, *network.Block)) spoiled {
	return spoiled{func(c *chain) network.Tx {
		return c.revoke(2, &wire.Revocation{Source: wire.SourceQuorum, Reason: wire.KeyCompromise, Change: 2, Time: wire.MillisOf(c.blocks[4].Txs[0].Time)})
	}, spoil}
}

func rules(spoil func(*testing.T, *chain, *network.Block)) spoiled {
	return spoiled{func(c *chain) network.Tx { return c.rule(1, 2) }, spoil}
}

func integrates(spoil func(*testing.T, *chain, *network.Block)) spoiled {
	return spoiled{func(c *chain) network.Tx { return c.integrate(2) }, spoil}
}

func ticks(spoil func(*testing.T, *chain, *network.Block)) spoiled {
	return spoiled{func(c *chain) network.Tx { return c.tick() }, spoil}
}

var bad [sha256.Size]byte

var contradictions = map[string]spoiled{
	"root of the head": issues(func(t *testing.T, _ *chain, b *network.Block) {
		edit(t, b, wire.LogPrefix, func(h *wire.LogHead) { h.Root = bad[:] })
	}),
	"size of the head": issues(func(t *testing.T, _ *chain, b *network.Block) {
		edit(t, b, wire.LogPrefix, func(h *wire.LogHead) { h.Size++ })
	}),
	"time of the head": issues(func(t *testing.T, _ *chain, b *network.Block) {
		edit(t, b, wire.LogPrefix, func(h *wire.LogHead) { h.Time++ })
	}),
	"head left out": issues(func(_ *testing.T, _ *chain, b *network.Block) { without(b, wire.LogPrefix) }),
	"leaf hash in the result": issues(func(t *testing.T, _ *chain, b *network.Block) {
		result(t, b, func(r *wire.IssueResult) { r.Entries[1].LeafHash = bad[:] })
	}),
	"time in the result": issues(func(t *testing.T, _ *chain, b *network.Block) {
		result(t, b, func(r *wire.IssueResult) { r.Entries[1].Time++ })
	}),
	"index skipped": issues(func(t *testing.T, _ *chain, b *network.Block) {
		result(t, b, func(r *wire.IssueResult) { r.Entries = r.Entries[1:] })
	}),
	"another certificate": issues(func(t *testing.T, c *chain, b *network.Block) {
		b.Txs[0].Arg = wire.Encode(wire.NewIssueArg(c.ca.ID, [][]byte{stub(t, serialAt(70), false), stub(t, serialAt(71), false)}))
	}),
	"leaf hash in the record": issues(func(t *testing.T, _ *chain, b *network.Block) {
		edit(t, b, wire.CertPrefix, func(r *wire.CertRecord) { r.Final.LeafHash = bad[:] })
	}),
	"certificate as precertificate": issues(func(t *testing.T, _ *chain, b *network.Block) {
		edit(t, b, wire.CertPrefix, func(r *wire.CertRecord) { r.Final, r.Pre = nil, r.Final })
	}),
	"key in the record": issues(func(t *testing.T, _ *chain, b *network.Block) {
		edit(t, b, wire.CertPrefix, func(r *wire.CertRecord) { r.SPKIHash = bad[:] })
	}),
	"notAfter in the record": issues(func(t *testing.T, _ *chain, b *network.Block) {
		edit(t, b, wire.CertPrefix, func(r *wire.CertRecord) { r.NotAfter-- })
	}),
	"leaf of another record": issues(func(t *testing.T, _ *chain, b *network.Block) {
		edit(t, b, wire.CertPrefix, func(r *wire.CertRecord) { r.Final.Index, r.Final.LeafHash = 0, nil })
	}),
	"leaf that is not there": issues(func(t *testing.T, _ *chain, b *network.Block) {
		edit(t, b, wire.CertPrefix, func(r *wire.CertRecord) { r.Final.Index = 99 })
	}),
	"record without a leaf": issues(func(t *testing.T, _ *chain, b *network.Block) {
		edit(t, b, wire.CertPrefix, func(r *wire.CertRecord) { r.Final = nil })
	}),
	"born revoked": issues(func(t *testing.T, _ *chain, b *network.Block) {
		edit(t, b, wire.CertPrefix, func(r *wire.CertRecord) { r.State = wire.CertRevoked })
	}),
	"leaf without a record": issues(func(_ *testing.T, _ *chain, b *network.Block) { without(b, wire.CertPrefix) }),
	"record deleted":        issues(func(_ *testing.T, _ *chain, b *network.Block) { b.Txs[0].Writes[0].Value = nil }),
	"key of no known family": issues(func(_ *testing.T, _ *chain, b *network.Block) {
		add(b, "zone/1", []byte{1})
	}),
	"previous hash":       issues(func(_ *testing.T, _ *chain, b *network.Block) { b.PrevHash = bad[:] }),
	"number":              issues(func(_ *testing.T, _ *chain, b *network.Block) { b.Number++ }),
	"argument unreadable": issues(func(_ *testing.T, _ *chain, b *network.Block) { b.Txs[0].Arg = []byte{1} }),
	"result unreadable":   issues(func(_ *testing.T, _ *chain, b *network.Block) { b.Txs[0].Result = nil }),
	"CA record under other ID": issues(func(_ *testing.T, c *chain, b *network.Block) {
		add(b, wire.CAKey(wire.CAID{1}), c.blocks[1].Txs[0].Writes[0].Value)
	}),
	"certificate of another CA": issues(func(_ *testing.T, c *chain, b *network.Block) {
		add(b, wire.CertKey(wire.CAID{1}, serialAt(0).Bytes()), b.Txs[0].Writes[0].Value)
	}),

	"revocation undone": {func(c *chain) network.Tx { return c.set(0, wire.CertValid) }, nil},
	"revocation moved":  {func(c *chain) network.Tx { return c.set(0, wire.CertRevoked) }, nil},
	"change without a leaf": holds(func(_ *testing.T, _ *chain, b *network.Block) {
		without(b, wire.PendingPrefix)
	}),
	"leaf without a change": holds(func(_ *testing.T, _ *chain, b *network.Block) { without(b, wire.CertPrefix) }),
	"leaf that disagrees": holds(func(t *testing.T, _ *chain, b *network.Block) {
		edit(t, b, wire.CertPrefix, func(r *wire.CertRecord) { r.StatusTime++ })
	}),
	"change not counted": holds(func(t *testing.T, _ *chain, b *network.Block) {
		edit(t, b, wire.CertPrefix, func(r *wire.CertRecord) { r.Change-- })
	}),
	"change counted twice": holds(func(t *testing.T, _ *chain, b *network.Block) {
		edit(t, b, wire.CertPrefix, func(r *wire.CertRecord) { r.Change++ })
	}),
	"change dated back": holds(func(t *testing.T, _ *chain, b *network.Block) {
		edit(t, b, wire.CertPrefix, func(r *wire.CertRecord) { r.StatusTime = 1 })
	}),
	"key of a pending leaf": holds(func(_ *testing.T, _ *chain, b *network.Block) {
		b.Txs[0].Writes[1].Key = wire.PendingKey(bad)
	}),
	"pending leaf deleted": holds(func(_ *testing.T, c *chain, b *network.Block) {
		add(b, wire.PendingKey(c.queue[0].Hash()), nil)
	}),

	"revocation by others without a leaf": revokes(func(_ *testing.T, _ *chain, b *network.Block) { without(b, wire.PendingPrefix) }),
	"revocation by others moved": revokes(func(t *testing.T, _ *chain, b *network.Block) {
		edit(t, b, wire.RevokePrefix, func(r *wire.Revocation) { r.Time++ })
	}),
	"revocation by others with another reason": revokes(func(t *testing.T, _ *chain, b *network.Block) {
		edit(t, b, wire.RevokePrefix, func(r *wire.Revocation) { r.Reason = wire.Superseded + 1 })
	}),
	"revocation by others not counted": revokes(func(t *testing.T, _ *chain, b *network.Block) {
		edit(t, b, wire.RevokePrefix, func(r *wire.Revocation) { r.Change = 1 })
	}),
	"revocation by another source": revokes(func(t *testing.T, _ *chain, b *network.Block) {
		edit(t, b, wire.RevokePrefix, func(r *wire.Revocation) { r.Source, r.SPKIHash = wire.SourceHolder, bad[:] })
	}),
	"revocation by others deleted": revokes(func(_ *testing.T, _ *chain, b *network.Block) { b.Txs[0].Writes[0].Value = nil }),

	"rule without a leaf":     rules(func(_ *testing.T, _ *chain, b *network.Block) { without(b, wire.PendingPrefix) }),
	"rule not counted":        rules(func(_ *testing.T, _ *chain, b *network.Block) { without(b, wire.CAPrefix) }),
	"rule counted, not there": rules(func(_ *testing.T, _ *chain, b *network.Block) { without(b, wire.RulePrefix) }),
	"rule changed": rules(func(t *testing.T, c *chain, b *network.Block) {
		edit(t, b, wire.RulePrefix, func(r *wire.Rule) { r.To++ })
	}),
	"rule replaced": rules(func(t *testing.T, c *chain, b *network.Block) {
		b.Txs[0].Writes[1].Key = wire.RuleKey(c.ca.ID, 1)
	}),
	"suspended by a rule": rules(func(t *testing.T, c *chain, b *network.Block) {
		edit(t, b, wire.CAPrefix, func(r *wire.CARecord) { r.State = wire.CASuspended })
	}),
	"CA change not counted": {func(c *chain) network.Tx { return c.suspend() }, func(t *testing.T, _ *chain, b *network.Block) {
		edit(t, b, wire.CAPrefix, func(r *wire.CARecord) { r.Change-- })
	}},
	"CA change without a leaf": {func(c *chain) network.Tx { return c.suspend() }, func(_ *testing.T, _ *chain, b *network.Block) {
		without(b, wire.PendingPrefix)
	}},

	"operators of another CA": {func(c *chain) network.Tx { return c.anchor() }, func(_ *testing.T, _ *chain, b *network.Block) {
		b.Txs[0].Writes[0].Key = wire.OperatorsKey(wire.CAID{9}, "")
	}},
	"operators of no CA": {func(c *chain) network.Tx { return c.anchor() }, func(_ *testing.T, _ *chain, b *network.Block) {
		b.Txs[0].Writes[0].Key = wire.OperatorsPrefix + "x"
	}},
	"operators with a name that is none": {func(c *chain) network.Tx { return c.anchor() }, func(_ *testing.T, c *chain, b *network.Block) {
		b.Txs[0].Writes[0].Key = wire.OperatorsKey(c.ca.ID, "Bridge 2")
	}},
	"operators unreadable": {func(c *chain) network.Tx { return c.anchor() }, func(_ *testing.T, _ *chain, b *network.Block) {
		b.Txs[0].Writes[0].Value = []byte("x")
	}},

	"status root": integrates(func(t *testing.T, _ *chain, b *network.Block) {
		edit(t, b, wire.StatusHeadKey, func(h *wire.StatusHead) { h.Root = bad[:] })
	}),
	"status size": integrates(func(t *testing.T, _ *chain, b *network.Block) {
		edit(t, b, wire.StatusHeadKey, func(h *wire.StatusHead) { h.Size++ })
	}),
	"status head left out": integrates(func(_ *testing.T, _ *chain, b *network.Block) { without(b, wire.StatusHeadKey) }),
	"status leaf stays":    integrates(func(_ *testing.T, _ *chain, b *network.Block) { without(b, wire.PendingPrefix) }),
	"status order": integrates(func(t *testing.T, _ *chain, b *network.Block) {
		integrateArg(t, b, func(a *wire.IntegrateArg) { slices.Reverse(a.Leaves) })
	}),
	"status leaf unknown": integrates(func(t *testing.T, _ *chain, b *network.Block) {
		integrateArg(t, b, func(a *wire.IntegrateArg) { a.Leaves[0] = bad[:] })
	}),
	"status leaf cut": integrates(func(t *testing.T, _ *chain, b *network.Block) {
		integrateArg(t, b, func(a *wire.IntegrateArg) { a.Leaves[0] = nil })
	}),
	"status leaf twice": integrates(func(t *testing.T, _ *chain, b *network.Block) {
		integrateArg(t, b, func(a *wire.IntegrateArg) { a.Leaves[1] = a.Leaves[0] })
	}),
	"status size in the call": integrates(func(t *testing.T, _ *chain, b *network.Block) {
		integrateArg(t, b, func(a *wire.IntegrateArg) { a.Size++ })
	}),
	"Integrate unreadable":     integrates(func(_ *testing.T, _ *chain, b *network.Block) { b.Txs[0].Arg = nil }),
	"Integrate by another way": integrates(func(_ *testing.T, _ *chain, b *network.Block) { b.Txs[0].Function, b.Txs[0].Arg = "", nil }),

	"clock unreadable":   ticks(func(_ *testing.T, _ *chain, b *network.Block) { b.Txs[0].Writes[0].Value = nil }),
	"clock key":          ticks(func(_ *testing.T, _ *chain, b *network.Block) { b.Txs[0].Writes[0].Key = "clock/7" }),
	"tick without clock": ticks(func(_ *testing.T, _ *chain, b *network.Block) { b.Txs[0].Writes[0].Key = "vote/1" }),
	"clock goes back": ticks(func(_ *testing.T, c *chain, b *network.Block) {
		b.Txs[0].Writes[0].Value = wire.Encode(&wire.Clock{V: 1, Epoch: c.epoch - 1, Time: wire.MillisOf(c.now)})
	}),
	"two times in one tick": ticks(func(_ *testing.T, c *chain, b *network.Block) {
		add(b, wire.ClockKey(c.epoch+1), wire.Encode(&wire.Clock{V: 1, Epoch: c.epoch, Time: wire.MillisOf(c.now)}))
	}),
}

// Each case makes one thing wrong in a block that is otherwise right.
func TestBlocksThatContradictThemselvesAreNotApplied(t *testing.T) {
	for what, bad := range contradictions {
		t.Run(what, func(t *testing.T) {
			c := newChain(t)
			c.block(c.issue(4))
			c.block(c.set(0, wire.CertRevoked), c.tick())
			c.block(c.revoke(2, &wire.Revocation{Source: wire.SourceQuorum, Reason: wire.Superseded, Change: 1}), c.rule(1, 3))
			dir := t.TempDir()
			ix := open(t, dir)
			c.blocks[4].Txs[0].Time = c.blocks[4].Txs[0].Time.UTC()
			apply(t, ix, c.blocks...)
			before := ix.View()
			b := c.block(bad.make(c))
			if bad.spoil != nil {
				bad.spoil(t, c, b)
			}
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

// What the spoiled blocks are before they are spoiled is right: otherwise the test above would prove nothing.
func TestBlocksAreRightBeforeTheyAreSpoiled(t *testing.T) {
	c := newChain(t)
	c.block(c.issue(4))
	c.block(c.set(0, wire.CertRevoked), c.tick())
	c.block(c.revoke(2, &wire.Revocation{Source: wire.SourceQuorum, Reason: wire.Superseded, Change: 1}), c.rule(1, 3))
	for _, kind := range []func(func(*testing.T, *chain, *network.Block)) spoiled{issues, holds, revokes, rules, integrates, ticks} {
		c.block(kind(nil).make(c))
	}
	c.block(c.suspend())
	c.block(c.anchor())
	apply(t, open(t, t.TempDir()), c.blocks...)
}
