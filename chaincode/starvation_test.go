package chaincode_test

import (
	"crypto/sha256"
	"crypto/x509"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode"
	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/status"
)

// evaluate returns the status that the ledger gives a certificate.
func evaluate(t cctest.TB, l *cctest.Ledger, id wire.CAID, serial wire.Serial) status.Status {
	t.Helper()
	rec := record[wire.CertRecord](t, l, wire.CertKey(id, serial))
	var revocations []wire.Revocation
	for _, key := range l.Store.Keys() {
		if strings.HasPrefix(key, wire.RevokeKey(id, serial, "")) {
			revocations = append(revocations, *record[wire.Revocation](t, l, key))
		}
	}
	var rules []wire.Rule
	for n := range record[wire.CARecord](t, l, wire.CAKey(id)).Rules {
		rules = append(rules, *record[wire.Rule](t, l, wire.RuleKey(id, n+1)))
	}
	return status.Evaluate(rec, revocations, rules)
}

// rival is a transaction in a block that others are in, too.
type rival struct {
	name     string
	by       chaincode.Caller
	function string
	arg      []byte
	first    bool // must commit at the first attempt
}

// permutations calls f with every order of the rivals.
func permutations(rivals []rival, f func([]rival)) {
	var rest func(done, left []rival)
	rest = func(done, left []rival) {
		if len(left) == 0 {
			f(done)
		}
		for i := range left {
			rest(append(slices.Clone(done), left[i]), slices.Delete(slices.Clone(left), i, i+1))
		}
	}
	rest(nil, rivals)
}

// contested is a certificate that its CA's operator has just held, or has just released, whose revocation the others have prepared:
// one vote is missing.
func contested(t *testing.T, held bool) (*life, []byte, []rival) {
	t.Helper()
	l, ca := withCA(t)
	pre, cert, final := ca.Precert(t)
	l.Must(t, op1, wire.FnIssue, ca.IssueArg(pre))
	life := &life{l, ca, cctest.Serial(t, cert)}
	flap := life.arg(wire.OpHold, wire.CertificateHold, 0)
	if held {
		life.change(t, wire.OpHold, wire.CertificateHold, 0)
		flap = life.arg(wire.OpRelease, 0, 0)
	}
	quorum := ca.QuorumArg(life.serial, wire.PrivilegeWithdrawn)
	decided(t, l, admin3, quorum)
	decided(t, l, admin4, quorum)
	pending := l.Pending(t)
	l.Now = l.Now.Add(time.Second)
	der, _ := final(cctest.SCTList())
	fresh, _ := ca.Issue(t)
	return life, pre, []rival{
		{"issue", op1, wire.FnIssue, ca.IssueArg(fresh, der), false},
		{"flap", op1, wire.FnSetStatus, flap, false},
		{"integrate", op1, wire.FnIntegrate, cctest.IntegrateArg(0, pending...), true},
		{"holder", op2, wire.FnRevoke, ca.RevokeArg(t, cctest.Channel, pre, wire.Superseded, l.Now), true},
		{"quorum", admin2, wire.FnDecide, quorum, true},
	}
}

// The CA's operator issues, and holds and releases the certificate, in the very blocks in which others revoke it. In whatever order they
// stand there, what the others submit commits at its first attempt, and then the certificate is revoked.
func TestNoStatusChangeIsStarved(t *testing.T) {
	for _, held := range []bool{false, true} {
		_, _, rivals := contested(t, held)
		var orders [][]string
		permutations(rivals, func(order []rival) {
			var names []string
			for _, r := range order {
				names = append(names, r.name)
			}
			orders = append(orders, names)
		})
		for _, order := range orders {
			life, _, rivals := contested(t, held)
			block := make([]*cctest.Envelope, len(order))
			for i, name := range order {
				r := rivals[slices.IndexFunc(rivals, func(r rival) bool { return r.name == name })]
				e, refusal := life.Endorse(t, r.by, r.function, r.arg)
				if refusal != nil {
					t.Fatalf("%s: %v", name, refusal)
				}
				block[i] = e
			}
			valid := life.Commit(t, block...)
			for i, name := range order {
				if must := name != "issue" && name != "flap"; must && !valid[i] {
					t.Errorf("held=%t, %v: %s lost", held, order, name)
				}
			}
			if got := evaluate(t, life.Ledger, life.ca.ID, life.serial); got.State != wire.CertRevoked {
				t.Errorf("held=%t, %v: %+v", held, order, got)
			}
		}
	}
}

// The same block after block: the operator is in every one, before and after the others.
func TestOperatorsInEveryBlockStopNobody(t *testing.T) {
	l, ca := withCA(t)
	const n = 12
	ders := ca.IssueMany(t, n)
	l.Must(t, op1, wire.FnIssue, ca.IssueArg(ders...))
	flap := func(der []byte) *cctest.Envelope {
		serial := serialOf(t, der)
		change := wire.StatusChange{Serial: serial, Op: wire.OpHold, Reason: wire.CertificateHold}
		if record[wire.CertRecord](t, l, wire.CertKey(ca.ID, serial)).State == wire.CertHeld {
			change = wire.StatusChange{Serial: serial, Op: wire.OpRelease}
		}
		e, _ := l.Endorse(t, op1, wire.FnSetStatus, ca.StatusArg(change)) // refused past the limit, and once revoked
		return e
	}
	for i, der := range ders {
		for range i { // a while of flapping before the revocation comes
			l.Now = l.Now.Add(100 * time.Millisecond)
			l.Commit(t, flap(der))
		}
		l.Now = l.Now.Add(100 * time.Millisecond)
		before, _ := l.Endorse(t, op1, wire.FnIssue, ca.IssueArg(ca.IssueMany(t, 1)...))
		revoke, refusal := l.Endorse(t, op2, wire.FnRevoke, ca.RevokeArg(t, cctest.Channel, der, wire.KeyCompromise, l.Now))
		if refusal != nil {
			t.Fatal(refusal)
		}
		if valid := l.Commit(t, before, flap(der), revoke, flap(der)); !valid[2] {
			t.Fatalf("revocation %d lost", i)
		}
		if got := evaluate(t, l, ca.ID, serialOf(t, der)); got.State != wire.CertRevoked || got.Reason != wire.KeyCompromise {
			t.Errorf("certificate %d is %+v", i, got)
		}
	}
}

