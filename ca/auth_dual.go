package ca

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/dual"
	"github.com/certanchor/certanchor/internal/hsm"
	"github.com/certanchor/certanchor/network"
)

// dualControl is what needs several operators here. It is safe for concurrent use.
type dualControl struct {
	dir    string
	policy atomic.Pointer[dual.Policy] // holds nil if there is none
	store  *dual.Store

	// executors carry out approved operations, by kind. They get the contents that the operation is about. What they do must be the same when it is
	// done twice: a process that dies in between leaves it to the next. The map is written before the server runs.
	executors map[string]executor

	mu      sync.Mutex
	running map[string]chan struct{} // operations under way; closed when the attempt has ended

	stamp string // of the watching goroutine: the files as they were last read
	told  string // what the operators' log says is in force; empty: nothing. Of the goroutine of tellPolicy, once that runs
}

// executor returns what the operation's record is to say about the outcome. An error for which later is true leaves the operation approved, to be
// tried again; any other one ends it.
type executor func(ctx context.Context, op dual.Operation, contents []byte) (any, error)

// dualRetry is how long after an attempt that failed for want of the ledger an approved operation is tried again.
const dualRetry = 2 * time.Second

// loadDual reads the policy and the operations that wait. It comes before anything is taken from a file that the policy is about. Errors:
// dual.ErrRemoved; dual.ErrNotApproved.
func (s *Server) loadDual(cfg Config) error {
	if cfg.line != nil { // the generations of a key share it
		s.dual = s.first().dual
		return nil
	}
	dir := cfg.Dir
	d := &dualControl{dir: dir, running: map[string]chan struct{}{}}
	d.executors = map[string]executor{dual.KindRevoke: s.revokeApproved, dual.KindKeyResume: s.resumeApproved, dual.KindProfiles: s.replaceApproved, dual.KindPolicy: s.replaceApproved}
	d.stamp = d.filesStamp()
	p, err := dual.LoadPolicy(dir)
	if err != nil {
		return err
	}
	d.policy.Store(p)
	d.store, err = dual.OpenStore(dir, s.now)
	s.dual = d
	return err
}

func (d *dualControl) filesStamp() string {
	return stampOf(filepath.Join(d.dir, dual.PolicyFile)) + stampOf(filepath.Join(d.dir, "dual", "state.json"))
}

// reload reads the policy again if it has changed.
func (d *dualControl) reload(all bool) error {
	stamp := d.filesStamp()
	if stamp == d.stamp && !all {
		return nil
	}
	d.stamp = stamp
	return d.use()
}

// use takes the policy that is in place now, if it came after the one in force by approvals or by dual.Abandon: files that were taken away, also with all that
// dual control keeps beside them, switch nothing off. Errors: dual.ErrRemoved, and those of dual.LoadPolicy.
func (d *dualControl) use() error {
	p, err := dual.LoadPolicy(d.dir)
	if err != nil {
		return err
	}
	if before := d.policy.Load(); before != nil && (p == nil || p.Digest() != before.Digest()) {
		ok, err := dual.Succeeds(d.dir, before.Digest())
		if err == nil && !ok {
			err = fmt.Errorf("%s: must exist, with SHA-256 %s and the state beside it that says so: %w", filepath.Join(d.dir, dual.PolicyFile), before.Digest(), dual.ErrRemoved)
		}
		if err != nil {
			return err
		}
	}
	d.policy.Store(p)
	return nil
}

// underDual asks for approvals where the policy wants them for an operation of this kind on n objects: then it answers 202 with the operation, and
// returns true; nothing is to be done. contents are what the operation's executor will get, their digest is in the operation; params say in words
// what is going to be done.
func (s *Server) underDual(w http.ResponseWriter, c *client, kind string, n int, params map[string]string, contents []byte) (bool, error) {
	p := s.dual.policy.Load()
	if !p.Needs(kind, n) {
		if kind != dual.KindRevoke {
			return false, nil
		}
		if free, err := s.dual.store.Take(p, n); free || err != nil {
			return false, err
		}
	}
	return true, s.askApprovals(w, c, kind, params, contents)
}

func (s *Server) askApprovals(w http.ResponseWriter, c *client, kind string, params map[string]string, contents []byte) error {
	all := dual.ContentParams(contents)
	for name, v := range params {
		all[name] = v
	}
	op, err := dual.New(s.issuer.id, kind, all, s.now(), 0)
	if err != nil {
		return err
	}
	return s.propose(w, c, op, contents)
}

