package ca

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/dual"
	"github.com/certanchor/certanchor/internal/oplog"
	"github.com/certanchor/certanchor/internal/problem"
)

// operators keeps the operators' log (docs/operators-log.md): nothing is done for a client of the API before the log has a durable record of it.
//
// The log must contain the head that is anchored in the ledger before anything is added to it: otherwise it is an old copy, and would be
// another history than the one that the ledger knows.
type operators struct {
	server *Server
	log    *oplog.Log
	set    OperatorsLogSettings

	settled atomic.Bool // compared with the ledger, and found to go on where that ends; until then nothing is done

	mu       sync.Mutex
	first    chan struct{}       // closed after the first attempt to settle, or when that is known to take long
	ready    chan struct{}       // closed when it is settled for the first time
	begun    sync.Once           // closes first
	problem  error               // why it is not settled, or must not go on
	anchored *wire.OperatorsHead // newest; nil: none yet
	since    time.Time           // when the oldest record that is not anchored was there; zero: all are, or the CA is not registered yet
	failure  error               // of the last attempt to anchor

	refusals refusals

	// What an earlier process left; fixed before run begins.
	generation uint64    // of the log
	started    time.Time // no transaction of an earlier process began after this
	left       []*oplog.Record
	signedIn   map[uint64]*signedCert // by the unfinished action's number; nil: nothing was signed. Under mu

	kick chan struct{} // capacity 1: try again now
	done sync.WaitGroup
}

// loadOperators opens the log; the generations of a CA's key share that of the first, for they have one API. It comes before the journal, whose
// records tell how actions ended.
func (s *Server) loadOperators(cfg Config) error {
	if cfg.line != nil {
		s.operators = cfg.line.list()[0].operators
		return nil
	}
	dir := cfg.Dir
	log, err := oplog.OpenWith(dir, oplog.Options{Now: s.now, Log: s.log, Each: s.dual.policyTold, Name: &s.settings.OperatorsLog.Name})
	if err != nil {
		return err
	}
	if err := s.dual.checkHistory(); err != nil {
		return errors.Join(err, log.Close())
	}
	s.operators = &operators{server: s, log: log, set: s.settings.OperatorsLog.withDefaults(), first: make(chan struct{}), kick: make(chan struct{}, 1), started: s.now(), generation: log.Generation(), left: log.Unfinished(), signedIn: map[uint64]*signedCert{}, ready: make(chan struct{})}
	for _, u := range s.operators.left {
		s.operators.signedIn[u.Seq] = nil
	}
	s.metrics.Gauge("ca_operators_log_records", "Records of the operators' log.", func() float64 { return float64(log.Size()) })
	s.metrics.Gauge("ca_operators_log_unanchored_seconds", "How long the oldest record of the operators' log has waited for its anchor in the ledger.",
		func() float64 { return s.operators.waiting().Seconds() })
	return nil
}

// usable is nil when actions can be recorded. It waits for the first comparison with the ledger, which has just begun.
func (o *operators) usable(ctx context.Context) error {
	err := o.state(ctx)
	if err == nil {
		err = o.log.Health()
	}
	if err == nil {
		return nil
	}
	if unavailable(err) { // the ledger's condition, which has an answer of its own
		return err
	}
	return problem.New(http.StatusServiceUnavailable, problem.CodeUnavailable, "operators_log", "",
		fmt.Sprintf("must have a record of every action before it begins, and cannot be written; nothing was changed: %v", err))
}

