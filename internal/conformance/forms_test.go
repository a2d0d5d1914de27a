package conformance

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/certanchor/certanchor/internal/ocspwire"
)

// forms is every way in which clients write a request into a path.
func (tb *table) forms(w *world) {
	q := awkward(w)
	std := base64.StdEncoding.EncodeToString(q.der)
	escaped := url.QueryEscape(std)
	tb.section("Forms of GET", "One request whose base64 has `+`, `/`, `//` and `=`, written as clients are known to write it. The path is sent as it stands.",
		"Path", "Answer must be", "Own", "OpenSSL", "GnuTLS")
	for _, f := range []struct {
		name string
		at   *bridge
		path string
	}{
		{"base64, URL-encoded (RFC 6960 appendix A.1)", w.main, "/ocsp/" + escaped},
		{"the same, escapes in lower case", w.main, "/ocsp/" + strings.NewReplacer("%2B", "%2b", "%2F", "%2f", "%3D", "%3d").Replace(escaped)},
		{"base64 as it is, with `//` within", w.main, "/ocsp/" + std},
		{"only `/` escaped", w.main, "/ocsp/" + strings.ReplaceAll(std, "/", "%2F")},
		{"only `+` and `=` escaped", w.main, "/ocsp/" + strings.NewReplacer("+", "%2B", "=", "%3D").Replace(std)},
		{"two slashes before the request", w.main, "/ocsp//" + escaped},
		{"two slashes before the path", w.main, "//ocsp/" + escaped},
		{"an escaped slash before the request", w.main, "/ocsp/%2F" + escaped},
		{"without padding", w.main, "/ocsp/" + strings.TrimRight(std, "=")},
		{"base64url", w.main, "/ocsp/" + base64.URLEncoding.EncodeToString(q.der)},
		{"base64url, without padding", w.main, "/ocsp/" + base64.RawURLEncoding.EncodeToString(q.der)},
		{"`+` turned into a space", w.main, "/ocsp/" + strings.ReplaceAll(std, "+", "%20")},
		{"absolute, as to a proxy", w.main, w.main.url + "/" + escaped},
		{"with a query", w.main, "/ocsp/" + escaped + "?cache=no"},
		{"`ocsp_path: /pki/status`", w.bridges["prefix"], "/pki/status/" + escaped},
		{"`ocsp_path: /pki/status`, as it is", w.bridges["prefix"], "/pki/status/" + std},
		{"`ocsp_path: /pki/status`, and below /ocsp all the same", w.bridges["prefix"], "/ocsp/" + escaped},
		{"`ocsp_path: /`", w.bridges["root"], "/" + escaped},
		{"`ocsp_path: /`, as it is", w.bridges["root"], "/" + std},
	} {
		e, err := w.send(http.MethodGet, f.at.url, f.path, "", nil)
		tb.row(f.name, q.want.must(), tb.judged(w, q, e, err)...)
	}
}

// awkward is a good question whose base64 has all that paths go wrong with.
func awkward(w *world) *question {
	a := asker{w, w.main}
	id := a.id(crypto.SHA1, w.issue("awkward.test", "server").SerialNumber)
	for octets := 32; ; {
		nonce := make([]byte, octets)
		_, err := rand.Read(nonce)
		w.must(err)
		q := a.asking("", good(), &ocspwire.Request{Items: []ocspwire.RequestItem{{ID: id}}, Nonce: nonce})
		text := base64.StdEncoding.EncodeToString(q.der)
		if len(q.der)%3 == 0 { // no padding, by the length of the serial number
			octets--
			continue
		}
		if strings.Contains(text, "//") && strings.Contains(text, "+") {
			return q
		}
	}
}

