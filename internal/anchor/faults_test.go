package anchor

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/anchor/anchortest"
	"github.com/certanchor/certanchor/network"
)

// script makes a plan of faults, one for each transaction in turn, then none.
func script(faults []int) func(string) anchortest.Fault {
	var mu sync.Mutex
	return func(string) anchortest.Fault {
		mu.Lock()
		defer mu.Unlock()
		if len(faults) == 0 {
			return anchortest.None
		}
		f := faults[0]
		faults = faults[1:]
		return anchortest.Fault(f)
	}
}

var drawFaults = rapid.SliceOfN(rapid.IntRange(0, int(anchortest.NumFaults)-1), 0, 30)

// faulty is fast with attempts short enough to see some hang.
var faulty = func() Options {
	o := fast
	o.SubmitTimeout = 30 * time.Millisecond
	return o
}()

// crowd is callers with one certificate each; the first ones give up early.
type crowd struct {
	certs     [][]byte
	impatient int
	entries   []wire.LogEntry
	errs      []error
}

func newCrowd(certs [][]byte, impatient int) *crowd {
	return &crowd{certs: certs, impatient: impatient, entries: make([]wire.LogEntry, len(certs)), errs: make([]error, len(certs))}
}

// run has each caller ask the Log that pick says, and waits for all.
func (c *crowd) run(seed uint64, pick func(i int) *Log) {
	rng := rand.New(rand.NewPCG(seed, 1))
	var wg sync.WaitGroup
	for i, der := range c.certs {
		patience := time.Minute
		if i < c.impatient {
			patience = time.Duration(rng.IntN(8)) * time.Millisecond
		}
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			c.entries[i], _, c.errs[i] = pick(i).Issue(ctx, der)
		})
	}
	wg.Wait()
}

// check holds the outcomes against the records. foreign is the number of certificates at the end that the contract refuses.
func (c *crowd) check(rt *rapid.T, recs []*wire.CertRecord, foreign int) {
	for i, err := range c.errs {
		alien := i >= len(c.errs)-foreign
		switch {
		case err == nil:
			if recs[i] == nil || alien || fmt.Sprint(*recs[i].Final) != fmt.Sprint(c.entries[i]) {
				rt.Fatalf("certificate %d is acknowledged at %v, the ledger has %v", i, c.entries[i], recs[i])
			}
		case errors.Is(err, network.ErrUnknownOutcome):
			// Another CA's certificate is refused, which settles nothing if it was submitted with others before.
			if i >= c.impatient && !alien {
				rt.Fatalf("certificate %d: a patient caller got %v", i, err)
			}
		default:
			if recs[i] != nil {
				rt.Fatalf("certificate %d is on the ledger, its caller was told %v", i, err)
			}
			if i >= c.impatient && !alien {
				rt.Fatalf("certificate %d: a patient caller got %v", i, err)
			}
		}
	}
}

// Whatever the ledger does to transactions, what was acknowledged is on it once, where the acknowledgement said; what was refused
// or called unavailable is not on it; and only a caller that gave up hears of an unknown outcome.
func TestAcknowledgedMeansOnTheLedgerOnce(t *testing.T) {
	node := openLedger(t)
	checkHeavy(t, func(rt *rapid.T) {
		ca, ledger := setup(t, node)
		ledger.Plan(script(drawFaults.Draw(rt, "faults")))
		foreign, _ := cctest.NewCA(t).Issue(t)
		c := newCrowd(append(ca.IssueMany(t, 25), foreign), rapid.IntRange(0, 5).Draw(rt, "impatient"))
		l, err := New(ledger, ca.ID, faulty)
		if err != nil {
			rt.Fatal(err)
		}
		c.run(rapid.Uint64().Draw(rt, "seed"), func(int) *Log { return l })
		l.Close()
		ledger.Plan(nil) // what is late commits now
		c.check(rt, onLedger(t, ledger, ca, c.certs), 1)
	})
}

// Several bridges of one organisation, each with faults of its own, some asked for the same certificate: as before, and wherever a
// certificate was acknowledged it has the same place.
func TestSeveralLogsOfOneCAShareTheLedger(t *testing.T) {
	node := openLedger(t)
	checkHeavy(t, func(rt *rapid.T) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		ca, plain := setup(t, node)
		orderer := anchortest.NewOrderer(ctx, time.Duration(rapid.IntRange(0, 3).Draw(rt, "block_ms"))*time.Millisecond)
		logs := make([]*Log, rapid.IntRange(2, 3).Draw(rt, "logs"))
		for i := range logs {
			ledger := anchortest.New(orderer.Connect(plain.Ledger), script(drawFaults.Draw(rt, "faults")))
			var err error
			if logs[i], err = New(ledger, ca.ID, faulty); err != nil {
				rt.Fatal(err)
			}
		}
		certs := ca.IssueMany(t, 30)
		c := newCrowd(append(certs, certs[20:]...), rapid.IntRange(0, 5).Draw(rt, "impatient"))
		c.run(rapid.Uint64().Draw(rt, "seed"), func(i int) *Log { return logs[i%len(logs)] })
		for _, l := range logs {
			l.Close()
		}
		// Nothing of what was sent may still be on its way when the ledger is looked at.
		settled, _ := ca.Issue(t)
		if _, err := orderer.Connect(plain.Ledger).Submit(ctx, wire.FnIssue, ca.IssueArg(settled)); err != nil {
			rt.Fatal(err)
		}
		recs := onLedger(t, plain, ca, append(certs[:len(certs):len(certs)], settled))
		c.check(rt, append(recs[:30:30], recs[20:30]...), 0)
	})
}

// Once the rival is gone a Log believes in none soon, and gives way no more.
func TestLogThatIsAloneAgainStopsGivingWay(t *testing.T) {
	node := openLedger(t)
	ca, plain := setup(t, node)
	orderer := anchortest.NewOrderer(t.Context(), time.Millisecond)
	o := fast
	o.MaxBatch = 1
	a, b := start(t, orderer.Connect(plain.Ledger), ca, o), start(t, orderer.Connect(plain.Ledger), ca, o)
	certs := ca.IssueMany(t, 200)
	both := newCrowd(certs[:40], 0)
	both.run(1, func(i int) *Log { return []*Log{a, b}[i%2] })
	if _, void := orderer.Counts(); void == 0 {
		t.Fatal("two Logs did not get in one another's way")
	}
	b.Close()
	_, before := orderer.Counts()
	alone := newCrowd(certs[40:], 0)
	alone.run(1, func(int) *Log { return a })
	if _, void := orderer.Counts(); void != before {
		t.Errorf("%d transactions of a Log that is alone were void", void-before)
	}
	a.Close()
	if r := a.issues.turns.rivals; r != 0 {
		t.Errorf("after %d transactions alone it believes in rivals for %d turns", len(alone.certs), r)
	}
	for i, err := range append(both.errs, alone.errs...) {
		if err != nil {
			t.Errorf("certificate %d: %v", i, err)
		}
	}
	onLedger(t, plain, ca, certs)
}
