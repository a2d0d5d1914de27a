package ocspbridge

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/certanchor/certanchor/internal/metrics"
	"github.com/certanchor/certanchor/internal/ocspwire"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/answers"
)

// Content types of RFC 6960 appendix A.
const (
	typeRequest  = "application/ocsp-request"
	typeResponse = "application/ocsp-response"
)

// Header values that are the same every time, ready for an http.Header.
var (
	isResponse = []string{typeResponse}
	isNoStore  = []string{"no-store"}
)

// buffers hold requests while they are answered.
var buffers = sync.Pool{New: func() any { return &buffer{data: make([]byte, 2<<10)} }}

type buffer struct{ data []byte }

// most is the size up to which a buffer that has grown is used again.
const mostBuffer = 16 << 10

// ocspPath returns what follows the path that OCSP is served at. The path has been decoded once, and its slashes are as they were sent.
func (b *Bridge) ocspPath(r *http.Request) (rest string, ok bool) {
	path := strings.TrimLeft(r.URL.Path, "/")
	if rest, ok = below(path, ocspPrefix[1:]); ok {
		return rest, true
	}
	switch extra := b.cfg.Settings.OCSPPath; {
	case extra == "":
		return "", false
	case extra == "/":
		// A request is a SEQUENCE, the base64 of which begins with M; nothing else that is served does.
		return path, path == "" && r.Method == http.MethodPost || path != "" && path[0] == 'M'
	default:
		return below(path, extra[1:])
	}
}

func (b *Bridge) serveOCSP(w http.ResponseWriter, r *http.Request, rest string) {
	buf := buffers.Get().(*buffer)
	defer func() {
		if len(buf.data) <= mostBuffer {
			buffers.Put(buf)
		}
	}()
	var (
		der  []byte
		code = http.StatusOK
		err  error
	)
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		der, err = decodePath(rest, int(b.cfg.Settings.MaxRequestBytes), buf)
	case http.MethodPost:
		der, code, err = b.readPost(r, rest, buf)
	default:
		w.Header().Set("Allow", "GET, HEAD, POST")
		code, err = http.StatusMethodNotAllowed, errors.New("method "+strconv.Quote(r.Method))
	}
	now := b.cfg.Now()
	if err != nil {
		b.writeReply(w, r, code, refuse(ocspwire.MalformedRequest, err), now)
		return
	}
	if key := plainCertID(der); key != nil {
		if a := b.kept(key, now); a != nil {
			b.writeAnswer(w, r, a, now)
			a.Hits.Inc()
			b.meters.ocsp.Hit(b.cfg.Now().Sub(now))
			return
		}
	}
	b.writeReply(w, r, http.StatusOK, b.answer(der, now), now)
}

var errTooBig = errors.New("request is longer than max_request_bytes")

// readPost reads the body of a POST into buf. RFC 6960 appendix A.1: its content type is application/ocsp-request. None at all is let pass.
func (b *Bridge) readPost(r *http.Request, rest string, buf *buffer) (der []byte, code int, err error) {
	if strings.Trim(rest, "/") != "" {
		return nil, http.StatusNotFound, errors.New("POST below " + ocspPrefix)
	}
	if ct := r.Header.Get("Content-Type"); ct != "" && ct != typeRequest {
		if t, _, err := mime.ParseMediaType(ct); err != nil || t != typeRequest {
			return nil, http.StatusUnsupportedMediaType, errors.New("content type " + strconv.Quote(ct))
		}
	}
	limit := int(b.cfg.Settings.MaxRequestBytes)
	if r.ContentLength > int64(limit) {
		return nil, http.StatusRequestEntityTooLarge, errTooBig
	}
	for n := 0; ; {
		if n == len(buf.data) {
			if n > limit {
				return nil, http.StatusRequestEntityTooLarge, errTooBig
			}
			buf.data = append(buf.data, make([]byte, limit+1-n)...)
		}
		m, err := r.Body.Read(buf.data[n:])
		n += m
		switch {
		case n > limit:
			return nil, http.StatusRequestEntityTooLarge, errTooBig
		case errors.Is(err, io.EOF):
			return buf.data[:n], http.StatusOK, nil
		case err != nil:
			return nil, http.StatusBadRequest, err
		}
	}
}

// writeReply sends what was decided for this request. Refusals and answers to a nonce are nobody else's.
func (b *Bridge) writeReply(w http.ResponseWriter, r *http.Request, code int, rep reply, now time.Time) {
	if rep.kept != nil {
		b.writeAnswer(w, r, rep.kept, now)
	} else {
		h := w.Header()
		h["Content-Type"], h["Cache-Control"] = isResponse, isNoStore
		h["Content-Length"] = []string{strconv.Itoa(len(rep.der))}
		b.writeBody(w, r, code, rep.der)
	}
	if rep.status != ocspwire.Successful {
		b.log.Debug("OCSP refusal", "status", rep.status.String(), "reason", rep.reason)
	}
	if rep.status == ocspwire.InternalError {
		b.complain("OCSP request failed", rep.reason, b.cfg.Now())
	}
	took := b.cfg.Now().Sub(now)
	if rep.cache == metrics.CacheHit {
		rep.kept.Hits.Inc()
		b.meters.ocsp.Hit(took)
		return
	}
	b.meters.ocsp.Requests(rep.said, rep.issuer, rep.cache).Inc()
	b.meters.ocsp.Took(rep.cache, took)
}

