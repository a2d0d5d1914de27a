package chaincode_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/status"
)

// mergeStep imports something, or has the operator change the status, a second after the step before.
type mergeStep struct {
	item   wire.ImportItem
	change *wire.StatusChange // instead

	state    wire.CertState
	reason   wire.Reason
	since    int // StatusTime in seconds after the beginning
	asserted wire.Millis
	changes  uint64
}

func TestImportMerges(t *testing.T) {
	const valid, held, revoked, onHold = wire.CertValid, wire.CertHeld, wire.CertRevoked, wire.CertificateHold
	hold := &wire.StatusChange{Op: wire.OpHold, Reason: onHold}
	release := &wire.StatusChange{Op: wire.OpRelease}
	revoke := &wire.StatusChange{Op: wire.OpRevoke, Reason: wire.Superseded}
	for name, steps := range map[string][]mergeStep{
		"a revocation is never weakened, nor dated anew": {
			{item: revokedItem(longAgo, wire.Superseded), state: revoked, reason: wire.Superseded, since: 1, asserted: longAgo, changes: 1},
			{item: validItem(), state: revoked, reason: wire.Superseded, since: 1, asserted: longAgo, changes: 1},
			{item: heldItem(longAgo), state: revoked, reason: wire.Superseded, since: 1, asserted: longAgo, changes: 1},
			{item: revokedItem(longAgo-5000, wire.CessationOfOperation), state: revoked, reason: wire.Superseded, since: 1, asserted: longAgo, changes: 1},
			{item: revokedItem(longAgo-5000, wire.KeyCompromise), state: revoked, reason: wire.KeyCompromise, since: 1, asserted: longAgo, changes: 2},
		},
		"from valid to held to revoked, with the dates of the hold": {
			{item: validItem(), state: valid, since: 1},
			{item: heldItem(longAgo), state: held, reason: onHold, since: 2, asserted: longAgo, changes: 1},
			{item: validItem(), state: held, reason: onHold, since: 2, asserted: longAgo, changes: 1},
			{item: heldItem(longAgo + 1), state: held, reason: onHold, since: 2, asserted: longAgo, changes: 1},
			{item: revokedItem(longAgo+9000, wire.Superseded), state: revoked, reason: wire.Superseded, since: 2, asserted: longAgo, changes: 2},
		},
		"a release outlives the import that is sent again": {
			{item: heldItem(longAgo), state: held, reason: onHold, since: 1, asserted: longAgo, changes: 1},
			{change: release, state: valid, since: 2, asserted: longAgo, changes: 2},
			{item: heldItem(longAgo), state: valid, since: 2, asserted: longAgo, changes: 2},
			{item: heldItem(longAgo - 5000), state: valid, since: 2, asserted: longAgo, changes: 2},
			{item: heldItem(longAgo + 1), state: held, reason: onHold, since: 5, asserted: longAgo + 1, changes: 3},
			{change: release, state: valid, since: 6, asserted: longAgo + 1, changes: 4},
			{item: revokedItem(longAgo, wire.Superseded), state: revoked, reason: wire.Superseded, since: 7, asserted: longAgo, changes: 5},
		},
		"what the operator does on the ledger has no other date": {
			{item: heldItem(longAgo), state: held, reason: onHold, since: 1, asserted: longAgo, changes: 1},
			{change: release, state: valid, since: 2, asserted: longAgo, changes: 2},
			{change: hold, state: held, reason: onHold, since: 3, changes: 3},
			{item: heldItem(longAgo + 5000), state: held, reason: onHold, since: 3, changes: 3},
			{item: revokedItem(longAgo, wire.Superseded), state: revoked, reason: wire.Superseded, since: 3, changes: 4},
		},
		"nor has a revocation on the ledger": {
			{item: heldItem(longAgo), state: held, reason: onHold, since: 1, asserted: longAgo, changes: 1},
			{change: release, state: valid, since: 2, asserted: longAgo, changes: 2},
			{change: revoke, state: revoked, reason: wire.Superseded, since: 3, changes: 3},
			{item: revokedItem(longAgo, wire.Superseded), state: revoked, reason: wire.Superseded, since: 3, changes: 3},
		},
	} {
		for _, serialOnly := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, serial only %t", name, serialOnly), func(t *testing.T) {
				l, ca := withCA(t)
				der, _ := ca.Issue(t)
				serial := serialOf(t, der)
				begin := wire.MillisOf(l.Now)
				for i, s := range steps {
					l.Now = l.Now.Add(time.Second)
					before := l.Store.Value(wire.CertKey(ca.ID, serial))
					switch {
					case s.change != nil:
						c := *s.change
						c.Serial = serial
						l.Must(t, op1, wire.FnSetStatus, ca.StatusArg(c))
					case serialOnly:
						l.Must(t, op1, wire.FnImport, ca.ImportArg([]wire.ImportItem{bare(s.item, serial)}))
					default:
						got := importResult(t, l.Must(t, op1, wire.FnImport, ca.ImportArg([]wire.ImportItem{s.item}, der)))[0]
						if got.Changed == bytes.Equal(before, l.Store.Value(wire.CertKey(ca.ID, serial))) || got.Log == nil {
							t.Errorf("step %d: answered %+v", i, got)
						}
					}
					rec := certRecord(t, l, ca, serial)
					if rec.State != s.state || rec.Reason != s.reason || rec.StatusTime != begin+wire.Millis(1000*s.since) || rec.Asserted != s.asserted || rec.Change != s.changes ||
						!rec.Imported || rec.SerialOnly() != serialOnly {
						t.Fatalf("step %d: %+v, want %+v", i, *rec, s)
					}
					if rec.Change > 0 && s.state != valid {
						mustTell(t, l, ca, serial)
					}
				}
			})
		}
	}
}

