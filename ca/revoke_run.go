package ca

import (
	"context"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/catalogue"
	"github.com/certanchor/certanchor/internal/oplog"
	"github.com/certanchor/certanchor/internal/problem"
	"github.com/certanchor/certanchor/network"
)

const (
	bulkPause    = 100 * time.Millisecond
	maxBulkPause = 5 * time.Second
)

// Steps of a bulk, as Config.step sees them.
const (
	stepBulkPlanned  = "bulk planned"
	stepBulkStarted  = "bulk started"
	stepBulkChunk    = "bulk chunk" // the ledger has changes that the log does not have yet
	stepBulkRecorded = "bulk recorded"
	stepBulkEnding   = "bulk ending"
)

// runBulk brings a bulk that was started to its end, with a record in the operators' log. It gives up only with ctx, and goes on after the next start.
func (s *Server) runBulk(ctx context.Context, j *bulk) {
	v, _ := j.view()
	e := oplog.Entry{Actor: "ca", Action: "bulk " + v.Operation, Target: v.ID, Detail: map[string]string{
		"asked for by": v.StartedBy, "certificates": strconv.Itoa(v.Total), "digest": v.Digest, "source": v.Source,
	}}
	if v.Reason != "" {
		e.Detail["reason"] = v.Reason
	}
	for ctx.Err() == nil {
		began := false
		err := s.operators.internally(ctx, e, func(ctx context.Context) error {
			began = true
			err := s.carryOutBulk(ctx, j)
			v, _ := j.view()
			op := operationOf(ctx)
			op.note("changed", strconv.Itoa(v.Changed))
			op.note("already", strconv.Itoa(v.Already))
			op.note("failed", strconv.Itoa(v.Failed))
			return err
		})
		if began {
			return
		}
		j.says("waits for the operators' log: " + err.Error())
		wait(ctx, maxBulkPause)
	}
}

// carryOutBulk returns an error when it did not come to the end.
func (s *Server) carryOutBulk(ctx context.Context, j *bulk) error {
	open := make([]int, 0, len(j.items))
	for i, done := range j.done {
		if !done {
			open = append(open, i)
		}
	}
	for len(open) > 0 {
		n := min(s.bulkChunk, len(open))
		chunk := open[:n]
		for pause := bulkPause; len(chunk) > 0; pause = min(2*pause, maxBulkPause) {
			rest, err := s.bulkRound(ctx, j, chunk)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				s.log.Error("a bulk revocation cannot go on before a restart", "id", j.id, "error", err)
				j.says("stopped: its log cannot be written; it goes on when the CA is restarted")
				return err
			}
			if len(rest) > 0 {
				wait(ctx, pause)
			}
			chunk = rest
		}
		open = open[n:]
	}
	s.step(stepBulkEnding)
	s.endBulk(ctx, j)
	return ctx.Err()
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// endBulk waits for the responders, once for all changes.
func (s *Server) endBulk(ctx context.Context, j *bulk) {
	v, _ := j.view()
	end := bulkLine{Kind: lineEnd, Acknowledged: true}
	if v.Changed+v.Already > 0 {
		// Of a change that an earlier process made the block may not be known; all that there are hold it.
		block := v.Block
		if h, err := s.height(ctx); err == nil && h > 0 {
			block = max(block, h-1)
		}
		end.Responders = s.waitApplied(ctx, block)
	}
	if ctx.Err() != nil {
		return
	}
	if missing := unconfirmed(end.Responders); len(missing) > 0 {
		end.Acknowledged, end.Detail = false, "the changes are committed on the ledger but not acknowledged yet by "+strings.Join(missing, ", ")
	}
	end.Time = s.now().UTC().Format(caapi.TimeFormat)
	if err := j.log.add(end); err != nil {
		s.log.Error("a bulk revocation has ended, which its log did not take", "id", j.id, "error", err)
	}
	s.bulks.mark(j, -1)
	j.mu.Lock()
	j.head.State, j.head.Finished, j.head.Acknowledged, j.head.Responders, j.head.Detail = caapi.BulkDone, end.Time, end.Acknowledged, end.Responders, end.Detail
	v = j.head.Bulk
	j.items, j.done = nil, nil
	j.tell()
	j.mu.Unlock()
	if err := j.log.close(); err != nil {
		s.log.Warn("closing the log of a bulk revocation", "id", j.id, "error", err)
	}
	s.log.Info("bulk revocation done", "id", j.id, "client", v.StartedBy, "operation", v.Operation, "total", v.Total, "changed", v.Changed,
		"already", v.Already, "failed", v.Failed, "block", v.Block, "acknowledged", v.Acknowledged)
	s.kickSweeps()
}

