package ca

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/problem"
)

// handler answers a request of an authenticated client.
type handler func(w http.ResponseWriter, r *http.Request, c *client) error

// Handler serves the HTTP API that package caapi describes. Every error is an RFC 9457 problem.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	route := func(path string, methods map[string]http.HandlerFunc) {
		allow := strings.Join(slices.Sorted(maps.Keys(methods)), ", ")
		mux.Handle(path, s.metrics.HTTP(path, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if h := methods[r.Method]; h != nil {
				h(w, r)
				return
			}
			w.Header().Set("Allow", allow)
			problem.Write(w, s.log, problem.New(http.StatusMethodNotAllowed, string(wire.InvalidArgument), "method", r.Method, "must be "+allow))
		})))
	}
	route(caapi.PathCertificates, map[string]http.HandlerFunc{"POST": s.guard(actIssue, s.postCertificate)})
	route(caapi.PathCertificates+"/{serial}", map[string]http.HandlerFunc{"GET": s.guard(actRead, s.getCertificate)})
	route(caapi.PathRevocations, map[string]http.HandlerFunc{"POST": s.guard(actRevoke, s.postRevocation)})
	route(caapi.PathStatus, map[string]http.HandlerFunc{"GET": s.guard(actDescribe, s.getStatus)})
	route(caapi.PathBulk, map[string]http.HandlerFunc{"GET": s.guard(actRead, s.getBulks), "POST": s.guard(actRevoke, s.postBulk)})
	route(caapi.PathBulk+"/{id}", map[string]http.HandlerFunc{"GET": s.guard(actRead, s.getBulk), "POST": s.guard(actRevoke, s.postBulkStart)})
	route(caapi.PathBulk+"/{id}"+caapi.PathResults, map[string]http.HandlerFunc{"GET": s.guard(actRead, s.getBulkResults)})
	route(caapi.PathReleases, map[string]http.HandlerFunc{"POST": s.guard(actRevoke, s.postRelease)})
	route(caapi.PathResponders, map[string]http.HandlerFunc{"POST": s.guard(actEnrol, s.postResponder)})
	route(caapi.PathCA, map[string]http.HandlerFunc{"GET": s.guard(actDescribe, s.getCA)})
	route(caapi.PathCRLs, map[string]http.HandlerFunc{"GET": s.guard(actDescribe, s.getCRLs)})
	route(caapi.PathBackup, map[string]http.HandlerFunc{"POST": s.guard(actExport, s.postBackup)})
	route(caapi.PathKey, map[string]http.HandlerFunc{"GET": s.guard(actDescribe, s.getKey), "POST": s.guard(actKeys, s.postKey)})
	s.operationRoutes(route)
	route(caapi.PathHealth, map[string]http.HandlerFunc{"GET": s.getHealth})
	route(caapi.PathReady, map[string]http.HandlerFunc{"GET": s.getReady})
	route(caapi.PathMetrics, map[string]http.HandlerFunc{"GET": s.metrics.Handler().ServeHTTP})
	if s.front != nil {
		mux.Handle("/ct/v1/", s.metrics.HTTP("/ct/v1/", http.HandlerFunc(s.serveCT)))
	}
	s.routeCFSSL(mux)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		problem.Write(w, s.log, wire.Errorf(wire.NotFound, "path", r.URL.Path, "is not a resource of this API"))
	})
	return mux
}

// guard authenticates the client and checks that its role allows act.
func (s *Server) guard(act action, h handler) http.HandlerFunc {
	h = s.recorded(act, h)
	return func(w http.ResponseWriter, r *http.Request) {
		c, err := s.clients.authenticate(r)
		if err != nil {
			s.operators.refusedAnonymous(r)
			if problem.From(err).Status == http.StatusUnauthorized {
				w.Header().Set("WWW-Authenticate", `Bearer realm="certanchor ca"`) // RFC 9110 section 11.6.1
			}
			problem.Write(w, s.log, err)
			return
		}
		if !allowed[c.role][act] {
			s.log.Warn("refused", "client", c.name, "role", string(c.role), "method", r.Method, "path", r.URL.Path)
			err := wire.Errorf(wire.PermissionDenied, "role", string(c.role), "must be a role that may %s", act)
			s.operators.refused(r, c, err)
			problem.Write(w, s.log, err)
			return
		}
		if err := h(w, r, c); err != nil {
			problem.Write(w, s.log, err)
		}
	}
}