// A certificate that was issued on the ledger is told to be revoked from when the ledger said so, whatever date its CA asserts afterwards.
func TestAssertedDateOfWhatWasIssuedIsKeptAndNotTold(t *testing.T) {
	l, ca := withCA(t)
	der, _ := ca.Issue(t)
	l.Must(t, op1, wire.FnIssue, ca.IssueArg(der))
	l.Now = l.Now.Add(time.Second)
	l.Must(t, op1, wire.FnImport, ca.ImportArg([]wire.ImportItem{revokedItem(longAgo, wire.Superseded)}, der))
	rec, now := certRecord(t, l, ca, serialOf(t, der)), wire.MillisOf(l.Now)
	if rec.Imported || rec.Asserted != longAgo || rec.StatusTime != now {
		t.Errorf("record is %+v", rec)
	}
	if st := evaluate(t, l, ca.ID, serialOf(t, der)); st.Since() != now || st.State != wire.CertRevoked {
		t.Errorf("status is %+v, told since %d, want %d", st, st.Since(), now)
	}
}

// What the ledger has called good is bad from when the ledger says so, however often and with whatever it is imported. What was never good
// is bad from when the CA says so.
func TestNobodyDatesBackWhatWasGood(t *testing.T) {
	release := wire.StatusChange{Op: wire.OpRelease}
	for name, c := range map[string]struct {
		steps  []any // wire.ImportItem: with certificate, or by the serial number if it has one; wire.StatusChange; true: Issue
		dating bool
	}{
		"revoked with the record":                         {[]any{revokedItem(longAgo, 0)}, true},
		"on hold with the record":                         {[]any{heldItem(longAgo)}, true},
		"a hold that becomes a revocation":                {[]any{heldItem(longAgo), revokedItem(longAgo+5, 0)}, true},
		"and by the operator":                             {[]any{heldItem(longAgo), wire.StatusChange{Op: wire.OpRevoke}}, true},
		"a valid serial number, then revoked":             {[]any{bare(validItem(), wire.Serial{1}), bare(revokedItem(longAgo, 0), wire.Serial{1})}, true},
		"a valid serial number, then its certificate":     {[]any{bare(validItem(), wire.Serial{1}), revokedItem(longAgo, 0)}, true},
		"a revoked serial number, issued later":           {[]any{bare(revokedItem(longAgo, 0), wire.Serial{1}), true}, true},
		"imported as valid":                               {[]any{validItem(), revokedItem(longAgo, 0)}, false},
		"imported as valid, then on hold, then revoked":   {[]any{validItem(), heldItem(longAgo), revokedItem(longAgo, 0)}, false},
		"imported as valid, revoked by the serial number": {[]any{validItem(), bare(revokedItem(longAgo, 0), wire.Serial{1})}, false},
		"issued":                            {[]any{true, revokedItem(longAgo, 0)}, false},
		"a valid serial number, issued":     {[]any{bare(validItem(), wire.Serial{1}), true, revokedItem(longAgo, 0)}, false},
		"released":                          {[]any{heldItem(longAgo), release, revokedItem(longAgo, 0)}, false},
		"released, and on hold again":       {[]any{heldItem(longAgo), release, heldItem(longAgo + 5), revokedItem(longAgo, 0)}, false},
		"a serial number that was released": {[]any{bare(heldItem(longAgo), wire.Serial{1}), release, bare(revokedItem(longAgo, 0), wire.Serial{1})}, false},
	} {
		t.Run(name, func(t *testing.T) {
			l, ca := withCA(t)
			der, _ := ca.Issue(t)
			serial := serialOf(t, der)
			for _, step := range c.steps {
				l.Now = l.Now.Add(time.Second)
				switch s := step.(type) {
				case wire.StatusChange:
					s.Serial = serial
					l.Must(t, op1, wire.FnSetStatus, ca.StatusArg(s))
				case wire.ImportItem:
					if s.Serial != nil {
						l.Must(t, op1, wire.FnImport, ca.ImportArg([]wire.ImportItem{bare(s, serial)}))
					} else {
						l.Must(t, op1, wire.FnImport, ca.ImportArg([]wire.ImportItem{s}, der))
					}
				default:
					l.Must(t, op1, wire.FnIssue, ca.IssueArg(der))
				}
			}
			st := evaluate(t, l, ca.ID, serial)
			want := st.Time
			if c.dating {
				want = longAgo
			}
			if !st.Bad() || st.Since() != want || st.Asserted != longAgo && st.Asserted != longAgo+5 || st.Antedated != c.dating {
				t.Errorf("status is %+v, told since %d, want %d, and the asserted date beside it", st, st.Since(), want)
			}
			mustTell(t, l, ca, serial)
		})
	}
}

