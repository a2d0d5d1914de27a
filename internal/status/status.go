// Package status decides what a certificate's status is. It is the one place that does: the contract, the index, OCSP and
// the verifiers all call Evaluate, so they cannot disagree.
package status

import (
	"bytes"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// Unknown is the state of what the ledger has no certificate of and nobody has put on hold or revoked: a serial number that was imported
// alone. Nobody is told that it is good; it is answered as if it had never been issued.
const Unknown wire.CertState = 0

// Status is what a relying party is told.
type Status struct {
	State      wire.CertState
	Reason     wire.Reason // of a hold or revocation
	Time       wire.Millis // when State took effect on the ledger
	Asserted   wire.Millis // of a hold or revocation that was imported: since when, as the CA says; 0: nothing else than Time
	Antedated  bool        // Asserted counts: the ledger never called the certificate good before
	Invalidity wire.Millis // RFC 5280 invalidityDate; 0: none given
	Change     uint64      // number of status changes so far, by whomever
}

// Bad reports whether the certificate is on hold or revoked, which is what CRLs list.
func (s Status) Bad() bool { return s.State == wire.CertHeld || s.State == wire.CertRevoked }

// Since is the date that OCSP and CRLs tell of a hold or revocation (RFC 6960 section 2.4 revocationTime, RFC 5280 section 5.1.2.6
// revocationDate): Time, or the date that the CA asserted if that counts and is earlier.
func (s Status) Since() wire.Millis {
	if s.Antedated && s.Asserted != 0 {
		return min(s.Time, s.Asserted)
	}
	return s.Time
}

// Evaluate returns the status that the ledger gives a certificate: rec is its record, revs are the revocations of its serial by
// others and rules those about its CA, both in any order. What does not apply to this certificate is skipped. The validity period is
// not looked at: an expired certificate keeps its status. A suspended CA cannot issue, and what it issued before keeps its status
// until a rule or somebody revokes it.
//
// The result is a join: it does not depend on who came first. Whoever revokes makes it revoked for good. The date is the
// earliest of all revocations, or the hold's if the record is on hold: the contract releases no hold of a certificate that others
// have revoked. The reason is the earliest one's, unless any of them says keyCompromise; the invalidity date, the earliest that was
// given with that reason.
//
// The date that the CA asserted when it imported a hold or revocation counts only if that came with the import that made the record, or that
// gave a serial number its first status (CertRecord.Antedated): of what the ledger has called good nobody tells that it was revoked before the
// ledger said so.
func Evaluate(rec *wire.CertRecord, revs []wire.Revocation, rules []wire.Rule) Status {
	own := Status{State: rec.State, Reason: rec.Reason, Time: rec.StatusTime, Invalidity: rec.Invalidity, Change: rec.Change}
	if own.Bad() {
		own.Asserted, own.Antedated = rec.Asserted, rec.Imported && rec.Antedated
	}
	var few [4]revocation
	all := few[:0]
	if own.State == wire.CertRevoked {
		all = append(all, revocation{own.Reason, own.Time, own.Invalidity})
	}
	for i := range revs {
		if r := &revs[i]; Applies(r, rec.SPKIHash) {
			all = append(all, revocation{r.Reason, r.Time, r.Invalidity})
			own.Change += r.Change
		}
	}
	for i := range rules {
		if r := &rules[i]; Covers(r, rec.Pre) || Covers(r, rec.Final) {
			all = append(all, revocation{r.Reason, r.Time, r.Invalidity})
			own.Change++
		}
	}
	if len(all) == 0 {
		if rec.SerialOnly() && !own.Bad() {
			own.State = Unknown
		}
		return own
	}
	joined := join(all)
	if own.State == wire.CertHeld {
		joined.time = min(joined.time, own.Time)
	}
	return Status{State: wire.CertRevoked, Reason: joined.reason, Time: joined.time, Asserted: own.Asserted, Antedated: own.Antedated, Invalidity: joined.invalidity, Change: own.Change}
}

// Applies reports whether r counts for a certificate whose SubjectPublicKeyInfo has the given SHA-256.
func Applies(r *wire.Revocation, spkiHash []byte) bool {
	return r.Source == wire.SourceQuorum || r.Source == wire.SourceHolder && bytes.Equal(r.SPKIHash, spkiHash)
}

// Covers reports whether r is about the log entry e, which may be nil.
func Covers(r *wire.Rule, e *wire.LogEntry) bool {
	return e != nil && r.From <= e.Time && e.Time < r.To
}

// revocation is what one party says.
type revocation struct {
	reason     wire.Reason
	time       wire.Millis
	invalidity wire.Millis // 0: none given
}

// join returns what all of them say together, in whatever order they are. Requires at least one.
func join(all []revocation) revocation {
	first, earliest := all[0], all[0].time
	for _, r := range all[1:] {
		if less(r, first) {
			first = r
		}
		earliest = min(earliest, r.time)
	}
	invalidity := wire.Millis(0)
	for _, r := range all {
		if r.reason == first.reason && r.invalidity != 0 && (invalidity == 0 || r.invalidity < invalidity) {
			invalidity = r.invalidity
		}
	}
	return revocation{first.reason, earliest, invalidity}
}

// less orders revocations by whose reason counts: key compromise before all, then the earliest.
func less(a, b revocation) bool {
	if ka, kb := a.reason == wire.KeyCompromise, b.reason == wire.KeyCompromise; ka != kb {
		return ka
	}
	if a.time != b.time {
		return a.time < b.time
	}
	return a.reason < b.reason
}
