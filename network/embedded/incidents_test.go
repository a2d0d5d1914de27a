package embedded

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
)

// full is a disk that has no room left once the first writes are done.
type full struct{ faulty }

func (f *full) MaybeError(op errorfs.Op) error {
	if f.faulty.MaybeError(op) != nil {
		return syscall.ENOSPC
	}
	return nil
}

// Mammoth 2024: a disk ran full in the middle of a batch, and the log had to be given up. Here all of a batch is recorded or
// nothing, nothing is acknowledged that is not, and the ledger goes on when there is room again.
func TestMammoth2024DiskFullInMidBatch(t *testing.T) {
	ca := cctest.NewCA(t)
	first, batch := ca.IssueArg(ca.IssueMany(t, 3)...), ca.IssueArg(ca.IssueMany(t, 50)...)
	for turn := int64(0); ; turn++ {
		f := &full{faulty{stays: true}}
		f.left.Store(1 << 30)
		disk := vfs.NewCrashableMem()
		o := Options{Dir: "/ledger", TickInterval: testTick, Log: slog.New(slog.DiscardHandler), fs: errorfs.Wrap(disk, f)}
		node, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		operator := node.Connect(wire.RoleOperator)
		must := func(l network.Ledger, function string, arg []byte) {
			t.Helper()
			if _, err := l.Submit(t.Context(), function, arg); err != nil {
				t.Fatal(err)
			}
		}
		must(node.Connect(wire.RoleAdministrator), wire.FnRegisterCA, ca.RegisterArg(node.MSPID()))
		must(operator, wire.FnIssue, first)
		f.left.Store(turn)
		_, err = operator.Submit(t.Context(), wire.FnIssue, batch)
		if acknowledged := err == nil; !acknowledged && !errors.Is(err, network.ErrUnknownOutcome) && !errors.Is(err, network.ErrUnavailable) {
			t.Fatalf("write %d: %v", turn, err)
		} else if acknowledged && !f.fired.Load() {
			t.Logf("a batch takes %d writes", turn)
			_ = node.Close()
			return
		}
		// The process ends, and with it its lock; what it has written stays. Then there is room again.
		o.fs = disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
		_ = node.Close() // it may well fail
		node = open(t, o)
		if size := logSize(t, node, ca.ID); size != 3 && (size != 53 || errors.Is(err, network.ErrUnavailable)) || size != 53 && err == nil {
			t.Fatalf("write %d failed, the batch was answered %v: %d entries in the log", turn, err, size)
		}
		must(node.Connect(wire.RoleOperator), wire.FnIssue, batch)
		if size := logSize(t, node, ca.ID); size != 53 {
			t.Fatalf("write %d: %d entries in the log after the batch was repeated", turn, size)
		}
		if _, _, err := node.Verify(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := node.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func logSize(t *testing.T, node *Node, id wire.CAID) uint64 {
	t.Helper()
	answer, err := node.Connect(wire.RoleOperator).Evaluate(t.Context(), wire.FnRead, cctest.ReadArg(wire.LogHeadKey(id)))
	if err != nil {
		t.Fatal(err)
	}
	var values wire.ReadResult
	cctest.Decode(t, answer, &values)
	var head wire.LogHead
	cctest.Decode(t, values.Values[0], &head)
	return head.Size
}

// A log skipped an fsync, and an entry it had promised was gone after a reset. Here power fails right after each answer, and
// takes along everything that was not synced.
func TestFsyncSkippedNothingAcknowledgedIsGoneAfterAReset(t *testing.T) {
	ca := cctest.NewCA(t)
	disk := vfs.NewCrashableMem()
	o := Options{Dir: "/ledger", TickInterval: testTick, Log: slog.New(slog.DiscardHandler), fs: disk}
	node := open(t, o)
	if _, err := node.Connect(wire.RoleAdministrator).Submit(t.Context(), wire.FnRegisterCA, ca.RegisterArg(node.MSPID())); err != nil {
		t.Fatal(err)
	}
	for n := uint64(1); n <= 10; n++ {
		if _, err := node.Connect(wire.RoleOperator).Submit(t.Context(), wire.FnIssue, ca.IssueArg(ca.IssueMany(t, 1)...)); err != nil {
			t.Fatal(err)
		}
		o.fs = disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 0})
		after := open(t, o)
		if size := logSize(t, after, ca.ID); size != n {
			t.Fatalf("after %d acknowledged certificates and a reset the log has %d", n, size)
		}
	}
}

// Raio 2025: two transient write errors left a log with tiles missing, which nobody noticed until clients asked for them. Here a write
// error ends the process's hold on the ledger; whoever opens it again finds all that was acknowledged, and nothing is missing in between.
func TestRaio2025TwoTransientWriteErrorsLeaveNothingMissing(t *testing.T) {
	s := newStory(t, 4)
	for first := int64(0); first < 12; first++ {
		for second := int64(0); second < 4; second++ {
			clear(s.results)
			disk := vfs.NewCrashableMem()
			o := Options{Dir: "/ledger", TickInterval: testTick, Log: slog.New(slog.DiscardHandler)}
			fired := 0
			for _, turn := range []int64{first, second, 1 << 30} {
				f := &faulty{}
				f.left.Store(turn)
				o.fs = errorfs.Wrap(disk, f)
				node, err := Open(o)
				if err == nil {
					err = s.tell(t.Context(), node.Connect(wire.RoleAdministrator), node.Connect(wire.RoleOperator))
				}
				if f.fired.Load() {
					fired++
				} else if err != nil {
					t.Fatalf("writes %d and %d fail: %v without a fault", first, second, err)
				}
				// The process ends, and with it its lock; what it has written stays.
				disk = disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
				if node != nil {
					_ = node.Close() // it may well fail
				}
			}
			if fired == 0 {
				t.Fatalf("writes %d and %d did not fail", first, second)
			}
			o.fs = disk
			node := open(t, o)
			s.check(t, node)
			if len(s.results) != len(s.args) {
				t.Fatalf("writes %d and %d fail: %d of %d certificates are acknowledged", first, second, len(s.results), len(s.args))
			}
			var blocks uint64
			height, err := node.height()
			if err != nil {
				t.Fatal(err)
			}
			if err := node.Connect(wire.RoleAuditor).Blocks(t.Context(), 0, func(b *network.Block) error {
				if b.Number != blocks {
					return errors.New("a block is missing")
				}
				if blocks++; blocks == height {
					return errEnough
				}
				return nil
			}); !errors.Is(err, errEnough) {
				t.Fatal(err)
			}
		}
	}
}

var errEnough = errors.New("enough")
