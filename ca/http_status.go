package ca

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"

	"github.com/certanchor/certanchor/internal/caapi"
)

var errUnresolved = errors.New("it is on its way to the ledger")

func (s *Server) postRevocation(w http.ResponseWriter, r *http.Request, c *client) error {
	var req caapi.RevokeRequest
	if err := readFields(w, r, map[string]*string{"serial": &req.Serial, "reason": &req.Reason, "invalidity_date?": &req.InvalidityDate}); err != nil {
		return err
	}
	if waits, err := s.revokeUnderDual(w, c, req); waits || err != nil {
		return err
	}
	change, acknowledged, err := s.revoke(context.WithoutCancel(r.Context()), c.name, req)
	return s.changed(w, c, change, acknowledged, err)
}

func (s *Server) postRelease(w http.ResponseWriter, r *http.Request, c *client) error {
	var req caapi.ReleaseRequest
	if err := readFields(w, r, map[string]*string{"serial": &req.Serial}); err != nil {
		return err
	}
	change, acknowledged, err := s.Release(context.WithoutCancel(r.Context()), req)
	return s.changed(w, c, change, acknowledged, err)
}

// changed answers 200 for a change that every responder has applied, 202 for one that is committed only.
func (s *Server) changed(w http.ResponseWriter, c *client, change *caapi.StatusChange, acknowledged bool, err error) error {
	if err != nil {
		return err
	}
	s.log.Info("status changed", "client", c.name, "serial", change.Serial, "state", change.State, "reason", change.Reason,
		"changed", change.Changed, "block", change.Block, "acknowledged", acknowledged)
	code := http.StatusOK
	if !acknowledged {
		code = http.StatusAccepted
	}
	return s.answer(w, code, change)
}

func (s *Server) getCA(w http.ResponseWriter, _ *http.Request, _ *client) error {
	return s.answer(w, http.StatusOK, s.Describe())
}

// Describe returns the CA's certificate, chain and profiles.
func (s *Server) Describe() *caapi.CA {
	generations := s.describeGenerations()
	s = s.issuing()
	d := &caapi.CA{Generations: generations, CAID: s.issuer.id.String(), Certificate: string(encodeCert(s.issuer.cert.Raw)), Chain: s.above(), Profiles: []caapi.Profile{}}
	for _, name := range slices.Sorted(maps.Keys(s.issuer.policy.Profiles)) {
		p := s.issuer.policy.Profiles[name]
		q := caapi.Profile{Name: name, Usages: p.Usage, Expiry: p.ExpiryString, OCSPURL: p.OCSP, SCTs: s.issuer.policy.rules[name].scts}
		if pt := s.issuer.policy.points[name]; pt != nil {
			q.CRLURLs, q.CRLShards = pt.urls, pt.shards
		}
		d.Profiles = append(d.Profiles, q)
	}
	return d
}

// getHealth: the process is there.
func (s *Server) getHealth(w http.ResponseWriter, _ *http.Request) {
	_ = s.answer(w, http.StatusOK, map[string]string{"status": "alive"}) // a map of strings always marshals
}

// getReady: 200 when certificates can be issued, 503 with the reason when not.
func (s *Server) getReady(w http.ResponseWriter, r *http.Request) {
	ready := s.Ready(r.Context())
	code := http.StatusOK
	if !ready.Ready {
		code = http.StatusServiceUnavailable
		w.Header().Set("Retry-After", "1")
	}
	_ = s.answer(w, code, ready) // strings, integers and booleans always marshal
}
