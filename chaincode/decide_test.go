package chaincode_test

import (
	"crypto/sha256"
	"slices"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode"
	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
)

var admin4 = cctest.Admin("Org4MSP")

// decided submits a decision that must be accepted and tells how it stands.
func decided(t testing.TB, l *cctest.Ledger, by chaincode.Caller, arg []byte) *wire.DecideResult {
	t.Helper()
	return decode[wire.DecideResult](t, l.Must(t, by, wire.FnDecide, arg))
}

func entryOf(t testing.TB, l *cctest.Ledger, ca *cctest.CA) *wire.CARecord {
	t.Helper()
	return record[wire.CARecord](t, l, wire.CAKey(ca.ID))
}

// caLeaf is the status leaf that says what the trust list entry says.
func caLeaf(t testing.TB, l *cctest.Ledger, ca *cctest.CA) *wire.StatusLeaf {
	t.Helper()
	entry := entryOf(t, l, ca)
	leaf := &wire.StatusLeaf{V: 1, Kind: wire.LeafCA, CAID: ca.ID, Change: entry.Change, State: uint(entry.State), Time: entry.StateTime}
	if string(l.Store.Value(wire.PendingKey(leaf.Hash()))) != string(wire.Encode(leaf)) {
		t.Errorf("no status leaf says %+v", leaf)
	}
	return leaf
}

func TestAMajoritySuspendsAndResumes(t *testing.T) {
	l, ca := withCA(t)
	arg := ca.SuspendArg(1)
	digest := sha256.Sum256(append([]byte("Decide\x00"), arg...))
	if r := decided(t, l, admin2, arg); r.Decided || !slices.Equal(r.Votes, []string{"Org2MSP"}) || r.Needed != 3 {
		t.Errorf("after one vote: %+v", r)
	}
	opened := wire.MillisOf(l.Now)
	if r := decode[wire.DecideResult](t, unchanged(t, l, admin2, wire.FnDecide, arg)); r.Decided || len(r.Votes) != 1 {
		t.Errorf("after the same vote: %+v", r)
	}
	l.Now = l.Now.Add(time.Second)
	if r := decided(t, l, admin4, arg); r.Decided || !slices.Equal(r.Votes, []string{"Org2MSP", "Org4MSP"}) {
		t.Errorf("after two votes: %+v", r)
	}
	if entryOf(t, l, ca).State != wire.CAActive {
		t.Fatal("suspended by two of four")
	}
	l.Now = l.Now.Add(time.Second)
	if r := decided(t, l, admin3, arg); !r.Decided || len(r.Votes) != 0 || r.Needed != 3 {
		t.Errorf("after three votes: %+v", r)
	}
	now := wire.MillisOf(l.Now)
	if e := entryOf(t, l, ca); e.State != wire.CASuspended || e.Change != 2 || e.Settled != 2 || e.StateTime != now || e.SuspendedBy != "" {
		t.Errorf("entry is %+v", e)
	}
	caLeaf(t, l, ca)
	p := record[wire.Proposal](t, l, wire.ProposalKey(digest))
	if p.Function != wire.FnDecide || string(p.Arg) != string(arg) || p.Opened != opened || p.Decided != now {
		t.Errorf("proposal is %+v", p)
	}
	for _, msp := range l.Config.MSPs {
		if l.Store.Value(wire.VoteKey(digest, msp)) != nil {
			t.Errorf("the vote of %s is left", msp)
		}
	}
	der, _ := ca.Issue(t)
	refused(t, l, op1, wire.FnIssue, ca.IssueArg(der), wire.FailedPrecondition, "ca.state", "active")
	// Its operator can neither resume it alone nor bring it back by repeating.
	refused(t, l, admin1, wire.FnDecide, ca.SuspendArg(2), wire.FailedPrecondition, "ca.state", "already")
	if r := decided(t, l, admin1, ca.ResumeArg(2)); r.Decided {
		t.Errorf("resumed alone: %+v", r)
	}
	decided(t, l, admin2, ca.ResumeArg(2))
	l.Now = l.Now.Add(time.Second)
	if r := decided(t, l, admin4, ca.ResumeArg(2)); !r.Decided {
		t.Errorf("not resumed by three: %+v", r)
	}
	if e := entryOf(t, l, ca); e.State != wire.CAActive || e.Change != 3 || e.Settled != 3 || e.StateTime != wire.MillisOf(l.Now) {
		t.Errorf("entry is %+v", e)
	}
	caLeaf(t, l, ca)
	l.Must(t, op1, wire.FnIssue, ca.IssueArg(der))
	// Late and repeated votes get the answer of their decision, though another one has undone it.
	for _, by := range []chaincode.Caller{admin1, admin2, admin3} {
		for _, arg := range [][]byte{ca.SuspendArg(1), ca.ResumeArg(2)} {
			if r := decode[wire.DecideResult](t, unchanged(t, l, by, wire.FnDecide, arg)); !r.Decided {
				t.Errorf("%s, late: %+v", by.MSPID, r)
			}
		}
	}
}

