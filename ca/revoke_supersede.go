package ca

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/oplog"
	"github.com/certanchor/certanchor/network"
)

// supersededFile lists which certificates replace which. A line is written before the new certificate is in the journal, so that no crash
// can issue it and forget the old one.
const supersededFile = "superseded"

// maxOverlap bounds how long both certificates are good.
const maxOverlap = 400 * 24 * time.Hour

// supersession is a line of the file, and what memory keeps of it.
type supersession struct {
	New     string `json:"new"`
	Old     string `json:"old,omitempty"`
	Overlap int64  `json:"overlap,omitempty"` // milliseconds after the new certificate's entry in the log
	By      string `json:"by,omitempty"`
	End     string `json:"end,omitempty"` // in a second line: revoked, or why not

	signing bool // the request that makes the new certificate has not journalled it yet
}

// supersessions is which certificates are still to be revoked because others replace them.
type supersessions struct {
	file *lines
	kick chan struct{} // capacity 1

	mu   sync.Mutex
	open map[string]*supersession // by the new serial number
	past map[string]*supersession // those that have ended
}

func openSupersessions(dir string) (*supersessions, error) {
	p := &supersessions{kick: make(chan struct{}, 1), open: map[string]*supersession{}, past: map[string]*supersession{}}
	var err error
	p.file, err = openLines(filepath.Join(dir, supersededFile), func(line []byte) error {
		l := &supersession{}
		if err := json.Unmarshal(line, l); err != nil {
			return err
		}
		if l.End == "" {
			p.open[l.New] = l
		} else if first := p.open[l.New]; first != nil {
			first.End = l.End
			p.past[l.New] = first
			delete(p.open, l.New)
		}
		return nil
	})
	return p, err
}

// superseding is the part of a request's digest that says what it replaces.
func (r Request) superseding() string {
	if r.Supersedes == nil {
		return ""
	}
	return fmt.Sprintf("\x00%s %d", r.Supersedes, r.Overlap.Milliseconds())
}

// begin makes it durable that the certificate serial, signed and not in the journal yet, replaces what r says.
func (p *supersessions) begin(r Request, serial wire.Serial) error {
	if r.Supersedes == nil {
		return nil
	}
	l := &supersession{New: serial.String(), Old: r.Supersedes.String(), Overlap: r.Overlap.Milliseconds(), By: r.Client, signing: true}
	p.mu.Lock()
	p.open[l.New] = l
	p.mu.Unlock()
	err := p.file.add(l)
	if err != nil {
		p.mu.Lock()
		delete(p.open, l.New)
		p.mu.Unlock()
		return fmt.Errorf("couldn't note which certificate is replaced: %w", err)
	}
	return nil
}

// journalled ends what begin began: the book knows the certificate, or it was dropped.
func (p *supersessions) journalled(r Request, serial wire.Serial) {
	if r.Supersedes == nil {
		return
	}
	p.mu.Lock()
	if l := p.open[serial.String()]; l != nil {
		l.signing = false
	}
	p.mu.Unlock()
	p.wake()
}

func (p *supersessions) wake() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

func (p *supersessions) pending() []*supersession {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.DeleteFunc(slices.Collect(maps.Values(p.open)), func(l *supersession) bool { return l.signing })
}

func (p *supersessions) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.open)
}

func (p *supersessions) end(l *supersession, how string) error {
	if err := p.file.add(&supersession{New: l.New, End: how}); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	l.End = how
	p.past[l.New] = l
	delete(p.open, l.New)
	return nil
}

// of says what a certificate replaces.
func (p *supersessions) of(got *Issued) *caapi.Superseded {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.open[got.Serial.String()]
	if l == nil {
		l = p.past[got.Serial.String()]
	}
	if l == nil {
		return nil
	}
	return &caapi.Superseded{Serial: l.Old, At: (got.Log.Time + wire.Millis(l.Overlap)).Time().Format(caapi.TimeFormat)}
}

// superseding reads what a request says about the certificate that it replaces, which c may replace if it was issued to c, or as an
// operator.
func (s *Server) superseding(c *client, req caapi.IssueRequest) (old wire.Serial, overlap time.Duration, err error) {
	if req.Supersedes == "" {
		if req.Overlap != "" {
			return nil, 0, invalid("overlap", req.Overlap, "must be absent without supersedes")
		}
		return nil, 0, nil
	}
	if old, err = wire.ParseSerial(req.Supersedes); err != nil {
		return nil, 0, invalid("supersedes", req.Supersedes, "must be a certificate's serial number, hexadecimal")
	}
	if req.Overlap != "" {
		if overlap, err = time.ParseDuration(req.Overlap); err != nil || overlap < 0 || overlap > maxOverlap {
			return nil, 0, invalid("overlap", req.Overlap, "must be a duration such as 72h, of at most %v", maxOverlap)
		}
	}
	e := s.issuerOf(old).book.findSerial(old)
	if !allowed[c.role][actRevoke] && (e == nil || e.client.Value() != c.name) {
		// To a requester, another one's certificate is like none.
		return nil, 0, wire.Errorf(wire.PermissionDenied, "supersedes", old.String(), "must be a certificate that this CA bridge has issued to %s", c.name)
	}
	return old, overlap, nil
}

