package anchor

import (
	"context"
	"math/bits"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
)

// counting counts what a ledger is asked to endorse.
type counting struct {
	network.Ledger
	mu      sync.Mutex
	entries int
}

func (c *counting) Submit(ctx context.Context, function string, arg []byte) (network.Receipt, error) {
	var a wire.IssueArg
	if wire.Decode(arg, &a) == nil {
		certs, _ := a.Certs() //nolint:errcheck // the contract will say it
		c.mu.Lock()
		c.entries += len(certs)
		c.mu.Unlock()
	}
	return c.Ledger.Submit(ctx, function, arg)
}

// Whoever fills batches with certificates that the contract refuses must not have all others endorsed again for each of them.
func TestManyCulpritsCostFewEndorsements(t *testing.T) {
	const good = 200
	node := openLedger(t)
	for _, bad := range []int{0, 1, 2, 3, 40, 200} {
		ca, ledger := setup(t, node)
		counted := &counting{Ledger: ledger}
		o := fast
		o.MaxBatch = 1000
		l := start(t, counted, ca, o)
		certs := append(ca.IssueMany(t, good), cctest.NewCA(t).IssueMany(t, bad)...)
		release := held(t, ledger)
		settled, _ := ca.Issue(t)
		first := inFlight(t, l, ledger, settled)
		c := newCrowd(certs, 0)
		done := make(chan struct{})
		go func() { // from all goroutines at once: the order in the batch is any
			c.run(1, func(int) *Log { return l })
			close(done)
		}()
		waitFor(t, func() bool { return queued(l) == len(certs) })
		release()
		<-done
		if err := <-first; err != nil {
			t.Fatal(err)
		}
		for i, err := range c.errs {
			if (i < good) != (err == nil) || err != nil && !network.IsRejected(err) {
				t.Fatalf("%d bad: certificate %d: %v", bad, i, err)
			}
		}
		onLedger(t, ledger, ca, append(certs[:good:good], settled))
		sent, n := ledger.Sent()-1, good+bad
		if sent > 2*bad+1 || bad <= fewCulprits && sent > bad+2 {
			t.Errorf("%d bad among %d: %d transactions", bad, n, sent)
		}
		if most := n * (fewCulprits + 2 + bits.Len(uint(bad))); counted.entries > most { //nolint:gosec // it is positive
			t.Errorf("%d bad among %d: %d entries were endorsed, want at most %d", bad, n, counted.entries, most)
		}
	}
}

// TestAcknowledgedMeansOnTheLedgerOnce, with any number of refused entries in a batch.
func TestManyCulpritsAmongFaults(t *testing.T) {
	node := openLedger(t)
	o := faulty
	o.MaxBatch = 60
	checkHeavy(t, func(rt *rapid.T) {
		ca, ledger := setup(t, node)
		ledger.Plan(script(drawFaults.Draw(rt, "faults")))
		foreign := rapid.IntRange(0, 40).Draw(rt, "foreign")
		certs := append(ca.IssueMany(t, 20), cctest.NewCA(t).IssueMany(t, foreign)...)
		c := newCrowd(certs, rapid.IntRange(0, 5).Draw(rt, "impatient"))
		l, err := New(ledger, ca.ID, o)
		if err != nil {
			rt.Fatal(err)
		}
		c.run(rapid.Uint64().Draw(rt, "seed"), func(int) *Log { return l })
		l.Close()
		ledger.Plan(nil) // what is late commits now
		c.check(rt, onLedger(t, ledger, ca, c.certs), foreign)
	})
}
