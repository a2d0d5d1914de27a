package ca

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/certanchor/certanchor/internal/caapi"
)

// loadCRLs records which CRLs certificates may name, before any certificate is signed, and sets up their making.
func (s *Server) loadCRLs(cfg Config) error {
	store, err := openCRLStore(cfg.Dir)
	if err != nil {
		return err
	}
	scopes, err := store.addScopes(s.issuer.policy.scopes(s.issuer.id))
	if err != nil {
		return err
	}
	if s.settings.CRL == nil || s.settings.CRL.Disabled {
		return nil
	}
	s.crls, err = newCRLMaker(s, s.settings.CRL.withDefaults(s.settings.Responders), store, scopes, cfg.CRLHTTP)
	if err == nil && cfg.lintCRL != nil {
		s.crls.lint = cfg.lintCRL
	}
	return err
}

func (s *Server) getCRLs(w http.ResponseWriter, r *http.Request, _ *client) error {
	g, err := s.generation(r.URL.Query().Get("ca_id"))
	if err != nil {
		return err
	}
	return s.answer(w, http.StatusOK, g.CRLs())
}

// CRLs tells which CRLs there are and who serves them.
func (s *Server) CRLs() *caapi.CRLs {
	st := &caapi.CRLs{CAID: s.issuer.id.String(), Lists: []caapi.CRL{}, Targets: []caapi.CRLTarget{}, Problems: []caapi.CRLProblem{}}
	m := s.crls
	if m == nil {
		return st
	}
	st.Made, st.Contents = true, m.source.base
	m.mu.Lock()
	for _, c := range m.newest {
		st.Lists = append(st.Lists, caapi.CRL{
			Kind: string(c.kind), Scope: c.scope, Number: c.number, Base: c.base, Entries: c.entries, Size: c.size, SHA256: hex.EncodeToString(c.sum[:]),
			ThisUpdate: c.thisUpdate.UTC().Format(time.RFC3339), NextUpdate: c.nextUpdate.UTC().Format(time.RFC3339),
		})
	}
	for _, p := range m.problems {
		st.Problems = append(st.Problems, *p)
	}
	m.mu.Unlock()
	slices.SortFunc(st.Lists, func(a, b caapi.CRL) int { return cmp.Or(cmp.Compare(a.Scope, b.Scope), cmp.Compare(a.Kind, b.Kind)) })
	slices.SortFunc(st.Problems, func(a, b caapi.CRLProblem) int { return cmp.Compare(a.Scope, b.Scope) })
	for _, t := range m.targets {
		st.Targets = append(st.Targets, t.status())
	}
	return st
}

// etag is what OCSP bridges name the CRL for caches.
func (c *signedCRL) etag() string { return `"` + hex.EncodeToString(c.sum[:16]) + `"` }

// lost tells whether a target does not serve a CRL any more that it has taken.
func (t *crlTarget) lost(ctx context.Context, c *signedCRL) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, t.url+c.path(t.id.String()), nil)
	if err != nil {
		return false, err
	}
	resp, err := t.client.Do(req)
	if err != nil {
		return false, err
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	_ = resp.Body.Close() // nothing is lost with it
	switch {
	case err != nil:
		return false, err
	case resp.StatusCode == http.StatusNotFound, resp.StatusCode == http.StatusGone:
		return true, nil
	case resp.StatusCode != http.StatusOK:
		return false, fmt.Errorf("HEAD %s: %s", req.URL, resp.Status)
	}
	return resp.Header.Get("ETag") != c.etag(), nil
}
