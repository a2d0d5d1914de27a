package ca

import (
	"context"
	"fmt"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/status"
)

// Certificate returns a certificate with its present status. Errors: NotFound for a serial that neither the journal nor the ledger has,
// and for a certificate that the ledger refused; an unknown outcome for one whose way to the ledger has not ended yet.
func (s *Server) Certificate(ctx context.Context, serial wire.Serial) (*caapi.Certificate, error) {
	s, err := s.holder(ctx, serial)
	if err != nil {
		return nil, err
	}
	answer := &caapi.Certificate{CAID: s.issuer.id.String(), Serial: serial.String(), Chain: s.chain()}
	if e := s.book.findSerial(serial); e != nil {
		if st, _ := s.book.stateOf(e); st == stateSigned {
			s.kickResolver()
			return nil, s.unknown(e, errUnresolved)
		}
		got, err := s.released(e)
		if err != nil {
			return nil, notIssued(serial) // a refused certificate never was one
		}
		answer = s.describe(got)
	}
	rec, st, err := s.statusOf(ctx, serial)
	if err != nil {
		return nil, err
	}
	if answer.Certificate == "" {
		place := rec.Final
		if place == nil {
			place, answer.Precertificate = rec.Pre, true
		}
		switch {
		case place != nil:
			answer.LogIndex, answer.Timestamp = place.Index, place.Time.Time().Format(caapi.TimeFormat)
		case rec.Imported:
			answer.Precertificate, answer.SerialOnly = false, true
		default:
			return nil, fmt.Errorf("certificate %s: its record on the ledger has no place in the log", serial)
		}
	}
	answer.Imported, answer.Status = rec.Imported, describeStatus(st)
	if rec.State != wire.CertValid && rec.Asserted != 0 {
		answer.Status.Asserted = rec.Asserted.Time().Format(caapi.TimeFormat)
	}
	answer.Status.StatusLog = s.logged(serial, rec.Change)
	return answer, nil
}

// statusOf evaluates all that the ledger has about a certificate: its record, revocations by others, and the rules about this CA. It
// takes two reads, of which the second may see a newer state: status changes only add to one another, so the result is then one
// that holds now or held a moment ago.
func (s *Server) statusOf(ctx context.Context, serial wire.Serial) (*wire.CertRecord, status.Status, error) {
	fail := func(err error) (*wire.CertRecord, status.Status, error) { return nil, status.Status{}, err }
	id := s.issuer.id
	values, err := s.readState(ctx, wire.CAKey(id), wire.CertKey(id, serial), wire.RevokeKey(id, serial, wire.QuorumSource()))
	if err != nil {
		return fail(err)
	}
	if values[0] == nil || values[1] == nil {
		return fail(notIssued(serial))
	}
	var ca wire.CARecord
	var rec wire.CertRecord
	if err := wire.Decode(values[0], &ca); err != nil {
		return fail(err)
	}
	if err := wire.Decode(values[1], &rec); err != nil {
		return fail(err)
	}
	bare := rec.SerialOnly() && rec.Imported // whose key nobody knows
	if len(rec.SPKIHash) != len(digest{}) && !bare || ca.Rules > wire.MaxRules {
		return fail(fmt.Errorf("certificate %s: its record has a key hash of %d octets, its CA %d rules", serial, len(rec.SPKIHash), ca.Rules))
	}
	keys := []string{wire.RevokeKey(id, serial, wire.QuorumSource())} // again: of this no holder's counts
	if !bare {
		keys[0] = wire.RevokeKey(id, serial, wire.HolderSource(digest(rec.SPKIHash)))
	}
	for n := range ca.Rules {
		keys = append(keys, wire.RuleKey(id, n+1))
	}
	more, err := s.readState(ctx, keys...)
	if err != nil {
		return fail(err)
	}
	var revs []wire.Revocation
	for i, v := range [][]byte{values[2], more[0]} {
		if v != nil && (i == 0 || !bare) {
			var r wire.Revocation
			if err := wire.Decode(v, &r); err != nil {
				return fail(err)
			}
			revs = append(revs, r)
		}
	}
	rules := make([]wire.Rule, ca.Rules)
	for i, v := range more[1:] {
		if v == nil {
			return fail(fmt.Errorf("the ledger has no rule %d about this CA, of %d", i+1, ca.Rules))
		}
		if err := wire.Decode(v, &rules[i]); err != nil {
			return fail(err)
		}
	}
	return &rec, status.Evaluate(&rec, revs, rules), nil
}

func describeStatus(st status.Status) *caapi.Status {
	d := &caapi.Status{State: stateName(st.State), Since: st.Time.Time().Format(caapi.TimeFormat), Change: st.Change}
	if st.Bad() {
		d.Reason = st.Reason.String()
	}
	if st.Invalidity != 0 {
		d.InvalidityDate = st.Invalidity.Time().Format(caapi.TimeFormat)
	}
	return d
}
