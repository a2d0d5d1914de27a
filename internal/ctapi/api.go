package ctapi

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/problem"
	"github.com/certanchor/certanchor/internal/tiles/gzipped"
)

// answer is what an endpoint says with status 200.
type answer struct {
	body  any    // to be encoded as JSON
	cache string // Cache-Control
}

// Cache-Control values. What a log once answered about its past it always answers; a day keeps a mistake from lasting.
const (
	fresh   = "no-cache"
	private = "no-store"
	settled = "public, max-age=86400"
)

type endpoint struct {
	method string
	serve  func(*http.Request) (*answer, error)
}

// API serves /ct/v1/ (RFC 6962 section 4), without a Config.Log only add-chain, add-pre-chain and get-roots. Its paths are relative to
// the submission prefix: use http.StripPrefix.
func (l *Log) API() http.Handler {
	submissions := map[string]endpoint{
		"add-chain":     {http.MethodPost, l.addChain},
		"add-pre-chain": {http.MethodPost, l.addPreChain},
		"get-roots":     {http.MethodGet, l.getRoots},
	}
	if l.log == nil {
		return &api{log: l, endpoints: submissions}
	}
	return &api{log: l, endpoints: map[string]endpoint{
		"add-chain":           submissions["add-chain"],
		"add-pre-chain":       submissions["add-pre-chain"],
		"get-roots":           submissions["get-roots"],
		"get-sth":             {http.MethodGet, l.getSTH},
		"get-sth-consistency": {http.MethodGet, l.getConsistency},
		"get-proof-by-hash":   {http.MethodGet, l.getProofByHash},
		"get-entries":         {http.MethodGet, l.getEntries},
		"get-entry-and-proof": {http.MethodGet, l.getEntryAndProof},
	}}
}

type api struct {
	log       *Log
	endpoints map[string]endpoint
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	found, err := a.serve(w, r)
	if err != nil {
		problem.Write(w, a.log.logger, err)
		return
	}
	body, err := json.Marshal(found.body)
	if err != nil {
		problem.Write(w, a.log.logger, fmt.Errorf("encode answer: %w", err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", found.cache)
	if err := gzipped.Write(w, r, append(body, '\n')); err != nil {
		a.log.logger.Debug("answer not delivered", "error", err)
	}
}

func (a *api) serve(w http.ResponseWriter, r *http.Request) (*answer, error) {
	name, ok := strings.CutPrefix(strings.TrimPrefix(r.URL.Path, "/"), "ct/v1/")
	e, known := a.endpoints[name]
	if !ok || !known {
		return nil, wire.Errorf(wire.NotFound, "path", r.URL.Path, "must be /ct/v1/ and the name of an endpoint (RFC 6962 section 4)")
	}
	if r.Method != e.method && (r.Method != http.MethodHead || e.method != http.MethodGet) {
		w.Header().Set("Allow", e.method)
		return nil, problem.New(http.StatusMethodNotAllowed, string(wire.InvalidArgument), "method", r.Method, "must be "+e.method)
	}
	if e.method == http.MethodPost {
		// A body that is read here and no further must not outgrow what the largest chain needs.
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	}
	return e.serve(r)
}

// parameters are those of a GET request. Ones that the RFC does not name are ignored, as it asks.
type parameters url.Values

func query(r *http.Request) (parameters, error) {
	v, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, wire.Errorf(wire.InvalidArgument, "query", r.URL.RawQuery, "must be key=value pairs, percent-encoded: %v", err)
	}
	return parameters(v), nil
}

// one returns a parameter that must be there once.
func (p parameters) one(name string) (string, error) {
	switch v := p[name]; len(v) {
	case 1:
		return v[0], nil
	case 0:
		return "", wire.Errorf(wire.InvalidArgument, name, "", "must be given (RFC 6962 section 4)")
	default:
		return "", wire.Errorf(wire.InvalidArgument, name, strings.Join(v, ", "), "must be given once")
	}
}

// number returns a parameter that is a decimal number.
func (p parameters) number(name string) (uint64, error) {
	s, err := p.one(name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, wire.Errorf(wire.InvalidArgument, name, s, "must be a decimal number from 0 to 2^64-1")
	}
	return n, nil
}

// hash returns a parameter that is a base64 SHA-256.
func (p parameters) hash(name string) (sum [32]byte, err error) {
	s, err := p.one(name)
	if err != nil {
		return sum, err
	}
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil || len(b) != len(sum) {
		return sum, wire.Errorf(wire.InvalidArgument, name, s, "must be the base64 of 32 octets, percent-encoded")
	}
	return [32]byte(b), nil
}

// number gives a value for an error message.
func number(n uint64) string { return strconv.FormatUint(n, 10) }
