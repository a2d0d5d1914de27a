package crls

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/crl"
	"github.com/certanchor/certanchor/internal/metrics"
	"github.com/certanchor/certanchor/internal/problem"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/index"
)

// Outcome is what became of a CRL that was offered.
type Outcome struct {
	CAID   wire.CAID
	Name   string
	Number uint64
	Taken  bool   // false: there is one that is as new
	Newest uint64 // number of the one that is kept

	signed bool // by the CA: what is wrong with it is the CA's doing
}

const (
	patience    = 5 * time.Second     // how long a CRL may be ahead of this bridge's blocks
	farAhead    = 1000                // blocks that are not waited for
	maxValidity = 10 * 24 * time.Hour // CA/Browser Forum's requirements, section 4.9.7
	maxNames    = 2048                // CRLs of one CA: a CA bridge's 1024 shards, and their deltas
)

// Accept takes a CRL of a CA, keeps it and serves it, if the CA has signed it and it says what this bridge's own index says at its number. It
// returns once it is on disk. One that is not newer than the one there is has no effect. der may be anybody's: until the CA's signature is
// verified, nothing is read that costs more than the signature. It is not kept: the caller may use its memory again.
//
// Errors are *problem.Problem: 404 for a CA that is not on the trust list; 400 for what is not a CRL; 422 for one that the CA has not signed,
// whose times are wrong, or that says something else than the ledger, and for a new name when the CA has 2048; 409 for a delta CRL whose
// complete CRL is not here yet; 503 for one that is ahead of this bridge by more than 1000 blocks or 5 seconds, or when the bridge cannot
// judge. Others are failures of the disk.
func (s *Store) Accept(ctx context.Context, id wire.CAID, der []byte) (Outcome, error) {
	began := s.cfg.Now()
	out, err := s.accept(ctx, id, der)
	what := metrics.CRLTaken
	var p *problem.Problem
	wrong := errors.As(err, &p) && (p.Status == http.StatusUnprocessableEntity || p.Status == http.StatusBadRequest)
	switch {
	case err == nil && !out.Taken:
		what = metrics.CRLOld
	case wrong && out.signed:
		what = metrics.CRLRefused
		s.cfg.Log.Error("a CRL is refused", "ca", id, "name", out.Name, "number", out.Number, "error", err)
	case wrong: // anybody can send that: it says nothing about the CA
		what = metrics.CRLMalformed
		s.cfg.Log.Debug("what is no CRL of the CA is refused", "ca", id, "error", err)
	case err != nil:
		what = metrics.CRLFailed
	default:
		s.metrics.Took("accept", s.cfg.Now().Sub(began).Seconds())
		s.cfg.Log.Info("CRL taken", "ca", id, "name", out.Name, "number", out.Number)
	}
	label := id.String()
	if s.cfg.Ledger.View().CA(id) == nil { // whoever asks must not make label values
		label = "unknown"
	}
	s.metrics.Offered(label, what)
	return out, err
}

func (s *Store) accept(ctx context.Context, id wire.CAID, der []byte) (out Outcome, err error) {
	out.CAID = id
	if err := s.cfg.Usable(); err != nil {
		return out, problem.New(http.StatusServiceUnavailable, problem.CodeUnavailable, "bridge", "not usable", err.Error())
	}
	ca := s.cfg.Ledger.View().CA(id)
	if ca == nil {
		return out, problem.New(http.StatusNotFound, string(wire.NotFound), "ca_id", id.String(), "must be a registered CA")
	}
	done, err := s.admit(ctx, &out, der, ca.Certs)
	if err != nil || done {
		return out, err
	}
	if err := s.reach(ctx, out.Number); err != nil { // while others are judged
		return out, err
	}
	leave, err := s.enter(ctx)
	if err != nil {
		return out, err
	}
	defer leave()
	list, err := readOwned(id, bytes.Clone(der))
	if err != nil {
		return out, err
	}
	if done, err := s.superseded(&out, list.Contents.Scope); err != nil || done { // another came meanwhile
		return out, err
	}
	err = s.judge(list)
	late, overdue := errors.AsType[*overdueError](err)
	if err != nil && !overdue {
		return out, err
	}
	if err := s.keep(list); err != nil {
		return out, err
	}
	if overdue { // newer than what there was, and yet not to be served
		s.settle(s.slot(id, list.Name), late)
	}
	out.Taken, out.Newest = true, out.Number
	return out, nil
}