func TestSerialNumberGetsItsCertificateLater(t *testing.T) {
	for _, with := range []string{"issue", "import", "precertificate"} {
		for _, item := range []wire.ImportItem{validItem(), heldItem(longAgo), revokedItem(longAgo, wire.Superseded)} {
			t.Run(fmt.Sprint(with, " ", item.State), func(t *testing.T) {
				l, ca := withCA(t)
				pre, _, final := ca.Precert(t)
				der, cert := final(cctest.SCTList())
				serial := cctest.Serial(t, cert)
				l.Must(t, op1, wire.FnImport, ca.ImportArg([]wire.ImportItem{bare(item, serial)}))
				before := *certRecord(t, l, ca, serial)
				want := wire.CertState(status.Unknown)
				if item.State != wire.CertValid {
					want = item.State
				}
				if st := evaluate(t, l, ca.ID, serial); st.State != want || before.SPKIHash != nil || before.NotAfter != 0 {
					t.Errorf("the serial number is %+v, its record %+v", st, before)
				}
				l.Now = l.Now.Add(time.Second)
				switch with {
				case "issue":
					l.Must(t, op1, wire.FnIssue, ca.IssueArg(der))
					unchanged(t, l, op1, wire.FnIssue, ca.IssueArg(der))
				case "import":
					arg := ca.ImportArg([]wire.ImportItem{validItem()}, der)
					if got := importResult(t, l.Must(t, op1, wire.FnImport, arg))[0]; !got.Changed || got.Log == nil {
						t.Errorf("answered %+v", got)
					}
					unchanged(t, l, op1, wire.FnImport, arg)
				default:
					l.Must(t, op1, wire.FnIssue, ca.IssueArg(pre))
					l.Must(t, op1, wire.FnImport, ca.ImportArg([]wire.ImportItem{validItem()}, der)) // the precertificate's certificate
				}
				after := *certRecord(t, l, ca, serial)
				spki := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
				if after.Final == nil || (after.Pre != nil) != (with == "precertificate") || !bytes.Equal(after.SPKIHash, spki[:]) || after.NotAfter != wire.MillisOf(cert.NotAfter) {
					t.Errorf("its record is %+v", after)
				}
				after.Final, after.Pre, after.SPKIHash, after.NotAfter = nil, nil, nil, 0
				if !reflect.DeepEqual(after, before) {
					t.Errorf("the status was %+v and is %+v", before, after)
				}
				if st := evaluate(t, l, ca.ID, serial); st.State != item.State {
					t.Errorf("the certificate is %+v", st)
				}
			})
		}
	}
}

