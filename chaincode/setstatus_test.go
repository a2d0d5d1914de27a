package chaincode_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode"
	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
)

// life is one certificate on a ledger.
type life struct {
	*cctest.Ledger
	ca     *cctest.CA
	serial wire.Serial
}

func newLife(t testing.TB) *life {
	t.Helper()
	l, ca := withCA(t)
	der, cert := ca.Issue(t)
	l.Must(t, op1, wire.FnIssue, ca.IssueArg(der))
	return &life{l, ca, cctest.Serial(t, cert)}
}

func (l *life) arg(op wire.StatusOp, reason wire.Reason, invalidity wire.Millis) []byte {
	return l.ca.StatusArg(wire.StatusChange{Serial: l.serial, Op: op, Reason: reason, Invalidity: invalidity})
}

func (l *life) record(t testing.TB) *wire.CertRecord {
	t.Helper()
	return record[wire.CertRecord](t, l.Ledger, wire.CertKey(l.ca.ID, l.serial))
}

// change makes a change a second later and returns its only result.
func (l *life) change(t testing.TB, op wire.StatusOp, reason wire.Reason, invalidity wire.Millis) wire.StatusResult {
	t.Helper()
	l.Now = l.Now.Add(time.Second)
	return decode[wire.SetStatusResult](t, l.Must(t, op1, wire.FnSetStatus, l.arg(op, reason, invalidity))).Results[0]
}

// step is one operation and what is expected of it. Times are seconds after the certificate was issued; every step takes one.
type step struct {
	op         wire.StatusOp
	reason     wire.Reason
	invalidity int // 0: none

	refused bool
	changed bool
	state   wire.CertState
	as      wire.Reason
	since   int // StatusTime
	invalid int // Invalidity, 0: none
	change  uint64
}

func TestStatusStateMachine(t *testing.T) {
	const (
		revoke, hold, release = wire.OpRevoke, wire.OpHold, wire.OpRelease
		valid, held, revoked  = wire.CertValid, wire.CertHeld, wire.CertRevoked
		onHold, none, kc      = wire.CertificateHold, wire.Unspecified, wire.KeyCompromise
	)
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"revocation is final and keeps date and reason", []step{
			{op: revoke, reason: wire.Superseded, changed: true, state: revoked, as: wire.Superseded, since: 1, change: 1},
			{op: revoke, reason: wire.Superseded, state: revoked, as: wire.Superseded, since: 1, change: 1},
			{op: revoke, reason: wire.CessationOfOperation, state: revoked, as: wire.Superseded, since: 1, change: 1},
			{op: revoke, reason: none, invalidity: 1, state: revoked, as: wire.Superseded, since: 1, change: 1},
			{op: hold, reason: onHold, refused: true, state: revoked, as: wire.Superseded, since: 1, change: 1},
			{op: release, refused: true, state: revoked, as: wire.Superseded, since: 1, change: 1},
		}},
		{"reason becomes keyCompromise, the date stays", []step{
			{op: revoke, reason: wire.Superseded, invalidity: 1, changed: true, state: revoked, as: wire.Superseded, since: 1, invalid: 1, change: 1},
			{op: revoke, reason: kc, changed: true, state: revoked, as: kc, since: 1, invalid: 1, change: 2},
			{op: revoke, reason: kc, invalidity: 2, state: revoked, as: kc, since: 1, invalid: 1, change: 2},
			{op: revoke, reason: wire.Superseded, state: revoked, as: kc, since: 1, invalid: 1, change: 2},
		}},
		{"the compromise brings its own invalidity date", []step{
			{op: revoke, reason: none, changed: true, state: revoked, since: 1, change: 1},
			{op: revoke, reason: kc, invalidity: 1, changed: true, state: revoked, as: kc, since: 1, invalid: 1, change: 2},
		}},
		{"hold, again, release, again", []step{
			{op: hold, reason: onHold, changed: true, state: held, as: onHold, since: 1, change: 1},
			{op: hold, reason: onHold, state: held, as: onHold, since: 1, change: 1},
			{op: release, changed: true, state: valid, since: 3, change: 2},
			{op: release, state: valid, since: 3, change: 2},
			{op: hold, reason: onHold, changed: true, state: held, as: onHold, since: 5, change: 3},
		}},
		{"a hold that becomes a revocation keeps the hold's date", []step{
			{op: hold, reason: onHold, changed: true, state: held, as: onHold, since: 1, change: 1},
			{op: revoke, reason: kc, invalidity: 1, changed: true, state: revoked, as: kc, since: 1, invalid: 1, change: 2},
			{op: release, refused: true, state: revoked, as: kc, since: 1, invalid: 1, change: 2},
		}},
		{"a hold that was released leaves no date behind", []step{
			{op: hold, reason: onHold, changed: true, state: held, as: onHold, since: 1, change: 1},
			{op: release, changed: true, state: valid, since: 2, change: 2},
			{op: revoke, reason: none, changed: true, state: revoked, since: 3, change: 3},
		}},
		{"what was never held cannot be released", []step{
			{op: release, refused: true, state: valid, since: 0},
			{op: revoke, reason: none, changed: true, state: revoked, since: 2, change: 1},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLife(t)
			issued := l.Now
			for i, s := range c.steps {
				l.step(t, fmt.Sprintf("step %d", i+1), issued, s)
			}
		})
	}
}

