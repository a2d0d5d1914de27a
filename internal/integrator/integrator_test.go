package integrator

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
)

var msps = []string{"Org1MSP", "Org2MSP", "Org3MSP", "Org4MSP"}

const commit = 60 * time.Millisecond

// ledger is what the organisations share: the status log's head, and what is pending. It runs on synctest's clock.
type ledger struct {
	mu      sync.Mutex
	members []string
	size    uint64
	last    string
	lastAt  time.Time
	pending map[[sha256.Size]byte]time.Time
	delays  []time.Duration // from change to integration
	won     map[string]int
	lost    int
	dead    map[string]bool
	changed chan struct{}
}

func newLedger(members []string) *ledger {
	return &ledger{
		members: members, pending: map[[sha256.Size]byte]time.Time{}, won: map[string]int{}, dead: map[string]bool{}, changed: make(chan struct{}),
	}
}

func (l *ledger) publish() {
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *ledger) add(n byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pending[sha256.Sum256([]byte{n})] = time.Now()
	l.publish()
}

var errDead = errors.New("dead")

// submit is the contract's Integrate with the ledger's MVCC: the head that was endorsed must be the one at commit.
func (l *ledger) submit(msp string) func(context.Context, string, []byte) (network.Receipt, error) {
	return func(_ context.Context, _ string, raw []byte) (network.Receipt, error) {
		var arg wire.IntegrateArg
		if err := wire.Decode(raw, &arg); err != nil {
			return network.Receipt{}, err
		}
		l.mu.Lock()
		if l.dead[msp] {
			l.mu.Unlock()
			return network.Receipt{}, &network.UnavailableError{Stage: "endorse", Err: errDead}
		}
		if arg.Size != l.size || len(l.members) > 1 && l.last == msp && time.Since(l.lastAt) < wire.StepBack {
			l.lost++
			l.mu.Unlock()
			return network.Receipt{}, &network.RejectedError{Function: wire.FnIntegrate, Reason: errors.New("refused")}
		}
		l.mu.Unlock()
		<-time.After(commit)
		l.mu.Lock()
		defer l.mu.Unlock()
		if arg.Size != l.size {
			l.lost++
			return network.Receipt{}, &network.ConflictError{}
		}
		for _, h := range arg.Leaves {
			since, ok := l.pending[[sha256.Size]byte(h)]
			if !ok {
				return network.Receipt{}, errors.New("integrated twice")
			}
			l.delays = append(l.delays, time.Since(since))
			delete(l.pending, [sha256.Size]byte(h))
		}
		l.size += uint64(len(arg.Leaves))
		l.last, l.lastAt = msp, time.Now()
		l.won[msp]++
		l.publish()
		return network.Receipt{}, nil
	}
}

func (l *ledger) run(ctx context.Context, wg *sync.WaitGroup, msp string) {
	wg.Go(func() {
		Run(ctx, Config{
			Submit: l.submit(msp), MSPID: msp,
			View: func() View {
				l.mu.Lock()
				defer l.mu.Unlock()
				return View{Consortium: &wire.Consortium{MSPs: l.members}, Size: l.size, Integrator: l.last, Pending: len(l.pending)}
			},
			Pending: func(limit int) ([][sha256.Size]byte, error) {
				l.mu.Lock()
				defer l.mu.Unlock()
				var all [][sha256.Size]byte
				for h := range l.pending {
					all = append(all, h)
				}
				slices.SortFunc(all, func(a, b [sha256.Size]byte) int { return l.pending[a].Compare(l.pending[b]) })
				return all[:min(limit, len(all))], nil
			},
			Changed: func() <-chan struct{} {
				l.mu.Lock()
				defer l.mu.Unlock()
				return l.changed
			},
			Now: time.Now, After: time.After, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		})
	})
}

// play runs all members, lets the scenario happen, and returns when everything is integrated.
func play(t *testing.T, members []string, dead []string, scenario func(*ledger)) *ledger {
	t.Helper()
	var l *ledger
	synctest.Test(t, func(t *testing.T) {
		l = newLedger(members)
		for _, m := range dead {
			l.dead[m] = true
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for _, m := range members {
			l.run(ctx, &wg, m)
		}
		scenario(l)
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
			l.mu.Lock()
			changed, left := l.changed, len(l.pending)
			l.mu.Unlock()
			if left == 0 {
				break
			}
			select {
			case <-changed:
			case <-time.After(time.Minute):
				t.Errorf("%d changes were never integrated", left)
			}
		}
		cancel()
		wg.Wait()
	})
	return l
}

// every lets n changes come, interval apart.
func every(interval time.Duration, n int) func(*ledger) {
	return func(l *ledger) {
		for i := range n {
			l.add(byte(i))
			<-time.After(interval)
		}
	}
}

func (l *ledger) worst() time.Duration { return slices.Max(l.delays) }

func TestEveryChangeIsIntegratedOnceWithinTheMergeDelay(t *testing.T) {
	l := play(t, msps, nil, every(7*time.Millisecond, 250))
	if len(l.delays) != 250 || l.size != 250 {
		t.Fatalf("%d changes integrated, size %d", len(l.delays), l.size)
	}
	if l.worst() > time.Second {
		t.Errorf("a change waited %s", l.worst())
	}
	if len(l.won) != len(msps) {
		t.Errorf("the organisations do not take turns: %v", l.won)
	}
	if l.lost > 0 {
		t.Errorf("%d attempts were for nothing though all are alive", l.lost)
	}
}

func TestSilentOrganisationsAreReplacedWithinTwoSeconds(t *testing.T) {
	l := play(t, msps, []string{"Org1MSP", "Org3MSP"}, every(50*time.Millisecond, 100))
	if l.worst() > time.Second {
		t.Errorf("with two of four silent a change waited %s", l.worst())
	}
	l = play(t, msps, []string{"Org1MSP", "Org2MSP", "Org3MSP"}, every(50*time.Millisecond, 100))
	if l.worst() > 2*time.Second || l.won["Org4MSP"] == 0 {
		t.Errorf("with one left a change waited %s: %v", l.worst(), l.won)
	}
}

func TestOneOrganisationAloneIntegratesAtOnce(t *testing.T) {
	l := play(t, msps[:1], nil, every(time.Second, 5))
	if want := alone + commit; l.worst() > want {
		t.Errorf("a change waited %s, more than %s", l.worst(), want)
	}
}

func TestNobodyIntegratesFromOutsideTheConsortium(t *testing.T) {
	if _, ok := Turn(View{}, "Org1MSP"); ok {
		t.Error("a turn before the ledger is founded")
	}
	if _, ok := Turn(View{Consortium: &wire.Consortium{MSPs: msps}}, "Org9MSP"); ok {
		t.Error("a turn for an organisation outside the consortium")
	}
}