func (s *Server) postCertificate(w http.ResponseWriter, r *http.Request, c *client) error {
	var req caapi.IssueRequest
	if err := readFields(w, r, map[string]*string{"csr": &req.CSR, "profile": &req.Profile, "supersedes?": &req.Supersedes, "overlap?": &req.Overlap}); err != nil {
		return err
	}
	if req.Profile == ResponderProfile {
		return invalid("profile", req.Profile, "is issued by POST %s only", caapi.PathResponders)
	}
	return s.issue(w, r, c, req)
}

func (s *Server) postResponder(w http.ResponseWriter, r *http.Request, c *client) error {
	req := caapi.IssueRequest{Profile: ResponderProfile}
	if err := readFields(w, r, map[string]*string{"csr": &req.CSR, "ca_id?": &req.CAID}); err != nil {
		return err
	}
	return s.issue(w, r, c, req)
}

func (s *Server) issue(w http.ResponseWriter, r *http.Request, c *client, req caapi.IssueRequest) error {
	key, err := idempotencyKey(r)
	if err != nil {
		return err
	}
	var id wire.CAID
	if req.CAID != "" {
		if id, err = wire.ParseCAID(req.CAID); err != nil {
			return err
		}
	}
	old, overlap, err := s.superseding(c, req)
	if err != nil {
		return err
	}
	// A requester that hangs up must not leave the question open when it can be answered.
	got, err := s.Issue(context.WithoutCancel(r.Context()), Request{CSR: req.CSR, Profile: req.Profile, Client: c.name, IdempotencyKey: key, CA: id, Supersedes: old, Overlap: overlap})
	if err != nil {
		return err
	}
	s.log.Info("issued", "client", c.name, "profile", req.Profile, "serial", got.Serial.String(), "log_index", got.Log.Index, "block", got.Block)
	if req.Profile == ResponderProfile {
		s.enrolment(got.Serial)
	}
	answer := s.issuerOf(got.Serial).describe(got)
	answer.Supersedes = s.superseded.of(got)
	w.Header().Set("Location", caapi.PathCertificates+"/"+answer.Serial)
	s.step(stepReleasing)
	return s.answer(w, http.StatusCreated, answer)
}

// idempotencyKey is any visible ASCII text of at most 255 characters.
func idempotencyKey(r *http.Request) (string, error) {
	values := r.Header.Values(caapi.IdempotencyKey)
	if len(values) == 0 {
		return "", nil
	}
	bad := func(c rune) bool { return c < ' ' || c > '~' }
	if v := values[0]; len(values) > 1 || v == "" || len(v) > 255 || strings.ContainsFunc(v, bad) {
		return "", invalid(caapi.IdempotencyKey, v, "must occur once, with 1 to 255 printable ASCII characters")
	}
	return values[0], nil
}

func (s *Server) getCertificate(w http.ResponseWriter, r *http.Request, _ *client) error {
	serial, err := wire.ParseSerial(r.PathValue("serial"))
	if err != nil {
		return err
	}
	answer, err := s.Certificate(r.Context(), serial)
	if err != nil {
		return err
	}
	return s.answer(w, http.StatusOK, answer)
}

func (s *Server) describe(got *Issued) *caapi.Certificate {
	return &caapi.Certificate{
		Certificate: string(encodeCert(got.DER)), Chain: s.chain(), CAID: s.issuer.id.String(), Serial: got.Serial.String(),
		LogIndex: got.Log.Index, Timestamp: got.Log.Time.Time().Format(caapi.TimeFormat), Block: got.Block, TxID: got.TxID,
	}
}

// chain is what a certificate's holder sends along: the CA certificate and those above it.
func (s *Server) chain() []string {
	return append([]string{string(encodeCert(s.issuer.cert.Raw))}, s.above()...)
}

func (s *Server) above() []string {
	pems := make([]string, len(s.issuer.chain))
	for i, c := range s.issuer.chain {
		pems[i] = string(encodeCert(c.Raw))
	}
	return pems
}

func (s *Server) answer(w http.ResponseWriter, code int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	if _, err := w.Write(body); err != nil {
		s.log.Debug("answer not delivered", "error", err)
	}
	return nil
}