func (l *life) step(t *testing.T, name string, issued time.Time, s step) {
	t.Helper()
	l.Now = l.Now.Add(time.Second)
	at := func(seconds int) wire.Millis { return wire.MillisOf(issued.Add(time.Duration(seconds) * time.Second)) }
	var invalidity, wantInvalid wire.Millis
	if s.invalidity != 0 {
		invalidity = at(s.invalidity)
	}
	if s.invalid != 0 {
		wantInvalid = at(s.invalid)
	}
	arg := l.arg(s.op, s.reason, invalidity)
	e, refusal := l.Endorse(t, op1, wire.FnSetStatus, arg)
	if s.refused {
		if refusal == nil {
			t.Fatalf("%s is not refused", name)
		}
		refused(t, l.Ledger, op1, wire.FnSetStatus, arg, wire.FailedPrecondition, "changes[0].op", "")
	} else if refusal != nil {
		t.Fatalf("%s is refused: %v", name, refusal)
	} else {
		l.Commit(t, e)
		want := wire.StatusResult{State: s.state, Reason: s.as, Time: at(s.since), Change: s.change, Changed: s.changed}
		if got := decode[wire.SetStatusResult](t, e.Result).Results; len(got) != 1 || got[0] != want {
			t.Errorf("%s answers %+v, want %+v", name, got, want)
		}
		l.checkWrites(t, name, e, s.changed)
	}
	rec := l.record(t)
	if rec.State != s.state || rec.Reason != s.as || rec.StatusTime != at(s.since) || rec.Invalidity != wantInvalid || rec.Change != s.change || rec.Final == nil {
		t.Errorf("%s leaves %+v", name, rec)
	}
}

// checkWrites: a change writes the record and its status leaf, nothing else.
func (l *life) checkWrites(t *testing.T, name string, e *cctest.Envelope, changed bool) {
	t.Helper()
	if !changed {
		if len(e.Writes) != 0 {
			t.Errorf("%s changed nothing and wrote %d keys", name, len(e.Writes))
		}
		return
	}
	rec := l.record(t)
	leaf := &wire.StatusLeaf{
		V: wire.Version, Kind: wire.LeafCert, CAID: l.ca.ID, Serial: l.serial, Change: rec.Change,
		State: uint(rec.State), Reason: rec.Reason, Time: rec.StatusTime, Invalidity: rec.Invalidity,
	}
	want := []string{wire.CertKey(l.ca.ID, l.serial), wire.PendingKey(leaf.Hash())}
	var got []string
	for _, w := range e.Writes {
		got = append(got, w.Key)
	}
	if !slices.Equal(got, want) || string(l.Store.Value(want[1])) != string(wire.Encode(leaf)) {
		t.Errorf("%s wrote %v, want %v", name, got, want)
	}
}

