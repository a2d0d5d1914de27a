package chaincode_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
)

func TestOperatorsHeadGrowsWithItsLog(t *testing.T) {
	l, ca := withCA(t)
	log := cctest.NewOperatorsLog(0, "x", 20)
	last := uint64(0)
	for _, size := range []uint64{1, 5, 8, 20} {
		l.Now = l.Now.Add(time.Second)
		arg := log.AnchorArg(t, ca, last, size)
		got := decode[wire.AnchorOperatorsResult](t, l.Must(t, op1, wire.FnAnchorOperators, arg))
		if !got.Changed || !got.Head.Equal(log.Head(size)) || got.Time != wire.MillisOf(l.Now) {
			t.Fatalf("%+v", got)
		}
		rec := record[wire.OperatorsRecord](t, l, wire.OperatorsKey(ca.ID, ""))
		if !rec.Head.Equal(got.Head) || rec.Time != got.Time || rec.Lost != nil {
			t.Fatalf("%+v", rec)
		}
		again := decode[wire.AnchorOperatorsResult](t, unchanged(t, l, op1, wire.FnAnchorOperators, arg))
		if again.Changed || !again.Head.Equal(got.Head) || again.Time != got.Time {
			t.Fatalf("the same again: %+v", again)
		}
		last = size
	}
	// A client's clock that is behind does not bring the record's time back.
	l.Now = l.Now.Add(-5 * time.Second)
	log.Append("x", 1)
	if got := decode[wire.AnchorOperatorsResult](t, l.Must(t, op1, wire.FnAnchorOperators, log.AnchorArg(t, ca, last, 21))); got.Time <= wire.MillisOf(l.Now) {
		t.Fatalf("%+v", got)
	}
}

func TestSuspendedCAAnchorsOn(t *testing.T) {
	l, ca := withCA(t)
	l.Decide(t, ca.SuspendArg(1))
	l.Must(t, op1, wire.FnAnchorOperators, cctest.NewOperatorsLog(0, "x", 3).AnchorArg(t, ca, 0, 3))
}

