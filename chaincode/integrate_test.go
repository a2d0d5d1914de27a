package chaincode_test

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode"
	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
)

// withPending returns a ledger with n changes that the status log does not have yet, the CA's registration included.
func withPending(t testing.TB, n int) *cctest.Ledger {
	t.Helper()
	l, ca := withCA(t)
	for range n - 1 {
		der, _ := ca.Issue(t)
		l.Must(t, op2, wire.FnRevoke, ca.RevokeArg(t, cctest.Channel, der, wire.Superseded, l.Now))
	}
	return l
}

func TestIntegrateAppendsInTheOrderGiven(t *testing.T) {
	l := withPending(t, 7)
	leaves := l.Pending(t)
	slices.Reverse(leaves)
	got := decode[wire.IntegrateResult](t, l.Must(t, op1, wire.FnIntegrate, cctest.IntegrateArg(0, leaves[:3]...)))
	if got.Size != 3 || !bytes.Equal(got.Root, tlogRoot(t, leaves[:3])) || len(l.Pending(t)) != 4 {
		t.Errorf("answer is %+v, %d are pending", got, len(l.Pending(t)))
	}
	head := record[wire.StatusHead](t, l, wire.StatusHeadKey)
	if head.Size != 3 || !bytes.Equal(head.Root, got.Root) || head.MSP != "Org1MSP" || head.Time != wire.MillisOf(l.Now) {
		t.Errorf("head is %+v", head)
	}
	l.Now = l.Now.Add(-time.Second) // a clock that is behind
	got = decode[wire.IntegrateResult](t, l.Must(t, auditor4, wire.FnIntegrate, cctest.IntegrateArg(3, leaves[3:]...)))
	if got.Size != 7 || !bytes.Equal(got.Root, tlogRoot(t, leaves)) || len(l.Pending(t)) != 0 {
		t.Errorf("answer is %+v, %d are pending", got, len(l.Pending(t)))
	}
	if again := record[wire.StatusHead](t, l, wire.StatusHeadKey); again.Time != head.Time || again.MSP != "Org4MSP" {
		t.Errorf("head is %+v, the one before had time %d", again, head.Time)
	}
}

func TestIntegrateAFullBatch(t *testing.T) {
	l := founded(t)
	var leaves [][]byte
	for i := range wire.MaxBatch {
		leaf := &wire.StatusLeaf{V: 1, Kind: wire.LeafCA, Change: uint64(i)}
		hash := leaf.Hash()
		l.Set(wire.PendingKey(hash), wire.Encode(leaf))
		leaves = append(leaves, hash[:])
	}
	got := decode[wire.IntegrateResult](t, l.Must(t, op1, wire.FnIntegrate, cctest.IntegrateArg(0, leaves...)))
	if got.Size != wire.MaxBatch || !bytes.Equal(got.Root, referenceRoot(leaves)) {
		t.Errorf("answer is %+v", got)
	}
}

func TestIntegrateStepsBackForTheOthers(t *testing.T) {
	l := withPending(t, 3)
	leaves := l.Pending(t)
	l.Must(t, op1, wire.FnIntegrate, cctest.IntegrateArg(0, leaves[0]))
	l.Now = l.Now.Add(wire.StepBack - time.Millisecond)
	for _, by := range []chaincode.Caller{op1, admin1} {
		refused(t, l, by, wire.FnIntegrate, cctest.IntegrateArg(1, leaves[1]), wire.FailedPrecondition, "caller.msp", "500ms")
	}
	if _, refusal := l.Endorse(t, op2, wire.FnIntegrate, cctest.IntegrateArg(1, leaves[1])); refusal != nil {
		t.Errorf("another organisation: %v", refusal)
	}
	l.Now = l.Now.Add(time.Millisecond)
	l.Must(t, op1, wire.FnIntegrate, cctest.IntegrateArg(1, leaves[1]))

	alone := cctest.NewLedger(t, chaincode.Config{MSPs: []string{"Org1MSP"}, TickInterval: interval})
	alone.Found(t)
	ca := cctest.NewCA(t)
	alone.Register(t, ca, "Org1MSP")
	alone.Integrate(t, "Org1MSP")
	der, _ := ca.Issue(t)
	alone.Must(t, op1, wire.FnRevoke, ca.RevokeArg(t, cctest.Channel, der, 0, alone.Now))
	alone.Integrate(t, "Org1MSP")
	if n := alone.StatusSize(t); n != 2 {
		t.Errorf("alone, the status log has %d entries", n)
	}
}