// SetStatus reads nothing that issuance writes, so load on one does not disturb the other.
func TestSetStatusDoesNotCompeteWithIssue(t *testing.T) {
	l := newLife(t)
	a, _ := l.Endorse(t, op1, wire.FnIssue, l.ca.IssueArg(l.ca.IssueMany(t, 3)...))
	b, refusal := l.Endorse(t, op1, wire.FnSetStatus, l.arg(wire.OpRevoke, wire.KeyCompromise, 0))
	if refusal != nil {
		t.Fatal(refusal)
	}
	if got := l.Commit(t, a, b); !slices.Equal(got, []bool{true, true}) {
		t.Errorf("validity in one block: %v", got)
	}
	for key := range b.Reads {
		if !strings.HasPrefix(key, wire.CertPrefix) && !strings.HasPrefix(key, wire.ClockPrefix) &&
			key != wire.ConsortiumKey && key != wire.CAKey(l.ca.ID) {
			t.Errorf("SetStatus reads %s", key)
		}
	}
}

// A client whose clock is behind cannot date a change before the one before it.
func TestChangesNeverTakeEffectBeforeTheLast(t *testing.T) {
	l := newLife(t)
	issued := wire.MillisOf(l.Now)
	l.Now = l.Now.Add(-8 * time.Second)
	got := l.change(t, wire.OpRevoke, wire.Superseded, 0)
	if got.Time != issued {
		t.Errorf("revoked at %d, before it was issued at %d", got.Time, issued)
	}
}

func TestBatchChangesAllOrNothing(t *testing.T) {
	l, ca := withCA(t)
	ders := ca.IssueMany(t, 3)
	l.Must(t, op1, wire.FnIssue, ca.IssueArg(ders...))
	var changes []wire.StatusChange
	for _, der := range ders {
		changes = append(changes, wire.StatusChange{Serial: serialOf(t, der), Op: wire.OpRevoke, Reason: wire.Superseded})
	}
	changes[1].Op, changes[1].Reason = wire.OpHold, wire.CertificateHold
	_, never := ca.Issue(t)
	withUnknown := append(slices.Clone(changes), wire.StatusChange{Serial: cctest.Serial(t, never), Op: wire.OpRevoke})
	refused(t, l, op1, wire.FnSetStatus, ca.StatusArg(withUnknown...), wire.NotFound, "changes[3].serial", "on the ledger")
	got := decode[wire.SetStatusResult](t, l.Must(t, op1, wire.FnSetStatus, ca.StatusArg(changes...)))
	var states []wire.CertState
	for _, r := range got.Results {
		states = append(states, r.State)
	}
	if !slices.Equal(states, []wire.CertState{wire.CertRevoked, wire.CertHeld, wire.CertRevoked}) {
		t.Errorf("states are %v", states)
	}
}

func TestSuspendedCAMayRevokeAndHoldButNotRelease(t *testing.T) {
	l := newLife(t)
	suspend(t, l.Ledger, l.ca)
	l.change(t, wire.OpHold, wire.CertificateHold, 0)
	refused(t, l.Ledger, op1, wire.FnSetStatus, l.arg(wire.OpRelease, 0, 0), wire.FailedPrecondition, "ca.state", "active")
	l.change(t, wire.OpRevoke, wire.CACompromise, 0)
}

func TestSetStatusRefusesCallers(t *testing.T) {
	l := newLife(t)
	arg := l.arg(wire.OpRevoke, wire.Superseded, 0)
	refused(t, l.Ledger, stranger, wire.FnSetStatus, arg, wire.PermissionDenied, "caller.msp", "consortium")
	refused(t, l.Ledger, op2, wire.FnSetStatus, arg, wire.PermissionDenied, "caller.msp", "Org1MSP")
	refused(t, l.Ledger, admin1, wire.FnSetStatus, arg, wire.PermissionDenied, "caller.role", "operator")
	refused(t, l.Ledger, chaincode.Caller{MSPID: "Org1MSP"}, wire.FnSetStatus, arg, wire.PermissionDenied, "caller.role", "operator")
	unknown := cctest.NewCA(t).StatusArg(wire.StatusChange{Serial: l.serial, Op: wire.OpRevoke})
	refused(t, l.Ledger, op1, wire.FnSetStatus, unknown, wire.NotFound, "ca_id", "registered")
}

