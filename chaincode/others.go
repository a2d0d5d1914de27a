package chaincode

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/status"
)

// ending is a change that would take a certificate off hold: a release, or a revocation for another reason than keyCompromise.
type ending struct {
	field string // the operation, in errors
	rec   *wire.CertRecord
	c     *wire.StatusChange
}

// endings returns the changes of a that would take certificates off hold.
func endings(a *wire.SetStatusArg, records []wire.CertRecord) []ending {
	var all []ending
	for i := range a.Changes {
		if e := (ending{fmt.Sprintf("changes[%d].op", i), &records[i], &a.Changes[i]}); e.ends() {
			all = append(all, e)
		}
	}
	return all
}

func (e *ending) ends() bool {
	return e.rec.State == wire.CertHeld && e.c.Op != wire.OpHold && e.c.Reason != wire.KeyCompromise
}

// heedOthers looks at what others have done to certificates that would come off hold.
//
// A hold under which others have revoked is not released: status.Evaluate dates their revocation back to the hold, and a date
// that was told stays. If the operator revokes there, too, its revocation has the hold's date, which is before theirs, so it takes
// over their reason; only keyCompromise may replace it (invariant 4, docs/invariants.md).
//
// What this reads lets the operator's change lose against a revocation by others in the same block, never the other way round.
func (t *transaction) heedOthers(id wire.CAID, ca *wire.CARecord, all []ending) error {
	if len(all) == 0 {
		return nil
	}
	var keys []string
	upTo := make([]int, len(all)) // where the keys about each end
	for i, e := range all {
		sources, err := sourcesOf(id, e)
		if err != nil {
			return err
		}
		keys = append(keys, sources...)
		upTo[i] = len(keys)
	}
	of := len(keys)
	for n := uint64(1); n <= ca.Rules; n++ {
		keys = append(keys, wire.RuleKey(id, n))
	}
	values, err := t.getMany(keys)
	if err != nil {
		return err
	}
	rules, err := decodeRules(keys[of:], values[of:])
	if err != nil {
		return err
	}
	from := 0
	for i, e := range all {
		revocations, err := decodeRevocations(keys[from:upTo[i]], values[from:upTo[i]])
		if err != nil {
			return err
		}
		from = upTo[i]
		others := status.Evaluate(e.rec, revocations, rules)
		if others.State != wire.CertRevoked {
			continue
		}
		if e.c.Op == wire.OpRelease {
			return wire.Errorf(wire.FailedPrecondition, e.field, "release",
				"the key's holder or a majority of the organisations has revoked the certificate, which is final")
		}
		if e.c.Reason != others.Reason {
			e.c.Reason, e.c.Invalidity = others.Reason, 0 // the date belongs to the reason (RFC 5280 5.3.2)
		}
	}
	return nil
}

// sourcesOf returns the keys of the revocations by others that count for a certificate: of a serial number whose certificate nobody has
// shown, only the majority's does.
func sourcesOf(id wire.CAID, e ending) ([]string, error) {
	quorum := wire.RevokeKey(id, e.c.Serial, wire.QuorumSource())
	if e.rec.SerialOnly() {
		return []string{quorum}, nil
	}
	if len(e.rec.SPKIHash) != sha256.Size {
		return nil, corrupt(wire.CertKey(id, e.c.Serial), errors.New("its SPKI hash has another length"))
	}
	return []string{wire.RevokeKey(id, e.c.Serial, wire.HolderSource([sha256.Size]byte(e.rec.SPKIHash))), quorum}, nil
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
