package chaincode

import (
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// decideAlone takes the function's place in the name of what one organisation decided alone (proposalDigest). It must not be the
// majority's proposal: whoever may act alone could then spend the others' votes on a suspension that it may lift again.
const decideAlone = "DecideAlone"

const restAlone = wire.Millis(wire.RestAlone / time.Millisecond)

// ballot is a decision in the making, while one more administrator submits it.
type ballot struct {
	a        wire.DecideArg
	digest   [sha256.Size]byte
	proposal *wire.Proposal // nil: not opened yet
	ca       *wire.CARecord
	revoked  []byte   // DecideRevoke: what stands at its key
	votes    []string // the caller's included
	isNew    bool     // the caller's vote is
}

// decide records one organisation's assent to a decision about a CA, and carries the decision out when a majority has submitted
// identical bytes, or the one organisation that may do it alone. Repeating it changes nothing, before and after.
func decide(t *transaction, arg []byte) ([]byte, error) {
	b := &ballot{digest: proposalDigest(wire.FnDecide, arg)}
	if err := wire.Decode(arg, &b.a); err != nil {
		return nil, badArgument(arg, err)
	}
	if err := checkDecision(&b.a, t.now); err != nil {
		return nil, err
	}
	alone := proposalDigest(decideAlone, arg)
	keys := []string{wire.CAKey(b.a.CAID), wire.ProposalKey(b.digest), wire.ProposalKey(alone)}
	if b.a.Kind == wire.DecideRevoke {
		keys = append(keys, wire.RevokeKey(b.a.CAID, b.a.Serial, wire.QuorumSource()))
	}
	values, err := t.admit(administrators, keys...)
	if err != nil {
		return nil, err
	}
	if values[0] == nil {
		return nil, wire.Errorf(wire.NotFound, "ca_id", b.a.CAID.String(), "must be a registered CA")
	}
	if b.ca, err = decodeCA(b.a.CAID, values[0]); err != nil {
		return nil, err
	}
	result := &wire.DecideResult{V: wire.Version, Decided: true, Needed: t.consortium.Majority()}
	if b.proposal, err = decodeProposal(b.digest, values[1]); err != nil {
		return nil, err
	}
	// Alone, only the operating organisation decides.
	if b.proposal != nil && b.proposal.Decided != 0 || values[2] != nil && t.caller.MSPID == b.ca.OperatingMSP {
		return wire.Encode(result), nil
	}
	if b.a.Kind == wire.DecideRevoke {
		b.revoked = values[3]
	}
	if err := b.checkAgainst(b.ca); err != nil {
		return nil, err
	}
	if b.votes, b.isNew, err = t.vote(b.digest); err != nil {
		return nil, err
	}
	switch {
	case len(b.votes) >= result.Needed:
		t.settleProposal(b, wire.FnDecide, arg)
		err = t.carryOut(b, "")
	case b.mayAlone(t.caller.MSPID):
		t.put(wire.ProposalKey(alone), wire.Encode(&wire.Proposal{V: wire.Version, Function: decideAlone, Arg: arg, Opened: t.now, Decided: t.now}))
		// A suspension goes on to collect votes. The end of one is nothing that a majority would have to confirm.
		if b.a.Kind == wire.DecideSuspend && b.isNew {
			t.openProposal(b.digest, b.proposal != nil, wire.FnDecide, arg)
		}
		err = t.carryOut(b, t.caller.MSPID)
	default:
		result.Decided, result.Votes = false, b.votes
		if b.isNew {
			t.openProposal(b.digest, b.proposal != nil, wire.FnDecide, arg)
		}
	}
	if err != nil {
		return nil, err
	}
	return wire.Encode(result), nil
}

// checkDecision says whether the fields of a decision go together.
func checkDecision(a *wire.DecideArg, now wire.Millis) error {
	switch a.Kind {
	case wire.DecideSuspend, wire.DecideResume:
		if a.Reason != wire.Unspecified {
			return invalid("reason", a.Reason.String(), "must be unspecified to suspend or resume")
		}
		if a.Invalidity != 0 {
			return invalid("invalidity", timeText(a.Invalidity.Time()), "only a revocation has an invalidity date")
		}
	case wire.DecideRule, wire.DecideRevoke:
		if err := checkRevocation("", a.Reason, a.Invalidity, now); err != nil {
			return err
		}
	default:
		return invalid("kind", fmt.Sprint(uint(a.Kind)), "must be 1 (suspend), 2 (resume), 3 (rule) or 4 (revoke)")
	}
	if a.Kind == wire.DecideRevoke {
		if a.Serial.Check() != nil {
			return invalid("serial", a.Serial.String(), "must be 1 to %d octets without a leading zero (RFC 5280 section 4.1.2.2)", wire.MaxSerial)
		}
		if a.Change != 0 {
			return invalid("change", fmt.Sprint(a.Change), "must be 0 to revoke one certificate: the CA's state does not matter")
		}
	} else if len(a.Serial) != 0 {
		return invalid("serial", a.Serial.String(), "only the revocation of one certificate has a serial number")
	}
	if a.Kind != wire.DecideRule {
		if a.From != 0 || a.To != 0 {
			return invalid("from", fmt.Sprintf("%d ms", a.From), "only a rule has an interval")
		}
		return nil
	}
	// What is logged later is not covered, and nobody can have looked at it.
	if a.From < 0 || a.From >= a.To || a.To > now {
		return invalid("to", fmt.Sprintf("%d ms", a.To), "must be after from, %d ms, which is not negative, and not after the transaction's time, %d ms", a.From, now)
	}
	return nil
}

// checkAgainst says whether the decision fits the CA as it stands.
func (b *ballot) checkAgainst(ca *wire.CARecord) error {
	change := fmt.Sprint(b.a.Change)
	switch b.a.Kind {
	case wire.DecideRevoke:
		return nil
	case wire.DecideResume:
		if b.a.Change != ca.Change {
			return wire.Errorf(wire.FailedPrecondition, "change", change, "must be the trust list entry's, which is %d", ca.Change)
		}
		if ca.State != wire.CASuspended {
			return wire.Errorf(wire.FailedPrecondition, "ca.state", fmt.Sprint(ca.State), "must be suspended (%d) to be resumed", wire.CASuspended)
		}
		return nil
	}
	// Votes last while only the operating organisation changes things: it could otherwise void them for ever.
	if b.a.Change < ca.Settled || b.a.Change > ca.Change {
		return wire.Errorf(wire.FailedPrecondition, "change", change, "must be from the trust list entry's at the last decision of a majority, %d, to its present one, %d", ca.Settled, ca.Change)
	}
	if b.a.Kind == wire.DecideSuspend && ca.State == wire.CASuspended && ca.SuspendedBy == "" {
		return wire.Errorf(wire.FailedPrecondition, "ca.state", fmt.Sprint(ca.State), "is suspended already, by a majority")
	}
	if b.a.Kind == wire.DecideRule && ca.Rules >= wire.MaxRules {
		return wire.Errorf(wire.FailedPrecondition, "ca.rules", fmt.Sprint(ca.Rules), "a CA may have at most %d rules", wire.MaxRules)
	}
	return nil
}

// mayAlone reports whether msp needs nobody else: to suspend the CA that it operates, and to end what it began.
func (b *ballot) mayAlone(msp string) bool {
	switch b.a.Kind {
	case wire.DecideSuspend:
		return msp == b.ca.OperatingMSP && b.ca.State == wire.CAActive
	case wire.DecideResume:
		return msp == b.ca.SuspendedBy
	}
	return false
}

func decodeProposal(digest [sha256.Size]byte, value []byte) (*wire.Proposal, error) {
	if value == nil {
		return nil, nil
	}
	var p wire.Proposal
	if err := wire.Decode(value, &p); err != nil {
		return nil, corrupt(wire.ProposalKey(digest), err)
	}
	return &p, nil
}