// admit verifies the signature, and what the header says. done: there is one that is as new.
func (s *Store) admit(ctx context.Context, out *Outcome, der []byte, certs []*x509.Certificate) (done bool, err error) {
	leave, err := s.enter(ctx)
	if err != nil {
		return false, err
	}
	defer leave()
	l, err := crl.ParseHeader(der)
	if err != nil {
		return false, as(http.StatusBadRequest, err)
	}
	if l.Indirect {
		return false, refuse("issuingDistributionPoint", "indirectCRL", "must be absent: a CA publishes what is about its own certificates")
	}
	if _, err := l.Verify(certs); err != nil {
		return false, as(http.StatusUnprocessableEntity, err)
	}
	out.signed, out.Number = true, l.Number
	if out.Name, err = Name(l.Scope, l.Base != 0); err != nil {
		return false, as(http.StatusUnprocessableEntity, err)
	}
	if done, err := s.superseded(out, l.Scope); err != nil || done {
		return done, err
	}
	if n := s.names(out.CAID); n >= maxNames && s.slot(out.CAID, out.Name) == nil {
		return false, refuse("scope", l.Scope, "must be one of the %d that the CA has CRLs of here: that is the most", maxNames)
	}
	return false, s.checkDates(l)
}

// superseded reports whether there is a CRL of that name that is as new.
func (s *Store) superseded(out *Outcome, scope string) (bool, error) {
	old := s.slot(out.CAID, out.Name)
	if old == nil {
		return false, nil
	}
	if was := old.list.Contents.Scope; was != scope {
		return false, refuse("scope", scope, "must not share its name with that of another CRL, %s", was)
	}
	// One that was found to be wrong is replaced by a right one of the same number.
	out.Newest = old.list.Contents.Number
	return out.Newest > out.Number || out.Newest == out.Number && (old.state == agrees || old.state == overdue), nil
}

// read parses a CRL and verifies its signature. The list is there, if it could be parsed, with an error as well.
func (s *Store) read(id wire.CAID, der []byte, certs []*x509.Certificate) (*List, error) {
	list, err := readOwned(id, der)
	if err != nil {
		return nil, err
	}
	l, err := crl.ParseHeader(der)
	if err == nil {
		_, err = l.Verify(certs)
	}
	return list, as(http.StatusUnprocessableEntity, err)
}

// readOwned parses a CRL, whose memory the list keeps.
func readOwned(id wire.CAID, der []byte) (*List, error) {
	parsed, err := crl.Parse(der)
	if err != nil {
		return nil, as(http.StatusBadRequest, err)
	}
	list, err := newList(id, der, parsed)
	return list, as(http.StatusUnprocessableEntity, err)
}

// checkDates compares a CRL that the CA has signed with the clock.
func (s *Store) checkDates(l *crl.List) error {
	now := s.cfg.Now()
	this, next := l.ThisUpdate.Format(time.RFC3339), l.NextUpdate.Format(time.RFC3339)
	switch {
	case !now.Before(l.NextUpdate):
		return refuse("nextUpdate", next, "must be in the future")
	case l.ThisUpdate.After(now.Add(s.cfg.Tolerance)):
		return refuse("thisUpdate", this, "must not be in the future: it is %s here", now.UTC().Format(time.RFC3339))
	case l.NextUpdate.Sub(l.ThisUpdate) > maxValidity:
		return refuse("nextUpdate", next, "must be at most %s after thisUpdate, %s: relying parties keep a CRL until then", maxValidity, this)
	}
	return nil
}

// judge compares a CRL that the CA has signed with the index, which has reached its number.
func (s *Store) judge(list *List) error {
	if list.Contents.Base != 0 {
		if err := s.checkBase(list); err != nil {
			return err
		}
	}
	return s.compare(list, false)
}

// reach waits until the index has as many blocks.
func (s *Store) reach(ctx context.Context, height uint64) error {
	var limit <-chan time.Time
	for {
		changed := s.cfg.Changed()
		have := s.cfg.Ledger.View().Height
		if have >= height {
			return nil
		}
		if limit == nil && height-have <= farAhead {
			limit = s.cfg.After(patience)
		}
		if limit != nil {
			select {
			case <-changed:
				continue
			case <-limit:
			case <-ctx.Done():
			}
		}
		return problem.New(http.StatusServiceUnavailable, problem.CodeUnavailable, "cRLNumber", strconv.FormatUint(height, 10),
			fmt.Sprintf("is ahead of this bridge, which has applied %d blocks; ask again", have))
	}
}