// http is what HTTP itself asks of a responder.
func (tb *table) http(w *world) {
	a := asker{w, w.main}
	plain := a.about("", good(), w.issue("http.test", "server"))
	escaped := "/ocsp/" + url.QueryEscape(base64.StdEncoding.EncodeToString(plain.der))
	post := "Content-Type: " + typeRequest + "\r\n"
	tb.section("HTTP", "RFC 6960 appendix A, RFC 5019 section 5, RFC 9110, RFC 9111. Every refusal is a DER OCSPResponse of its type with `no-store`.",
		"Request", "Answer must be", "Is")
	refusal := func(name, must, method, path, header string, body []byte, code int) {
		e, err := w.send(method, w.main.url, path, header, body)
		if err == nil {
			err = checkHTTP(e, code, true)
		}
		if err == nil && method != http.MethodHead && !bytes.Equal(e.body, ocspwire.ErrorResponse(ocspwire.MalformedRequest)) {
			err = fmt.Errorf("body is %x, must be malformedRequest", e.body)
		}
		if err == nil && code == http.StatusMethodNotAllowed && e.header.Get("Allow") != "GET, HEAD, POST" {
			err = fmt.Errorf("Allow is %q", e.header.Get("Allow"))
		}
		tb.row(name, must, err)
	}
	tb.row("GET", "200, `public`, max-age, ETag, Last-Modified", w.keepable(plain, http.MethodGet, escaped))
	tb.row("HEAD", "the header of GET, without a body", w.keepable(plain, http.MethodHead, escaped))
	tb.row("GET, If-None-Match with its ETag", "304", w.conditional(escaped, "If-None-Match", "ETag", ""))
	tb.row("GET, If-None-Match with a list that has it", "304", w.conditional(escaped, "If-None-Match", "ETag", `"other", `))
	tb.row("GET, If-None-Match: *", "304", w.conditional(escaped, "If-None-Match", "", "*"))
	tb.row("GET, If-Modified-Since its Last-Modified", "304", w.conditional(escaped, "If-Modified-Since", "Last-Modified", ""))
	tb.row("GET, If-None-Match with another ETag", "200", w.unconditional(escaped))
	for _, c := range []struct{ name, header string }{
		{"POST, type with a parameter", "Content-Type: " + typeRequest + "; charset=binary\r\n"}, {"POST, type in capitals", "Content-Type: APPLICATION/OCSP-REQUEST\r\n"}, {"POST without a type", ""},
	} {
		e, err := w.send(http.MethodPost, w.main.url, "/ocsp", c.header, plain.der)
		tb.row(c.name, "200, good", w.says(plain, e, err))
	}
	e, err := w.send(http.MethodPost, w.main.url, "/ocsp/", post, plain.der)
	tb.row("POST, slash at the end", "200, good", w.says(plain, e, err))
	refusal("POST of another type", "415, malformedRequest", http.MethodPost, "/ocsp", "Content-Type: application/json\r\n", plain.der, 415)
	refusal("POST beyond `max_request_bytes`", "413, malformedRequest", http.MethodPost, "/ocsp", post, make([]byte, 16<<10+1), 413)
	refusal("POST of nothing", "200, malformedRequest", http.MethodPost, "/ocsp", post, []byte{}, 200)
	refusal("POST of garbage", "200, malformedRequest", http.MethodPost, "/ocsp", post, []byte("status of serial 5, please"), 200)
	refusal("POST of a request and one octet", "200, malformedRequest", http.MethodPost, "/ocsp", post, append(bytes.Clone(plain.der), 0), 200)
	refusal("POST of a request cut short", "200, malformedRequest", http.MethodPost, "/ocsp", post, plain.der[:len(plain.der)-1], 200)
	refusal("GET of nothing", "200, malformedRequest", http.MethodGet, "/ocsp", "", nil, 200)
	refusal("GET of what is not base64", "200, malformedRequest", http.MethodGet, "/ocsp/!!", "", nil, 200)
	refusal("GET of garbage in base64", "200, malformedRequest", http.MethodGet, "/ocsp/AAAA", "", nil, 200)
	e, err = w.send(http.MethodGet, w.main.url, "/ocsp/"+strings.Repeat("M", 22<<10), "", nil)
	if err == nil && e.code != http.StatusRequestHeaderFieldsTooLarge {
		err = fmt.Errorf("HTTP status is %d", e.code)
	}
	tb.row("GET of 22 KiB", "431, from the HTTP server itself", err)
	refusal("HEAD of garbage", "200, without a body", http.MethodHead, "/ocsp/AAAA", "", nil, 200)
	for _, method := range []string{http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodOptions} {
		refusal(method, "405, malformedRequest, `Allow: GET, HEAD, POST`", method, "/ocsp", post, plain.der, 405)
	}
	refusal("OCSP posted below its path", "404, malformedRequest", http.MethodPost, "/ocsp/elsewhere", post, plain.der, 404)
	tb.row("GET after a revocation, no nonce", "revoked, at once", w.seenAtOnce())
}

