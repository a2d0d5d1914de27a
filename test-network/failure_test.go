package testnetwork_test

import (
	"context"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/network/fabric"
	testnetwork "github.com/certanchor/certanchor/test-network"
	"github.com/certanchor/certanchor/test-network/nettest"
)

// resumeWithin is what these tests insist on, on a machine that may have much else to do; docs/benchmarks.md has what an
// idle one shows. Fabric's defaults would need 20 to 60 seconds.
const resumeWithin = 20 * time.Second

// committer submits transactions that change nothing: founding the ledger again with the same bytes.
type committer struct {
	ledger network.Ledger
	arg    []byte
}

func newCommitter(t *testing.T, n *testnetwork.Network) *committer {
	t.Helper()
	ledger, err := fabric.Open(t.Context(), n.Connection(1, testnetwork.Admin))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ledger.Close() })
	return &committer{ledger, wire.Encode(&wire.InitArg{
		V: wire.Version, MSPs: n.MSPIDs(), TickInterval: n.TickInterval().Milliseconds(),
	})}
}

// commit tries until a transaction has committed and tells how long that took.
func (c *committer) commit(t *testing.T, when string) {
	t.Helper()
	started := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), resumeWithin)
	defer cancel()
	for {
		_, err := c.ledger.Submit(ctx, wire.FnInit, c.arg)
		if err == nil {
			t.Logf("%s: next commit after %v", when, time.Since(started).Round(time.Millisecond))
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("%s: no commit within %v: %v", when, resumeWithin, err)
		}
	}
}

// rejoined waits until all nodes take part again.
func (c *committer) rejoined(t *testing.T, n *testnetwork.Network) {
	t.Helper()
	nettest.Level(t, n, func() { c.commit(t, "all run") })
}

func TestCommitsResumeWhenOneLeaderAfterTheOtherFreezes(t *testing.T) {
	n := nettest.Start(t, testnetwork.Options{})
	c := newCommitter(t, n)
	for range 2 {
		for range 2 {
			c.rejoined(t, n)
		}
		leader, err := n.Leader(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Freeze(t.Context(), leader); err != nil {
			t.Fatal(err)
		}
		c.commit(t, leader+" leads and is frozen")
		if next, err := n.Leader(t.Context()); err != nil || next == leader {
			t.Errorf("leader after %s froze: %q, %v", leader, next, err)
		}
		if err := n.Thaw(t.Context(), leader); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOthersCommitWhenANodeFreezesOrDies(t *testing.T) {
	n := nettest.Start(t, testnetwork.Options{})
	c := newCommitter(t, n)
	for _, name := range []string{"org2.peer", "org3.chaincode", "org4.orderer"} {
		if err := n.Freeze(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			c.commit(t, name+" is frozen")
		}
		if err := n.Thaw(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		c.rejoined(t, n)
		if err := n.Kill(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		c.commit(t, name+" is dead")
		if err := n.Start(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		c.rejoined(t, n)
	}
}