func TestOtherHistoriesOfOperatorsAreRefused(t *testing.T) {
	l, ca := withCA(t)
	log, fork := cctest.NewOperatorsLog(0, "x", 20), cctest.NewOperatorsLog(0, "x", 6)
	fork.Append("other", 14)
	l.Must(t, op1, wire.FnAnchorOperators, log.AnchorArg(t, ca, 0, 10))
	at := log.Head(10)
	empty := wire.OperatorsHead{Root: make([]byte, 32)}
	next := cctest.NewOperatorsLog(1, "y", 2)
	arg := func(a wire.AnchorOperatorsArg) []byte { a.CAID = ca.ID; return cctest.AnchorArg(a) }
	long := make([][]byte, 66)
	for i := range long {
		long[i] = make([]byte, 32)
	}
	for _, c := range []struct {
		name  string
		arg   []byte
		code  wire.Code
		field string
		word  string
	}{
		{"a fork", fork.AnchorArg(t, ca, 10, 20), wire.FailedPrecondition, "proof", "contains the newest anchored head"},
		{"another log of the same size", arg(wire.AnchorOperatorsArg{Head: fork.Head(10)}), wire.FailedPrecondition, "head.size", "only grows"},
		{"a shorter one", log.AnchorArg(t, ca, 5, 8), wire.FailedPrecondition, "head.size", "only grows"},
		{"without proof", arg(wire.AnchorOperatorsArg{Head: log.Head(11)}), wire.FailedPrecondition, "proof", "newest"},
		{"with the proof from another size", log.AnchorArg(t, ca, 9, 20), wire.FailedPrecondition, "proof", "newest"},
		{"a later generation that names nothing", arg(wire.AnchorOperatorsArg{Head: next.Head(2)}), wire.FailedPrecondition, "head.generation", "must name that head"},
		{"a generation that names another head", arg(wire.AnchorOperatorsArg{Head: next.Head(2), Lost: new(log.Head(9))}), wire.FailedPrecondition, "lost", "newest anchored head"},
		{"a generation that skips one", arg(wire.AnchorOperatorsArg{Head: cctest.NewOperatorsLog(2, "y", 2).Head(2), Lost: &at}), wire.FailedPrecondition, "head.generation", "after 0"},
		{"the same generation anew", arg(wire.AnchorOperatorsArg{Head: fork.Head(12), Lost: &at}), wire.FailedPrecondition, "head.generation", "after 0"},
		{"a generation with a proof", arg(wire.AnchorOperatorsArg{Head: next.Head(2), Lost: &at, Proof: long[:1]}), wire.InvalidArgument, "proof", "empty"},
		{"nothing", arg(wire.AnchorOperatorsArg{Head: empty}), wire.InvalidArgument, "head.size", "at least 1"},
		{"lost nothing", arg(wire.AnchorOperatorsArg{Head: next.Head(2), Lost: &empty}), wire.InvalidArgument, "lost.size", "at least 1"},
		{"a short root", arg(wire.AnchorOperatorsArg{Head: wire.OperatorsHead{Size: 1, Root: make([]byte, 31)}}), wire.InvalidArgument, "head.root", "32 octets"},
		{"a name with other characters", arg(wire.AnchorOperatorsArg{Name: "a/b", Head: log.Head(11)}), wire.InvalidArgument, "name", "a-z"},
		{"a long name", arg(wire.AnchorOperatorsArg{Name: strings.Repeat("a", 33), Head: log.Head(11)}), wire.InvalidArgument, "name", "1 to 32"},
		{"a long proof", arg(wire.AnchorOperatorsArg{Head: log.Head(11), Proof: long}), wire.InvalidArgument, "proof", "at most 65"},
		{"a short hash", arg(wire.AnchorOperatorsArg{Head: log.Head(11), Proof: [][]byte{{1}}}), wire.InvalidArgument, "proof[0]", "32 octets"},
		{"another CA", log.AnchorArg(t, cctest.NewCA(t), 0, 3), wire.NotFound, "ca_id", "registered"},
		{"not an argument", []byte("x"), wire.InvalidArgument, "argument", "AnchorOperatorsArg"},
	} {
		t.Run(c.name, func(t *testing.T) { refused(t, l, op1, wire.FnAnchorOperators, c.arg, c.code, c.field, c.word) })
	}
	good := log.AnchorArg(t, ca, 10, 20)
	refused(t, l, op2, wire.FnAnchorOperators, good, wire.PermissionDenied, "caller.msp", "operates the CA")
	refused(t, l, admin1, wire.FnAnchorOperators, good, wire.PermissionDenied, "caller.role", "one of")
	refused(t, l, auditor4, wire.FnAnchorOperators, good, wire.PermissionDenied, "caller.role", "one of")
	refused(t, l, stranger, wire.FnAnchorOperators, good, wire.PermissionDenied, "caller.msp", "consortium")

	l.Must(t, op1, wire.FnAnchorOperators, arg(wire.AnchorOperatorsArg{Head: next.Head(2), Lost: &at}))
	if rec := record[wire.OperatorsRecord](t, l, wire.OperatorsKey(ca.ID, "")); rec.Lost == nil || !rec.Lost.Equal(at) {
		t.Fatalf("%+v", rec)
	}
	next.Append("y", 3)
	l.Must(t, op1, wire.FnAnchorOperators, next.AnchorArg(t, ca, 2, 5))
	if rec := record[wire.OperatorsRecord](t, l, wire.OperatorsKey(ca.ID, "")); rec.Lost == nil || !rec.Lost.Equal(at) || rec.Head.Size != 5 {
		t.Fatalf("what the generation lost is forgotten: %+v", rec)
	}
	refused(t, l, op1, wire.FnAnchorOperators, good, wire.FailedPrecondition, "head.generation", "newest")

	other := cctest.NewCA(t)
	l.Register(t, other, "Org1MSP")
	first := func(a wire.AnchorOperatorsArg) []byte { a.CAID = other.ID; return cctest.AnchorArg(a) }
	refused(t, l, op1, wire.FnAnchorOperators, first(wire.AnchorOperatorsArg{Head: next.Head(2), Lost: &at}), wire.FailedPrecondition, "lost", "no head")
	refused(t, l, op1, wire.FnAnchorOperators, first(wire.AnchorOperatorsArg{Head: log.Head(2), Proof: long[:1]}), wire.FailedPrecondition, "proof", "no head")
}

