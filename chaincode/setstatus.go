package chaincode

import (
	"fmt"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// setStatus changes the status of certificates of one CA. It reads and writes the certificates' own records only, beside the
// trust list entry and the clock, so that it does not compete with issuance. What ends a hold also reads what others have
// revoked (docs/decisions/0007-status-by-others.md).
func setStatus(t *transaction, arg []byte) ([]byte, error) {
	var a wire.SetStatusArg
	if err := wire.Decode(arg, &a); err != nil {
		return nil, badArgument(arg, err)
	}
	if err := checkBatch("changes", len(a.Changes)); err != nil {
		return nil, err
	}
	keys, err := changedKeys(&a, t.now)
	if err != nil {
		return nil, err
	}
	values, err := t.admit(operators, wire.CAKey(a.CAID))
	if err != nil {
		return nil, err
	}
	ca, err := t.operatedCA(a.CAID, values[0])
	if err != nil {
		return nil, err
	}
	values, err = t.getMany(keys)
	if err != nil {
		return nil, err
	}
	records, err := decodeRecords(&a, keys, values)
	if err != nil {
		return nil, err
	}
	if err := t.heedOthers(a.CAID, ca, endings(&a, records)); err != nil {
		return nil, err
	}
	result := &wire.SetStatusResult{V: wire.Version, Results: make([]wire.StatusResult, len(keys))}
	for i := range a.Changes {
		r, err := t.changeStatus(fmt.Sprintf("changes[%d]", i), keys[i], &records[i], ca, &a, i)
		if err != nil {
			return nil, err
		}
		result.Results[i] = *r
	}
	return wire.Encode(result), nil
}

// decodeRecords returns the records that a is about.
func decodeRecords(a *wire.SetStatusArg, keys []string, values [][]byte) ([]wire.CertRecord, error) {
	records := make([]wire.CertRecord, len(keys))
	for i, value := range values {
		if value == nil {
			return nil, wire.Errorf(wire.NotFound, fmt.Sprintf("changes[%d].serial", i), a.Changes[i].Serial.String(), "must be the serial of a certificate of this CA that is on the ledger")
		}
		if err := wire.Decode(value, &records[i]); err != nil {
			return nil, corrupt(keys[i], err)
		}
	}
	return records, nil
}

// changedKeys checks what can be checked without state and returns the keys of the records.
func changedKeys(a *wire.SetStatusArg, now wire.Millis) ([]string, error) {
	keys := make([]string, len(a.Changes))
	first := make(map[string]int, len(a.Changes))
	for i := range a.Changes {
		field := fmt.Sprintf("changes[%d]", i)
		c := &a.Changes[i]
		if c.Serial.Check() != nil {
			return nil, invalid(field+".serial", c.Serial.String(), "must be 1 to %d octets without a leading zero (RFC 5280 section 4.1.2.2)", wire.MaxSerial)
		}
		if err := checkChange(field, c, now); err != nil {
			return nil, err
		}
		keys[i] = wire.CertKey(a.CAID, c.Serial)
		if other, twice := first[keys[i]]; twice {
			return nil, invalid(field+".serial", c.Serial.String(), "must not repeat in one batch: it is also the serial of changes[%d]", other)
		}
		first[keys[i]] = i
	}
	return keys, nil
}

// checkChange says whether operation, reason and invalidity date go together.
func checkChange(field string, c *wire.StatusChange, now wire.Millis) error {
	switch c.Op {
	case wire.OpRevoke:
		return checkRevocation(field+".", c.Reason, c.Invalidity, now)
	case wire.OpHold:
		if c.Reason != wire.CertificateHold {
			return invalid(field+".reason", c.Reason.String(), "must be certificateHold for a hold")
		}
	case wire.OpRelease:
		if c.Reason != wire.Unspecified {
			return invalid(field+".reason", c.Reason.String(), "must be unspecified for a release")
		}
	default:
		return invalid(field+".op", fmt.Sprint(uint(c.Op)), "must be 1 (revoke), 2 (hold) or 3 (release)")
	}
	if c.Invalidity != 0 {
		return invalid(field+".invalidity", timeText(c.Invalidity.Time()), "only a revocation has an invalidity date")
	}
	return nil
}

// checkRevocation says whether a revocation may carry reason and invalidity date. Errors name fields that begin with prefix.
func checkRevocation(prefix string, reason wire.Reason, invalidity, now wire.Millis) error {
	// RFC 5280 5.3.1. An unknown reason is refused, never recorded as unspecified.
	if !reason.Known() {
		return invalid(prefix+"reason", fmt.Sprint(uint(reason)), "must be a CRLReason of RFC 5280 section 5.3.1 other than removeFromCRL")
	}
	if reason == wire.CertificateHold {
		return invalid(prefix+"reason", reason.String(), "is the reason of a hold, not of a revocation")
	}
	// RFC 5280 5.3.2
	if invalidity < 0 || invalidity > now {
		return invalid(prefix+"invalidity", timeText(invalidity.Time()), "must be from 1970 to the transaction's time, %s", timeText(now.Time()))
	}
	return nil
}

// changeStatus makes the i-th change of a.
func (t *transaction) changeStatus(field, key string, rec *wire.CertRecord, ca *wire.CARecord, a *wire.SetStatusArg, i int) (*wire.StatusResult, error) {
	c := &a.Changes[i]
	changed, err := apply(field, rec, c, ca.State, t.now)
	if err != nil {
		return nil, err
	}
	if changed {
		t.put(key, wire.Encode(rec))
		t.putLeaf(rec.Leaf(a.CAID, c.Serial))
	}
	return &wire.StatusResult{State: rec.State, Reason: rec.Reason, Time: rec.StatusTime, Change: rec.Change, Changed: changed}, nil
}