// says has our own judge read an answer.
func (w *world) says(q *question, e *exchange, err error) error {
	if err != nil {
		return err
	}
	if err := checkHTTP(e, http.StatusOK, q.want.nonce != nil); err != nil {
		return err
	}
	got, err := ownJudge(w, q, e.body)
	if err != nil {
		return err
	}
	if differs := judges[0].agrees(got, &q.want); differs != "" {
		return fmt.Errorf("%s", differs)
	}
	return nil
}

// keepable checks what caches live by.
func (w *world) keepable(q *question, method, path string) error {
	e, err := w.send(method, w.main.url, path, "", nil)
	if err != nil {
		return err
	}
	if err := checkHTTP(e, http.StatusOK, false); err != nil {
		return err
	}
	cache := e.header.Get("Cache-Control")
	if !strings.Contains(cache, "public") || !strings.Contains(cache, "max-age=") || strings.Contains(cache, "no-store") {
		return fmt.Errorf("Cache-Control is %q", cache)
	}
	for _, name := range []string{"ETag", "Last-Modified", "Content-Length"} {
		if e.header.Get(name) == "" {
			return fmt.Errorf("%s is missing", name)
		}
	}
	if _, err := http.ParseTime(e.header.Get("Last-Modified")); err != nil || !strings.HasSuffix(e.header.Get("Last-Modified"), " GMT") {
		return fmt.Errorf("Last-Modified is %q, must be an IMF-fixdate", e.header.Get("Last-Modified"))
	}
	if method == http.MethodHead {
		if len(e.body) != 0 {
			return fmt.Errorf("body has %d octets", len(e.body))
		}
		return nil
	}
	return w.says(q, e, nil)
}

// conditional repeats a request with what its answer said, until it has not changed: an answer may be renewed in between, and a
// date says nothing while its second may bring a change.
func (w *world) conditional(path, condition, from, value string) error {
	return w.eventually(func() error {
		first, err := w.send(http.MethodGet, w.main.url, path, "", nil)
		if err != nil {
			return err
		}
		set := value
		if from != "" {
			set += first.header.Get(from)
		}
		e, err := w.send(http.MethodGet, w.main.url, path, condition+": "+set+"\r\n", nil)
		switch {
		case err != nil:
			return err
		case e.code != http.StatusNotModified:
			return fmt.Errorf("%s: %s is answered %d, must be 304", condition, set, e.code)
		case len(e.body) != 0 || from == "ETag" && e.header.Get("ETag") != first.header.Get("ETag"):
			return fmt.Errorf("304 has a body of %d octets and the ETag %q", len(e.body), e.header.Get("ETag"))
		}
		return nil
	})
}

func (w *world) unconditional(path string) error {
	e, err := w.send(http.MethodGet, w.main.url, path, "If-None-Match: \"other\"\r\n", nil)
	if err == nil && e.code != http.StatusOK {
		err = fmt.Errorf("HTTP status is %d, must be 200", e.code)
	}
	return err
}

// seenAtOnce asks until the answer is surely kept, revokes, and asks again: the acknowledged revocation is what is answered.
func (w *world) seenAtOnce() error {
	a := asker{w, w.main}
	c := w.issue("at-once.test", "server")
	before, after := a.about("", good(), c), a.about("", revoked("keyCompromise"), c)
	for range 3 {
		e, err := w.get(w.main, before.der)
		if err := w.says(before, e, err); err != nil {
			return err
		}
	}
	w.revoke(c, "keyCompromise", noTime)
	e, err := w.get(w.main, after.der)
	return w.says(after, e, err)
}