func TestTheOperatorSuspendsAndResumesAlone(t *testing.T) {
	l, ca := withCA(t)
	began := l.Now
	if r := decided(t, l, admin1, ca.SuspendArg(1)); !r.Decided || len(r.Votes) != 0 {
		t.Errorf("suspended alone: %+v", r)
	}
	if e := entryOf(t, l, ca); e.State != wire.CASuspended || e.SuspendedBy != "Org1MSP" || e.Change != 2 || e.Settled != 1 {
		t.Errorf("entry is %+v", e)
	}
	caLeaf(t, l, ca)
	if r := decode[wire.DecideResult](t, unchanged(t, l, admin1, wire.FnDecide, ca.SuspendArg(1))); !r.Decided {
		t.Errorf("the retry: %+v", r)
	}
	l.Now = began.Add(wire.RestAlone - time.Millisecond)
	refused(t, l, admin1, wire.FnDecide, ca.ResumeArg(2), wire.FailedPrecondition, "time", "1m0s")
	l.Now = began.Add(wire.RestAlone)
	if r := decided(t, l, admin1, ca.ResumeArg(2)); !r.Decided {
		t.Errorf("resumed alone: %+v", r)
	}
	if e := entryOf(t, l, ca); e.State != wire.CAActive || e.SuspendedBy != "" || e.Change != 3 || e.Settled != 1 || e.StateTime != wire.MillisOf(l.Now) {
		t.Errorf("entry is %+v", e)
	}
	unchanged(t, l, admin1, wire.FnDecide, ca.ResumeArg(2))
	caLeaf(t, l, ca)
}

// Nobody else suspends alone, and nobody else ends a suspension that one organisation began.
func TestOthersNeedAMajority(t *testing.T) {
	l, ca := withCA(t)
	if r := decided(t, l, admin2, ca.SuspendArg(1)); r.Decided {
		t.Errorf("org2 suspended org1's CA: %+v", r)
	}
	decided(t, l, admin1, ca.SuspendArg(1))
	l.Now = l.Now.Add(wire.RestAlone)
	if r := decided(t, l, admin2, ca.ResumeArg(2)); r.Decided {
		t.Errorf("org2 resumed org1's CA: %+v", r)
	}
	decided(t, l, admin3, ca.ResumeArg(2))
	if r := decided(t, l, admin4, ca.ResumeArg(2)); !r.Decided {
		t.Errorf("three resumed: %+v", r)
	}
}

// The operator suspends its CA alone while the others vote on it, so that it may resume it alone. It gains nothing: the votes stay, and
// make it a suspension of the majority, before or after it has resumed.
func TestSuspendingAloneDoesNotSpendTheOthersVotes(t *testing.T) {
	for _, resumed := range []bool{false, true} {
		l, ca := withCA(t)
		arg := ca.SuspendArg(1)
		decided(t, l, admin2, arg)
		began := wire.MillisOf(l.Now)
		decided(t, l, admin1, arg)
		l.Now = l.Now.Add(wire.RestAlone)
		change := uint64(2)
		if resumed {
			decided(t, l, admin1, ca.ResumeArg(change))
			change, began = change+1, wire.MillisOf(l.Now)
		}
		if r := decided(t, l, admin3, arg); !r.Decided { // org1's own vote counts
			t.Fatalf("resumed=%t: three votes leave %+v", resumed, r)
		}
		if e := entryOf(t, l, ca); e.State != wire.CASuspended || e.SuspendedBy != "" || e.Change != change+1 || e.Settled != e.Change || e.StateTime != began {
			t.Errorf("resumed=%t: entry is %+v", resumed, e)
		}
		caLeaf(t, l, ca)
		if r := decided(t, l, admin1, ca.ResumeArg(change+1)); r.Decided {
			t.Errorf("resumed=%t: resumed alone what a majority suspended", resumed)
		}
	}
}