// checkSuperseded refuses to replace what is not there, or is revoked.
func (s *Server) checkSuperseded(ctx context.Context, r Request) error {
	if r.Supersedes == nil {
		return nil
	}
	g, err := s.first().holder(ctx, r.Supersedes) // often of the generation before
	if err != nil {
		return err
	}
	values, err := g.readState(ctx, wire.CertKey(g.issuer.id, r.Supersedes))
	if err != nil {
		return err
	}
	if values[0] == nil {
		return wire.Errorf(wire.NotFound, "supersedes", r.Supersedes.String(), "must be the serial of a certificate of this CA that is on the ledger")
	}
	var rec wire.CertRecord
	if err := wire.Decode(values[0], &rec); err != nil {
		return err
	}
	if rec.State == wire.CertRevoked {
		return wire.Errorf(wire.FailedPrecondition, "supersedes", r.Supersedes.String(), "is revoked already (%s): there is nothing to supersede", rec.Reason)
	}
	return nil
}

// supersedePause is how long a failure is left alone; while a new certificate has no outcome it is looked at as often.
const (
	supersedePause = time.Second
	refusedPause   = time.Minute // a suspended CA, for example
)

// supersede revokes certificates that others have replaced, when their time has come.
func (s *Server) supersede(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.superseded.kick:
		case <-timer.C:
		}
		next := time.Duration(0)
		for _, l := range s.superseded.pending() {
			again, err := s.supersedeOne(ctx, l)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				s.log.Warn("a superseded certificate is not revoked yet", "serial", l.Old, "superseded_by", l.New, "error", err)
			}
			if again > 0 && (next == 0 || again < next) {
				next = again
			}
		}
		if next > 0 {
			timer.Reset(next)
		}
	}
}

// supersedeOne returns when to look again; 0: it has ended.
func (s *Server) supersedeOne(ctx context.Context, l *supersession) (again time.Duration, err error) {
	fresh, err := hex.DecodeString(l.New)
	if err != nil {
		return 0, s.superseded.end(l, err.Error())
	}
	issuer := s.issuerOf(fresh)
	e := issuer.book.findSerial(fresh)
	if e == nil {
		// Either a crash before it was journalled, or a generation that this process cannot open.
		if used, err := s.nextUsed(); used || err != nil && !errors.Is(err, fs.ErrNotExist) {
			return refusedPause, errors.Join(errors.New("the generation of the CA's key that issued the new certificate is not here"), err)
		}
		return 0, s.superseded.end(l, "the new certificate does not exist")
	}
	switch st, _ := issuer.book.stateOf(e); st {
	case stateSigned:
		return supersedePause, nil
	case stateAnchored:
	default:
		return 0, s.superseded.end(l, "the new certificate was not issued")
	}
	if early := (e.log.Time + wire.Millis(l.Overlap)).Time().Sub(s.now()); early > 0 {
		return min(early, time.Hour), nil
	}
	old, err := wire.ParseSerial(l.Old)
	if err != nil {
		return 0, s.superseded.end(l, err.Error())
	}
	if err := s.reachable(ctx); err != nil {
		return supersedePause, err
	}
	g, err := s.holder(ctx, old)
	if err != nil {
		return supersedePause, err
	}
	var res wire.StatusResult
	var receipt network.Receipt
	entry := oplog.Entry{Actor: "ca", Action: "supersede", Target: l.Old, Detail: map[string]string{"superseded by": l.New, "asked for by": l.By}}
	err = s.operators.internally(ctx, entry, func(ctx context.Context) error {
		res, receipt, err = g.commitChange(ctx, wire.StatusChange{Serial: old, Op: wire.OpRevoke, Reason: wire.Superseded})
		return err
	})
	switch {
	case err == nil:
		g.crls.changedAt(receipt.Block, old, res)
		s.log.Info("status changed", "client", l.By, "serial", l.Old, "state", stateName(res.State), "reason", res.Reason.String(), "changed", res.Changed,
			"block", receipt.Block, "superseded_by", l.New)
		if err := s.superseded.end(l, "revoked"); err != nil {
			return supersedePause, err
		}
		return 0, nil
	case network.IsRejected(err) && ctx.Err() == nil:
		return refusedPause, fmt.Errorf("the ledger refuses: %w", err)
	}
	return supersedePause, err
}
