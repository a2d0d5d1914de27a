package chaincode_test

import (
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/certanchor/certanchor/chaincode"
	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
)

func TestStateThatThisContractDidNotWriteIsInternal(t *testing.T) {
	ca := cctest.NewCA(t)
	der, cert := ca.Issue(t)
	revoke := ca.StatusArg(wire.StatusChange{Serial: cctest.Serial(t, cert), Op: wire.OpRevoke})
	junk := []byte{0xff}
	serial, pre := cctest.Serial(t, cert), wire.Encode(&wire.CertRecord{V: wire.Version, State: wire.CertValid, SPKIHash: make([]byte, 32)})
	onHold := func(spkiHash []byte) []byte {
		return wire.Encode(&wire.CertRecord{V: wire.Version, State: wire.CertHeld, Reason: wire.CertificateHold, Change: 1, Final: &wire.LogEntry{}, SPKIHash: spkiHash})
	}
	release := ca.StatusArg(wire.StatusChange{Serial: serial, Op: wire.OpRelease})
	imported := ca.ImportArg([]wire.ImportItem{{HasCert: true, State: wire.CertRevoked, Revoked: 1000}}, der)
	quorum, hash := ca.QuorumArg(serial, wire.Superseded), make([]byte, 32)
	digest := sha256.Sum256(append([]byte("Decide\x00"), quorum...))
	head := wire.Encode(&wire.LogHead{V: wire.Version, Size: 1, Root: make([]byte, 32), Range: [][]byte{make([]byte, 31)}})
	for _, c := range []struct {
		key, function string
		value, arg    []byte
		by            chaincode.Caller
	}{
		{wire.ConsortiumKey, wire.FnTick, junk, cctest.TickArg(), op1},
		{wire.ConsortiumKey, wire.FnRead, junk, cctest.ReadArg("x"), op1},
		{wire.ClockKey(0), wire.FnTick, junk, cctest.TickArg(), op1},
		{wire.ClockKey(cctest.T0.UnixMilli() / 15000), wire.FnIssue, junk, ca.IssueArg(der), op1},
		{wire.CAKey(ca.ID), wire.FnIssue, junk, ca.IssueArg(der), op1},
		{wire.CAKey(ca.ID), wire.FnIssue, wire.Encode(&wire.CARecord{V: wire.Version}), ca.IssueArg(der), op1},
		{wire.CAKey(ca.ID), wire.FnIssue, wire.Encode(&wire.CARecord{V: wire.Version, OperatingMSP: "Org1MSP", Certs: [][]byte{junk}}), ca.IssueArg(der), op1},
		{wire.CAKey(ca.ID), wire.FnRegisterCA, junk, ca.RegisterArg("Org1MSP"), admin1},
		{wire.LogHeadKey(ca.ID), wire.FnIssue, nil, ca.IssueArg(der), op1},
		{wire.LogHeadKey(ca.ID), wire.FnIssue, wire.Encode(&wire.LogHead{V: wire.Version, Size: 3}), ca.IssueArg(der), op1},
		{wire.LogHeadKey(ca.ID), wire.FnIssue, head, ca.IssueArg(der), op1},
		{wire.CertKey(ca.ID, cctest.Serial(t, cert)), wire.FnIssue, junk, ca.IssueArg(der), op1},
		{wire.CertKey(ca.ID, serial), wire.FnIssue, pre, ca.IssueArg(der), op1},
		{wire.CAKey(ca.ID), wire.FnImport, junk, imported, op1},
		{wire.CAKey(ca.ID), wire.FnImport, wire.Encode(&wire.CARecord{V: wire.Version, OperatingMSP: "Org1MSP", Certs: [][]byte{junk}}), imported, op1},
		{wire.LogHeadKey(ca.ID), wire.FnImport, head, imported, op1},
		{wire.CertKey(ca.ID, serial), wire.FnImport, junk, imported, op1},
		{wire.CertKey(ca.ID, serial), wire.FnImport, pre, imported, op1},
		{wire.CertKey(ca.ID, serial), wire.FnImport, onHold(make([]byte, 31)), ca.ImportArg([]wire.ImportItem{{Serial: serial, State: wire.CertRevoked, Revoked: 1000}}), op1},
		{wire.CertKey(ca.ID, serial), wire.FnSetStatus, junk, revoke, op1},
		{wire.CertKey(ca.ID, serial), wire.FnSetStatus, onHold(nil), release, op1},
		{wire.RevokeKey(ca.ID, serial, wire.HolderSource([32]byte{})), wire.FnSetStatus, junk, release, op1},
		{wire.RevokeKey(ca.ID, serial, wire.QuorumSource()), wire.FnSetStatus, junk, release, op1},
		{wire.CAKey(ca.ID), wire.FnSetStatus, wire.Encode(&wire.CARecord{V: wire.Version, OperatingMSP: "Org1MSP", Certs: [][]byte{ca.DER}, State: wire.CAActive, Rules: 1}), release, op1},
		{wire.CAKey(ca.ID), wire.FnRevoke, junk, ca.RevokeArg(t, cctest.Channel, der, 0, cctest.T0), op1},
		{holderKey(t, ca, der), wire.FnRevoke, junk, ca.RevokeArg(t, cctest.Channel, der, 0, cctest.T0), op1},
		{wire.CAKey(ca.ID), wire.FnDecide, junk, ca.SuspendArg(1), admin1},
		{wire.ProposalKey(digest), wire.FnDecide, junk, quorum, admin1},
		{wire.StatusHeadKey, wire.FnIntegrate, junk, cctest.IntegrateArg(0, hash), op1},
		{wire.StatusHeadKey, wire.FnIntegrate, wire.Encode(&wire.StatusHead{V: wire.Version, Size: 1, Root: hash}), cctest.IntegrateArg(1, hash), op1},
		{wire.StatusHeadKey, wire.FnIntegrate, wire.Encode(&wire.StatusHead{V: wire.Version, Size: 1, Root: hash, Range: [][]byte{make([]byte, 31)}}), cctest.IntegrateArg(1, hash), op1},
		{wire.OperatorsKey(ca.ID, ""), wire.FnAnchorOperators, junk, cctest.NewOperatorsLog(0, "x", 1).AnchorArg(t, ca, 0, 1), op1},
		{wire.OperatorsKey(ca.ID, "b"), wire.FnAnchorOperators, junk, cctest.AnchorArg(wire.AnchorOperatorsArg{CAID: ca.ID, Name: "b", Head: cctest.NewOperatorsLog(0, "x", 1).Head(1)}), op1},
		{wire.CAKey(ca.ID), wire.FnAnchorOperators, junk, cctest.NewOperatorsLog(0, "x", 1).AnchorArg(t, ca, 0, 1), op1},
		{wire.PendingKey([32]byte{}), wire.FnIntegrate, junk, cctest.IntegrateArg(0, hash), op1},
	} {
		t.Run(c.function+" "+c.key[:5], func(t *testing.T) {
			l := founded(t)
			l.Register(t, ca, "Org1MSP")
			if c.function == wire.FnSetStatus {
				l.Set(wire.CertKey(ca.ID, serial), onHold(make([]byte, 32)))
			}
			l.Set(c.key, c.value)
			refused(t, l, c.by, c.function, c.arg, wire.Internal, "state", "")
		})
	}
}

