package index

import (
	"errors"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
)

// TestWhatWritesNothingChangesNothing: neither the index nor what it takes for the time, and it does not stop it.
func TestWhatWritesNothingChangesNothing(t *testing.T) {
	for _, function := range []string{wire.FnTick, wire.FnIntegrate, wire.FnRead, wire.FnInit, ""} {
		c := newChain(t)
		c.block(c.issue(2), c.tick())
		ix := open(t, t.TempDir())
		apply(t, ix, c.blocks...)
		before := ix.View()
		b := c.block(network.Tx{Function: function, Arg: []byte{0xa0}, Result: []byte{0xa0}})
		b.Txs[0].Time = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
		apply(t, ix, b)
		v := ix.View()
		if v.Height != before.Height+1 || v.Time != before.Time || v.Seen != before.Seen || v.Tick != before.Tick || v.Pending != before.Pending {
			t.Errorf("%q: view is %+v, was %+v", function, v, before)
		}
		apply(t, ix, c.block(c.issue(2), c.integrate(1), c.tick()))
		if ix.View().Time == before.Time {
			t.Errorf("%q: the time stands still", function)
		}
	}
}

// TestARepeatedIssueSaysNoTime, and one that promises a leaf without writing it contradicts itself.
func TestARepeatedIssueSaysNoTime(t *testing.T) {
	c := newChain(t)
	first := c.issue(3)
	c.block(first)
	ix := open(t, t.TempDir())
	apply(t, ix, c.blocks...)
	before := ix.View().Time
	apply(t, ix, c.block(network.Tx{Function: wire.FnIssue, Arg: first.Arg, Result: first.Result}))
	if v := ix.View(); v.Time != before {
		t.Errorf("view time is %s, was %s", v.Time.Time(), before.Time())
	}
	promise := c.issue(1)
	promise.Writes = nil
	if d := new(DivergenceError); !errors.As(ix.Apply(c.block(promise)), &d) {
		t.Errorf("a leaf that is promised only: %v", d)
	}
}
