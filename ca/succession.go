package ca

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/keystate"
	"github.com/certanchor/certanchor/internal/oplog"
)

const (
	successionEvery = time.Second // looks for a new generation, and whether it is trusted yet
	// overlapMost is how long the old key goes on issuing when the organisation's OCSP responders do not ask the new one for certificates: without them nobody
	// could answer for what the new one issues.
	overlapMost = 2 * time.Minute
)

// bySuccession is who puts one key in the place of another.
const bySuccession = "certanchor"

// begin takes up the generations after s that are there, if it is the first.
func (s *Server) begin(cfg Config) error {
	if cfg.line != nil {
		return nil // the first one adds it when it is ready
	}
	for {
		more, err := s.adopt(cfg)
		if err != nil {
			// One that was in use must not be missing; one that was not may come later.
			if used, serr := s.nextUsed(); used || serr != nil {
				return fmt.Errorf("the next generation of the CA's key, which was in use, cannot be: %w", errors.Join(err, serr))
			}
			s.log.Warn("the next generation of the CA's key cannot be used yet", "error", err)
			return nil
		}
		if !more {
			return nil
		}
	}
}

func (s *Server) nextPath() string {
	all := s.line.list()
	return filepath.Join(all[len(all)-1].dir, nextDir)
}

// nextUsed reports whether the generation after the last one here has ever been in use.
func (s *Server) nextUsed() (bool, error) {
	g := generationDir{dir: s.nextPath()}
	var err error
	if g.cert, _, err = LoadCertificate(g.dir); err != nil {
		return false, err
	}
	state, err := g.state()
	return state != keystate.Generated, err
}

// adopt opens the generation after the last one here, if there is one.
func (s *Server) adopt(cfg Config) (bool, error) {
	dir := s.nextPath()
	if cfg.OpenKey == nil {
		return false, nil
	}
	cert, chain, err := LoadCertificate(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	key, err := cfg.OpenKey(dir)
	if err != nil {
		return false, fmt.Errorf("CA in %s: key of %s: %w", dir, keyName(cert), err)
	}
	if cfg.Join != nil {
		if err := cfg.Join(s.running, cert, chain); err != nil {
			return false, err
		}
	}
	next := cfg
	next.Dir, next.Key, next.line, next.home = dir, key, s.line, s.dir
	if next.CT, err = cfg.nextCT(cert); err != nil {
		return false, fmt.Errorf("CA in %s: key of its log: %w", dir, err)
	}
	next.KeyUsable = nil // it is about the first one's key
	next.Metrics = s.metrics.Sub("generation", keyName(cert))
	g, err := New(next, s.ledger)
	if err != nil {
		return false, err
	}
	if err := g.caughtUp(s.running); err != nil {
		return false, errors.Join(err, g.Close())
	}
	s.line.add(g)
	s.log.Info("the next generation of the CA's key is there", "ca_id", g.issuer.id.String(), "state", string(g.custody.state()))
	return true, nil
}

// nextCT is Config.CT of a generation after the first.
func (c *Config) nextCT(cert *x509.Certificate) (*Submissions, error) {
	if c.CT == nil || c.NextCT == nil {
		return nil, nil
	}
	key, err := c.NextCT(wire.CAIDOf(cert.RawSubjectPublicKeyInfo))
	if err != nil || key == nil {
		return nil, err
	}
	return &Submissions{Key: key, Prefix: c.CT.Prefix}, nil
}

// succeed takes up new generations and puts them in the place of those before, until ctx ends.
func (s *Server) succeed(ctx context.Context, cfg Config) {
	said := ""
	for {
		_, err := s.adopt(cfg)
		if err == nil {
			err = s.advance(ctx)
		}
		if err != nil && ctx.Err() == nil && err.Error() != said { // once
			said = err.Error()
			s.log.Warn("the rotation of the CA's key waits", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(successionEvery):
		}
	}
}

// advance does what is due for each pair of generations. Each step is one durable change of one key's state, and what comes next is read off the states: a process
// that dies in between leaves the rest to the next.
func (s *Server) advance(ctx context.Context) error {
	all := s.line.list()
	for i := range len(all) - 1 {
		old, next := all[i], all[i+1]
		switch before, state := old.custody.state(), next.custody.state(); {
		case state == keystate.Generated:
			if err := s.takenUp(ctx, next); err != nil {
				return err
			}
			if err := next.trusted(ctx); err != nil {
				return err
			}
			if err := s.rotated(ctx, next, KeyChange{To: keystate.Active, By: bySuccession, How: "rotation", Why: "is on the ledger's trust list"}); err != nil {
				return err
			}
			s.step(stepActivated)
		case state == keystate.Active && before == keystate.Active && next.answered():
			if err := old.bereft(next); err != nil {
				return err
			}
			why := "succeeded by " + next.issuer.id.String()
			if err := s.rotated(ctx, old, KeyChange{To: keystate.Retired, By: bySuccession, How: "rotation", Why: why}); err != nil {
				return err
			}
			s.step(stepRetired)
		}
	}
	return nil
}

// takenUp has the operators' log tell, once in a process, of a key that was made while the CA ran.
func (s *Server) takenUp(ctx context.Context, g *Server) error {
	if g.told {
		return nil
	}
	last := g.custody.states.Last()
	e := oplog.Entry{Actor: "ca", Action: "take up the next key", Target: g.issuer.id.String(), Detail: map[string]string{"made by": last.By, "made": last.Time.UTC().Format(time.RFC3339)}}
	err := s.operators.internally(ctx, e, func(context.Context) error { return nil })
	g.told = err == nil
	return err
}

// rotated changes the state of a generation's key, with a record in the operators' log.
func (s *Server) rotated(ctx context.Context, g *Server, c KeyChange) error {
	e := oplog.Entry{Actor: c.By, Action: "key becomes " + string(c.To), Target: g.issuer.id.String(), Detail: map[string]string{"why": c.Why}}
	return s.operators.internally(ctx, e, func(ctx context.Context) error { return g.ChangeKey(ctx, c) })
}

// Steps of a rotation, as Config.step sees them.
const (
	stepActivated = "rotation activated"
	stepRetired   = "rotation retired"
)

// trusted returns why the CA cannot issue as far as the ledger is concerned.
func (s *Server) trusted(ctx context.Context) error {
	if err := s.checkRegistered(ctx); err != nil {
		return err
	}
	rec, err := s.trustListEntry(ctx)
	if err == nil && rec.State != wire.CAActive {
		err = wire.Errorf(wire.FailedPrecondition, "ca.state", fmt.Sprint(rec.State), "the new CA must be active on the trust list (%d)", wire.CAActive)
	}
	return err
}

// answered reports whether each of the organisation's OCSP responders has a certificate of this generation, or had time enough to get one.
func (s *Server) answered() bool {
	since := s.custody.states.Last().Time
	return s.enrolled.Load() >= int64(len(s.responders)) || s.now().Sub(since) >= overlapMost
}

// enrolment counts a responder certificate that was issued.
func (s *Server) enrolment(serial wire.Serial) { s.issuerOf(serial).enrolled.Add(1) }

// endSuccession closes the generations after the first.
func (s *Server) endSuccession() (err error) {
	if all := s.line.list(); all[0] == s {
		for _, g := range all[1:] {
			err = errors.Join(err, g.Close())
		}
	}
	return err
}