func TestOneOfTwoIntegratesWins(t *testing.T) {
	l := withPending(t, 4)
	leaves := l.Pending(t)
	a, _ := l.Endorse(t, op1, wire.FnIntegrate, cctest.IntegrateArg(0, leaves[:2]...))
	b, _ := l.Endorse(t, op2, wire.FnIntegrate, cctest.IntegrateArg(0, leaves[2:]...))
	if got := l.Commit(t, a, b); !slices.Equal(got, []bool{true, false}) {
		t.Errorf("validity in one block: %v", got)
	}
	refused(t, l, op2, wire.FnIntegrate, cctest.IntegrateArg(0, leaves[2:]...), wire.FailedPrecondition, "size", "which is 2")
	l.Must(t, op2, wire.FnIntegrate, cctest.IntegrateArg(2, leaves[2:]...))
}

// The winner repeats itself, because the answer was lost: it learns that the log has moved, not that it must wait.
func TestIntegrateAgainTellsTheSize(t *testing.T) {
	l := withPending(t, 1)
	arg := cctest.IntegrateArg(0, l.Pending(t)...)
	l.Must(t, op1, wire.FnIntegrate, arg)
	refused(t, l, op1, wire.FnIntegrate, arg, wire.FailedPrecondition, "size", "which is 1")
}

// Changes are written blindly: integrating others in the same block disturbs none, and is disturbed by none.
func TestIntegrateDoesNotCompeteWithChanges(t *testing.T) {
	life := newLife(t)
	integrate, _ := life.Endorse(t, op2, wire.FnIntegrate, cctest.IntegrateArg(0, life.Pending(t)...))
	change, _ := life.Endorse(t, op1, wire.FnSetStatus, life.arg(wire.OpRevoke, wire.Superseded, 0))
	if got := life.Commit(t, change, integrate); !slices.Equal(got, []bool{true, true}) {
		t.Errorf("validity in one block: %v", got)
	}
	if n := len(life.Pending(t)); n != 1 {
		t.Errorf("%d changes are pending", n)
	}
}

func TestIntegrateRefuses(t *testing.T) {
	l := withPending(t, 2)
	good := l.Pending(t)
	missing := bytes.Repeat([]byte{7}, 32)
	const bad = wire.InvalidArgument
	for _, c := range []struct {
		name  string
		arg   []byte
		code  wire.Code
		field string
		word  string
	}{
		{"no argument", nil, bad, "argument", "IntegrateArg"},
		{"nothing", cctest.IntegrateArg(0), bad, "leaves", "1 to 1000"},
		{"too much", cctest.IntegrateArg(0, make([][]byte, wire.MaxBatch+1)...), bad, "leaves", "1 to 1000"},
		{"empty hash", cctest.IntegrateArg(0, good[0], nil), bad, "leaves[1]", "32 octets"},
		{"short hash", cctest.IntegrateArg(0, good[0][:31]), bad, "leaves[0]", "32 octets"},
		{"long hash", cctest.IntegrateArg(0, append(slices.Clone(good[0]), 0)), bad, "leaves[0]", "32 octets"},
		{"twice", cctest.IntegrateArg(0, good[0], good[1], good[0]), bad, "leaves[2]", "leaves[0]"},
		{"not pending", cctest.IntegrateArg(0, good[0], missing), wire.NotFound, "leaves[1]", "pending"},
		{"size ahead", cctest.IntegrateArg(1, good...), wire.FailedPrecondition, "size", "which is 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			refused(t, l, op1, wire.FnIntegrate, c.arg, c.code, c.field, c.word)
		})
	}
	arg := cctest.IntegrateArg(0, good...)
	refused(t, l, stranger, wire.FnIntegrate, arg, wire.PermissionDenied, "caller.msp", "consortium")
	refused(t, l, chaincode.Caller{MSPID: "Org1MSP"}, wire.FnIntegrate, arg, wire.PermissionDenied, "caller.role", "one of")
}