// However often the operator suspends and resumes, votes that were cast before still count.
func TestTheOperatorCannotVoidVotes(t *testing.T) {
	for name, arg := range map[string]func(*cctest.CA) []byte{
		"suspend": func(ca *cctest.CA) []byte { return ca.SuspendArg(3) },
		"rule":    func(ca *cctest.CA) []byte { return ca.RuleArg(3, 0, wire.MillisOf(cctest.T0), wire.CACompromise) },
		"revoke":  func(ca *cctest.CA) []byte { return ca.QuorumArg(wire.Serial{1}, wire.KeyCompromise) },
	} {
		l, ca := withCA(t)
		change := uint64(1)
		flap := func() {
			decided(t, l, admin1, cctest.DecideArg(wire.DecideArg{Kind: wire.DecideSuspend, CAID: ca.ID, Change: change}))
			l.Now = l.Now.Add(wire.RestAlone)
			decided(t, l, admin1, ca.ResumeArg(change+1))
			change += 2
		}
		flap()
		votes := 0
		for i, by := range []chaincode.Caller{admin2, admin3, admin4} {
			r := decided(t, l, by, arg(ca))
			votes = i + 1
			if r.Decided {
				break
			}
			flap() // its own suspension with the same bytes is a vote, too
		}
		if want := map[string]int{"suspend": 2, "rule": 3, "revoke": 3}[name]; votes != want {
			t.Errorf("%s: decided by %d votes of others, want %d", name, votes, want)
		}
	}
}

func TestARuleRevokesAnInterval(t *testing.T) {
	l, ca := withCA(t)
	from := wire.MillisOf(l.Now)
	l.Now = l.Now.Add(time.Minute)
	to := wire.MillisOf(l.Now)
	arg := cctest.DecideArg(wire.DecideArg{Kind: wire.DecideRule, CAID: ca.ID, Change: 1, Reason: wire.CACompromise, Invalidity: from, From: from, To: to})
	for _, by := range []chaincode.Caller{admin1, admin2} {
		if r := decided(t, l, by, arg); r.Decided {
			t.Errorf("%s: %+v", by.MSPID, r)
		}
	}
	l.Now = l.Now.Add(time.Minute)
	if r := decided(t, l, admin3, arg); !r.Decided {
		t.Errorf("three votes: %+v", r)
	}
	now := wire.MillisOf(l.Now)
	rule := record[wire.Rule](t, l, wire.RuleKey(ca.ID, 1))
	if *rule != (wire.Rule{V: 1, N: 1, From: from, To: to, Reason: wire.CACompromise, Time: now, Invalidity: from}) {
		t.Errorf("rule is %+v", rule)
	}
	if e := entryOf(t, l, ca); e.Rules != 1 || e.Change != 2 || e.Settled != 2 || e.State != wire.CAActive {
		t.Errorf("entry is %+v", e)
	}
	leaf := &wire.StatusLeaf{
		V: 1, Kind: wire.LeafRule, CAID: ca.ID, Change: 1, State: uint(wire.CertRevoked), Reason: wire.CACompromise,
		Time: now, Invalidity: from, From: from, To: to,
	}
	if string(l.Store.Value(wire.PendingKey(leaf.Hash()))) != string(wire.Encode(leaf)) {
		t.Error("no status leaf tells the rule")
	}
	l.Decide(t, ca.RuleArg(2, from, to+1, wire.KeyCompromise))
	if r := record[wire.Rule](t, l, wire.RuleKey(ca.ID, 2)); r.N != 2 || r.To != to+1 {
		t.Errorf("second rule is %+v", r)
	}
	refused(t, l, admin2, wire.FnDecide, ca.RuleArg(2, from, to+2, wire.KeyCompromise), wire.FailedPrecondition, "change", "3")
	e := entryOf(t, l, ca)
	e.Rules = wire.MaxRules
	l.Set(wire.CAKey(ca.ID), wire.Encode(e))
	refused(t, l, admin2, wire.FnDecide, ca.RuleArg(3, from, to, wire.KeyCompromise), wire.FailedPrecondition, "ca.rules", "64")
}

