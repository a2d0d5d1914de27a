package ca

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/dual"
)

// operationRoutes are dual control's part of the API.
func (s *Server) operationRoutes(route func(path string, methods map[string]http.HandlerFunc)) {
	one := caapi.PathOperations + "/{id}"
	route(caapi.PathOperations, map[string]http.HandlerFunc{"GET": s.guard(actRead, s.getOperations)})
	route(one, map[string]http.HandlerFunc{"GET": s.guard(actRead, s.getOperation)})
	route(one+caapi.PathContents, map[string]http.HandlerFunc{"GET": s.guard(actRead, s.getContents)})
	route(one+caapi.PathApprovals, map[string]http.HandlerFunc{"POST": s.guard(actApprove, s.postApproval)})
	route(one+caapi.PathRejections, map[string]http.HandlerFunc{"POST": s.guard(actApprove, s.postRejection)})
	route(caapi.PathProfiles, map[string]http.HandlerFunc{"GET": s.guard(actRead, s.getProfiles), "POST": s.guard(actProfiles, s.postProfiles)})
	route(caapi.PathDualControl, map[string]http.HandlerFunc{"GET": s.guard(actDescribe, s.getDualControl), "POST": s.guard(actProfiles, s.postDualControl)})
}

func (s *Server) describeOperation(r *dual.Record) caapi.Operation {
	op := r.Operation
	d := caapi.Operation{
		ID: op.ID(), Kind: op.Kind, State: r.State, Text: r.Text, Params: op.Params, Client: r.Client,
		Created: op.Created.Format(time.RFC3339), Expires: op.Expires.Format(time.RFC3339),
		Approvals: []caapi.OperatorDecision{}, Result: r.Result, Error: r.Error,
	}
	p := s.dual.policy.Load()
	d.Operators = p.Operators(op.Kind)
	if p != nil {
		d.Need = p.Quorum()
	}
	for _, a := range r.Approvals {
		d.Approvals = append(d.Approvals, caapi.OperatorDecision{Operator: a.Operator, Time: a.Time.Format(time.RFC3339)})
	}
	if r.Rejection != nil {
		d.Rejection = &caapi.OperatorDecision{Operator: r.Rejection.Operator, Time: r.Rejection.Time.Format(time.RFC3339)}
	}
	if r.Finished != nil {
		d.Finished = r.Finished.Format(time.RFC3339)
	}
	return d
}

func (s *Server) getOperations(w http.ResponseWriter, _ *http.Request, _ *client) error {
	all, err := s.dual.store.List()
	if err != nil {
		return err
	}
	// Those that wait, all of them, and the newest of those that ended, without their results, which are long.
	answer := caapi.Operations{Operations: make([]caapi.Operation, 0, len(all))}
	ended := 0
	for _, r := range all {
		if r.Finished != nil {
			if ended++; ended > maxEnded {
				continue
			}
		}
		d := s.describeOperation(r)
		d.Result = nil
		answer.Operations = append(answer.Operations, d)
	}
	return s.answer(w, http.StatusOK, answer)
}

// maxEnded is how many operations that ended are listed.
const maxEnded = 128

func (s *Server) getOperation(w http.ResponseWriter, r *http.Request, _ *client) error {
	rec, err := s.dual.store.Get(r.PathValue("id"))
	if err != nil {
		return err
	}
	return s.answer(w, http.StatusOK, s.describeOperation(rec))
}

func (s *Server) getContents(w http.ResponseWriter, r *http.Request, _ *client) error {
	contents, err := s.dual.store.Payload(r.PathValue("id"))
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Cache-Control", "no-store")
	if _, err := w.Write(contents); err != nil {
		s.log.Debug("answer not delivered", "error", err)
	}
	return nil
}

