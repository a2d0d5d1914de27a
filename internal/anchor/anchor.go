// Package anchor brings certificates and status changes of one CA onto the ledger.
//
// A CA has one log, and every Issue appends to its head, so two of them in flight would conflict. Callers are therefore
// grouped: while one transaction is on its way the next batch collects, and there is never more than one (group commit). Callers with
// the same bytes share one entry and its answer. Who would wait too long, by how long transactions have taken lately, is turned away at
// once, and an entry whose callers have all gone before it was submitted is not submitted: what is overloaded says so, and accepts
// nothing late.
// Status changes travel in a second lane of the same kind, so that a revocation never waits behind a bulk issuance.
//
// What the ledger leaves open is retried here until the caller's context ends: a conflict, an unreachable ledger, and an
// unknown outcome, for which the contract promises that the same bytes lead to the same result.
package anchor

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
)

// Log is one CA's way onto the ledger. Its methods are safe for concurrent use. One Log for a CA is fastest; further ones, in
// this process or others, are correct and take turns (see turns).
type Log struct {
	issues  *lane[[]byte, wire.LogEntry]
	changes *lane[wire.StatusChange, wire.StatusResult]
}

type digest = [sha256.Size]byte

// New starts a Log for the CA caID; Close ends it. Errors name the option that is out of range.
func New(ledger network.Ledger, caID wire.CAID, opts Options) (*Log, error) {
	if err := opts.fill(); err != nil {
		return nil, err
	}
	l := &Log{issues: &lane[[]byte, wire.LogEntry]{function: wire.FnIssue}, changes: &lane[wire.StatusChange, wire.StatusResult]{function: wire.FnSetStatus}}
	l.issues.encode = func(certs [][]byte) []byte { return wire.Encode(wire.NewIssueArg(caID, certs)) }
	l.issues.decode = func(b []byte) ([]wire.LogEntry, error) {
		var r wire.IssueResult
		err := wire.Decode(b, &r)
		return r.Entries, err
	}
	l.issues.recorded = recordedOf(ledger, caID)
	l.issues.turns = turns{head: headOf(ledger, caID), minBackoff: opts.MinBackoff}
	l.changes.encode = func(changes []wire.StatusChange) []byte {
		return wire.Encode(&wire.SetStatusArg{V: wire.Version, CAID: caID, Changes: changes})
	}
	l.changes.decode = func(b []byte) ([]wire.StatusResult, error) {
		var r wire.SetStatusResult
		err := wire.Decode(b, &r)
		return r.Results, err
	}
	l.changes.turns = turns{minBackoff: opts.MinBackoff} // changes of different certificates do not conflict
	l.issues.start(ledger, opts, opts.Metrics.Lane(caID.String(), "issue"))
	opts.MaxWait = -1 // a revocation is worth waiting for
	l.changes.start(ledger, opts, opts.Metrics.Lane(caID.String(), "status"))
	return l, nil
}

// headOf reads the head of a CA's issuance log, encoded; nil when there is none yet.
func headOf(ledger network.Ledger, caID wire.CAID) func(context.Context) ([]byte, error) {
	return func(ctx context.Context) ([]byte, error) {
		ctx, cancel := context.WithTimeout(ctx, headTimeout)
		defer cancel()
		values, err := read(ctx, ledger, wire.LogHeadKey(caID))
		if err != nil {
			return nil, err
		}
		return values[0], nil
	}
}

// read returns the values of keys, nil for each that is absent.
func read(ctx context.Context, ledger network.Ledger, keys ...string) ([][]byte, error) {
	answer, err := ledger.Evaluate(ctx, wire.FnRead, wire.Encode(&wire.ReadArg{V: wire.Version, Keys: keys}))
	if err != nil {
		return nil, err
	}
	var r wire.ReadResult
	if err := wire.Decode(answer, &r); err != nil {
		return nil, err
	}
	if len(r.Values) != len(keys) {
		return nil, fmt.Errorf("%d values for %d keys", len(r.Values), len(keys))
	}
	return r.Values, nil
}

