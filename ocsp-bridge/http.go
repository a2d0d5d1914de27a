package ocspbridge

import (
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/intent"
	"github.com/certanchor/certanchor/internal/ocspwire"
	"github.com/certanchor/certanchor/internal/problem"
	"github.com/certanchor/certanchor/internal/witness"
)

// Content types of RFC 6960 appendix A.
const (
	typeRequest  = "application/ocsp-request"
	typeResponse = "application/ocsp-response"
)

const (
	ocspPrefix    = "/ocsp"
	logsPrefix    = "/logs"
	witnessPrefix = "/witness" // add-checkpoint is below it (C2SP tlog-witness)
	pathAlarms    = "/v1/alarms"
)

// routes looks at paths as they were sent before a ServeMux sees them: base64 of OCSP has slashes, which ServeMux would clean out of the
// path with a redirect, and what lies below a log has one spelling.
func (b *Bridge) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /logs", b.members(b.serveLogs))
	mux.HandleFunc("GET /log_list.json", b.members(b.serveLogList))
	mux.HandleFunc("GET /v1/status/{ca}/{serial}", b.serveStatus)
	mux.HandleFunc("GET /v1/bundle/{ca}/{serial}", b.members(func(w http.ResponseWriter, r *http.Request) {
		b.serveBundle(w, r, r.PathValue("ca"), r.PathValue("serial"))
	}))
	mux.HandleFunc("GET /v1/events", b.members(b.events.ServeHTTP))
	mux.HandleFunc("GET /v1/applied", b.serveApplied)
	mux.HandleFunc("GET /v1/heads", b.serveHeads)
	mux.HandleFunc("GET "+pathAlarms, b.serveAlarms)
	mux.HandleFunc("GET /policy", b.servePolicy)
	mux.Handle("GET /metrics", b.cfg.Metrics.Handler())
	mux.Handle(intent.Path, intent.Handler(b.ledger, intent.Options{
		Applied: b.WaitApplied, Known: b.issuers, Rate: float64(b.cfg.Settings.RevocationRate), Now: b.cfg.Now, Log: b.log,
	}))
	mux.HandleFunc(witnessPrefix+witness.Path, b.serveWitness)
	mux.HandleFunc("GET /healthz", b.serveHealth)
	mux.HandleFunc("GET /readyz", b.serveReady)
	mux.HandleFunc("/", b.serveNothing)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := "/" + strings.TrimLeft(r.URL.EscapedPath(), "/")
		if rest, ok := below(path, ocspPrefix); ok {
			b.serveOCSP(w, r, rest)
			return
		}
		if rest, ok := strings.CutPrefix(path, logsPrefix+"/"); ok {
			name, rest, _ := strings.Cut(rest, "/")
			b.serveLog(w, r, name, rest)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func (b *Bridge) serveNothing(w http.ResponseWriter, r *http.Request) {
	problem.Write(w, b.log, problem.New(http.StatusNotFound, string(wire.NotFound), "path", r.Method+" "+r.URL.Path,
		"must be one of this server's resources, asked for with GET (OCSP also with POST, /v1/revocations with POST)"))
}

// below returns what follows a prefix of whole path elements.
func below(path, prefix string) (rest string, ok bool) {
	rest, ok = strings.CutPrefix(path, prefix)
	return rest, ok && (rest == "" || rest[0] == '/')
}

func (b *Bridge) serveOCSP(w http.ResponseWriter, r *http.Request, rest string) {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		der, err := decodePath(rest, b.cfg.Settings.MaxRequestBytes)
		if err != nil {
			b.writeReply(w, http.StatusOK, refuse(ocspwire.MalformedRequest, err))
			return
		}
		b.writeReply(w, http.StatusOK, b.answer(der))
	case http.MethodPost:
		b.servePost(w, r, rest)
	default:
		w.Header().Set("Allow", "GET, HEAD, POST")
		b.writeReply(w, http.StatusMethodNotAllowed, refuse(ocspwire.MalformedRequest, errors.New("method "+strconv.Quote(r.Method))))
	}
}

func (b *Bridge) servePost(w http.ResponseWriter, r *http.Request, rest string) {
	if strings.Trim(rest, "/") != "" {
		b.writeReply(w, http.StatusNotFound, refuse(ocspwire.MalformedRequest, errors.New("POST below "+ocspPrefix)))
		return
	}
	// RFC 6960 appendix A.1: the content type of a POST is application/ocsp-request. None at all is let pass.
	if ct := r.Header.Get("Content-Type"); ct != "" {
		if t, _, err := mime.ParseMediaType(ct); err != nil || t != typeRequest {
			b.writeReply(w, http.StatusUnsupportedMediaType, refuse(ocspwire.MalformedRequest, errors.New("content type "+strconv.Quote(ct))))
			return
		}
	}
	der, err := io.ReadAll(http.MaxBytesReader(w, r.Body, b.cfg.Settings.MaxRequestBytes))
	if err != nil {
		code := http.StatusBadRequest
		if tooBig := new(http.MaxBytesError); errors.As(err, &tooBig) {
			code = http.StatusRequestEntityTooLarge
		}
		b.writeReply(w, code, refuse(ocspwire.MalformedRequest, err))
		return
	}
	b.writeReply(w, http.StatusOK, b.answer(der))
}

// decodePath undoes what clients do to a request in a GET path: RFC 6960 appendix A.1 says base64, then URL-encoding. Seen as
// well are no URL-encoding at all, no padding, base64url, extra slashes in front, and '+' turned into a space on the way.
func decodePath(rest string, limit int64) ([]byte, error) {
	text, err := url.PathUnescape(rest)
	if err != nil {
		return nil, err
	}
	// A request's base64 begins with "M", so slashes in front are not part of it.
	text = strings.TrimRight(strings.TrimLeft(text, "/"), "=")
	if int64(len(text)) > (limit+2)/3*4 {
		return nil, errors.New("request in the path is too long")
	}
	if strings.ContainsAny(text, "\r\n") {
		return nil, errors.New("request in the path has line breaks")
	}
	text = strings.NewReplacer("-", "+", "_", "/", " ", "+").Replace(text)
	return base64.RawStdEncoding.Strict().DecodeString(text)
}

// writeReply sends DER. Refusals and answers to a nonce are not to be kept; other answers may be, for a short while.
func (b *Bridge) writeReply(w http.ResponseWriter, code int, r reply) {
	h := w.Header()
	h.Set("Content-Type", typeResponse)
	h.Set("Content-Length", strconv.Itoa(len(r.der)))
	maxAge := int64(0)
	if r.status == ocspwire.Successful && !r.nonce {
		maxAge = int64(min(b.cfg.Settings.MaxAge, r.nextUpdate.Sub(b.cfg.Now())).Seconds())
	}
	if maxAge > 0 {
		h.Set("Cache-Control", "public, no-transform, must-revalidate, max-age="+strconv.FormatInt(maxAge, 10))
		h.Set("Last-Modified", r.thisUpdate.Format(http.TimeFormat))
	} else {
		h.Set("Cache-Control", "no-store")
	}
	if r.status != ocspwire.Successful {
		b.log.Debug("OCSP refusal", "status", r.status.String(), "reason", r.reason)
	}
	if r.status == ocspwire.InternalError {
		b.log.Error("OCSP request failed", "reason", r.reason)
	}
	w.WriteHeader(code)
	if _, err := w.Write(r.der); err != nil {
		b.log.Debug("answer not delivered", "error", err)
	}
}