func (o *operators) state(ctx context.Context) error {
	if o.settled.Load() {
		return nil
	}
	select {
	case <-o.first:
	case <-ctx.Done():
		return ctx.Err()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.problem != nil {
		select {
		case o.kick <- struct{}{}:
		default:
		}
	}
	return o.problem
}

// operation is an action of a client while it runs.
type operation struct {
	log *oplog.Log
	seq uint64 // in the log
	ref uint64 // for the journal

	mu     sync.Mutex
	target string
	detail map[string]string
}

type operationKey struct{}

// operationOf returns the operation that a request's context belongs to; nil, whose methods do nothing, for none.
func operationOf(ctx context.Context) *operation {
	o, _ := ctx.Value(operationKey{}).(*operation)
	return o
}

// note adds a detail to the record of how the operation ended.
func (o *operation) note(key, value string) {
	if o == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.detail == nil {
		o.detail = map[string]string{}
	}
	o.detail[key] = value
}

// about names what the operation was found to be about.
func (o *operation) about(target string) {
	if o == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.target = target
}

// reference is what the journal's record of a certificate says about the operation that it was signed in; 0 for none.
func (o *operation) reference() uint64 {
	if o == nil {
		return 0
	}
	return o.ref
}

// refBits leaves room for a trillion records of each generation.
const refBits = 40

func referenceTo(generation, seq uint64) uint64 { return generation<<refBits | seq }

// begin records that something is about to be done.
func (o *operators) begin(ctx context.Context, e oplog.Entry) (*operation, error) {
	if err := o.usable(ctx); err != nil {
		return nil, err
	}
	seq, err := o.log.Record(e)
	if err != nil {
		return nil, problem.New(http.StatusServiceUnavailable, problem.CodeUnavailable, "operators_log", "",
			fmt.Sprintf("must have a record of every action before it begins, and cannot be written; nothing was changed: %v", err))
	}
	o.grew()
	return &operation{log: o.log, seq: seq, ref: referenceTo(o.log.Generation(), seq)}, nil
}

// end records how it ended. What cannot be recorded any more is found without an outcome at the next start.
func (o *operators) end(op *operation, outcome string) {
	op.mu.Lock()
	defer op.mu.Unlock()
	if err := o.log.End(op.seq, outcome, op.target, op.detail); err != nil {
		o.server.log.Error("the operators' log did not take the outcome of an action", "record", op.seq, "outcome", outcome, "error", err)
	}
	o.grew()
}

// operated records an action of a client of the API beside the one that guard records by itself. It is durable when it returns; an error
// means that the action must not be carried out. c may be nil.
func (s *Server) operated(r *http.Request, c *client, e oplog.Entry) error {
	if err := s.operators.usable(r.Context()); err != nil {
		return err
	}
	e = attributed(r, c, e)
	_, err := s.operators.log.Record(e)
	s.operators.grew()
	return err
}

// attributed says whose entry it is.
func attributed(r *http.Request, c *client, e oplog.Entry) oplog.Entry {
	if e.Actor == "" && c != nil {
		e.Actor, e.How = c.name, c.how
	}
	if e.Source == "" {
		e.Source = sourceOf(r)
	}
	return e
}

// sourceOf is the address that a connection comes from. Behind a proxy that is the proxy's: headers that tell of another one are not
// believed.
func sourceOf(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// internally runs fn as an action of this process itself, such as a bridge's that runs in it.
func (o *operators) internally(ctx context.Context, e oplog.Entry, fn func(context.Context) error) error {
	e.How = "process"
	op, err := o.begin(ctx, e)
	if err != nil {
		return err
	}
	outcome := oplog.Unknown
	defer func() { o.end(op, outcome) }()
	err = fn(context.WithValue(ctx, operationKey{}, op))
	outcome = outcomeOf(err, 0)
	return err
}

// approvedEntry is what the log says before an operation is carried out that its operators have approved.
func approvedEntry(rec *dual.Record) oplog.Entry {
	names := make([]string, len(rec.Approvals))
	for i, a := range rec.Approvals {
		names[i] = a.Operator
	}
	return oplog.Entry{
		Actor: "dual control", Action: "carry out " + rec.Operation.Kind, Target: rec.Operation.ID(),
		Detail: map[string]string{"approved by": strings.Join(names, " "), "asked for by": rec.Client},
	}
}