// complaintPause is the time between two lines of the log about requests that fail: there may be thousands in a second.
const complaintPause = 10 * time.Second

// complaints say when the next line may be written, and how many were not.
type complaints struct{ next, left atomic.Int64 }

// complain writes a line at ERROR, unless there was one a moment ago.
func (b *Bridge) complain(what, reason string, now time.Time) {
	next := b.complaints.next.Load()
	if late := time.Duration(next - now.UnixNano()); late > 0 && late <= complaintPause || !b.complaints.next.CompareAndSwap(next, now.Add(complaintPause).UnixNano()) {
		b.complaints.left.Add(1)
		return
	}
	b.log.Error(what, "reason", reason, "left_out_since_the_last", b.complaints.left.Swap(0))
}

func (b *Bridge) writeBody(w http.ResponseWriter, r *http.Request, code int, der []byte) {
	w.WriteHeader(code)
	if r.Method == http.MethodHead {
		return
	}
	if _, err := w.Write(der); err != nil {
		b.log.Debug("answer not delivered", "error", err)
	}
}

// dates are header values for one second.
type dates struct {
	second        int64
	date, expires []string
}

// datesAt returns them. The second's first request makes them, and perhaps another one at the same moment.
func (b *Bridge) datesAt(now time.Time) *dates {
	if d := b.dates.Load(); d != nil && d.second == now.Unix() {
		return d
	}
	d := &dates{second: now.Unix(), date: httpTime(now), expires: httpTime(now.Add(b.cfg.Settings.MaxAge))}
	b.dates.Store(d)
	return d
}

// httpTime is an IMF-fixdate (RFC 9110 section 5.6.7).
func httpTime(t time.Time) []string { return []string{t.UTC().Format(http.TimeFormat)} }

// cacheControl: max_age and not nextUpdate says for how long caches may keep an answer: until then they would hide a revocation.
func cacheControl(age time.Duration) []string {
	if age < time.Second {
		return isNoStore
	}
	return []string{"public, no-transform, must-revalidate, max-age=" + strconv.FormatInt(int64(age/time.Second), 10)}
}

// writeAnswer sends an answer that others may have too. It allocates nothing as long as the answer holds for max_age.
func (b *Bridge) writeAnswer(w http.ResponseWriter, r *http.Request, a *answers.Answer, now time.Time) {
	var (
		h       = w.Header()
		d       = b.datesAt(now)
		control = b.control
		expires = d.expires
	)
	if left := a.NextUpdate.Sub(now); left < b.cfg.Settings.MaxAge { // never past nextUpdate
		control, expires = cacheControl(left), httpTime(now.Add(max(left, 0)))
	}
	h["Date"], h["Cache-Control"] = d.date, control
	if &control[0] != &isNoStore[0] {
		h["Expires"], h["Last-Modified"], h["Etag"] = expires, a.Modified, a.ETag
		if r.Method != http.MethodPost && b.unchanged(r, a) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	h["Content-Type"], h["Content-Length"] = isResponse, a.Length
	b.writeBody(w, r, http.StatusOK, a.DER)
}

// unchanged evaluates the conditions of a GET or HEAD (RFC 9110 section 13.2.2). A POST has none: what it asks for is not what is at its path.
//
// Last-Modified is thisUpdate (RFC 5019 section 6.2), of whole seconds. Within one of them a certificate can have been good and then
// revoked, so the date counts only when nothing has changed in that second or after it; the ETag always does.
func (b *Bridge) unchanged(r *http.Request, a *answers.Answer) bool {
	if tags := r.Header["If-None-Match"]; len(tags) > 0 {
		return matches(tags, a.ETag[0])
	}
	since := r.Header["If-Modified-Since"]
	if len(since) != 1 || !a.Stamped {
		return false
	}
	t, err := http.ParseTime(since[0])
	return err == nil && !t.Before(a.ThisUpdate) && !b.versions.ChangedSince(&a.Stamp, a.ThisUpdate)
}

// matches compares an entity tag weakly with those of If-None-Match: a list of them, or * (RFC 9110 section 13.1.2).
func matches(lists []string, tag string) bool {
	for _, list := range lists {
		for {
			list = strings.TrimLeft(list, " \t,")
			if strings.HasPrefix(list, "*") {
				return true
			}
			list = strings.TrimPrefix(list, "W/")
			if !strings.HasPrefix(list, `"`) {
				break
			}
			end := strings.IndexByte(list[1:], '"')
			if end < 0 {
				break
			}
			if list[:end+2] == tag {
				return true
			}
			list = list[end+2:]
		}
	}
	return false
}