// Once others have revoked, nothing that the operator or any single organisation submits makes the certificate good again, moves the
// date, or changes the reason to anything but keyCompromise.
func TestNobodyUndoesARevocation(t *testing.T) {
	for _, held := range []bool{false, true} {
		for _, name := range []string{"holder", "quorum", "rule"} {
			l, ca := withCA(t)
			der, cert := ca.Issue(t)
			l.Must(t, op1, wire.FnIssue, ca.IssueArg(der))
			life := &life{l, ca, cctest.Serial(t, cert)}
			l.Now = l.Now.Add(time.Second)
			if held {
				life.change(t, wire.OpHold, wire.CertificateHold, 0)
			}
			l.Now = l.Now.Add(time.Second)
			switch name {
			case "holder":
				l.Must(t, op2, wire.FnRevoke, ca.RevokeArg(t, cctest.Channel, der, wire.Superseded, l.Now))
			case "quorum":
				l.Decide(t, ca.QuorumArg(life.serial, wire.Superseded))
			case "rule":
				l.Decide(t, ca.RuleArg(1, 0, wire.MillisOf(l.Now), wire.Superseded))
			}
			want := evaluate(t, l, ca.ID, life.serial)
			if want.State != wire.CertRevoked || want.Reason != wire.Superseded {
				t.Fatalf("revoked: %+v", want)
			}
			for _, attempt := range attempts(t, life, cert, der) {
				l.Now = l.Now.Add(time.Minute)
				if e, refusal := l.Endorse(t, attempt.by, attempt.function, attempt.arg); refusal == nil {
					l.Commit(t, e)
				}
				got := evaluate(t, l, ca.ID, life.serial)
				if got.State != wire.CertRevoked || got.Time != want.Time || got.Reason != want.Reason {
					t.Errorf("%s, held=%t: %s made %+v of %+v", name, held, attempt.name, got, want)
				}
			}
			l.Must(t, op2, wire.FnRevoke, ca.RevokeArg(t, cctest.Channel, der, wire.KeyCompromise, l.Now))
			if got := evaluate(t, l, ca.ID, life.serial); got.Time != want.Time || got.Reason != wire.KeyCompromise {
				t.Errorf("%s, held=%t: compromised: %+v", name, held, got)
			}
		}
	}
}

// attempts are what one organisation at a time can try.
func attempts(t *testing.T, l *life, cert *x509.Certificate, der []byte) []rival {
	release, hold := l.arg(wire.OpRelease, 0, 0), l.arg(wire.OpHold, wire.CertificateHold, 0)
	again, _ := l.ca.Issue(t, sameSerial(cert))
	leaf := sha256.Sum256([]byte("no such leaf"))
	late := l.Now.Add(30 * time.Minute)
	return []rival{
		{name: "release", by: op1, function: wire.FnSetStatus, arg: release},
		{name: "hold", by: op1, function: wire.FnSetStatus, arg: hold},
		{name: "release of the hold", by: op1, function: wire.FnSetStatus, arg: release},
		{name: "revocation by the operator", by: op1, function: wire.FnSetStatus, arg: l.arg(wire.OpRevoke, wire.CessationOfOperation, 0)},
		{name: "release of the revocation", by: op1, function: wire.FnSetStatus, arg: release},
		{name: "the certificate again", by: op1, function: wire.FnIssue, arg: l.ca.IssueArg(der)},
		{name: "another certificate", by: op1, function: wire.FnIssue, arg: l.ca.IssueArg(again)},
		{name: "the holder again", by: op1, function: wire.FnRevoke, arg: l.ca.RevokeArg(t, cctest.Channel, der, wire.Unspecified, late)},
		{name: "suspension", by: admin1, function: wire.FnDecide, arg: l.ca.SuspendArg(entryOf(t, l.Ledger, l.ca).Change)},
		{name: "end of the suspension", by: admin1, function: wire.FnDecide, arg: l.ca.ResumeArg(entryOf(t, l.Ledger, l.ca).Change + 1)},
		{name: "one vote", by: admin1, function: wire.FnDecide, arg: l.ca.QuorumArg(l.serial, wire.KeyCompromise)},
		{name: "the CA again", by: admin1, function: wire.FnRegisterCA, arg: l.ca.RegisterArg("Org1MSP")},
		{name: "integrating nothing", by: op1, function: wire.FnIntegrate, arg: cctest.IntegrateArg(0, leaf[:])},
		{name: "integrating everything", by: op1, function: wire.FnIntegrate, arg: cctest.IntegrateArg(0, l.Pending(t)...)},
		{name: "founding again", by: admin1, function: wire.FnInit, arg: l.InitArg()},
		{name: "anchoring", by: op1, function: wire.FnAnchorOperators, arg: cctest.NewOperatorsLog(0, "x", 2).AnchorArg(t, l.ca, 0, 2)},
		{name: "tick", by: op1, function: wire.FnTick, arg: cctest.TickArg()},
	}
}