// propose keeps an operation and answers with it.
func (s *Server) propose(w http.ResponseWriter, c *client, op dual.Operation, contents []byte) error {
	rec, err := s.dual.store.Propose(op, c.name, contents)
	if err != nil {
		return err
	}
	if err := s.blockWaiting(rec, contents); err != nil {
		return err
	}
	s.log.Info("approvals are needed", "client", c.name, "operation", rec.Operation.ID(), "kind", rec.Operation.Kind)
	w.Header().Set("Location", caapi.PathOperations+"/"+rec.Operation.ID())
	d := s.describeOperation(rec)
	return s.answer(w, http.StatusAccepted, caapi.Pending{Operation: &d})
}

// execute carries out an approved operation, once at a time, and returns a channel that is closed when the attempt has ended.
func (s *Server) execute(id string) <-chan struct{} {
	d := s.dual
	d.mu.Lock()
	defer d.mu.Unlock()
	if done, ok := d.running[id]; ok {
		return done
	}
	done := make(chan struct{})
	if s.running.Err() != nil { // the next process does it
		close(done)
		return done
	}
	d.running[id] = done
	s.background.Go(func() {
		defer func() {
			d.mu.Lock()
			delete(d.running, id)
			d.mu.Unlock()
			close(done)
		}()
		if err := s.executeNow(id); err != nil {
			s.log.Error("an approved operation is not carried out yet, it will be tried again", "operation", id, "error", err)
		}
	})
	return done
}

func (s *Server) executeNow(id string) error {
	rec, err := s.dual.store.Get(id)
	if err != nil || rec.State != dual.Approved { // another attempt has ended it
		return err
	}
	contents, err := s.dual.store.Payload(id)
	if err != nil {
		return err
	}
	run := s.dual.executors[rec.Operation.Kind]
	if run == nil {
		return fmt.Errorf("operations of the kind %q are carried out by a command, not by the server", rec.Operation.Kind)
	}
	s.step("dual-" + rec.Operation.Kind)
	var outcome any
	began := false
	err = s.operators.internally(s.running, approvedEntry(rec), func(ctx context.Context) (err error) {
		began = true
		outcome, err = run(ctx, rec.Operation, contents)
		return err
	})
	if !began {
		return err
	}
	if later(err) {
		return err
	}
	s.step("dual-executed")
	var result json.RawMessage
	if err == nil {
		if result, err = json.Marshal(outcome); err != nil {
			return err
		}
	}
	if _, ferr := s.dual.store.Finish(id, result, err); ferr != nil {
		return ferr
	}
	s.log.Info("an approved operation was carried out", "operation", id, "kind", rec.Operation.Kind, "error", err)
	return nil
}

// later tells errors that say nothing about the request.
func later(err error) bool {
	for _, e := range []error{
		network.ErrUnavailable, network.ErrUnknownOutcome, network.ErrConflict, network.ErrClosed, hsm.ErrUnavailable, context.DeadlineExceeded, context.Canceled,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// finishApproved carries out what was approved before a restart, or could not be carried out, until ctx ends.
func (s *Server) finishApproved(ctx context.Context) {
	pause := time.NewTicker(dualRetry)
	defer pause.Stop()
	for {
		for _, id := range s.dual.store.Unfinished() {
			s.execute(id)
		}
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
	}
}

// revocations are the contents of an operation of the kind revoke: a RevokeRequest in each line.
func revocations(all ...caapi.RevokeRequest) ([]byte, error) {
	var lines []byte
	for _, r := range all {
		line, err := json.Marshal(r)
		if err != nil {
			return nil, err
		}
		lines = append(append(lines, line...), '\n')
	}
	return lines, nil
}

// revokeUnderDual is underDual for one certificate.
func (s *Server) revokeUnderDual(w http.ResponseWriter, c *client, r caapi.RevokeRequest) (bool, error) {
	if s.dual.policy.Load() == nil {
		return false, nil
	}
	if _, err := s.parseRevocation(r); err != nil {
		return true, err
	}
	contents, err := revocations(r)
	if err != nil {
		return true, err
	}
	params := map[string]string{dual.ParamCount: strconv.Itoa(1), "serial": r.Serial, "reason": r.Reason}
	if r.InvalidityDate != "" {
		params["invalidity_date"] = r.InvalidityDate
	}
	return s.underDual(w, c, dual.KindRevoke, 1, params, contents)
}
