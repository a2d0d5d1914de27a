package chaincode_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/certanchor/certanchor/chaincode"
	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
)

// tickAt executes and commits a Tick and returns the clock keys that it wrote.
func tickAt(t testing.TB, l *cctest.Ledger, at time.Time) []string {
	t.Helper()
	l.Now = at
	e, refusal := l.Endorse(t, auditor4, wire.FnTick, cctest.TickArg())
	if refusal != nil {
		t.Fatal(refusal)
	}
	if !l.Commit(t, e)[0] {
		t.Fatal("the tick lost the version check")
	}
	var keys []string
	for _, w := range e.Writes {
		keys = append(keys, w.Key)
	}
	return keys
}

// epoch0 is the epoch of T0.
var epoch0 = cctest.T0.UnixMilli() / interval.Milliseconds()

func inEpoch(n int64) time.Time { return cctest.T0.Add(time.Duration(n) * interval) }

func TestTickClosesEachEpochOnce(t *testing.T) {
	l := founded(t)
	closes := func(epochs ...int64) map[string]bool {
		keys := make(map[string]bool)
		for _, e := range epochs {
			keys[wire.ClockKey(epoch0+e)] = true
		}
		return keys
	}
	for _, c := range []struct {
		epoch int64
		want  map[string]bool
	}{
		{0, closes(-2, -1, 0)}, // the first: it has no predecessor, so it closes every class
		{1, closes(-1)},
		{2, closes(0)},
		{4, closes(1, 2)},
		{7, closes(3, 4, 5)},
		{20, closes(16, 17, 18)},
		{21, closes(19)},
	} {
		keys := tickAt(t, l, inEpoch(c.epoch).Add(interval/2))
		if len(keys) != len(c.want) {
			t.Errorf("tick of epoch %d wrote %v, want %v", c.epoch, keys, c.want)
		}
		for _, key := range keys {
			clock := record[wire.Clock](t, l, key)
			if !c.want[key] || clock.Epoch != epoch0+c.epoch || clock.Time != wire.MillisOf(l.Now) {
				t.Errorf("tick of epoch %d wrote %s: %+v", c.epoch, key, clock)
			}
		}
	}
}

func TestOneTickPerEpoch(t *testing.T) {
	l := founded(t)
	l.Now = inEpoch(5)
	got := decode[wire.TickResult](t, l.Must(t, op2, wire.FnTick, cctest.TickArg()))
	if got.Epoch != epoch0+5 || got.Time != wire.MillisOf(l.Now) {
		t.Errorf("the clock stands at %+v", got)
	}
	for _, at := range []time.Time{inEpoch(5), inEpoch(6).Add(-time.Millisecond), inEpoch(4), inEpoch(0)} {
		l.Now = at
		refused(t, l, op1, wire.FnTick, cctest.TickArg(), wire.FailedPrecondition, "time", "one tick per epoch")
	}
	tickAt(t, l, inEpoch(6))
}

func TestTickRefusals(t *testing.T) {
	l := founded(t)
	refused(t, l, op1, wire.FnTick, nil, wire.InvalidArgument, "argument", "TickArg")
	refused(t, l, stranger, wire.FnTick, cctest.TickArg(), wire.PermissionDenied, "caller.msp", "consortium")
	refused(t, l, chaincode.Caller{MSPID: "Org1MSP"}, wire.FnTick, cctest.TickArg(), wire.PermissionDenied, "caller.role", "operator")
}

// A held-back envelope of every function that writes survives one tick and dies with the second.
func TestHeldBackEnvelopeDiesTwoTicksLater(t *testing.T) {
	setup := func() (*cctest.Ledger, map[string]*cctest.Envelope) {
		l, ca := withCA(t)
		tickAt(t, l, inEpoch(-1))
		l.Now = inEpoch(0)
		_, cert := ca.Issue(t)
		l.Must(t, op1, wire.FnIssue, ca.IssueArg(cert.Raw))
		held := make(map[string]*cctest.Envelope)
		for function, arg := range map[string][]byte{
			wire.FnIssue:      ca.IssueArg(ca.IssueMany(t, 1)...),
			wire.FnSetStatus:  ca.StatusArg(wire.StatusChange{Serial: cctest.Serial(t, cert), Op: wire.OpRevoke}),
			wire.FnRegisterCA: cctest.NewCA(t).RegisterArg("Org2MSP"),
		} {
			by := op1
			if function == wire.FnRegisterCA {
				by = admin2
			}
			e, refusal := l.Endorse(t, by, function, arg)
			if refusal != nil {
				t.Fatalf("%s: %v", function, refusal)
			}
			held[function] = e
		}
		return l, held
	}
	for _, function := range []string{wire.FnIssue, wire.FnSetStatus, wire.FnRegisterCA} {
		l, held := setup()
		tickAt(t, l, inEpoch(0))
		tickAt(t, l, inEpoch(1))
		if !l.Commit(t, held[function])[0] {
			t.Errorf("%s did not survive the ticks of its own epoch and the next", function)
		}
		l, held = setup()
		tickAt(t, l, inEpoch(0))
		tickAt(t, l, inEpoch(1))
		tickAt(t, l, inEpoch(2))
		if l.Commit(t, held[function])[0] {
			t.Errorf("%s committed after the tick two epochs later", function)
		}
		l, held = setup()
		tickAt(t, l, inEpoch(1000))
		if l.Commit(t, held[function])[0] {
			t.Errorf("%s committed after a tick a thousand epochs later", function)
		}
	}
}

