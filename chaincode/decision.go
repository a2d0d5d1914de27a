package chaincode

import (
	"fmt"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// carryOut does what was decided: by the organisation alone, or by a majority if that is empty.
func (t *transaction) carryOut(b *ballot, alone string) error {
	switch b.a.Kind {
	case wire.DecideSuspend:
		t.suspend(b, alone)
		return nil
	case wire.DecideResume:
		return t.resume(b, alone)
	case wire.DecideRule:
		t.addRule(b)
		return nil
	default:
		_, _, err := t.addRevocation(wire.RevokeKey(b.a.CAID, b.a.Serial, wire.QuorumSource()), b.revoked, b.a.CAID, b.a.Serial,
			&wire.Revocation{Source: wire.SourceQuorum, Reason: b.a.Reason, Invalidity: b.a.Invalidity})
		return err
	}
}

// suspend ends new certificates and releases. A majority may also take over a suspension that one organisation began: it then began
// when that one did.
func (t *transaction) suspend(b *ballot, alone string) {
	if b.ca.State == wire.CAActive {
		b.ca.State, b.ca.StateTime = wire.CASuspended, max(t.now, b.ca.StateTime)
	}
	b.ca.SuspendedBy = alone
	t.putCA(b, alone)
}

func (t *transaction) resume(b *ballot, alone string) error {
	if until := b.ca.StateTime + restAlone; alone != "" && t.now < until {
		return wire.Errorf(wire.FailedPrecondition, "time", fmt.Sprintf("%d ms", t.now),
			"%s suspended the CA alone and may resume it alone after %v, from %d ms on", alone, wire.RestAlone, until)
	}
	b.ca.State, b.ca.StateTime, b.ca.SuspendedBy = wire.CAActive, max(t.now, b.ca.StateTime), ""
	t.putCA(b, alone)
	return nil
}

// putCA writes an entry whose state has changed, and the status leaf that says so.
func (t *transaction) putCA(b *ballot, alone string) {
	t.putEntry(b, alone)
	t.putLeaf(&wire.StatusLeaf{
		V: wire.Version, Kind: wire.LeafCA, CAID: b.a.CAID, Change: b.ca.Change, State: uint(b.ca.State), Time: b.ca.StateTime,
	})
}

func (t *transaction) putEntry(b *ballot, alone string) {
	b.ca.Change++
	if alone == "" {
		b.ca.Settled = b.ca.Change
	}
	t.put(wire.CAKey(b.a.CAID), wire.Encode(b.ca))
}

// addRule revokes what the CA logged in an interval. Its number is the leaf's change number.
func (t *transaction) addRule(b *ballot) {
	b.ca.Rules++
	t.putEntry(b, "")
	rule := &wire.Rule{
		V: wire.Version, N: b.ca.Rules, From: b.a.From, To: b.a.To, Reason: b.a.Reason, Time: t.now, Invalidity: b.a.Invalidity,
	}
	t.put(wire.RuleKey(b.a.CAID, rule.N), wire.Encode(rule))
	t.putLeaf(&wire.StatusLeaf{
		V: wire.Version, Kind: wire.LeafRule, CAID: b.a.CAID, Change: rule.N, State: uint(wire.CertRevoked),
		Reason: rule.Reason, Time: rule.Time, Invalidity: rule.Invalidity, From: rule.From, To: rule.To,
	})
}
