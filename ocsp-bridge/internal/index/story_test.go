package index

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctleaf"
	"github.com/certanchor/certanchor/internal/merklelog"
)

func TestEveryPrefixOfTheLedgerIsIndexedLikeTheReference(t *testing.T) {
	c := story(t)
	dir := t.TempDir()
	ix := open(t, dir)
	for n, b := range c.blocks {
		apply(t, ix, b)
		want := referenceOf(t, c.blocks[:n+1])
		want.compare(ix)
		// The same after a restart.
		if err := ix.Close(); err != nil {
			t.Fatal(err)
		}
		before := ix.View()
		ix = open(t, dir)
		want.compare(ix)
		after := ix.View()
		if after.Height != before.Height || after.Tick != before.Tick || after.Time != before.Time || after.StatusLog() != before.StatusLog() || after.MapLog() != before.MapLog() {
			t.Fatalf("view is %+v after a restart, was %+v", after, before)
		}
	}
}

func TestStatusJoinsWhatOthersDecided(t *testing.T) {
	c := story(t)
	dir := t.TempDir()
	ix := open(t, dir)
	apply(t, ix, c.blocks...)
	for restart := range 2 {
		for n, want := range []struct {
			state  wire.CertState
			reason wire.Reason
		}{
			{wire.CertValid, wire.Unspecified}, // the holder of another key said otherwise
			{wire.CertRevoked, wire.Unspecified},
			{wire.CertRevoked, wire.Superseded}, // by a majority
			{wire.CertRevoked, wire.Unspecified},
			{wire.CertHeld, wire.Unspecified},
		} {
			st, rec, err := ix.Status(c.ca.ID, serialAt(int64(n)).Bytes())
			if err != nil || rec == nil || st.State != want.state || st.Reason != want.reason {
				t.Errorf("restart %d: certificate %d is %+v, %v, want %+v", restart, n, st, err, want)
			}
		}
		if st, rec, err := ix.Status(c.ca.ID, wire.Serial{9}); rec != nil || err != nil {
			t.Errorf("a certificate that is not there is %+v, %v", st, err)
		}
		if revs, err := ix.Revocations(c.ca.ID, serialAt(2).Bytes()); err != nil || len(revs) != 1 || revs[0].Source != wire.SourceQuorum {
			t.Errorf("revocations are %+v, %v", revs, err)
		}
		if rules := ix.Rules(c.ca.ID); len(rules) != 1 || rules[0].N != 1 {
			t.Errorf("rules are %+v", rules)
		}
		if err := ix.Close(); err != nil {
			t.Fatal(err)
		}
		ix = open(t, dir)
	}
}

func TestRuleRevokesWhatWasLoggedInItsInterval(t *testing.T) {
	c := newChain(t)
	c.block(c.issue(1))
	from := wire.MillisOf(c.now)
	c.block(c.issue(1))
	to := wire.MillisOf(c.now)
	c.block(c.issue(1))
	b := c.block(c.rule(from, to))
	ix := open(t, t.TempDir())
	apply(t, ix, c.blocks...)
	for n, want := range []wire.CertState{wire.CertValid, wire.CertRevoked, wire.CertValid} {
		st, _, err := ix.Status(c.ca.ID, serialAt(int64(n)).Bytes())
		if err != nil || st.State != want {
			t.Errorf("certificate %d is %+v, %v, want state %d", n, st, err, want)
		}
		if want == wire.CertRevoked && st.Time != wire.MillisOf(b.Txs[0].Time) {
			t.Errorf("revoked at %d", st.Time)
		}
	}
}

func TestEntriesAreServedWithTheirCertificates(t *testing.T) {
	c := story(t)
	ix := open(t, t.TempDir())
	apply(t, ix, c.blocks...)
	log, ok := ix.Issuance(c.ca.ID)
	if !ok {
		t.Fatal("no log")
	}
	entries, err := log.Entries(4, 8)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct {
		kind merklelog.Kind
		der  []byte
	}{
		{merklelog.X509, stub(t, serialAt(4), false)}, {merklelog.Precert, stub(t, serialAt(5), true)},
		{merklelog.X509, stub(t, serialAt(5), false)}, {merklelog.Precert, stub(t, serialAt(100), true)},
	} {
		if e := entries[i]; e.Kind != want.kind || !bytes.Equal(e.DER, want.der) {
			t.Errorf("entry %d is of kind %d: %x", 4+i, e.Kind, e.DER)
		}
	}
	rec, err := ix.Record(c.ca.ID, serialAt(5).Bytes())
	if err != nil || rec.Pre == nil || rec.Final == nil || rec.Pre.Index != 5 || rec.Final.Index != 6 {
		t.Errorf("record is %+v, %v", rec, err)
	}
	if rec, err := ix.Record(c.ca.ID, serialAt(100).Bytes()); err != nil || rec.Final != nil || rec.Pre == nil {
		t.Errorf("record of a precertificate is %+v, %v", rec, err)
	}
	if _, ok := ix.Issuance(wire.CAID{1}); ok {
		t.Error("a CA that is not there has a log")
	}
}

