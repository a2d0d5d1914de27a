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

// Evaluate returns the status that the ledger's records give a certificate. It does not look at the validity period: an
// expired certificate keeps its status. ca must be the trust list entry of the certificate's issuer: a certificate whose
// issuer has none was never accepted by the contract. A suspended CA cannot issue; what it issued before keeps its status
// until it is revoked.
func Evaluate(ca *wire.CARecord, rec *wire.CertRecord) Status {
	_ = ca.State
	return Status{State: rec.State, Reason: rec.Reason, Time: rec.StatusTime, Invalidity: rec.Invalidity, Change: rec.Change}
}
