// Package anchor brings certificates and status changes of one CA onto the ledger.
//
// A CA has one log, and every Issue appends to its head, so two of them in flight would conflict. Callers are therefore
// grouped: while one transaction is on its way the next batch collects, and there is never more than one (group commit).
// Status changes travel in a second lane of the same kind, so that a revocation never waits behind a bulk issuance.
//
// What the ledger leaves open is retried here until the caller's context ends: a conflict, an unreachable ledger, and an
// unknown outcome, for which the contract promises that the same bytes lead to the same result.
package anchor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
)

// Options of a Log. A zero field takes its default.
type Options struct {
	MaxBatch      int              // entries in one transaction, at most wire.MaxBatch; default 200
	MaxBytes      int              // bytes of certificates in one transaction, at most 4 MiB; default 512 KiB
	MaxQueue      int              // callers that may wait in each lane; default 4096
	SubmitTimeout time.Duration    // of one attempt; default 20 s
	MinBackoff    time.Duration    // between attempts, doubled each time and jittered; default 5 ms
	MaxBackoff    time.Duration    // default 1 s
	Logger        *slog.Logger     // default slog.Default
	Now           func() time.Time // default time.Now
}

const (
	defaultBatch  = 200 // bytes are what costs: 200 of 1.2 kB commit as fast per certificate as 1000 do
	defaultBytes  = 512 << 10
	defaultQueue  = 4096
	maxBatchBytes = wire.MaxArgBytes / 2
)

// Validate refuses options that are out of range. Errors are *wire.Error and name the option.
func (o Options) Validate() error { return o.fill() }

func (o *Options) fill() error {
	orInt := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	orTime := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	orInt(&o.MaxBatch, defaultBatch)
	orInt(&o.MaxBytes, defaultBytes)
	orInt(&o.MaxQueue, defaultQueue)
	orTime(&o.SubmitTimeout, 20*time.Second)
	orTime(&o.MinBackoff, 5*time.Millisecond)
	orTime(&o.MaxBackoff, time.Second)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	for _, c := range []struct {
		ok    bool
		field string
		value any
		rule  string
	}{
		{o.MaxBatch >= 1 && o.MaxBatch <= wire.MaxBatch, "max_batch", o.MaxBatch, fmt.Sprintf("must be 1 to %d", wire.MaxBatch)},
		{o.MaxBytes >= wire.MaxCertDER && o.MaxBytes <= maxBatchBytes, "max_batch_bytes", o.MaxBytes, fmt.Sprintf("must be %d (one certificate) to %d", wire.MaxCertDER, maxBatchBytes)},
		{o.MaxQueue >= 1, "max_queue", o.MaxQueue, "must be at least 1"},
		{o.SubmitTimeout > 0, "submit_timeout", o.SubmitTimeout, "must be positive"},
		{o.MinBackoff > 0 && o.MaxBackoff >= o.MinBackoff, "max_backoff", o.MaxBackoff, "must not be less than min_backoff, which must be positive"},
	} {
		if !c.ok {
			return wire.Errorf(wire.InvalidArgument, c.field, fmt.Sprint(c.value), "%s", c.rule)
		}
	}
	return nil
}

// Log is one CA's way onto the ledger. Its methods are safe for concurrent use. There must be one Log for a CA in the
// whole organisation: a second one is correct, but the two conflict all the time.
type Log struct {
	issues  *lane[[]byte, wire.LogEntry]
	changes *lane[wire.StatusChange, wire.StatusResult]
}

// New starts a Log for the CA caID; Close ends it. Errors name the option that is out of range.
func New(ledger network.Ledger, caID wire.CAID, opts Options) (*Log, error) {
	if err := opts.fill(); err != nil {
		return nil, err
	}
	l := &Log{
		issues: &lane[[]byte, wire.LogEntry]{
			function: wire.FnIssue,
			encode: func(certs [][]byte) []byte {
				return wire.Encode(&wire.IssueArg{V: wire.Version, CAID: caID, Certs: certs})
			},
			decode: func(b []byte) ([]wire.LogEntry, error) {
				var r wire.IssueResult
				err := wire.Decode(b, &r)
				return r.Entries, err
			},
			size: func(der []byte) int { return len(der) },
			key:  func(der []byte) string { return string(der) },
		},
		changes: &lane[wire.StatusChange, wire.StatusResult]{
			function: wire.FnSetStatus,
			encode: func(changes []wire.StatusChange) []byte {
				return wire.Encode(&wire.SetStatusArg{V: wire.Version, CAID: caID, Changes: changes})
			},
			decode: func(b []byte) ([]wire.StatusResult, error) {
				var r wire.SetStatusResult
				err := wire.Decode(b, &r)
				return r.Results, err
			},
			size: func(wire.StatusChange) int { return 64 },
			// The contract refuses a serial that occurs twice in one transaction.
			key: func(c wire.StatusChange) string { return string(c.Serial) },
		},
	}
	l.issues.start(ledger, opts)
	l.changes.start(ledger, opts)
	return l, nil
}

// Issue records a certificate and returns where it stands in the log once that is committed. The receipt has no Result.
//
// Errors: a *network.RejectedError (nothing was written, and it is this certificate's own fault: others of its batch are
// not affected); errors.Is network.ErrUnavailable (nothing was written); errors.Is network.ErrUnknownOutcome (ctx ended
// after it was submitted at least once: call again with the same bytes to learn what became of it).
func (l *Log) Issue(ctx context.Context, der []byte) (wire.LogEntry, network.Receipt, error) {
	if len(der) == 0 || len(der) > wire.MaxCertDER {
		return wire.LogEntry{}, network.Receipt{}, wire.Errorf(wire.InvalidArgument, "certificate", fmt.Sprintf("%d bytes", len(der)), "must be 1 to %d bytes", wire.MaxCertDER)
	}
	return l.issues.do(ctx, der)
}

// SetStatus makes one change of a certificate's status and returns the status after it. Errors are those of Issue.
func (l *Log) SetStatus(ctx context.Context, change wire.StatusChange) (wire.StatusResult, network.Receipt, error) {
	if err := change.Serial.Check(); err != nil {
		return wire.StatusResult{}, network.Receipt{}, err
	}
	return l.changes.do(ctx, change)
}

// Down returns why the ledger does not take certificates: the last attempt did not reach a decision, and is being repeated or was
// made a moment ago. While it is not nil new certificates should not be signed. It is nil again after a while without
// attempts, so that somebody finds out.
func (l *Log) Down() error { return l.issues.outage() }

// Close stops both lanes. Waiting callers get ErrUnavailable or ErrUnknownOutcome.
func (l *Log) Close() {
	l.issues.close()
	l.changes.close()
}

var errQueueFull = errors.New("too many requests are waiting for the ledger")