// headTimeout bounds a look at the state: who looks would rather submit.
const headTimeout = time.Second

// Issue records a certificate and returns where it stands in the log once that is committed. The receipt has no Result.
//
// Errors: a *network.RejectedError (nothing was written, and it is this certificate's own fault: others of its batch are
// not affected); errors.Is network.ErrUnavailable (nothing was written); errors.Is network.ErrUnknownOutcome (ctx ended
// after it was submitted at least once: call again with the same bytes to learn what became of it).
func (l *Log) Issue(ctx context.Context, der []byte) (wire.LogEntry, network.Receipt, error) {
	if len(der) == 0 || len(der) > wire.MaxCertDER {
		return wire.LogEntry{}, network.Receipt{}, wire.Errorf(wire.InvalidArgument, "certificate", fmt.Sprintf("%d bytes", len(der)), "must be 1 to %d bytes", wire.MaxCertDER)
	}
	id := sha256.Sum256(der)
	return l.issues.do(ctx, &entry[[]byte, wire.LogEntry]{req: der, key: SerialIn(der), id: &id, size: len(der)})
}

// SetStatus makes one change of a certificate's status and returns the status after it. Errors are those of Issue.
func (l *Log) SetStatus(ctx context.Context, change wire.StatusChange) (wire.StatusResult, network.Receipt, error) {
	if err := change.Serial.Check(); err != nil {
		return wire.StatusResult{}, network.Receipt{}, err
	}
	return l.changes.do(ctx, &entry[wire.StatusChange, wire.StatusResult]{req: change, key: string(change.Serial), size: changeSize})
}

// changeSize is about what a StatusChange takes.
const changeSize = 64

// SerialIn reads the serial number from a certificate or precertificate, the octets of its INTEGER, and nothing else of it. What is not one
// gets a key of its own; the contract will say what is wrong with it.
func SerialIn(der []byte) string {
	s := cryptobyte.String(der)
	var cert, tbs, serial cryptobyte.String
	if !s.ReadASN1(&cert, asn1.SEQUENCE) || !cert.ReadASN1(&tbs, asn1.SEQUENCE) ||
		!tbs.SkipOptionalASN1(asn1.Tag(0).Constructed().ContextSpecific()) || !tbs.ReadASN1(&serial, asn1.INTEGER) {
		return string(der)
	}
	return string(serial)
}

// Down returns why the ledger does not take certificates: the last attempt did not reach a decision, and is being repeated or was
// made a moment ago. While it is not nil new certificates should not be signed. It is nil again after a while without
// attempts, so that somebody finds out.
func (l *Log) Down() error { return l.issues.outage() }

// Admit reserves a place for a certificate before anything is spent on it: Issue with the context that it returns is not turned away
// for a wait. release, which is never nil, gives the place back if it was not used; it may be called again. A context that has a
// place keeps it. Callers are told apart by WithCaller.
//
// Error: network.ErrUnavailable wrapping an *OverloadError: the certificate would wait for longer than Options.MaxWait, or the queue is full.
func (l *Log) Admit(ctx context.Context) (_ context.Context, release func(), err error) {
	ctx, release, err = l.issues.admit(ctx)
	if err != nil {
		err = &network.UnavailableError{Stage: wire.FnIssue, Err: err}
	}
	return ctx, release, err
}

// Full returns Admit's error for a certificate that came now, and reserves nothing.
func (l *Log) Full(ctx context.Context) error {
	q := &l.issues.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.check(callerOf(ctx), wire.MaxCertDER); err != nil {
		return &network.UnavailableError{Stage: wire.FnIssue, Err: err}
	}
	return nil
}

// Close stops both lanes. Waiting callers get ErrUnavailable or ErrUnknownOutcome.
func (l *Log) Close() {
	l.issues.close()
	l.changes.close()
}
