package chaincode_test

import (
	"slices"

	"github.com/certanchor/certanchor/chaincode/wire"
)

func (m *model) decide(r *request) ([]byte, func(), bool) {
	ca, a, arg := m.find(r.ca.ID), r.decision, string(r.arg())
	if ca == nil || a.Kind == wire.DecideRule && (a.From >= a.To || a.To > r.now) {
		return nil, nil, false
	}
	result := &wire.DecideResult{V: wire.Version, Decided: true, Needed: len(m.msps)/2 + 1}
	operated := ca.operator == r.by.MSPID
	if slices.Contains(m.decided, arg) || operated && slices.Contains(m.alone, arg) {
		return wire.Encode(result), func() {}, true
	}
	if !ca.open(a) {
		return nil, nil, false
	}
	votes := m.voters(arg, r.by.MSPID)
	vote := func() { m.votes = append(m.votes, modelVote{arg, r.by.MSPID}) }
	mine := a.Kind == wire.DecideSuspend && operated && ca.state == wire.CAActive || a.Kind == wire.DecideResume && ca.suspendedBy == r.by.MSPID
	switch {
	case len(votes) >= result.Needed:
		return wire.Encode(result), func() {
			m.decided = append(m.decided, arg)
			m.carryOut(ca, a, r.now, "")
		}, true
	case mine && a.Kind == wire.DecideResume:
		return wire.Encode(result), func() {
			m.alone = append(m.alone, arg)
			m.carryOut(ca, a, r.now, r.by.MSPID)
		}, r.now >= ca.since+60_000
	case mine:
		return wire.Encode(result), func() {
			vote()
			m.alone = append(m.alone, arg)
			m.carryOut(ca, a, r.now, r.by.MSPID)
		}, true
	}
	result.Decided, result.Votes = false, votes
	return wire.Encode(result), vote, true
}

// open reports whether there is something to decide.
func (ca *modelCA) open(a *wire.DecideArg) bool {
	switch a.Kind {
	case wire.DecideSuspend:
		return ca.settled <= a.Change && a.Change <= ca.change && (ca.state == wire.CAActive || ca.suspendedBy != "")
	case wire.DecideResume:
		return a.Change == ca.change && ca.state == wire.CASuspended
	case wire.DecideRule:
		return ca.settled <= a.Change && a.Change <= ca.change && len(ca.rules) < 64
	}
	return true
}

// carryOut does what was decided by alone, or by a majority.
func (m *model) carryOut(ca *modelCA, a *wire.DecideArg, now wire.Millis, alone string) {
	if a.Kind == wire.DecideRevoke {
		_, _, effect := m.addRevocation(ca, a.Serial, wire.Revocation{
			V: wire.Version, Source: wire.SourceQuorum, Reason: a.Reason, Time: now, Invalidity: a.Invalidity, Change: 1,
		})
		effect()
		return
	}
	ca.change++
	if alone == "" {
		ca.settled = ca.change
	}
	switch a.Kind {
	case wire.DecideRule:
		rule := wire.Rule{V: wire.Version, N: uint64(len(ca.rules) + 1), From: a.From, To: a.To, Reason: a.Reason, Time: now, Invalidity: a.Invalidity}
		ca.rules = append(ca.rules, rule)
		m.tell(wire.StatusLeaf{
			Kind: wire.LeafRule, CAID: ca.id, Change: rule.N, State: uint(wire.CertRevoked), Reason: rule.Reason, Time: now,
			Invalidity: rule.Invalidity, From: rule.From, To: rule.To,
		})
		return
	case wire.DecideSuspend:
		if ca.state == wire.CAActive {
			ca.state, ca.since = wire.CASuspended, max(now, ca.since)
		}
		ca.suspendedBy = alone
	default:
		ca.state, ca.since, ca.suspendedBy = wire.CAActive, max(now, ca.since), ""
	}
	m.tellCA(ca)
}