// Two leaves whose hashes begin alike are both found: the key holds the beginning only.
func TestLeavesAreFoundByTheirWholeHash(t *testing.T) {
	c := newChain(t)
	c.block(c.issue(3))
	ix := open(t, t.TempDir())
	apply(t, ix, c.blocks...)
	hash := [32]byte(ctleaf.HashLeaf(c.log.leaves[1]))
	for _, other := range []uint64{0, 2} {
		if err := ix.db.Set(findKey(logID(c.ca.ID), hash, other), nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	ix.publish(ix.View(), nil)
	log, _ := ix.Issuance(c.ca.ID)
	if at, ok, err := log.Find(hash); at != 1 || !ok || err != nil {
		t.Errorf("found at %d, %t, %v", at, ok, err)
	}
	hash[31]++
	if at, ok, err := log.Find(hash); ok || err != nil {
		t.Errorf("a hash that differs at its end is found at %d, %v", at, err)
	}
}

func TestMapBeginsWithTheFirstTick(t *testing.T) {
	c := newChain(t)
	ix := open(t, t.TempDir())
	apply(t, ix, c.blocks...)
	if _, _, _, err := ix.MapProof(wire.CAMapKey(c.ca.ID)); !errors.Is(err, ErrNoTick) {
		t.Errorf("error is %v", err)
	}
	apply(t, ix, c.block(c.tick()))
	_, leaf, entries, err := ix.MapProof(wire.CAMapKey(c.ca.ID))
	if err != nil || leaf.StatusSize != 0 || entries[0].Value != nil {
		t.Errorf("with nothing integrated, the map has %+v, %+v, %v", leaf, entries, err)
	}
	apply(t, ix, c.block(c.integrate(1)))
	if _, again, _, err := ix.MapProof(); err != nil || again.Epoch != leaf.Epoch || again.StatusSize != 0 {
		t.Errorf("the map stands at %+v between two ticks, %v", again, err)
	}
}

func TestHeadIsNeverOlderThanTheTickOrItsLeaves(t *testing.T) {
	c := story(t)
	ix := open(t, t.TempDir())
	issuance := &treeLog{ix, logID(c.ca.ID)}
	last := make([]merklelog.Head, 3)
	for _, b := range c.blocks {
		apply(t, ix, b)
		for i, log := range []merklelog.Log{issuance, ix.StatusLog(), ix.MapLog()} {
			head := log.Head()
			if head.Time < ix.View().Tick.Time || head.Time < last[i].Time || head.Size < last[i].Size {
				t.Errorf("block %d, log %d: head is %+v after %+v, tick %d", b.Number, i, head, last[i], ix.View().Tick.Time)
			}
			last[i] = head
		}
	}
	if i := slices.IndexFunc(last, func(h merklelog.Head) bool { return h.Size == 0 }); i >= 0 {
		t.Errorf("log %d is empty", i)
	}
}

// Whoever integrates chooses the order, over several ticks if it likes. The map has the newest change of each thing all the same.
func TestMapDoesNotDependOnTheOrderInTheStatusLog(t *testing.T) {
	c := newChain(t)
	c.block(c.issue(2))
	holder := make([]byte, 32)
	revoked := wire.MillisOf(c.now)
	c.block(
		c.set(0, wire.CertHeld), c.set(0, wire.CertValid), c.set(0, wire.CertRevoked),
		c.revoke(1, &wire.Revocation{Source: wire.SourceHolder, SPKIHash: holder, Reason: wire.Superseded, Change: 1}),
		c.revoke(1, &wire.Revocation{Source: wire.SourceQuorum, Change: 1}),
		c.revoke(1, &wire.Revocation{Source: wire.SourceHolder, SPKIHash: holder, Reason: wire.KeyCompromise, Change: 2, Time: revoked}),
		c.rule(1, 2), c.rule(3, 4), c.suspend(), c.rule(5, 6),
	)
	slices.Reverse(c.queue)
	ix := open(t, t.TempDir())
	apply(t, ix, c.blocks...)
	for len(c.queue) > 0 {
		apply(t, ix, c.block(c.integrate(min(3, len(c.queue))), c.tick()))
		referenceOf(t, c.blocks).compare(ix)
	}
	if rules := ix.Rules(c.ca.ID); len(rules) != 3 {
		t.Errorf("rules are %+v", rules)
	}
}