func TestSetStatusRefusesChanges(t *testing.T) {
	l := newLife(t)
	now := wire.MillisOf(l.Now)
	s := l.serial
	for _, c := range []struct {
		name    string
		changes []wire.StatusChange
		field   string
		word    string
	}{
		{"nothing", nil, "changes", "1 to 1000"},
		{"too many", make([]wire.StatusChange, wire.MaxBatch+1), "changes", "1 to 1000"},
		{"no operation", []wire.StatusChange{{Serial: s}}, "changes[0].op", "revoke"},
		{"unknown operation", []wire.StatusChange{{Serial: s, Op: 4}}, "changes[0].op", "revoke"},
		{"no serial", []wire.StatusChange{{Op: wire.OpRevoke}}, "changes[0].serial", "20 octets"},
		{"leading zero", []wire.StatusChange{{Serial: append(wire.Serial{0}, s...), Op: wire.OpRevoke}}, "changes[0].serial", "leading zero"},
		{"long serial", []wire.StatusChange{{Serial: make(wire.Serial, 21), Op: wire.OpRevoke}}, "changes[0].serial", "20 octets"},
		{"twice", []wire.StatusChange{{Serial: s, Op: wire.OpRevoke}, {Serial: s, Op: wire.OpRevoke}}, "changes[1].serial", "changes[0]"},
		{"removeFromCRL", []wire.StatusChange{{Serial: s, Op: wire.OpRevoke, Reason: 8}}, "changes[0].reason", "5.3.1"},
		{"reason 7", []wire.StatusChange{{Serial: s, Op: wire.OpRevoke, Reason: 7}}, "changes[0].reason", "5.3.1"},
		{"reason 11", []wire.StatusChange{{Serial: s, Op: wire.OpRevoke, Reason: 11}}, "changes[0].reason", "5.3.1"},
		{"revoke for a hold", []wire.StatusChange{{Serial: s, Op: wire.OpRevoke, Reason: wire.CertificateHold}}, "changes[0].reason", "hold"},
		{"hold for keyCompromise", []wire.StatusChange{{Serial: s, Op: wire.OpHold, Reason: wire.KeyCompromise}}, "changes[0].reason", "certificateHold"},
		{"release for a reason", []wire.StatusChange{{Serial: s, Op: wire.OpRelease, Reason: wire.Superseded}}, "changes[0].reason", "unspecified"},
		{"hold with invalidity", []wire.StatusChange{{Serial: s, Op: wire.OpHold, Reason: wire.CertificateHold, Invalidity: now}}, "changes[0].invalidity", "revocation"},
		{"release with invalidity", []wire.StatusChange{{Serial: s, Op: wire.OpRelease, Invalidity: now}}, "changes[0].invalidity", "revocation"},
		{"invalid in the future", []wire.StatusChange{{Serial: s, Op: wire.OpRevoke, Invalidity: now + 1}}, "changes[0].invalidity", "transaction's time"},
		{"invalid before 1970", []wire.StatusChange{{Serial: s, Op: wire.OpRevoke, Invalidity: -1}}, "changes[0].invalidity", "1970"},
	} {
		t.Run(c.name, func(t *testing.T) {
			refused(t, l.Ledger, op1, wire.FnSetStatus, l.ca.StatusArg(c.changes...), wire.InvalidArgument, c.field, c.word)
		})
	}
	refused(t, l.Ledger, op1, wire.FnSetStatus, nil, wire.InvalidArgument, "argument", "SetStatusArg")
}

func TestEveryReasonIsRecordedAsItIs(t *testing.T) {
	for _, r := range []wire.Reason{
		wire.Unspecified, wire.KeyCompromise, wire.CACompromise, wire.AffiliationChanged, wire.Superseded,
		wire.CessationOfOperation, wire.PrivilegeWithdrawn, wire.AACompromise,
	} {
		l := newLife(t)
		if got := l.change(t, wire.OpRevoke, r, 0); got.Reason != r || l.record(t).Reason != r {
			t.Errorf("revoked for %v, recorded %v", r, got.Reason)
		}
	}
}
