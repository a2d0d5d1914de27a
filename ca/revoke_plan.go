package ca

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/catalogue"
	"github.com/certanchor/certanchor/internal/problem"
)

// planTimeout bounds the making of a list.
const planTimeout = 40 * time.Second

// plan fixes the list of a bulk: all that match up to a block of the ledger that came after the request.
func (s *Server) plan(ctx context.Context, by string, r *bulkRequest) (*bulkHead, []bulkItem, error) {
	ctx, cancel := context.WithTimeout(ctx, planTimeout)
	defer cancel()
	change, err := s.parseOperation(r)
	if err != nil {
		return nil, nil, err
	}
	head := &bulkHead{Bulk: caapi.Bulk{
		Operation: opNames[change.Op], Reason: r.Reason, InvalidityDate: r.InvalidityDate, CreatedBy: by, Query: r.Query, SPKI: r.SPKI,
	}}
	var items []bulkItem
	if r.list != nil {
		if items, err = s.listed(r, change); err != nil {
			return nil, nil, err
		}
	}
	if err := s.clockSound(); err != nil {
		return nil, nil, err
	}
	if r.key != nil && change.Op == wire.OpRevoke && change.Reason == wire.KeyCompromise && !r.DryRun && !s.sweepNeedsApproval() {
		// Not a sweep before it starts: this keeps the list complete. One that operators have to agree to blocks the key while it waits, and sweeps what its list lacks.
		if err := s.sweepBegins(ctx, by, false, *r.key, change.Invalidity); err != nil {
			return nil, nil, err
		}
		head.KeyBlocked = true
	}
	if err := s.upToDate(ctx); err != nil {
		return nil, nil, err
	}
	switch {
	case r.list != nil:
		head.Source, head.AsOf = "list", s.catalogueHeight()
		for i := range items {
			if err := s.locate(&items[i]); err != nil {
				return nil, nil, onLine(r.lines[i], err)
			}
		}
	case r.key != nil:
		head.Source = "key"
		for _, g := range s.line.list() {
			certs, at, err := g.catalogue.WithKey(*r.key)
			if err != nil {
				return nil, nil, err
			}
			head.asOf(at)
			for _, c := range certs {
				items = s.appendItem(items, change, g, c)
			}
		}
	default:
		head.Source = "query"
		if items, err = s.found(r.query, change, head); err != nil {
			return nil, nil, err
		}
	}
	if len(items) > caapi.MaxBulk {
		return nil, nil, invalid(head.Source, fmt.Sprintf("%d certificates", len(items)), "must find at most %d; narrow it, or have the consortium decide a rule (certanchor ca revoke-issued)", caapi.MaxBulk)
	}
	return head, items, nil
}

// parseOperation checks operation, reason and invalidity date, as far as they are not those of lines.
func (s *Server) parseOperation(r *bulkRequest) (c wire.StatusChange, err error) {
	hold := wire.CertificateHold.String()
	switch r.Operation {
	case "", caapi.OperationRevoke:
		if r.Reason == "" && r.list != nil { // each line has its own
			if c.Op = wire.OpRevoke; r.InvalidityDate == "" {
				return c, nil
			}
			_, err = s.parseInvalidity(c.Op, r.InvalidityDate)
			return c, err
		}
	case caapi.OperationHold:
		if r.Reason != "" && r.Reason != hold {
			return c, invalid("reason", r.Reason, "must be %s, or absent, for a hold", hold)
		}
		r.Reason = hold
	case caapi.OperationRelease:
		if r.Reason != "" {
			return c, invalid("reason", r.Reason, "must be absent for a release")
		}
		if r.InvalidityDate != "" {
			return c, invalid("invalidity_date", r.InvalidityDate, "must be absent for a release")
		}
		return wire.StatusChange{Op: wire.OpRelease}, nil
	default:
		return c, invalid("operation", r.Operation, "must be %s, %s or %s", caapi.OperationRevoke, caapi.OperationHold, caapi.OperationRelease)
	}
	if r.Reason == hold && r.Operation == caapi.OperationRevoke {
		return c, invalid("reason", r.Reason, "is the reason of a hold: the operation must be hold, or absent")
	}
	return s.parseStatus(r.Reason, r.InvalidityDate)
}