// unconfirmed names the responders that have not applied a block.
func unconfirmed(rs []caapi.Responder) (missing []string) {
	for _, r := range rs {
		if !r.Applied {
			missing = append(missing, r.URL)
		}
	}
	return missing
}

// bulkRound tries to change certificates and returns those whose outcome it did not learn. An error: the log cannot be written.
func (s *Server) bulkRound(ctx context.Context, j *bulk, chunk []int) (rest []int, err error) {
	records, err := s.records(ctx, j, chunk)
	if err != nil {
		j.says("waits for the ledger: " + problem.From(err).Detail)
		return chunk, nil
	}
	results := make([]*caapi.BulkResult, len(chunk))
	var submit []int // of chunk
	var lost []catalogue.Key
	s.catalogueCatchUp(ctx)
	for n, i := range chunk {
		results[n] = s.foreseen(&j.items[i], records[n])
		if results[n] != nil {
			continue
		}
		submit = append(submit, n)
		if j.items[i].change().Reason == wire.KeyCompromise && len(records[n].SPKIHash) == len(catalogue.Key{}) {
			lost = append(lost, catalogue.Key(records[n].SPKIHash))
		}
	}
	v, _ := j.view()
	if err := s.blocked.block(v.StartedBy, false, 0, lost...); err != nil {
		return chunk, err
	}
	s.submitChunk(ctx, j, chunk, submit, results)
	s.step(stepBulkChunk)
	var add []any
	for n, i := range chunk {
		if results[n] == nil {
			rest = append(rest, i)
		} else {
			add = append(add, bulkLine{Kind: lineResult, Item: i, Result: results[n]})
		}
	}
	if len(add) == 0 {
		j.says("waits for the ledger, which does not answer")
		return rest, nil
	}
	if err := j.log.add(add...); err != nil {
		return nil, err
	}
	s.step(stepBulkRecorded)
	j.mu.Lock()
	defer j.mu.Unlock()
	for n, i := range chunk {
		if results[n] != nil {
			j.count(i, results[n])
		}
	}
	j.head.Detail = ""
	j.tell()
	return rest, nil
}

// records reads the records of certificates from the ledger, nil for each that is not there.
func (s *Server) records(ctx context.Context, j *bulk, chunk []int) ([]*wire.CertRecord, error) {
	keys := make([]string, len(chunk))
	for n, i := range chunk {
		keys[n] = wire.CertKey(s.generationOf(&j.items[i]).issuer.id, j.items[i].change().Serial)
	}
	values, err := s.readState(ctx, keys...)
	if err != nil {
		return nil, err
	}
	records := make([]*wire.CertRecord, len(values))
	for n, v := range values {
		if v == nil {
			continue
		}
		records[n] = new(wire.CertRecord)
		if err := wire.Decode(v, records[n]); err != nil {
			return nil, err
		}
	}
	return records, nil
}

// generationOf is the generation of the CA's key that an item's certificate is of. A generation that issued is always there (Server.begin).
func (s *Server) generationOf(i *bulkItem) *Server {
	if id, err := wire.ParseCAID(i.CA); err == nil {
		if g := s.Generation(id); g != nil {
			return g
		}
	}
	return s
}