// What is known of a serial number alone can be learned once: when its certificate expires.
func TestNotAfterOfASerialNumberIsLearnedOnce(t *testing.T) {
	l, ca := withCA(t)
	item := bare(revokedItem(longAgo, wire.Superseded), wire.Serial{9})
	for i, want := range []wire.Millis{0, 5, 5, 5} {
		item.NotAfter = []wire.Millis{0, 5, 7, 0}[i]
		got := importResult(t, l.Must(t, op1, wire.FnImport, ca.ImportArg([]wire.ImportItem{item})))[0]
		if rec := certRecord(t, l, ca, item.Serial); rec.NotAfter != want || got.Changed != (i < 2) || rec.Change != 1 {
			t.Errorf("step %d: %+v, %+v", i, got, rec)
		}
	}
}

// A serial number whose certificate is not shown is nobody's: no holder of a key revokes it, no rule covers it. A majority may revoke it.
func TestOthersAndSerialNumbers(t *testing.T) {
	l, ca := withCA(t)
	der, _ := ca.Issue(t)
	serial := serialOf(t, der)
	l.Must(t, op1, wire.FnImport, ca.ImportArg([]wire.ImportItem{bare(validItem(), serial)}))
	l.Must(t, op2, wire.FnRevoke, ca.RevokeArg(t, cctest.Channel, der, wire.Superseded, l.Now))
	l.Now = l.Now.Add(time.Second)
	l.Decide(t, ca.RuleArg(1, 0, wire.MillisOf(l.Now), wire.CACompromise))
	if st := evaluate(t, l, ca.ID, serial); st.State != status.Unknown {
		t.Errorf("a serial number is %+v", st)
	}
	l.Decide(t, ca.QuorumArg(serial, wire.PrivilegeWithdrawn))
	if st := evaluate(t, l, ca.ID, serial); st.State != wire.CertRevoked || st.Reason != wire.PrivilegeWithdrawn || st.Asserted != 0 {
		t.Errorf("after a majority's decision it is %+v", st)
	}
	l.Must(t, op1, wire.FnImport, ca.ImportArg([]wire.ImportItem{validItem()}, der))
	if st := evaluate(t, l, ca.ID, serial); st.State != wire.CertRevoked || st.Reason != wire.Superseded || st.Change != 2 {
		t.Errorf("with its certificate, whose holder has revoked it before, it is %+v", st)
	}
}

