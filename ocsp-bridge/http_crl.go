package ocspbridge

import (
	"bytes"
	"errors"
	"log/slog"
	"mime"
	"net/http"
	"strconv"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/crl"
	"github.com/certanchor/certanchor/internal/problem"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/crls"
)

// typeCRL is the media type of a DER CRL, RFC 2585 section 4.2.
const typeCRL = "application/pkix-crl"

const crlPrefix = "/crl"

// routeCRLs adds what is served about CRLs. GET patterns take HEAD as well.
func (b *Bridge) routeCRLs(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/crl/contents/{ca}", b.members(b.serveCRLContents))
	mux.HandleFunc("POST "+crlPrefix+"/{ca}", b.takeCRL)
	mux.HandleFunc("GET "+crlPrefix+"/{ca}/{name}", b.serveCRL)
	mux.HandleFunc("GET "+crlPrefix+"/"+crls.NameIndirect, b.serveIndirect)
	notAllowed := func(allow string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Allow", allow)
			problem.Write(w, b.log, problem.New(http.StatusMethodNotAllowed, string(wire.InvalidArgument), "method", r.Method, "must be one of "+allow))
		}
	}
	mux.HandleFunc(crlPrefix+"/{ca}", notAllowed("POST"))
	mux.HandleFunc(crlPrefix+"/{ca}/{name}", notAllowed("GET, HEAD"))
	mux.HandleFunc("/v1/crl/contents/{ca}", notAllowed("GET, HEAD"))
}

// serveCRLContents answers ?scope=URL&base=N with what a CRL must say now, for the CA to sign.
func (b *Bridge) serveCRLContents(w http.ResponseWriter, r *http.Request) {
	c, err := b.crlContents(r)
	if err != nil {
		problem.Write(w, b.log, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", crl.ContentType)
	h.Set("Cache-Control", "no-store")
	if _, err := c.WriteTo(w); err != nil {
		b.log.Debug("answer not delivered", "error", err)
	}
}

func (b *Bridge) crlContents(r *http.Request) (*crl.Contents, error) {
	id, err := wire.ParseCAID(r.PathValue("ca"))
	if err != nil {
		return nil, err
	}
	q, base := r.URL.Query(), uint64(0)
	if q.Has("base") {
		if base, err = strconv.ParseUint(q.Get("base"), 10, 64); err != nil || base == 0 {
			return nil, wire.Errorf(wire.InvalidArgument, "base", q.Get("base"), "must be the number of a complete CRL, from 1")
		}
	}
	scope := q.Get("scope")
	if base != 0 && !b.crls.HasBase(id, scope, base) {
		// Every change since is read for it: one at a time, and apart from those that a CA with a CRL here asks for.
		select {
		case b.crlStray <- struct{}{}:
			defer func() { <-b.crlStray }()
		default:
			return nil, problem.New(http.StatusServiceUnavailable, problem.CodeUnavailable, "base", q.Get("base"),
				"is not the number of a complete CRL that was published here, and another such request is being answered; ask again")
		}
		return b.CRLContents(id, scope, base)
	}
	select {
	case b.crlAsked <- struct{}{}:
		defer func() { <-b.crlAsked }()
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	return b.CRLContents(id, scope, base)
}

// takeCRL takes a CRL that a CA has signed.
func (b *Bridge) takeCRL(w http.ResponseWriter, r *http.Request) {
	out, err := b.takeBody(w, r)
	if err != nil {
		log := b.log
		if p, ok := errors.AsType[*problem.Problem](err); ok { // said to whoever asks; failures of the disk are none
			b.log.Debug("a CRL is not taken", "error", p)
			log = slog.New(slog.DiscardHandler)
		}
		problem.Write(w, log, err)
		return
	}
	b.writeJSON(w, http.StatusOK, map[string]any{
		"ca_id": out.CAID.String(), "name": out.Name, "number": out.Number, "taken": out.Taken, "newest": out.Newest,
	})
}

func (b *Bridge) takeBody(w http.ResponseWriter, r *http.Request) (out crls.Outcome, err error) {
	id, err := wire.ParseCAID(r.PathValue("ca"))
	if err != nil {
		return out, err
	}
	if b.index.View().CA(id) == nil {
		return out, problem.New(http.StatusNotFound, string(wire.NotFound), "ca_id", id.String(), "must be a registered CA")
	}
	if ct := r.Header.Get("Content-Type"); ct != "" {
		if t, _, err := mime.ParseMediaType(ct); err != nil || t != typeCRL {
			return out, problem.New(http.StatusUnsupportedMediaType, string(wire.InvalidArgument), "Content-Type", ct, "must be "+typeCRL)
		}
	}
	if r.ContentLength > b.cfg.CRL.MaxBytes {
		return out, &http.MaxBytesError{Limit: b.cfg.CRL.MaxBytes}
	}
	body, err := b.crlSpool.read(http.NewResponseController(w), http.MaxBytesReader(w, r.Body, b.cfg.CRL.MaxBytes))
	if err != nil {
		var tooBig *http.MaxBytesError
		var said *problem.Problem
		if errors.As(err, &tooBig) || errors.As(err, &said) || errors.Is(err, errSpool) {
			return out, err
		}
		return out, wire.Errorf(wire.InvalidArgument, "body", "", "ended too early, or came too slowly")
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	return b.crls.Accept(r.Context(), id, body.octets)
}

// serveCRL answers with a CA's CRL.
func (b *Bridge) serveCRL(w http.ResponseWriter, r *http.Request) {
	id, err := wire.ParseCAID(r.PathValue("ca"))
	if err != nil {
		problem.Write(w, b.log, err)
		return
	}
	list, err := b.crls.Get(id, r.PathValue("name"))
	if err != nil {
		problem.Write(w, b.log, err)
		return
	}
	b.writeCRL(w, r, list.DER, list.ETag, list.Modified, list.NextUpdate)
}

func (b *Bridge) serveIndirect(w http.ResponseWriter, r *http.Request) {
	if b.indirect == nil {
		b.serveNothing(w, r)
		return
	}
	list, err := b.indirect.Get()
	if err != nil {
		problem.Write(w, b.log, err)
		return
	}
	b.writeCRL(w, r, list.DER, list.ETag, list.ThisUpdate, list.NextUpdate)
}

// writeCRL serves a CRL with conditional requests and ranges. No cache may keep it past its nextUpdate.
func (b *Bridge) writeCRL(w http.ResponseWriter, r *http.Request, der []byte, etag string, modified, next time.Time) {
	now := b.cfg.Now()
	h := w.Header()
	h.Set("Content-Type", typeCRL)
	h.Set("ETag", etag)
	maxAge := int64(min(b.cfg.CRL.MaxAge, next.Sub(now)) / time.Second)
	h.Set("Cache-Control", "public, no-transform, must-revalidate, max-age="+strconv.FormatInt(max(maxAge, 0), 10))
	h.Set("Expires", now.Add(time.Duration(maxAge)*time.Second).UTC().Format(http.TimeFormat))
	if modified.After(now) { // RFC 9110 section 8.8.2.1: no Last-Modified from the future
		modified = time.Time{}
	}
	http.ServeContent(w, r, "", modified, bytes.NewReader(der))
}