// foreseen answers without a transaction what needs none: one refusal would cost a whole batch another attempt. nil: the ledger is asked.
func (s *Server) foreseen(item *bulkItem, rec *wire.CertRecord) *caapi.BulkResult {
	c := item.change()
	r := &caapi.BulkResult{Serial: item.Serial, Operation: opNames[c.Op]}
	if rec == nil {
		return failed(r, notIssued(c.Serial))
	}
	final := wire.Errorf(wire.FailedPrecondition, "operation", r.Operation, "the certificate is revoked (%s), which is final", rec.Reason)
	switch {
	case c.Op == wire.OpHold && rec.State == wire.CertRevoked, c.Op == wire.OpRelease && rec.State == wire.CertRevoked:
		return failed(r, final)
	case c.Op == wire.OpRelease && rec.State == wire.CertHeld && rec.Change != item.Base: // a later hold is somebody else's, and may have other reasons
		return failed(r, wire.Errorf(wire.FailedPrecondition, "operation", r.Operation, "the certificate was put on hold after the list was made: make a new list"))
	case c.Op == wire.OpRelease && rec.State == wire.CertValid && rec.Change == 0:
		return failed(r, wire.Errorf(wire.FailedPrecondition, "operation", r.Operation, "the certificate is not on hold and never was"))
	case c.Op == wire.OpHold && rec.State == wire.CertHeld, c.Op == wire.OpRelease && rec.State == wire.CertValid,
		c.Op == wire.OpRevoke && rec.State == wire.CertRevoked && (c.Reason != wire.KeyCompromise || rec.Reason == wire.KeyCompromise):
	default:
		return nil
	}
	// So already. What changed after the list was made was this, before the CA was stopped or its answer lost, or another operator's.
	r.Outcome = outcomeAlready
	if rec.Change > item.Base {
		r.Outcome = outcomeChanged
	}
	describeResult(r, wire.StatusResult{State: rec.State, Reason: rec.Reason, Time: rec.StatusTime, Change: rec.Change})
	s.generationOf(item).place(r)
	return r
}

// place says in which transaction a change was made, if that is known.
func (s *Server) place(r *caapi.BulkResult) {
	serial, err := hex.DecodeString(r.Serial)
	if err != nil || r.Outcome == outcomeFailed || r.Outcome == outcomeOpen {
		return
	}
	c, err := s.catalogue.Get(serial)
	if err != nil || c == nil || c.Change != r.Change {
		return
	}
	if r.Block == 0 && r.TxID == "" {
		r.Block, r.TxID = c.Block, c.TxID
	}
	r.StatusLog = statusLog(c.Serial, c.Position)
}

func statusLog(serial wire.Serial, at *uint64) caapi.StatusLog {
	if at != nil {
		return caapi.StatusLog{StatusLogIndex: at}
	}
	return caapi.StatusLog{StatusLogPending: caapi.PathCertificates + "/" + serial.String()}
}

// catalogueCatchUp waits a little for the catalogue to have what the ledger has.
func (s *Server) catalogueCatchUp(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	h, err := s.height(ctx)
	for _, g := range s.line.list() {
		if err == nil {
			err = g.catalogue.WaitHeight(ctx, h) // without it a place is told later
		}
	}
}

func failed(r *caapi.BulkResult, err error) *caapi.BulkResult {
	p := problem.From(err)
	r.Outcome, r.Error = outcomeFailed, &caapi.BulkError{Code: p.Code, Field: p.Field, Value: p.Value, Rule: p.Rule}
	if r.Error.Rule == "" {
		r.Error.Rule = p.Detail
	}
	return r
}

func describeResult(r *caapi.BulkResult, res wire.StatusResult) {
	r.State, r.Change = stateName(res.State), res.Change
	if res.State != wire.CertValid {
		r.Reason, r.RevocationTime = res.Reason.String(), res.Time.Time().Format(caapi.TimeFormat)
	}
}

// submitChunk has those of chunk that are in submit changed, and leaves nil in results for what is not decided.
func (s *Server) submitChunk(ctx context.Context, j *bulk, chunk, submit []int, results []*caapi.BulkResult) {
	var all sync.WaitGroup
	for _, n := range submit {
		item := &j.items[chunk[n]]
		all.Go(func() {
			change, g := item.change(), s.generationOf(item)
			res, receipt, err := g.commitChange(ctx, change)
			r := &caapi.BulkResult{Serial: item.Serial, Operation: opNames[change.Op]}
			switch {
			case err == nil:
				g.crls.changedAt(receipt.Block, change.Serial, res)
				r.Outcome, r.Block, r.TxID = outcomeChanged, receipt.Block, receipt.TxID
				if !res.Changed && res.Change == item.Base {
					r.Outcome = outcomeAlready
				}
				describeResult(r, res)
				results[n] = r
			case errors.Is(err, network.ErrUnknownOutcome): // the ledger is read before the next attempt
			case network.IsRejected(err):
				results[n] = failed(r, err)
			}
		})
	}
	all.Wait()
}