// A rule about an interval of the log covers what was imported in it, however long ago it was issued.
func TestRuleCoversImportedCertificates(t *testing.T) {
	l, ca := withCA(t)
	before, _ := ca.Issue(t)
	l.Must(t, op1, wire.FnImport, ca.ImportArg([]wire.ImportItem{validItem()}, before))
	l.Now = l.Now.Add(time.Second)
	from := wire.MillisOf(l.Now)
	within, _ := ca.Issue(t, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = cctest.CANotBefore, cctest.T0.Add(-time.Hour) })
	l.Must(t, op1, wire.FnImport, ca.ImportArg([]wire.ImportItem{validItem()}, within))
	l.Now = l.Now.Add(time.Second)
	l.Decide(t, ca.RuleArg(1, from, from+1, wire.CACompromise))
	for der, want := range map[*[]byte]wire.CertState{&before: wire.CertValid, &within: wire.CertRevoked} {
		if st := evaluate(t, l, ca.ID, serialOf(t, *der)); st.State != want {
			t.Errorf("%+v, want state %d", st, want)
		}
	}
}

// If others have revoked under a hold, their reason stays when the import ends it.
func TestImportUnderAHoldTakesOverTheReasonOfOthers(t *testing.T) {
	for _, serialOnly := range []bool{false, true} {
		l, ca := withCA(t)
		der, _ := ca.Issue(t)
		serial := serialOf(t, der)
		item := revokedItem(longAgo, wire.CessationOfOperation)
		item.Invalidity = 1
		first, second := ca.ImportArg([]wire.ImportItem{heldItem(longAgo)}, der), ca.ImportArg([]wire.ImportItem{item}, der)
		if serialOnly {
			first, second = ca.ImportArg([]wire.ImportItem{bare(heldItem(longAgo), serial)}), ca.ImportArg([]wire.ImportItem{bare(item, serial)})
		}
		l.Must(t, op1, wire.FnImport, first)
		l.Decide(t, ca.QuorumArg(serial, wire.PrivilegeWithdrawn))
		told := evaluate(t, l, ca.ID, serial)
		l.Now = l.Now.Add(time.Second)
		l.Must(t, op1, wire.FnImport, second)
		if rec := certRecord(t, l, ca, serial); rec.State != wire.CertRevoked || rec.Reason != wire.PrivilegeWithdrawn || rec.Invalidity != 0 || rec.Asserted != longAgo {
			t.Errorf("record is %+v", rec)
		}
		if st := evaluate(t, l, ca.ID, serial); st.Reason != told.Reason || st.Time != told.Time || st.Since() != told.Since() {
			t.Errorf("told as %+v, then as %+v", told, st)
		}
	}
	// A hold of a serial number that a majority has revoked is not released either.
	l, ca := withCA(t)
	serial := wire.Serial{3}
	l.Must(t, op1, wire.FnImport, ca.ImportArg([]wire.ImportItem{bare(heldItem(longAgo), serial)}))
	l.Decide(t, ca.QuorumArg(serial, wire.Superseded))
	refused(t, l, op1, wire.FnSetStatus, ca.StatusArg(wire.StatusChange{Serial: serial, Op: wire.OpRelease}), wire.FailedPrecondition, "changes[0].op", "majority")
}

func TestHoldsByImportAreLimitedToo(t *testing.T) {
	l, ca := withCA(t)
	serial := wire.Serial{4}
	for i := range wire.Millis(wire.MaxFlaps / 2) {
		l.Must(t, op1, wire.FnImport, ca.ImportArg([]wire.ImportItem{bare(heldItem(longAgo+i), serial)}))
		l.Must(t, op1, wire.FnSetStatus, ca.StatusArg(wire.StatusChange{Serial: serial, Op: wire.OpRelease}))
	}
	refused(t, l, op1, wire.FnImport, ca.ImportArg([]wire.ImportItem{bare(heldItem(longAgo+99), serial)}), wire.FailedPrecondition, "items[0].state", "limit for a minute")
}
