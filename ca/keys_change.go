package ca

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/keystate"
)

// getKey answers ?ca_id=, the CA's key that issues if that is absent.
func (s *Server) getKey(w http.ResponseWriter, r *http.Request, _ *client) error {
	g, err := s.generation(r.URL.Query().Get("ca_id"))
	if err != nil {
		return err
	}
	k, err := g.Key(r.Context())
	if err != nil {
		return err
	}
	return s.answer(w, http.StatusOK, k)
}

// postKey changes a state. The answer comes when the change is in force.
func (s *Server) postKey(w http.ResponseWriter, r *http.Request, c *client) error {
	var req caapi.KeyRequest
	err := readFields(w, r, map[string]*string{"to": &req.To, "why": &req.Why, "ca_id?": &req.CAID, "confirm?": &req.Confirm, "force?": &req.Force})
	if err != nil {
		return err
	}
	g, err := s.generation(req.CAID)
	if err != nil {
		return err
	}
	change := KeyChange{By: c.name, How: c.how, Why: req.Why, Confirm: req.Confirm}
	if change.To, err = keystate.Parse("to", req.To); err != nil {
		return err
	}
	switch req.Force {
	case "", "false":
	case "true":
		change.Force = true
	default:
		return invalid("force", req.Force, "must be true or false")
	}
	last := g.custody.states.Last()
	if resumes(last.To, change.To) {
		change.ends = last.Seq
		if asked, err := s.resumeUnderDual(w, c, g, change); asked || err != nil {
			return err
		}
	}
	if err := g.ChangeKey(r.Context(), change); err != nil {
		return err
	}
	k, err := g.Key(r.Context())
	if err != nil {
		return err
	}
	return s.answer(w, http.StatusOK, k)
}

// KeyChange is a change of state that somebody asks for.
type KeyChange struct {
	To           keystate.State
	By, How, Why string
	Confirm      string // to destroy: the CA ID
	Force        bool   // to destroy: although certificates may still need CRLs

	ends uint64 // number of the record of the suspension that it ends; 0: it ends none
}

// ChangeKey changes the state of the CA's key and returns when that is durable and nothing that the new state forbids is being signed any more. Whether
// the change needs several operators is the caller's to ask. Errors: *wire.Error.
func (s *Server) ChangeKey(ctx context.Context, c KeyChange) error {
	if c.To == keystate.Destroyed {
		needed, err := s.neededUntil(ctx)
		if err == nil {
			err = mayDestroy(s.issuer.id, c, needed, s.now())
		}
		if err != nil {
			return err
		}
	}
	r, err := s.custody.change(s.stateChange(c), c.ends, func() error { return eraseKey(s.dir) })
	if err != nil {
		s.log.Warn("the state of the CA's key was not changed", "to", string(c.To), "by", c.By, "error", err)
		return err
	}
	s.log.Info("the state of the CA's key has changed", "ca_id", s.issuer.id.String(), "from", string(r.From), "to", string(r.To), "by", r.By, "why", r.Why)
	if s.crls != nil {
		s.crls.poll()
		s.crls.wake()
	}
	return nil
}

func (s *Server) stateChange(c KeyChange) keystate.Change {
	return keystate.Change{To: c.To, By: c.By, How: c.How, Why: c.Why, At: s.now()}
}

// mayDestroy refuses to destroy a key by mistake, or one whose certificates may still need CRLs.
func mayDestroy(id wire.CAID, c KeyChange, needed, now time.Time) error {
	if c.Confirm != id.String() {
		return invalid("confirm", c.Confirm, "must be the CA ID, %s: a key that is destroyed does not come back", id)
	}
	if !c.Force && now.Before(needed) {
		return wire.Errorf(wire.FailedPrecondition, "to", string(c.To),
			"certificates of this key may need CRLs until %s: after that, or with force, if it does not matter", needed.UTC().Format(time.RFC3339))
	}
	return nil
}

// neededUntil is until when certificates of the CA may need a CRL: the end of the last one in its journal, if those are all that the ledger has; else that
// of the CA certificate, which none outlives.
func (s *Server) neededUntil(ctx context.Context) (time.Time, error) {
	last, n, err := s.lastExpiry()
	if err != nil {
		return time.Time{}, err
	}
	values, err := s.readState(ctx, wire.LogHeadKey(s.issuer.id))
	if err != nil {
		return s.issuer.cert.NotAfter, nil //nolint:nilerr // without the ledger nobody knows of others
	}
	var head wire.LogHead
	if values[0] != nil {
		if err := wire.Decode(values[0], &head); err != nil {
			return time.Time{}, err
		}
	}
	if head.Size != n {
		return s.issuer.cert.NotAfter, nil
	}
	return last, nil
}

// lastExpiry reads the journal's certificates that are on the ledger, or may be; n is how many entries of the log they have, or may have.
func (s *Server) lastExpiry() (last time.Time, n uint64, err error) {
	s.book.mu.Lock()
	entries := make([]*entry, 0, len(s.book.bySerial))
	for _, e := range s.book.bySerial {
		if e.state == stateSigned || e.state == stateAnchored {
			entries = append(entries, e)
			n++
			if e.need > 0 && e.stage > stagePreAnchored { // its precertificate has one, too
				n++
			}
		}
	}
	s.book.mu.Unlock()
	for _, e := range entries {
		r, err := s.journal.read(e.pos)
		if err != nil {
			return last, 0, err
		}
		cert, err := x509.ParseCertificate(r.Cert)
		if err != nil {
			return last, 0, fmt.Errorf("certificate %s in the journal: %w", e.serial, err)
		}
		if cert.NotAfter.After(last) {
			last = cert.NotAfter
		}
	}
	return last, n, nil
}

// Key describes the CA's key.
func (s *Server) Key(ctx context.Context) (*caapi.Key, error) {
	needed, err := s.neededUntil(ctx)
	if err != nil {
		return nil, err
	}
	k := describeKey(s.issuer.id, s.custody.states.History(), needed)
	k.Issues = s.issues()
	if err := s.custody.ready(); tokenAway(err) {
		k.Token = err.Error()
	}
	return k, nil
}

func describeKey(id wire.CAID, history []keystate.Record, needed time.Time) *caapi.Key {
	k := &caapi.Key{CAID: id.String(), State: string(keystate.StateOf(history)), Signs: []string{}, Needed: needed.UTC().Format(time.RFC3339)}
	for _, u := range []keystate.Use{keystate.Certificates, keystate.Responders, keystate.CRLs, keystate.Promised} {
		if keystate.State(k.State).Allows(u) {
			k.Signs = append(k.Signs, string(u))
		}
	}
	for _, r := range history {
		k.Since, k.By, k.How, k.Why = r.Time.Format(caapi.TimeFormat), r.By, r.How, r.Why
		k.History = append(k.History, caapi.KeyChange{From: string(r.From), To: string(r.To), Time: k.Since, By: r.By, How: r.How, Why: r.Why})
	}
	return k
}
