package crls

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/crl"
	"github.com/certanchor/certanchor/internal/problem"
	"github.com/certanchor/certanchor/internal/status"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/index"
)

// Decision is what OCSP answers about a certificate.
type Decision struct {
	Revoked    bool
	Time       wire.Millis // of the rest, if it is revoked
	Reason     wire.Reason
	Invalidity wire.Millis // 0: none
	Silent     bool        // the certificate has expired for so long that OCSP tells nothing about it
}

func (d Decision) String() string {
	switch {
	case d.Silent:
		return "nothing"
	case !d.Revoked:
		return "good"
	}
	e := entryOf(nil, status.Status{State: wire.CertRevoked, Time: d.Time, Reason: d.Reason, Invalidity: d.Invalidity})
	return "revoked: " + e.String()
}

const (
	sampleEvery  = 10 * time.Second
	sampleSize   = 64
	compareEvery = 10 * time.Minute
	chunk        = 1000
	keptExpired  = 10 * 24 * time.Hour // after nextUpdate
)

// Run compares what is kept with the index and with OCSP until ctx ends: what was read from disk, as soon as the index has reached it; each CRL
// entry by entry with what OCSP answers, once it is taken; samples of all every ten seconds; and every ten minutes the whole of each
// with the index again.
func (s *Store) Run(ctx context.Context) {
	checked := map[*List]bool{} // every entry of it
	compared := s.cfg.Now()
	sample := s.cfg.After(0)
	for {
		changed := s.cfg.Changed()
		s.checkStored()
		s.checkNew(ctx, checked)
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-sample:
			s.sample()
			if now := s.cfg.Now(); now.Sub(compared) >= compareEvery || now.Before(compared) {
				s.compareAll(ctx)
				s.forget()
				compared = now
			}
			sample = s.cfg.After(sampleEvery)
		}
	}
}

// checkStored judges what was read from disk.
func (s *Store) checkStored() {
	for _, sl := range s.slots() {
		v := s.cfg.Ledger.View()
		if ca := v.CA(sl.list.CAID); sl.state != unchecked || ca == nil || v.Height < sl.list.Contents.Number {
			continue
		}
		s.settle(sl, s.compareStored(sl))
	}
}

// compareStored verifies the signature too: the disk is not to be believed.
func (s *Store) compareStored(sl *slot) error {
	ca := s.cfg.Ledger.View().CA(sl.list.CAID)
	if _, err := s.read(sl.list.CAID, sl.list.DER, ca.Certs); err != nil {
		return err
	}
	return s.compare(sl.list, true)
}

// settle makes what was found out about a CRL its state, unless it was replaced meanwhile. A failure to compare leaves it as it is.
func (s *Store) settle(sl *slot, err error) {
	var p *problem.Problem
	st, why := agrees, ""
	_, late := errors.AsType[*overdueError](err)
	switch {
	case late:
		st, why = overdue, err.Error()
	case errors.As(err, &p) && p.Status == http.StatusUnprocessableEntity:
		st, why = disagrees, err.Error()
	case err != nil:
		s.cfg.Log.Warn("couldn't compare a CRL with the ledger", "ca", sl.list.CAID, "name", sl.list.Name, "error", err)
		return
	}
	s.mu.Lock()
	k := key{sl.list.CAID, sl.list.Name}
	current := s.lists[k] == sl
	if current && st != sl.state {
		s.lists[k] = &slot{list: sl.list, state: st, why: why}
	}
	s.mu.Unlock()
	if current && st == overdue && st != sl.state {
		s.cfg.Log.Error("a CRL hides a change, and is served no longer", "ca", sl.list.CAID, "name", sl.list.Name, "number", sl.list.Contents.Number, "why", why)
	}
	if current && st == disagrees {
		s.cfg.Log.Error("ALARM: a CRL disagrees with the ledger or with OCSP, and is served no longer",
			"ca", sl.list.CAID, "name", sl.list.Name, "number", sl.list.Contents.Number, "why", why)
	}
}

func (s *Store) compareAll(ctx context.Context) {
	for _, sl := range s.slots() {
		if sl.state == agrees && ctx.Err() == nil {
			s.settle(sl, s.compare(sl.list, true))
		}
	}
}

// forget removes CRLs that have expired for so long that nobody can want them, whatever name the CA invented for them.
func (s *Store) forget() {
	for _, sl := range s.slots() {
		if s.cfg.Now().Sub(sl.list.NextUpdate) <= keptExpired {
			continue
		}
		leave, err := s.enter(context.Background()) // so that none replaces it meanwhile
		if err != nil {
			return
		}
		k := key{sl.list.CAID, sl.list.Name}
		if s.slot(k.id, k.name) == sl {
			if err := os.Remove(filepath.Join(s.cfg.Dir, k.id.String(), k.name)); err != nil && !errors.Is(err, os.ErrNotExist) {
				s.cfg.Log.Warn("couldn't remove a CRL that has expired", "ca", k.id, "name", k.name, "error", err)
			} else {
				s.mu.Lock()
				delete(s.lists, k)
				delete(s.bases, k)
				s.mu.Unlock()
			}
		}
		leave()
	}
}