// listed is the changes of a list, in its order.
func (s *Server) listed(r *bulkRequest, common wire.StatusChange) ([]bulkItem, error) {
	items := make([]bulkItem, 0, len(r.list))
	first := make(map[string]int, len(r.list))
	for n, l := range r.list {
		c := common
		var err error
		if l.Reason == "" {
			l.Reason = r.Reason
		}
		if l.InvalidityDate == "" {
			l.InvalidityDate = r.InvalidityDate
		}
		switch {
		case common.Op == wire.OpRelease && l.Reason+l.InvalidityDate != "":
			err = invalid("reason", l.Reason, "must be absent, and invalidity_date too, for a release")
		case common.Op == wire.OpHold && l.Reason != wire.CertificateHold.String():
			err = invalid("reason", l.Reason, "must be %s, or absent, for a hold", wire.CertificateHold)
		case r.Operation == caapi.OperationRevoke && l.Reason == wire.CertificateHold.String():
			err = invalid("reason", l.Reason, "is the reason of a hold: the operation must be hold, or absent")
		case common.Op != wire.OpRelease:
			c, err = s.parseStatus(l.Reason, l.InvalidityDate)
		}
		if err == nil {
			c.Serial, err = wire.ParseSerial(l.Serial)
		}
		if err != nil {
			return nil, onLine(r.lines[n], err)
		}
		if line, twice := first[string(c.Serial)]; twice {
			return nil, onLine(r.lines[n], invalid("serial", l.Serial, "must not occur twice: it is also in line %d", line))
		}
		first[string(c.Serial)] = r.lines[n]
		items = append(items, itemOf(c, 0))
	}
	return items, nil
}

// found is the changes of what a query finds, in the order of serial numbers.
func (s *Server) found(q *query, change wire.StatusChange, head *bulkHead) (items []bulkItem, err error) {
	for _, g := range s.line.list() {
		at, err := g.catalogue.All(func(c *catalogue.Cert) error {
			meant, unnamed := q.matches(c, g.book)
			if unnamed {
				head.Unnamed++
			}
			if meant {
				items = s.appendItem(items, change, g, c)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		head.asOf(at)
	}
	return items, nil
}

// asOf notes the height at which one generation's certificates were listed: the list is as of the lowest.
func (h *bulkHead) asOf(height uint64) {
	if h.AsOf == 0 || height < h.AsOf {
		h.AsOf = height
	}
}

func (s *Server) catalogueHeight() uint64 {
	var h bulkHead
	for _, g := range s.line.list() {
		h.asOf(g.catalogue.Height())
	}
	return h.AsOf
}

// locate finds which generation of the CA's key an item of a list is of, and how often the certificate has changed.
func (s *Server) locate(i *bulkItem) error {
	serial := i.change().Serial
	known, err := s.keepers(serial)
	if err != nil || len(known) == 0 {
		return err // of one that nobody has the result says so
	}
	if len(known) > 1 {
		return invalid("serial", i.Serial, "must be of one generation of the CA's key, and is of %s and %s: find the certificate by query or key", known[0].issuer.id, known[1].issuer.id)
	}
	g := known[0]
	if g != s {
		i.CA = g.issuer.id.String()
	}
	c, err := g.catalogue.Get(serial)
	if c != nil {
		i.Base = c.Change
	}
	return err
}

// appendItem adds a change of a certificate of g unless it would change nothing.
func (s *Server) appendItem(items []bulkItem, change wire.StatusChange, g *Server, c *catalogue.Cert) []bulkItem {
	switch change.Op {
	case wire.OpRevoke:
		if c.State == wire.CertRevoked && (change.Reason != wire.KeyCompromise || c.Reason == wire.KeyCompromise) {
			return items
		}
	case wire.OpHold:
		if c.State != wire.CertValid {
			return items
		}
	case wire.OpRelease:
		if c.State != wire.CertHeld {
			return items
		}
	}
	change.Serial = c.Serial
	item := itemOf(change, c.Change)
	if g != s {
		item.CA = g.issuer.id.String()
	}
	return append(items, item)
}

// sweepBegins blocks a key and waits until nothing is being issued for it. With sweep, what is recorded with it later is revoked too.
func (s *Server) sweepBegins(ctx context.Context, by string, sweep bool, k catalogue.Key, invalidity wire.Millis) error {
	if err := s.blocked.block(by, sweep, invalidity, k); err != nil {
		return err
	}
	s.log.Warn("a key is blocked: nothing is issued for it any more", "client", by, "spki", k.String(), "sweep", sweep)
	if err := s.blocked.drain(ctx, k); err != nil {
		return problem.New(http.StatusServiceUnavailable, problem.CodeUnavailable, "spki", k.String(), "is blocked now, but "+err.Error()+"; ask again")
	}
	return nil
}

// sweepOf reads a planned sweep's key and change.
func (s *Server) sweepOf(v caapi.Bulk) (catalogue.Key, wire.StatusChange, error) {
	change, err := s.parseStatus(v.Reason, v.InvalidityDate)
	if err != nil {
		return catalogue.Key{}, change, err
	}
	k, err := catalogue.ParseKey(v.SPKI)
	return k, change, err
}

// upToDate waits until the catalogue has what the ledger has now.
func (s *Server) upToDate(ctx context.Context) error {
	h, err := s.height(ctx)
	if err != nil {
		return err
	}
	for _, g := range s.line.list() {
		if err := g.catalogue.WaitHeight(ctx, h); err != nil {
			return problem.New(http.StatusServiceUnavailable, problem.CodeUnavailable, "catalogue", fmt.Sprintf("%d of %d blocks", g.catalogue.Height(), h),
				"must have read all blocks of the ledger before certificates can be listed; nothing was changed, ask again later")
		}
	}
	return nil
}
