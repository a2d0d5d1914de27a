package ca

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/problem"
)

// cfsslPrefix is where cfssl's clients look for its API.
const cfsslPrefix = "/api/v1/cfssl/"

// cfsslAnswer is cfssl's envelope around every answer.
type cfsslAnswer struct {
	Success  bool           `json:"success"`
	Result   any            `json:"result"`
	Errors   []cfsslMessage `json:"errors"`
	Messages []cfsslMessage `json:"messages"`
}

type cfsslMessage struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

// Codes of cfssl's errors (its package errors): the thousands are what they are about.
const (
	cfsslBadCSR        = 9300
	cfsslBadPolicy     = 5300 // the request breaks the policy
	cfsslNoProfile     = 5400
	cfsslStillToCome   = 0 // of a message that is no error
	cfsslNoCertificate = 11200
)

// cfsslElsewhere says where what cfssl's server does besides is done here.
var cfsslElsewhere = map[string]string{
	"bundle":   "sign and newcert give a bundle when asked to (bundle: true)",
	"certadd":  "certificates that were issued elsewhere are taken by `certanchor ca import`",
	"gencrl":   "the CA makes its CRLs by itself; GET crl gives the newest",
	"init_ca":  "`certanchor ca init` makes a CA",
	"newkey":   "a key is made where it is used: `cfssl genkey`",
	"ocspsign": "OCSP bridges answer for this CA, from the ledger",
	"scan":     "this CA connects to nobody on a requester's behalf",
	"scaninfo": "this CA connects to nobody on a requester's behalf",
}

// routeCFSSL serves cfssl's API. Handlers answer errors as everywhere in this package; the envelope is made of them on their way out, and
// so also of what the guard and whatever it calls has to say.
func (s *Server) routeCFSSL(mux *http.ServeMux) {
	if s.settings.CFSSL != nil && s.settings.CFSSL.Disabled {
		return
	}
	route := func(name, method string, h http.HandlerFunc) {
		path := cfsslPrefix + name
		mux.Handle(path, s.metrics.HTTP(path, s.enveloped(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != method {
				w.Header().Set("Allow", method)
				problem.Write(w, s.log, problem.New(http.StatusMethodNotAllowed, string(wire.InvalidArgument), "method", r.Method, "must be "+method))
				return
			}
			h(w, r)
		})))
	}
	route("sign", http.MethodPost, s.signDoor(s.guard(actIssue, s.cfsslSign)))
	route("authsign", http.MethodPost, s.authenticates(s.guard(actIssue, s.cfsslAuthSign)))
	route("newcert", http.MethodPost, s.guard(actIssue, s.cfsslNewCert))
	route("revoke", http.MethodPost, s.guard(actRevoke, s.cfsslRevoke))
	route("certinfo", http.MethodPost, s.guard(actRead, s.cfsslCertInfo))
	route("authinfo", http.MethodPost, s.authenticates(s.guard(actDescribe, s.cfsslAuthInfo)))
	// What these give is in every certificate or CRL anyway, and cfssl's clients ask without authentication.
	route("info", http.MethodPost, s.unguarded(s.cfsslInfo))
	route("crl", http.MethodGet, s.unguarded(s.cfsslCRL))
	route("health", http.MethodGet, s.unguarded(s.cfsslHealth))
	mux.Handle(cfsslPrefix, s.enveloped(func(w http.ResponseWriter, r *http.Request) {
		rule := "is not an endpoint of cfssl's API here"
		if why := cfsslElsewhere[strings.TrimPrefix(r.URL.Path, cfsslPrefix)]; why != "" {
			rule += ": " + why
		}
		problem.Write(w, s.log, wire.Errorf(wire.NotFound, "path", r.URL.Path, "%s", rule))
	}))
}

// unguarded is for handlers that anybody may call.
func (s *Server) unguarded(h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := h(w, r, &client{name: openClient, role: RoleAuditor}); err != nil {
			problem.Write(w, s.log, err)
		}
	}
}

// enveloped turns problems into cfssl's errors. Requests that a browser makes on behalf of another site are refused: cfssl does not look at
// the content type, so a form could carry one, and a browser adds its user's certificate by itself.
func (s *Server) enveloped(h http.HandlerFunc) http.Handler {
	foreign := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e := &envelope{ResponseWriter: w}
		if err := foreign.Check(r); err != nil {
			problem.Write(e, s.log, problem.New(http.StatusForbidden, string(wire.PermissionDenied), "Origin", r.Header.Get("Origin"), "must not be another site: "+err.Error()))
		} else {
			h(e, r)
		}
		if err := e.end(); err != nil {
			s.log.Debug("answer not delivered", "error", err)
		}
	})
}

// envelope keeps a problem back until it is whole.
type envelope struct {
	http.ResponseWriter
	problem bool
	text    bytes.Buffer
}

// Unwrap is for http.ResponseController.
func (e *envelope) Unwrap() http.ResponseWriter { return e.ResponseWriter }

func (e *envelope) WriteHeader(code int) {
	if e.problem = e.Header().Get("Content-Type") == "application/problem+json"; !e.problem {
		e.ResponseWriter.WriteHeader(code)
	}
}

func (e *envelope) Write(b []byte) (int, error) {
	if e.problem {
		return e.text.Write(b)
	}
	return e.ResponseWriter.Write(b)
}

func (e *envelope) end() error {
	if !e.problem {
		return nil
	}
	var p problem.Problem
	if err := json.Unmarshal(e.text.Bytes(), &p); err != nil {
		return err
	}
	status, answer := cfsslError(&p)
	body, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	e.Header().Set("Content-Type", "application/json")
	e.Header().Set("Content-Length", strconv.Itoa(len(body)))
	e.ResponseWriter.WriteHeader(status)
	_, err = e.ResponseWriter.Write(body)
	return err
}

// cfsslError says in cfssl's terms what a problem says. cfssl answers 400 whatever is wrong with a request; who may not ask, and when to ask
// again, it does not know, and keeps HTTP's own status.
func cfsslError(p *problem.Problem) (status int, _ *cfsslAnswer) {
	status = p.Status
	switch status {
	case http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity, http.StatusUnsupportedMediaType:
		if p.Field != "path" {
			status = http.StatusBadRequest
		}
	}
	code := status
	if status == http.StatusBadRequest {
		switch field := p.Field; {
		case field == "csr", field == "certificate_request", strings.HasPrefix(field, "csr."):
			code = cfsslBadCSR
		case field == "profile":
			code = cfsslNoProfile
		case field == "subject", strings.HasPrefix(field, "subject."), strings.HasPrefix(field, "host"):
			code = cfsslBadPolicy
		case p.Code == string(wire.NotFound):
			code = cfsslNoCertificate
		}
	}
	text := p.Detail
	if p.Instance != "" {
		text += fmt.Sprintf("; GET %s tells later how it ended", p.Instance)
	}
	if p.TxID != "" {
		text += fmt.Sprintf(" (transaction %s)", p.TxID)
	}
	return status, &cfsslAnswer{Errors: []cfsslMessage{{code, text}}, Messages: []cfsslMessage{}}
}

// succeed answers with a result, and messages that are no errors.
func (s *Server) succeed(w http.ResponseWriter, result any, messages ...cfsslMessage) error {
	return s.answer(w, http.StatusOK, &cfsslAnswer{Success: true, Result: result, Errors: []cfsslMessage{}, Messages: append([]cfsslMessage{}, messages...)})
}
