// Package status decides what a certificate's status is. It is the one place that does: the contract, the index, OCSP and
// the verifiers all call Evaluate, so they cannot disagree.
package status

import "github.com/certanchor/certanchor/chaincode/wire"

// Status is what a relying party is told.
type Status struct {
	State      wire.CertState
	Reason     wire.Reason // of a hold or revocation
	Time       wire.Millis // when State took effect
	Invalidity wire.Millis // RFC 5280 invalidityDate; 0: none given
	Change     uint64      // number of status changes so far
}

// Evaluate returns the status that the ledger's records give a certificate: rec is its own, the first argument the trust list
// entry of its issuer, which it must have, since the contract accepts no certificate without. It does not look at the validity
// period: an expired certificate keeps its status. The entry decides nothing yet: a suspended CA cannot issue, and what it
// issued before keeps its status until it is revoked.
func Evaluate(_ *wire.CARecord, rec *wire.CertRecord) Status {
	return Status{State: rec.State, Reason: rec.Reason, Time: rec.StatusTime, Invalidity: rec.Invalidity, Change: rec.Change}
}