// checkBase: RFC 5280 section 5.2.4: a delta CRL goes with a complete CRL of the same scope whose number is the base's or a later one's.
func (s *Store) checkBase(delta *List) error {
	name, err := Name(delta.Contents.Scope, false)
	if err != nil {
		return as(http.StatusUnprocessableEntity, err)
	}
	base := strconv.FormatUint(delta.Contents.Base, 10)
	full := s.slot(delta.CAID, name)
	if full == nil || full.state != agrees || full.list.Contents.Number < delta.Contents.Base {
		return problem.New(http.StatusConflict, string(wire.FailedPrecondition), "BaseCRLNumber", base, "must be at most the number of the complete CRL that is served here: publish that first")
	}
	if full.list.Contents.Scope != delta.Contents.Scope {
		return refuse("scope", delta.Contents.Scope, "must be that of the complete CRL of that name, %s", full.list.Contents.Scope)
	}
	return nil
}

// compare tells whether the index says the same at the CRL's number, and nothing later that the CRL's thisUpdate hides. fresh: without what the
// Maker remembers.
func (s *Store) compare(list *List, fresh bool) error {
	c := list.Contents
	began := s.cfg.Now()
	want, err := s.maker.Contents(Request{CAID: c.CAID, Scope: c.Scope, Base: c.Base, Number: c.Number, ThisUpdate: c.ThisUpdate, Fresh: fresh})
	if err != nil {
		return err
	}
	s.metrics.Took("contents", s.cfg.Now().Sub(began).Seconds())
	if err := c.Compare(want); err != nil {
		return as(http.StatusUnprocessableEntity, fmt.Errorf("the CRL says something else than the ledger at height %d: %w", c.Number, err))
	}
	next, err := firstChange(s.cfg.Ledger, c.CAID, c.Number)
	if err != nil || next == nil {
		return err
	}
	// A CRL speaks for its thisUpdate. To date an old one anew would hide what has changed since.
	if at := next.At.Time(); at.Add(s.cfg.Tolerance).Before(c.ThisUpdate) {
		return refuse("thisUpdate", c.ThisUpdate.Format(time.RFC3339), "must not be after the next change, in block %d at %s, which is not in the CRL", next.Pos.Block, at.Format(time.RFC3339))
	}
	if at := next.At.Time(); s.cfg.Now().Sub(at) > maxHidden {
		return &overdueError{fmt.Sprintf("the CA has published none for more than %s since the next change, in block %d at %s", maxHidden, next.Pos.Block, at.Format(time.RFC3339))}
	}
	return nil
}

// maxHidden is for how long a CRL is served after a change that it does not tell of: the longest time between two that a CA bridge can be set
// to, 24 hours, and one more to publish. Else a CA could let its CRLs stand still for as long as they are valid.
const maxHidden = 25 * time.Hour

// overdueError: a CRL is right for its number, and a newer one should be there.
type overdueError struct{ why string }

func (e *overdueError) Error() string { return e.why }

// firstChange is the first change of a CA or one of its certificates after as many blocks, nil if there is none.
func firstChange(l Ledger, id wire.CAID, height uint64) (*index.Change, error) {
	last, err := l.LastChange(id)
	if err != nil || last.Compare(index.Before(height)) <= 0 {
		return nil, err
	}
	const page = 1000
	for after := index.Before(height); ; {
		changes, err := l.Changes(after, page)
		if err != nil || len(changes) == 0 {
			return nil, err
		}
		for i := range changes {
			if c := &changes[i]; c.CAID == id && (c.Serial != nil || c.Rule != 0) {
				return c, nil
			}
		}
		after = changes[len(changes)-1].Pos
	}
}

func refuse(field, value, rule string, args ...any) error {
	return problem.New(http.StatusUnprocessableEntity, string(wire.InvalidArgument), field, value, fmt.Sprintf(rule, args...))
}

// as gives a *wire.Error the status that it has here.
func as(status int, err error) error {
	if err == nil {
		return nil
	}
	var we *wire.Error
	if !errors.As(err, &we) {
		return err
	}
	return problem.New(status, string(we.Code), we.Field, we.Value, we.Rule)
}