// readSignature reads an OperatorSignature.
func readSignature(w http.ResponseWriter, r *http.Request) (dual.Approval, error) {
	var req caapi.OperatorSignature
	if err := readFields(w, r, map[string]*string{"operator": &req.Operator, "signature": &req.Signature}); err != nil {
		return dual.Approval{}, err
	}
	sig, err := base64.StdEncoding.Strict().DecodeString(req.Signature)
	if err != nil {
		return dual.Approval{}, invalid("signature", req.Signature, "must be base64 (RFC 4648 section 4)")
	}
	return dual.Approval{Operator: req.Operator, Signature: sig}, nil
}

// postApproval takes an operator's signature. The one that was missing has the operation carried out; the answer then tells how that ended, or that
// it goes on (202).
func (s *Server) postApproval(w http.ResponseWriter, r *http.Request, c *client) error {
	a, err := readSignature(w, r)
	if err != nil {
		return err
	}
	id := r.PathValue("id")
	rec, complete, err := s.dual.store.Approve(s.dual.policy.Load(), id, a)
	if err != nil {
		return err
	}
	s.log.Info("operation approved", "client", c.name, "operator", a.Operator, "operation", id, "state", rec.State)
	if !complete {
		return s.answer(w, http.StatusOK, s.describeOperation(rec))
	}
	s.step("dual-approved")
	ctx, cancel := context.WithTimeout(r.Context(), maxAnswer-5*time.Second)
	defer cancel()
	select {
	case <-s.execute(id):
	case <-ctx.Done():
	}
	if rec, err = s.dual.store.Get(id); err != nil {
		return err
	}
	code := http.StatusOK
	if rec.State == dual.Approved {
		code = http.StatusAccepted
	}
	return s.answer(w, code, s.describeOperation(rec))
}

func (s *Server) postRejection(w http.ResponseWriter, r *http.Request, c *client) error {
	a, err := readSignature(w, r)
	if err != nil {
		return err
	}
	rec, err := s.dual.store.Reject(s.dual.policy.Load(), r.PathValue("id"), a)
	if err != nil {
		return err
	}
	s.log.Info("operation rejected", "client", c.name, "operator", a.Operator, "operation", rec.Operation.ID())
	return s.answer(w, http.StatusOK, s.describeOperation(rec))
}

// revokedAll is the result of an operation of the kind revoke.
type revokedAll struct {
	Revoked  int            `json:"revoked"` // also those that were already
	Block    uint64         `json:"block"`   // the last
	Refused  int            `json:"refused"`
	Refusals []revokeFailed `json:"refusals,omitempty"` // the first hundred
}

type revokeFailed struct {
	Serial string `json:"serial"`
	Error  string `json:"error"`
}

const (
	revokeAtOnce = 64
	maxRefusals  = 100
)

// revokeApproved revokes every certificate of an approved list. What the contract refuses is counted and does not keep the others from it; repeating
// changes nothing.
func (s *Server) revokeApproved(ctx context.Context, _ dual.Operation, contents []byte) (any, error) {
	var (
		mu     sync.Mutex
		sum    revokedAll
		missed error // the ledger's, not the request's: the operation is tried again
		group  sync.WaitGroup
	)
	slots := make(chan struct{}, revokeAtOnce)
	for line := range bytes.Lines(contents) {
		var r caapi.RevokeRequest
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, fmt.Errorf("couldn't read the approved list: %w", err)
		}
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			change, _, err := s.Revoke(ctx, r)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				sum.Revoked, sum.Block = sum.Revoked+1, max(sum.Block, change.Block)
			case later(err):
				missed = err
			default:
				sum.Refused++
				if len(sum.Refusals) < maxRefusals {
					sum.Refusals = append(sum.Refusals, revokeFailed{r.Serial, err.Error()})
				}
			}
		})
	}
	group.Wait()
	if missed != nil {
		return nil, missed
	}
	if sum.Revoked == 0 && sum.Refused > 0 {
		return nil, fmt.Errorf("nothing was revoked; %s: %s", sum.Refusals[0].Serial, sum.Refusals[0].Error)
	}
	return &sum, nil
}

// readFile reads a request's body of any JSON, at most limit octets.
func readFile(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); err != nil && !tooLarge {
		return nil, invalid("body", "", "could not be read: %v", err)
	}
	return body, err
}
