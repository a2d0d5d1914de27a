package ca

import (
	"context"
	"net/http"
	"os"
	"path/filepath"

	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/dual"
	"github.com/certanchor/certanchor/internal/keyfile"
)

// maxProfilesFile is the longest profiles.json that the API takes, in octets.
const maxProfilesFile = 4 << 20

// When a change is in force, as caapi.Applied says it.
const (
	inForceNow   = "now"
	inForceStart = "from the next start on"
)

// approvedProfiles reads the profiles, and refuses those that the dual-control policy wants approved and that nobody approved. Generations of the key have those of the
// first one, as that one read them: a file that was changed since is in force from the next start on, for all of them.
func (s *Server) approvedProfiles(dir string) (*profiles, error) {
	if first := s.first(); first != s {
		return first.issuer.policy, nil
	}
	return loadProfiles(filepath.Join(dir, profilesFile), func(data []byte) error {
		if err := keysPutIn(data); err != nil { // before a digest that cannot be right is complained of
			return err
		}
		return s.dual.policy.Load().CheckProfiles(data)
	})
}

// getProfiles answers with the file as it is: what a change is made from.
func (s *Server) getProfiles(w http.ResponseWriter, _ *http.Request, c *client) error {
	data, err := os.ReadFile(filepath.Join(s.dual.dir, profilesFile))
	if err != nil {
		return err
	}
	if err := maySeeKeys(c, data); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if _, err := w.Write(data); err != nil {
		s.log.Debug("answer not delivered", "error", err)
	}
	return nil
}

// postProfiles replaces the profiles, or asks for approvals.
func (s *Server) postProfiles(w http.ResponseWriter, r *http.Request, c *client) error {
	data, err := readFile(w, r, maxProfilesFile)
	if err != nil {
		return err
	}
	if err := keysPutIn(data); err != nil {
		return invalid("profiles", "", "%v", err)
	}
	if _, err := parseProfiles(data); err != nil {
		return invalid("profiles", "", "%v", err)
	}
	p := s.dual.policy.Load()
	if p.Needs(dual.KindProfiles, 1) {
		return s.proposeReplacement(w, c, p, dual.KindProfiles, data)
	}
	if err := keyfile.Replace(filepath.Join(s.dual.dir, profilesFile), data, 0o644); err != nil {
		return err
	}
	s.log.Info("profiles replaced", "client", c.name, "sha256", dual.Digest(data))
	return s.answer(w, http.StatusOK, caapi.Applied{SHA256: dual.Digest(data), InForce: inForceStart})
}

func (s *Server) proposeReplacement(w http.ResponseWriter, c *client, p *dual.Policy, kind string, data []byte) error {
	op, err := p.NewReplacement(kind, data, s.now())
	if err != nil {
		return err
	}
	return s.propose(w, c, op, data)
}

func (s *Server) getDualControl(w http.ResponseWriter, _ *http.Request, _ *client) error {
	p := s.dual.policy.Load()
	d := caapi.DualControl{Configured: p != nil}
	if p != nil {
		d.SHA256, d.Need, d.Rules, d.Operators = p.Digest(), p.Quorum(), p.Rules(), p.Operators(dual.KindRevoke)
	}
	return s.answer(w, http.StatusOK, d)
}

// postDualControl asks for approvals of another policy; the first one needs none.
func (s *Server) postDualControl(w http.ResponseWriter, r *http.Request, c *client) error {
	data, err := readFile(w, r, dual.MaxPolicyFile)
	if err != nil {
		return err
	}
	if _, err := dual.ParsePolicy(data); err != nil {
		return invalid("policy", "", "%v", err)
	}
	if p := s.dual.policy.Load(); p != nil {
		return s.proposeReplacement(w, c, p, dual.KindPolicy, data)
	}
	if err := dual.Adopt(s.dual.dir, data); err != nil {
		return err
	}
	if err := s.dual.use(); err != nil {
		return err
	}
	s.log.Info("dual control is in force", "client", c.name, "sha256", dual.Digest(data))
	return s.answer(w, http.StatusOK, caapi.Applied{SHA256: dual.Digest(data), InForce: inForceNow})
}

// replaceApproved puts approved profiles or an approved policy in place.
func (s *Server) replaceApproved(_ context.Context, op dual.Operation, contents []byte) (any, error) {
	if op.Kind == dual.KindProfiles {
		if _, err := parseProfiles(contents); err != nil {
			return nil, err
		}
	}
	if err := s.dual.store.Apply(s.dual.policy.Load(), op.ID()); err != nil {
		return nil, err
	}
	inForce := inForceStart
	if op.Kind == dual.KindPolicy {
		if err := s.dual.use(); err != nil {
			return nil, err
		}
		inForce = inForceNow
	}
	return &caapi.Applied{SHA256: dual.Digest(contents), InForce: inForce}, nil
}