// checkNew compares every entry of a CRL with OCSP, once.
func (s *Store) checkNew(ctx context.Context, checked map[*List]bool) {
	slots := s.slots()
	current := make(map[*List]bool, len(slots))
	for _, sl := range slots {
		current[sl.list] = true
	}
	maps.DeleteFunc(checked, func(list *List, _ bool) bool { return !current[list] }) // those that were replaced
	for _, sl := range slots {
		if checked[sl.list] || sl.state != agrees {
			continue
		}
		later := s.since(sl.list.Contents)
		for entries := range slices.Chunk(sl.list.Contents.Entries, chunk) {
			if ctx.Err() != nil {
				return
			}
			if !s.checkEntries(sl, entries, later) {
				break
			}
		}
		checked[sl.list] = true
	}
}

func (s *Store) sample() {
	for _, sl := range s.slots() {
		all := sl.list.Contents.Entries
		if sl.state != agrees || len(all) == 0 {
			continue
		}
		some := make([]crl.Entry, min(sampleSize, len(all)))
		for i := range some {
			some[i] = all[rand.IntN(len(all))]
		}
		s.checkEntries(sl, some, s.since(sl.list.Contents))
	}
}

// checkEntries compares entries with what OCSP answers. false: they disagree.
func (s *Store) checkEntries(sl *slot, entries []crl.Entry, later *since) bool {
	for i := range entries {
		if err := s.checkEntry(sl.list.Contents, &entries[i], later); err != nil {
			s.settle(sl, err)
			return false
		}
	}
	s.checkedEntries.Add(int64(len(entries)))
	s.metrics.Checked(len(entries))
	return true
}

// Agrees compares contents that are about to be signed with what OCSP answers: all, or of many a sample. The error names a difference.
func (s *Store) Agrees(c *crl.Contents) error {
	n, later := len(c.Entries), s.since(c)
	for i := range min(n, chunk) {
		if n > chunk {
			i = rand.IntN(n)
		}
		if err := s.checkEntry(c, &c.Entries[i], later); err != nil {
			s.cfg.Log.Error("ALARM: what a CRL would say disagrees with OCSP, and is not given out", "ca", c.CAID, "number", c.Number, "error", err)
			return problem.New(http.StatusServiceUnavailable, problem.CodeUnavailable, "bridge", "contradicts itself", err.Error())
		}
	}
	return nil
}

// checkEntry: OCSP answers what the CRL says, or the certificate has changed since the CRL's number.
func (s *Store) checkEntry(c *crl.Contents, e *crl.Entry, later *since) error {
	d, err := s.cfg.Decide(c.CAID, e.Serial)
	if err != nil {
		return fmt.Errorf("what OCSP answers about %s: %w", e.Serial, err)
	}
	if sameAs(d, e) {
		return nil
	}
	changed, err := later.changed(e.Serial)
	if err != nil || changed {
		return err
	}
	return refuse("entries", e.Serial.String()+" "+e.String(), "must be what OCSP answers: %s", d)
}

func sameAs(d Decision, e *crl.Entry) bool {
	switch {
	case d.Silent:
		return true
	case e.Remove || !d.Revoked:
		return e.Remove && !d.Revoked
	}
	return crl.SecondsOf(d.Time) == e.Time && d.Reason == e.Reason && max(crl.SecondsOf(d.Invalidity), 0) == e.Invalidity
}

// since is what the ledger has changed of a CA after as many blocks. It is read once, however many certificates are asked about.
type since struct {
	store *Store
	id    wire.CAID
	read  index.Pos // up to there
	certs map[string]bool
	rules []uint64
}

func (s *Store) since(c *crl.Contents) *since {
	return &since{store: s, id: c.CAID, read: index.Before(c.Number), certs: map[string]bool{}}
}

// changed reports whether the ledger, as it is now, has changed a certificate's status.
func (c *since) changed(serial wire.Serial) (bool, error) {
	const page = 1000
	for {
		changes, err := c.store.cfg.Ledger.Changes(c.read, page)
		if err != nil {
			return false, err
		}
		if len(changes) == 0 {
			break
		}
		for i := range changes {
			switch ch := &changes[i]; {
			case ch.CAID != c.id:
			case ch.Rule != 0:
				c.rules = append(c.rules, ch.Rule)
			default:
				c.certs[string(ch.Serial)] = true
			}
		}
		c.read = changes[len(changes)-1].Pos
	}
	if c.certs[string(serial)] {
		return true, nil
	}
	for _, rule := range c.rules {
		if covered, err := c.store.covers(c.id, rule, serial); covered || err != nil {
			return covered, err
		}
	}
	return false, nil
}

// covers reports whether a rule is about a certificate.
func (s *Store) covers(id wire.CAID, n uint64, serial wire.Serial) (bool, error) {
	rules := s.cfg.Ledger.View().CA(id).Rules
	rec, err := s.cfg.Ledger.Record(id, serial)
	if err != nil || rec == nil || n > uint64(len(rules)) {
		return false, err
	}
	return status.Covers(&rules[n-1], rec.Pre) || status.Covers(&rules[n-1], rec.Final), nil
}
