package chaincode

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/status"
)

// heedOthers looks at what others have done to certificates that a would take off hold.
//
// A hold under which others have revoked is not released: status.Evaluate dates their revocation back to the hold, and a date
// that was told stays. If the operator revokes there, too, its revocation has the hold's date, which is before theirs, so it takes
// over their reason; only keyCompromise may replace it (invariant 4, docs/invariants.md).
//
// What this reads lets the operator's change lose against a revocation by others in the same block, never the other way round.
func (t *transaction) heedOthers(a *wire.SetStatusArg, ca *wire.CARecord, records []wire.CertRecord) error {
	var ending []int
	var keys []string
	for i := range a.Changes {
		c := &a.Changes[i]
		if records[i].State != wire.CertHeld || c.Op == wire.OpHold || c.Reason == wire.KeyCompromise {
			continue
		}
		if len(records[i].SPKIHash) != sha256.Size {
			return corrupt(wire.CertKey(a.CAID, c.Serial), errors.New("its SPKI hash has another length"))
		}
		ending = append(ending, i)
		keys = append(keys,
			wire.RevokeKey(a.CAID, c.Serial, wire.HolderSource([sha256.Size]byte(records[i].SPKIHash))),
			wire.RevokeKey(a.CAID, c.Serial, wire.QuorumSource()))
	}
	if len(ending) == 0 {
		return nil
	}
	for n := uint64(1); n <= ca.Rules; n++ {
		keys = append(keys, wire.RuleKey(a.CAID, n))
	}
	values, err := t.getMany(keys)
	if err != nil {
		return err
	}
	rules, err := decodeRules(keys[2*len(ending):], values[2*len(ending):])
	if err != nil {
		return err
	}
	for n, i := range ending {
		revocations, err := decodeRevocations(keys[2*n:2*n+2], values[2*n:2*n+2])
		if err != nil {
			return err
		}
		others := status.Evaluate(&records[i], revocations, rules)
		if others.State != wire.CertRevoked {
			continue
		}
		c := &a.Changes[i]
		if c.Op == wire.OpRelease {
			return wire.Errorf(wire.FailedPrecondition, fmt.Sprintf("changes[%d].op", i), "release",
				"the key's holder or a majority of the organisations has revoked the certificate, which is final")
		}
		if c.Reason != others.Reason {
			c.Reason, c.Invalidity = others.Reason, 0 // the date belongs to the reason (RFC 5280 5.3.2)
		}
	}
	return nil
}

// decodeRevocations skips the keys that are not there.
func decodeRevocations(keys []string, values [][]byte) ([]wire.Revocation, error) {
	var revocations []wire.Revocation
	for i, value := range values {
		if value == nil {
			continue
		}
		var r wire.Revocation
		if err := wire.Decode(value, &r); err != nil {
			return nil, corrupt(keys[i], err)
		}
		revocations = append(revocations, r)
	}
	return revocations, nil
}

func decodeRules(keys []string, values [][]byte) ([]wire.Rule, error) {
	rules := make([]wire.Rule, len(keys))
	for i, value := range values {
		if err := wire.Decode(value, &rules[i]); err != nil { // absent: a CA record counts rules that are there
			return nil, corrupt(keys[i], err)
		}
	}
	return rules, nil
}
