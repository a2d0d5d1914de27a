package chaincode

import (
	"fmt"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// apply changes rec as c says and reports whether anything changed. What is so already succeeds unchanged, so that every
// operation can be retried.
//
//	         hold            revoke                    release
//	valid    held            revoked                   unchanged if it was held before, else refused
//	held     unchanged       revoked, date of hold     valid
//	revoked  refused         unchanged, or reason      refused
//	                         becomes keyCompromise
//
// No change of a record takes effect before the one before it.
func apply(field string, rec *wire.CertRecord, c *wire.StatusChange, ca wire.CAState, now wire.Millis) (changed bool, err error) {
	effective := max(now, rec.StatusTime)
	switch c.Op {
	case wire.OpHold:
		return hold(field+".op", rec, effective)
	case wire.OpRevoke:
		return revoke(rec, c, effective), nil
	default:
		return release(field+".op", rec, ca, effective)
	}
}

func hold(field string, rec *wire.CertRecord, effective wire.Millis) (bool, error) {
	switch rec.State {
	case wire.CertHeld:
		return false, nil
	case wire.CertRevoked:
		return false, wire.Errorf(wire.FailedPrecondition, field, "hold", "the certificate is revoked (%s), which is final", rec.Reason)
	}
	if err := flap(field, "hold", rec, effective); err != nil {
		return false, err
	}
	rec.State, rec.Reason, rec.StatusTime, rec.Asserted, rec.Antedated = wire.CertHeld, wire.CertificateHold, effective, 0, false
	rec.Change++
	return true, nil
}

// release lifts a hold. While the CA is suspended nothing that would restore trust in its certificates is done.
func release(field string, rec *wire.CertRecord, ca wire.CAState, effective wire.Millis) (bool, error) {
	switch {
	case rec.State == wire.CertRevoked:
		return false, wire.Errorf(wire.FailedPrecondition, field, "release", "the certificate is revoked (%s), which is final", rec.Reason)
	// The last change of a certificate that has some and is valid was a release.
	case rec.State == wire.CertValid && rec.Change > 0:
		return false, nil
	case rec.State == wire.CertValid:
		return false, wire.Errorf(wire.FailedPrecondition, field, "release", "the certificate is not on hold and never was")
	case ca != wire.CAActive:
		return false, wire.Errorf(wire.FailedPrecondition, "ca.state", fmt.Sprint(ca), "must be active (%d) to release a hold", wire.CAActive)
	}
	if err := flap(field, "release", rec, effective); err != nil {
		return false, err
	}
	rec.State, rec.Reason, rec.StatusTime, rec.Antedated = wire.CertValid, wire.Unspecified, effective, false // Asserted stays: see importing.hold
	rec.Change++
	return true, nil
}

// flapWindow is the time in which a certificate may flap wire.MaxFlaps times.
const flapWindow = wire.Millis(time.Minute / time.Millisecond)

// flap counts a hold or release, which every organisation has to store and log for ever. Revocations are not counted: there are
// two at most.
func flap(field, op string, rec *wire.CertRecord, effective wire.Millis) error {
	if rec.Window == 0 || effective >= rec.Window+flapWindow {
		rec.Window, rec.Flaps = effective, 0
	}
	if rec.Flaps >= wire.MaxFlaps {
		return wire.Errorf(wire.FailedPrecondition, field, op, "the certificate has gone on hold or been released %d times since %s, the limit for a minute",
			rec.Flaps, timeText(rec.Window.Time()))
	}
	rec.Flaps++
	return nil
}

// revoke makes a revocation, which is final and keeps its date (invariant 4, docs/invariants.md).
func revoke(rec *wire.CertRecord, c *wire.StatusChange, effective wire.Millis) bool {
	if rec.State == wire.CertRevoked {
		// The one thing that may become known later. The invalidity date belongs to the reason (RFC 5280 5.3.2).
		if c.Reason != wire.KeyCompromise || rec.Reason == wire.KeyCompromise {
			return false
		}
		if c.Invalidity != 0 {
			rec.Invalidity = c.Invalidity
		}
		rec.Reason = wire.KeyCompromise
		rec.Change++
		return true
	}
	// X.509 reasonCode: a hold that becomes a revocation keeps the date of the hold. Nothing that was signed under the
	// hold may become acceptable again by it. So does the date that the CA asserted, if it did.
	if rec.State == wire.CertValid {
		rec.StatusTime, rec.Asserted, rec.Antedated = effective, 0, false
	}
	rec.State, rec.Reason, rec.Invalidity = wire.CertRevoked, c.Reason, c.Invalidity
	rec.Change++
	return true
}
