package chaincode_test

import (
	"slices"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
)

func TestHoldsAndReleasesAreLimited(t *testing.T) {
	l := newLife(t)
	hold, release := l.arg(wire.OpHold, wire.CertificateHold, 0), l.arg(wire.OpRelease, 0, 0)
	l.Now = l.Now.Add(time.Second)
	began := l.Now
	for i := range wire.MaxFlaps / 2 {
		l.Must(t, op1, wire.FnSetStatus, hold)
		unchanged(t, l.Ledger, op1, wire.FnSetStatus, hold) // repeats change nothing and are not counted
		l.Now = l.Now.Add(time.Second)
		l.Must(t, op1, wire.FnSetStatus, release)
		unchanged(t, l.Ledger, op1, wire.FnSetStatus, release)
		l.Now = l.Now.Add(time.Second)
		if rec := l.record(t); rec.Flaps != uint(2*i+2) || rec.Window != wire.MillisOf(began) {
			t.Fatalf("after %d flaps: %+v", 2*i+2, rec)
		}
	}
	refused(t, l.Ledger, op1, wire.FnSetStatus, hold, wire.FailedPrecondition, "changes[0].op", "10 times since 2026-01-01T00:00:01Z")
	l.Now = began.Add(time.Minute - time.Millisecond)
	refused(t, l.Ledger, op1, wire.FnSetStatus, hold, wire.FailedPrecondition, "changes[0].op", "limit")
	l.Now = began.Add(time.Minute)
	l.Must(t, op1, wire.FnSetStatus, hold)
	if rec := l.record(t); rec.Flaps != 1 || rec.Window != wire.MillisOf(l.Now) {
		t.Errorf("in the next minute: %+v", rec)
	}
}

func TestARevocationIsNeverLimited(t *testing.T) {
	l := newLife(t)
	for range wire.MaxFlaps / 2 {
		l.Must(t, op1, wire.FnSetStatus, l.arg(wire.OpHold, wire.CertificateHold, 0))
		l.Must(t, op1, wire.FnSetStatus, l.arg(wire.OpRelease, 0, 0))
	}
	refused(t, l.Ledger, op1, wire.FnSetStatus, l.arg(wire.OpHold, wire.CertificateHold, 0), wire.FailedPrecondition, "changes[0].op", "limit")
	l.Must(t, op1, wire.FnSetStatus, l.arg(wire.OpRevoke, wire.Superseded, 0))
	l.Must(t, op1, wire.FnSetStatus, l.arg(wire.OpRevoke, wire.KeyCompromise, 0))
}

// A hold that stopped at the limit can still be lifted a minute later; a release counts like a hold.
func TestReleasesCount(t *testing.T) {
	l := newLife(t)
	l.Must(t, op1, wire.FnSetStatus, l.arg(wire.OpHold, wire.CertificateHold, 0))
	for range wire.MaxFlaps/2 - 1 {
		l.Must(t, op1, wire.FnSetStatus, l.arg(wire.OpRelease, 0, 0))
		l.Must(t, op1, wire.FnSetStatus, l.arg(wire.OpHold, wire.CertificateHold, 0))
	}
	l.Must(t, op1, wire.FnSetStatus, l.arg(wire.OpRelease, 0, 0))
	refused(t, l.Ledger, op1, wire.FnSetStatus, l.arg(wire.OpHold, wire.CertificateHold, 0), wire.FailedPrecondition, "changes[0].op", "limit")
}

// revokedByOthers says who else can revoke the certificate of a life, and how.
func revokedByOthers(t *testing.T, l *life, der []byte) map[string]func() {
	return map[string]func(){
		"holder": func() {
			l.Must(t, op2, wire.FnRevoke, l.ca.RevokeArg(t, cctest.Channel, der, wire.KeyCompromise, l.Now))
		},
		"quorum": func() { l.Decide(t, l.ca.QuorumArg(l.serial, wire.KeyCompromise)) },
		"rule":   func() { l.Decide(t, l.ca.RuleArg(1, 0, wire.MillisOf(l.Now), wire.CACompromise)) },
	}
}

func TestAHoldUnderARevocationByOthersIsNotReleased(t *testing.T) {
	for _, name := range []string{"holder", "quorum", "rule"} {
		t.Run(name, func(t *testing.T) {
			l, ca := withCA(t)
			der, cert := ca.Issue(t)
			bystander, bystanderCert := ca.Issue(t)
			l.Must(t, op1, wire.FnIssue, ca.IssueArg(der))
			life := &life{l, ca, cctest.Serial(t, cert)}
			life.change(t, wire.OpHold, wire.CertificateHold, 0)
			revokedByOthers(t, life, der)[name]()
			l.Now = l.Now.Add(time.Second)
			l.Must(t, op1, wire.FnIssue, ca.IssueArg(bystander)) // after the rule's interval
			other := cctest.Serial(t, bystanderCert)
			l.Must(t, op1, wire.FnSetStatus, ca.StatusArg(wire.StatusChange{Serial: other, Op: wire.OpHold, Reason: wire.CertificateHold}))
			refused(t, l, op1, wire.FnSetStatus, ca.StatusArg(
				wire.StatusChange{Serial: other, Op: wire.OpRelease}, wire.StatusChange{Serial: life.serial, Op: wire.OpRelease},
			), wire.FailedPrecondition, "changes[1].op", "revoked")
			l.Must(t, op1, wire.FnSetStatus, ca.StatusArg(wire.StatusChange{Serial: other, Op: wire.OpRelease}))
			life.change(t, wire.OpRevoke, wire.Superseded, 0)
		})
	}
}

// A release and a revocation by others in one block: whichever is first, the revocation stands, and a release that came second
// has no effect.
func TestAReleaseLosesAgainstARevocation(t *testing.T) {
	for _, first := range []string{"release", "revocation"} {
		l, ca := withCA(t)
		der, cert := ca.Issue(t)
		l.Must(t, op1, wire.FnIssue, ca.IssueArg(der))
		life := &life{l, ca, cctest.Serial(t, cert)}
		life.change(t, wire.OpHold, wire.CertificateHold, 0)
		release, _ := l.Endorse(t, op1, wire.FnSetStatus, life.arg(wire.OpRelease, 0, 0))
		revocation, _ := l.Endorse(t, op2, wire.FnRevoke, ca.RevokeArg(t, cctest.Channel, der, wire.KeyCompromise, l.Now))
		block, want := []*cctest.Envelope{release, revocation}, []bool{true, true}
		if first == "revocation" {
			block, want = []*cctest.Envelope{revocation, release}, []bool{true, false}
		}
		if got := l.Commit(t, block...); !slices.Equal(got, want) {
			t.Errorf("%s first: %v", first, got)
		}
	}
}