func TestTimeThatTheClockHasLeftBehindIsRefused(t *testing.T) {
	l, ca := withCA(t)
	der, _ := ca.Issue(t)
	tickAt(t, l, inEpoch(10))
	for _, e := range []int64{8, 7, 6, 5, 0} {
		l.Now = inEpoch(e)
		refused(t, l, op1, wire.FnIssue, ca.IssueArg(der), wire.FailedPrecondition, "time", "behind the ledger's clock")
	}
	l.Now = inEpoch(9)
	l.Must(t, op1, wire.FnIssue, ca.IssueArg(der))
}

// heldBack is an endorsed envelope and what the ledger's clock was when it was endorsed.
type heldBack struct {
	envelope *cctest.Envelope
	isTick   bool
	epoch    int64
	ticks    int // how many ticks had committed
}

// The claim that the clock stands on, for any ticks with any gaps, held back or not, and any clients' clocks:
//   - no envelope of epoch e commits once a tick of epoch e+2 or more has;
//   - one that the clock has not left behind commits as long as ticks are regular;
//   - of ticks endorsed on the same state one commits.
func TestNoEnvelopeOutlivesTheTickTwoEpochsLater(t *testing.T) {
	ca := cctest.NewCA(t)
	rapid.Check(t, func(rt *rapid.T) {
		l := founded(t)
		l.Register(t, ca, "Org1MSP")
		var ticks []int64 // epochs of committed ticks, in order
		var held []heldBack
		now := epoch0

		commit := func(h heldBack) {
			valid := l.Commit(t, h.envelope)[0]
			passed := ticks[h.ticks:]
			switch {
			case h.isTick && valid != (len(passed) == 0):
				rt.Fatalf("tick of epoch %d: valid %t after ticks %v since its endorsement", h.epoch, valid, passed)
			case h.isTick && valid:
				ticks = append(ticks, h.epoch)
			case h.isTick:
			case valid && len(ticks) > 0 && newest(ticks) >= h.epoch+2:
				rt.Fatalf("envelope of epoch %d committed after ticks %v", h.epoch, ticks)
			case !valid && spared(ticks, h):
				rt.Fatalf("envelope of epoch %d endorsed after %v lost against regular ticks %v", h.epoch, ticks[:h.ticks], passed)
			}
		}
		endorse := func(function string, arg []byte, by chaincode.Caller) {
			epoch := max(0, now+rapid.Int64Range(-3, 1).Draw(rt, "client's clock"))
			l.Now = time.UnixMilli(epoch*interval.Milliseconds() + rapid.Int64Range(0, interval.Milliseconds()-1).Draw(rt, "ms")).UTC()
			e, refusal := l.Endorse(t, by, function, arg)
			isTick := function == wire.FnTick
			late := len(ticks) > 0 && (isTick && newest(ticks) >= epoch || !isTick && newest(ticks) >= epoch+2)
			if (refusal != nil) != late {
				rt.Fatalf("%s of epoch %d after ticks %v: refusal is %v", function, epoch, ticks, refusal)
			}
			if refusal == nil {
				held = append(held, heldBack{e, isTick, epoch, len(ticks)})
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"time passes": func(*rapid.T) { now += rapid.Int64Range(0, 5).Draw(rt, "epochs") },
			"endorse a tick": func(*rapid.T) {
				endorse(wire.FnTick, cctest.TickArg(), auditor4)
			},
			"endorse another": func(*rapid.T) { // it reads only what does not change, and the clock
				endorse(wire.FnRegisterCA, ca.RegisterArg("Org1MSP"), admin1)
			},
			"commit": func(*rapid.T) {
				if len(held) == 0 {
					rt.Skip("nothing is held back")
				}
				i := rapid.IntRange(0, len(held)-1).Draw(rt, "which")
				commit(held[i])
				held = append(held[:i:i], held[i+1:]...)
			},
		})
	})
}

func newest(ticks []int64) int64 { return ticks[len(ticks)-1] }

// spared reports whether every tick since h's endorsement was the next epoch's after the one before it, and of h's epoch or the
// next. (The very first tick closes all classes.)
func spared(ticks []int64, h heldBack) bool {
	for i := h.ticks; i < len(ticks); i++ {
		if i == 0 || ticks[i] != ticks[i-1]+1 || ticks[i] != h.epoch && ticks[i] != h.epoch+1 {
			return false
		}
	}
	return true
}