func TestAMajorityRevokesOneCertificate(t *testing.T) {
	l, ca := withCA(t)
	serial := wire.Serial{7} // the ledger need not know it
	key := wire.RevokeKey(ca.ID, serial, wire.QuorumSource())
	first := wire.MillisOf(l.Now)
	l.Decide(t, ca.QuorumArg(serial, wire.PrivilegeWithdrawn))
	if r := record[wire.Revocation](t, l, key); r.Source != wire.SourceQuorum || r.SPKIHash != nil || r.Reason != wire.PrivilegeWithdrawn || r.Time != first || r.Change != 1 {
		t.Errorf("revocation is %+v", r)
	}
	l.Now = l.Now.Add(time.Hour)
	before := l.Store.Value(key)
	l.Decide(t, ca.QuorumArg(serial, wire.Superseded))
	if string(l.Store.Value(key)) != string(before) {
		t.Error("another decision changed the first one's revocation")
	}
	l.Decide(t, ca.QuorumArg(serial, wire.KeyCompromise))
	if r := record[wire.Revocation](t, l, key); r.Reason != wire.KeyCompromise || r.Time != first || r.Change != 2 {
		t.Errorf("revocation is %+v", r)
	}
	if e := entryOf(t, l, ca); e.Change != 1 {
		t.Errorf("the entry is now %+v", e)
	}
}

// Deciding votes in one block: the second is submitted again, and nothing happens twice.
func TestDecidingVotesInOneBlock(t *testing.T) {
	l, ca := withCA(t)
	arg := ca.RuleArg(1, 0, wire.MillisOf(l.Now), wire.CACompromise)
	decided(t, l, admin1, arg)
	decided(t, l, admin2, arg)
	a, _ := l.Endorse(t, admin3, wire.FnDecide, arg)
	b, _ := l.Endorse(t, admin4, wire.FnDecide, arg)
	if got := l.Commit(t, a, b); !slices.Equal(got, []bool{true, false}) {
		t.Errorf("validity in one block: %v", got)
	}
	unchanged(t, l, admin4, wire.FnDecide, arg)
	if e := entryOf(t, l, ca); e.Rules != 1 {
		t.Errorf("%d rules", e.Rules)
	}
}

func TestOneOrganisationIsAMajorityOfItself(t *testing.T) {
	l := cctest.NewLedger(t, chaincode.Config{MSPs: []string{"Org1MSP"}, TickInterval: interval})
	l.Found(t)
	ca := cctest.NewCA(t)
	l.Register(t, ca, "Org1MSP")
	decided(t, l, admin1, ca.SuspendArg(1))
	if e := entryOf(t, l, ca); e.State != wire.CASuspended || e.SuspendedBy != "" {
		t.Errorf("entry is %+v", e)
	}
	decided(t, l, admin1, ca.ResumeArg(2))
}

