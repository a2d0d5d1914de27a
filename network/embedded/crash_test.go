package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
)

// story is a fixed sequence of transactions, and what a ledger has acknowledged of it.
type story struct {
	ca      *cctest.CA
	args    [][]byte // of Issue, one certificate each
	keys    []string // of the certificates
	results map[int][]byte
}

func newStory(t testing.TB, length int) *story {
	s := &story{ca: cctest.NewCA(t), results: make(map[int][]byte)}
	for range length {
		der, cert := s.ca.Issue(t)
		s.args = append(s.args, s.ca.IssueArg(der))
		s.keys = append(s.keys, wire.CertKey(s.ca.ID, cctest.Serial(t, cert)))
	}
	return s
}

// tell submits the story until the first error, which it returns. A transaction that was acknowledged before must get the same
// answer again.
func (s *story) tell(ctx context.Context, admin, operator network.Ledger) error {
	if _, err := admin.Submit(ctx, wire.FnRegisterCA, s.ca.RegisterArg(admin.MSPID())); err != nil {
		return err
	}
	for i, arg := range s.args {
		r, err := operator.Submit(ctx, wire.FnIssue, arg)
		if err != nil {
			return err
		}
		if had, ok := s.results[i]; ok && !bytes.Equal(had, r.Result) {
			return fmt.Errorf("transaction %d was answered %x, and now %x", i, had, r.Result)
		}
		s.results[i] = r.Result
	}
	return nil
}

// check compares a ledger that was opened after a crash with the story: what was acknowledged is there, the log holds what
// the records say and nothing else, and the chain is whole.
func (s *story) check(t *testing.T, node *Node) {
	t.Helper()
	if _, _, err := node.Verify(t.Context()); err != nil {
		t.Error(err)
	}
	l := node.Connect(wire.RoleOperator)
	answer, err := l.Evaluate(t.Context(), wire.FnRead, cctest.ReadArg(append([]string{wire.LogHeadKey(s.ca.ID)}, s.keys...)...))
	if err != nil {
		t.Fatal(err)
	}
	var values wire.ReadResult
	cctest.Decode(t, answer, &values)
	var log wire.LogHead
	if values.Values[0] != nil {
		cctest.Decode(t, values.Values[0], &log)
	}
	recorded := uint64(0)
	for i, raw := range values.Values[1:] {
		if raw == nil {
			if s.results[i] != nil {
				t.Errorf("acknowledged transaction %d is lost", i)
			}
			continue
		}
		recorded++
	}
	if log.Size != recorded {
		t.Errorf("the log has %d leaves, %d certificates are recorded", log.Size, recorded)
	}
	if acked := uint64(len(s.results)); recorded > acked+1 {
		t.Errorf("%d certificates are recorded, %d were acknowledged and one more was tried", recorded, acked)
	}
}

// steps are the names that Options.step is called with, in order.
var steps = []string{"execute", "batch", "commit", "committed", "advance", "acknowledge"}

func TestKilledAtEveryStepOfACommit(t *testing.T) {
	for _, step := range steps {
		for _, n := range []int{1, 2, 5} { // block 0, the first one after it, one in the middle
			t.Run(fmt.Sprintf("%s/%d", step, n), func(t *testing.T) {
				t.Parallel()
				killedAt(t, fmt.Sprintf("%s:%d", step, n))
			})
		}
	}
}

func killedAt(t *testing.T, dieAt string) {
	c, s := newChild(t), newStory(t, 6)
	c.dieAt = dieAt
	if c.start(t) {
		err := s.tell(t.Context(), dial(t, socketOf(c.dir), wire.RoleAdministrator), dial(t, socketOf(c.dir), wire.RoleOperator))
		if !errors.Is(err, network.ErrUnknownOutcome) {
			t.Fatalf("killed at %s: %v, want ErrUnknownOutcome", dieAt, err)
		}
	}
	c.wait(t)
	node := open(t, Options{Dir: c.dir})
	s.check(t, node)
	if err := s.tell(t.Context(), node.Connect(wire.RoleAdministrator), node.Connect(wire.RoleOperator)); err != nil {
		t.Fatal(err)
	}
	s.check(t, node)
}

// faulty fails writes of a file system: only the first one that comes when its turn is there, or all from then on.
type faulty struct {
	left  atomic.Int64 // writes that still succeed
	stays bool
	fired atomic.Bool
}

func (f *faulty) MaybeError(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
		return nil
	}
	left := f.left.Add(-1)
	if left == -1 || left < 0 && f.stays {
		f.fired.Store(true)
		return errorfs.ErrInjected
	}
	return nil
}

func (f *faulty) String() string { return "faulty" }

func TestEveryWriteFailsInTurn(t *testing.T) {
	for _, c := range []struct {
		name     string
		stays    bool
		unsynced int // percentage of what was not synced that survives the crash after the failure
	}{
		{"once, then power fails", false, 0},
		{"from then on, then power fails", true, 0},
		{"from then on, then power fails half way", true, 50},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newStory(t, 3)
			for turn := int64(0); ; turn++ {
				f := &faulty{stays: c.stays}
				f.left.Store(turn)
				failWrite(t, s, f, c.unsynced, uint64(turn))
				if t.Failed() {
					t.Fatalf("when write %d fails", turn)
				}
				if !f.fired.Load() {
					t.Logf("%d writes", turn)
					return
				}
			}
		})
	}
}

func failWrite(t *testing.T, s *story, f *faulty, unsynced int, seed uint64) {
	clear(s.results)
	disk := vfs.NewCrashableMem()
	o := Options{Dir: "/ledger", TickInterval: testTick, Log: slog.New(slog.DiscardHandler)}
	o.fs = errorfs.Wrap(disk, f)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	node, err := Open(o)
	if err == nil {
		err = s.tell(ctx, node.Connect(wire.RoleAdministrator), node.Connect(wire.RoleOperator))
		if err != nil && !errors.Is(err, network.ErrUnknownOutcome) && !errors.Is(err, network.ErrUnavailable) || ctx.Err() != nil {
			t.Errorf("a failed write gave %v", err)
		}
	}
	crashed := disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: unsynced, RNG: rand.New(rand.NewPCG(seed, 0))})
	if node != nil && node.Err() == nil {
		_ = node.Close() // it may well fail; the crash has happened already
	}
	o.fs = crashed
	after := open(t, o)
	s.check(t, after)
	if err := s.tell(ctx, after.Connect(wire.RoleAdministrator), after.Connect(wire.RoleOperator)); err != nil {
		t.Error(err)
	}
	s.check(t, after)
}
