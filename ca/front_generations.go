package ca

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/certsig"
	"github.com/certanchor/certanchor/internal/problem"
)

// A log is of one CA on the ledger, so each generation of the CA's key has a front of its own, with a key of its own. All are at one address: a
// submission goes to that of the generation which signed it, and get-roots lists the roots of all.

// fronted are the generations that take submissions, oldest first.
func (s *Server) fronted() []*Server {
	return slices.DeleteFunc(s.line.list(), func(g *Server) bool { return g.front == nil })
}

// serveCT is the handler below /ct/v1/.
func (s *Server) serveCT(w http.ResponseWriter, r *http.Request) {
	all := s.fronted()
	if len(all) == 1 {
		all[0].front.ServeHTTP(w, r)
		return
	}
	switch r.Method {
	case http.MethodPost:
		body, err := submission(all, w, r)
		if err != nil {
			problem.Write(w, s.log, err)
			return
		}
		r = r.Clone(r.Context())
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		signerOf(all, body).front.ServeHTTP(w, r)
	case http.MethodGet:
		s.allRoots(all, w, r)
	default:
		all[0].front.ServeHTTP(w, r) // which says what is allowed
	}
}

// submission reads a request, unless no generation's queue has room for what may be in it.
func submission(all []*Server, w http.ResponseWriter, r *http.Request) (body []byte, err error) {
	for _, g := range all {
		if err = g.front.full(r); err == nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	return readSubmission(w, r)
}

// signerOf is the generation that a submission is of, by what it says; whether that is true its front finds out. The first one for what says nothing.
func signerOf(all []*Server, body []byte) *Server {
	var sent struct {
		Chain [][]byte `json:"chain"`
	}
	if err := json.Unmarshal(body, &sent); err != nil || len(sent.Chain) == 0 || len(sent.Chain) > maxChain {
		return all[0]
	}
	var last *x509.Certificate
	for i, der := range sent.Chain {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return all[0]
		}
		id := wire.CAIDOf(cert.RawSubjectPublicKeyInfo)
		if at := slices.IndexFunc(all, func(g *Server) bool { return g.issuer.id == id }); at >= 0 && i > 0 {
			return all[at]
		}
		last = cert
	}
	// The CA's certificate may be left out (RFC 6962 section 4.1: a root). The generations have one name, so the key identifier tells.
	for _, g := range all {
		own := g.issuer.cert
		if !bytes.Equal(last.RawIssuer, own.RawSubject) {
			continue
		}
		if aki := last.AuthorityKeyId; len(aki) > 0 && bytes.Equal(aki, own.SubjectKeyId) || len(aki) == 0 && certsig.Check(last, own) == nil {
			return g
		}
	}
	return all[0]
}

// maxChain is more certificates than a front takes.
const maxChain = 16

// allRoots answers get-roots with those of all generations, and other requests as the first one does.
func (s *Server) allRoots(all []*Server, w http.ResponseWriter, r *http.Request) {
	var (
		roots struct {
			Certificates [][]byte `json:"certificates"`
		}
		head http.Header
	)
	r = r.Clone(r.Context())
	for _, name := range []string{"Accept-Encoding", "If-None-Match", "If-Modified-Since", "Range"} { // it is read here
		r.Header.Del(name)
	}
	for i, g := range all {
		got := &reply{header: http.Header{}, code: http.StatusOK}
		g.front.ServeHTTP(got, r)
		var more struct {
			Certificates [][]byte `json:"certificates"`
		}
		if got.code != http.StatusOK || json.Unmarshal(got.body.Bytes(), &more) != nil || more.Certificates == nil {
			if i == 0 {
				got.pass(w)
				return
			}
			continue // one that is not on the trust list yet
		}
		if i == 0 {
			head = got.header
		}
		for _, der := range more.Certificates {
			if !slices.ContainsFunc(roots.Certificates, func(c []byte) bool { return bytes.Equal(c, der) }) {
				roots.Certificates = append(roots.Certificates, der)
			}
		}
	}
	text, err := json.Marshal(roots)
	if err != nil {
		problem.Write(w, s.log, err)
		return
	}
	head.Del("Content-Length")
	head.Del("Etag")
	maps.Copy(w.Header(), head)
	if _, err := w.Write(text); err != nil {
		s.log.Debug("answer not delivered", "error", err)
	}
}

// reply keeps a front's answer.
type reply struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func (r *reply) Header() http.Header         { return r.header }
func (r *reply) WriteHeader(code int)        { r.code = code }
func (r *reply) Write(b []byte) (int, error) { return r.body.Write(b) }

func (r *reply) pass(w http.ResponseWriter) {
	maps.Copy(w.Header(), r.header)
	w.WriteHeader(r.code)
	_, _ = w.Write(r.body.Bytes()) // a client that is gone does not matter
}

// bereft returns why profiles of which g issues could not be used with next: the SCTs that they need would be too few.
func (s *Server) bereft(next *Server) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(s.issuer.policy.rules)) {
		if s.checkFronts(name) != nil {
			continue // that is so with this one, too
		}
		if err := next.checkFronts(name); err != nil {
			errs = append(errs, wire.Errorf(wire.FailedPrecondition, "profile", name, "the old key goes on issuing, since certificates of this profile need SCTs of %d fronts of the log "+
				"of the new CA %s, and %d are known: its key beside ca.ct.key_file, %s.pem, and others' in ca.fronts (restart with them)",
				next.issuer.policy.rules[name].scts, next.issuer.id, next.fronts.count(), next.issuer.id))
		}
	}
	return errors.Join(errs...)
}

// rotationWaits returns why a new key that is trusted is not put in the place of the one that issues; nil: none is, or nothing is missing.
func (s *Server) rotationWaits() error {
	all := s.line.list()
	if i := slices.Index(all, s.issuing()); i >= 0 && i+1 < len(all) {
		return all[i].bereft(all[i+1])
	}
	return nil
}