func TestDecideRefuses(t *testing.T) {
	l, ca := withCA(t)
	now := wire.MillisOf(l.Now)
	arg := func(change func(*wire.DecideArg)) []byte {
		a := wire.DecideArg{Kind: wire.DecideRule, CAID: ca.ID, Change: 1, Reason: wire.CACompromise, From: 1, To: now}
		change(&a)
		return cctest.DecideArg(a)
	}
	as := func(kind wire.DecisionKind, change func(*wire.DecideArg)) []byte {
		a := wire.DecideArg{Kind: kind, CAID: ca.ID}
		if kind != wire.DecideRevoke {
			a.Change = 1
		} else {
			a.Serial = wire.Serial{1}
		}
		change(&a)
		return cctest.DecideArg(a)
	}
	const bad, early = wire.InvalidArgument, wire.FailedPrecondition
	for _, c := range []struct {
		name  string
		arg   []byte
		code  wire.Code
		field string
		word  string
	}{
		{"nothing", nil, bad, "argument", "DecideArg"},
		{"no kind", arg(func(a *wire.DecideArg) { a.Kind = 0 }), bad, "kind", "suspend"},
		{"unknown kind", arg(func(a *wire.DecideArg) { a.Kind = 5 }), bad, "kind", "revoke"},
		{"no such CA", arg(func(a *wire.DecideArg) { a.CAID[0] ^= 1 }), wire.NotFound, "ca_id", "registered"},
		{"empty interval", arg(func(a *wire.DecideArg) { a.From = a.To }), bad, "to", "after from"},
		{"negative interval", arg(func(a *wire.DecideArg) { a.From = -1 }), bad, "to", "not negative"},
		{"interval in the future", arg(func(a *wire.DecideArg) { a.To = now + 1 }), bad, "to", "transaction's time"},
		{"rule with serial", arg(func(a *wire.DecideArg) { a.Serial = wire.Serial{1} }), bad, "serial", "only"},
		{"rule on hold", arg(func(a *wire.DecideArg) { a.Reason = wire.CertificateHold }), bad, "reason", "hold"},
		{"unknown reason", arg(func(a *wire.DecideArg) { a.Reason = 8 }), bad, "reason", "5.3.1"},
		{"invalid in the future", arg(func(a *wire.DecideArg) { a.Invalidity = now + 1 }), bad, "invalidity", "transaction's time"},
		{"change behind", arg(func(a *wire.DecideArg) { a.Change = 0 }), early, "change", "from"},
		{"change ahead", arg(func(a *wire.DecideArg) { a.Change = 2 }), early, "change", "present one, 1"},
		{"suspend for a reason", as(wire.DecideSuspend, func(a *wire.DecideArg) { a.Reason = wire.CACompromise }), bad, "reason", "unspecified"},
		{"suspend with invalidity", as(wire.DecideSuspend, func(a *wire.DecideArg) { a.Invalidity = 1 }), bad, "invalidity", "only"},
		{"suspend a serial", as(wire.DecideSuspend, func(a *wire.DecideArg) { a.Serial = wire.Serial{1} }), bad, "serial", "only"},
		{"suspend an interval", as(wire.DecideSuspend, func(a *wire.DecideArg) { a.To = 1 }), bad, "from", "only a rule"},
		{"suspend at another change", as(wire.DecideSuspend, func(a *wire.DecideArg) { a.Change = 2 }), early, "change", "present one"},
		{"resume what is active", as(wire.DecideResume, func(*wire.DecideArg) {}), early, "ca.state", "suspended"},
		{"resume at another change", as(wire.DecideResume, func(a *wire.DecideArg) { a.Change = 2 }), early, "change", "which is 1"},
		{"revoke without serial", as(wire.DecideRevoke, func(a *wire.DecideArg) { a.Serial = nil }), bad, "serial", "20 octets"},
		{"revoke with leading zero", as(wire.DecideRevoke, func(a *wire.DecideArg) { a.Serial = wire.Serial{0, 1} }), bad, "serial", "leading zero"},
		{"revoke at a change", as(wire.DecideRevoke, func(a *wire.DecideArg) { a.Change = 1 }), bad, "change", "must be 0"},
		{"revoke an interval", as(wire.DecideRevoke, func(a *wire.DecideArg) { a.From = 1 }), bad, "from", "only a rule"},
		{"hold by a majority", as(wire.DecideRevoke, func(a *wire.DecideArg) { a.Reason = wire.CertificateHold }), bad, "reason", "hold"},
	} {
		t.Run(c.name, func(t *testing.T) {
			refused(t, l, admin2, wire.FnDecide, c.arg, c.code, c.field, c.word)
		})
	}
	good := ca.SuspendArg(1)
	refused(t, l, stranger, wire.FnDecide, good, wire.PermissionDenied, "caller.msp", "consortium")
	for _, by := range []chaincode.Caller{op1, auditor4, {MSPID: "Org1MSP"}} {
		refused(t, l, by, wire.FnDecide, good, wire.PermissionDenied, "caller.role", "administrator")
	}
}