// brokenState fails its n-th operation.
type brokenState struct {
	chaincode.State
	n int
}

var errDisk = errors.New("disk on fire")

func (s *brokenState) fail() bool { s.n--; return s.n < 0 }

func (s *brokenState) Get(key string) ([]byte, error) {
	if s.fail() {
		return nil, errDisk
	}
	return s.State.Get(key)
}

func (s *brokenState) GetMany(keys []string) ([][]byte, error) {
	if s.fail() {
		return nil, errDisk
	}
	values, err := s.State.GetMany(keys)
	if s.fail() { // fewer values than keys
		return values[1:], err
	}
	return values, err
}

func (s *brokenState) Put(key string, value []byte) error {
	if s.fail() {
		return errDisk
	}
	return s.State.Put(key, value)
}

func (s *brokenState) Delete(key string) error {
	if s.fail() {
		return errDisk
	}
	return s.State.Delete(key)
}

// Whatever operation of the state fails, the caller learns that it was the state, and gets no answer.
func TestEveryFailureOfTheStateIsInternal(t *testing.T) {
	l, ca := withCA(t)
	der, cert := ca.Issue(t)
	l.Must(t, op1, wire.FnIssue, ca.IssueArg(der))
	more, _ := ca.Issue(t)
	pre, _, final := ca.Precert(t)
	l.Must(t, op1, wire.FnIssue, ca.IssueArg(pre))
	promised, _ := final(cctest.SCTList())
	_, heldCert := ca.Issue(t)
	held := cctest.Serial(t, heldCert)
	l.Set(wire.CertKey(ca.ID, held), wire.Encode(&wire.CertRecord{
		V: wire.Version, State: wire.CertHeld, Reason: wire.CertificateHold, Change: 1, Final: &wire.LogEntry{}, SPKIHash: make([]byte, 32),
	}))
	l.Decide(t, ca.RuleArg(1, 1, 2, wire.CACompromise))
	l.Must(t, admin1, wire.FnDecide, ca.QuorumArg(held, 0))
	l.Must(t, admin2, wire.FnDecide, ca.QuorumArg(held, 0))
	other := cctest.NewCA(t)
	l.Must(t, admin1, wire.FnRegisterCA, other.RegisterArg("Org2MSP"))
	l.Must(t, admin2, wire.FnRegisterCA, other.RegisterArg("Org2MSP"))
	contract, err := chaincode.New(consortium)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		function string
		by       chaincode.Caller
		arg      []byte
	}{
		{wire.FnInit, admin1, l.InitArg()},
		{wire.FnRegisterCA, admin1, cctest.NewCA(t).RegisterArg("Org2MSP")}, // a first vote
		{wire.FnRegisterCA, admin3, other.RegisterArg("Org2MSP")},           // the deciding one
		{wire.FnIssue, op1, ca.IssueArg(der, more, promised)},
		{wire.FnSetStatus, op1, ca.StatusArg(wire.StatusChange{Serial: held, Op: wire.OpRelease})},
		{wire.FnRevoke, op2, ca.RevokeArg(t, cctest.Channel, der, 0, l.Now)},
		{wire.FnDecide, admin2, ca.SuspendArg(2)},      // a first vote
		{wire.FnDecide, admin1, ca.SuspendArg(2)},      // alone
		{wire.FnDecide, admin3, ca.QuorumArg(held, 0)}, // the deciding one
		{wire.FnIntegrate, op2, cctest.IntegrateArg(0, l.Pending(t)...)},
		{wire.FnSetStatus, op1, ca.StatusArg(wire.StatusChange{Serial: cctest.Serial(t, cert), Op: wire.OpRevoke})},
		{wire.FnAnchorOperators, op1, cctest.NewOperatorsLog(0, "x", 1).AnchorArg(t, ca, 0, 1)},
		{wire.FnTick, op1, cctest.TickArg()},
		{wire.FnRead, op1, cctest.ReadArg("x")},
	} {
		failures := 0
		for n := 0; ; n++ {
			st := &brokenState{l.Store.Simulate(), n}
			result, err := contract.Invoke(st, chaincode.Tx{ID: "x", Channel: cctest.Channel, Time: l.Now, Caller: c.by}, c.function, c.arg)
			if err == nil {
				break
			}
			failures++
			var e *wire.Error
			if !errors.As(err, &e) || e.Code != wire.Internal || result != nil {
				t.Fatalf("%s with operation %d failing returned %x, %v", c.function, n, result, err) // a refusal would come for ever
			}
		}
		if failures == 0 {
			t.Errorf("%s never used the state", c.function)
		}
	}
}

// panicking is a state that a bug hides in.
type panicking struct{ chaincode.State }

func (panicking) Get(string) ([]byte, error) { panic("bug") }

func TestAPanicDoesNotEscape(t *testing.T) {
	contract, err := chaincode.New(consortium)
	if err != nil {
		t.Fatal(err)
	}
	_, err = contract.Invoke(panicking{}, chaincode.Tx{Time: cctest.T0}, wire.FnTick, cctest.TickArg())
	var e *wire.Error
	if !errors.As(err, &e) || e.Code != wire.Internal {
		t.Errorf("Invoke returned %v", err)
	}
}