// Whatever is submitted in whatever order, what is anchored is one history: each head contains the one before, or begins the next
// generation and names it.
func TestAnchoredHeadsAreOneHistory(t *testing.T) {
	ca := cctest.NewCA(t)
	rapid.Check(t, func(rt *rapid.T) {
		l := cctest.NewLedger(t, consortium)
		l.Found(t)
		l.Register(t, ca, "Org1MSP")
		logs := []*cctest.OperatorsLog{}
		for g := range uint64(3) {
			honest, fork := cctest.NewOperatorsLog(g, "x", 12), cctest.NewOperatorsLog(g, "x", int(g)+3)
			fork.Append("other", 9)
			logs = append(logs, honest, fork)
		}
		var on *cctest.OperatorsLog // which of them the newest head is of, and what it says
		var head wire.OperatorsHead
		for range rapid.IntRange(1, 25).Draw(rt, "transactions") {
			log := rapid.SampledFrom(logs).Draw(rt, "log")
			to := rapid.Uint64Range(1, 12).Draw(rt, "to")
			a := wire.AnchorOperatorsArg{V: wire.Version, CAID: ca.ID, Head: log.Head(to)}
			if rapid.Bool().Draw(rt, "names the last") && on != nil {
				a.Lost = &head
			} else if from := rapid.Uint64Range(0, to).Draw(rt, "from"); from > 0 {
				var b wire.AnchorOperatorsArg
				cctest.Decode(rt, log.AnchorArg(rt, ca, from, to), &b)
				a.Proof = b.Proof
			}
			_, refusal := l.Submit(rt, op1, wire.FnAnchorOperators, wire.Encode(&a))
			now := l.Store.Value(wire.OperatorsKey(ca.ID, ""))
			if refusal != nil {
				continue
			}
			rec := decode[wire.OperatorsRecord](rt, now)
			grows := on != nil && log.Generation == head.Generation && to > head.Size && bytes.Equal(log.Head(head.Size).Root, head.Root)
			begins := on != nil && log.Generation == head.Generation+1 && a.Lost != nil
			if on != nil && !rec.Head.Equal(head) && !grows && !begins {
				rt.Fatalf("%v came after %v", rec.Head, head)
			}
			if begins && (rec.Lost == nil || !rec.Lost.Equal(head)) {
				rt.Fatalf("a generation began after %v, and says that it lost %v", head, rec.Lost)
			}
			on, head = log, rec.Head
		}
	})
}

// Each bridge of a CA has a log of its own: the rules hold for each name, and none has to do with another's.
func TestLogsWithOtherNamesHaveTheirOwnHistories(t *testing.T) {
	l, ca := withCA(t)
	logs := []*cctest.OperatorsLog{}
	for _, name := range []string{"", "bridge-2", "bridge-3"} {
		log := cctest.NewOperatorsLog(0, "of "+name, 9)
		log.Name = name
		logs = append(logs, log)
	}
	for to := uint64(3); to <= 9; to += 3 {
		for _, log := range logs {
			l.Must(t, op1, wire.FnAnchorOperators, log.AnchorArg(t, ca, to-3, to))
			if rec := record[wire.OperatorsRecord](t, l, wire.OperatorsKey(ca.ID, log.Name)); !rec.Head.Equal(log.Head(to)) {
				t.Fatalf("%q: %+v", log.Name, rec)
			}
		}
	}
	fork := cctest.NewOperatorsLog(0, "of bridge-2", 12)
	fork.Name = "bridge-3"
	refused(t, l, op1, wire.FnAnchorOperators, fork.AnchorArg(t, ca, 9, 12), wire.FailedPrecondition, "proof", "contains the newest anchored head")
	fork.Name = "bridge-2"
	refused(t, l, op2, wire.FnAnchorOperators, fork.AnchorArg(t, ca, 9, 12), wire.PermissionDenied, "caller.msp", "operates the CA")
	next, lost := cctest.NewOperatorsLog(1, "y", 2), logs[1].Head(9)
	l.Must(t, op1, wire.FnAnchorOperators, cctest.AnchorArg(wire.AnchorOperatorsArg{CAID: ca.ID, Name: "bridge-2", Head: next.Head(2), Lost: &lost}))
	if rec := record[wire.OperatorsRecord](t, l, wire.OperatorsKey(ca.ID, "")); rec.Head.Generation != 0 {
		t.Fatalf("%+v", rec)
	}
}

// Anchoring competes with nothing but itself.
func TestAnchoringReadsAndWritesItsOwnKey(t *testing.T) {
	l, ca := withCA(t)
	var a, b *cctest.Envelope
	log := cctest.NewOperatorsLog(0, "x", 3)
	a, _ = l.Endorse(t, op1, wire.FnAnchorOperators, log.AnchorArg(t, ca, 0, 2))
	b, _ = l.Endorse(t, op1, wire.FnAnchorOperators, log.AnchorArg(t, ca, 0, 3))
	if len(a.Writes) != 1 || a.Writes[0].Key != wire.OperatorsKey(ca.ID, "") {
		t.Fatalf("it writes %+v", a.Writes)
	}
	der, _ := ca.Issue(t)
	issue, _ := l.Endorse(t, op1, wire.FnIssue, ca.IssueArg(der))
	if valid := l.Commit(t, issue, a, b); !valid[0] || !valid[1] || valid[2] {
		t.Fatalf("valid: %v", valid)
	}
}
