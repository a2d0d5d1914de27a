package ocspbridge_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ocspwire"
	ocspbridge "github.com/certanchor/certanchor/ocsp-bridge"
)

// send sends a request for OCSP with a header, in pairs.
func (b *bridge) send(method, path string, body []byte, header ...string) (*http.Response, []byte) {
	b.w.t.Helper()
	req, err := http.NewRequest(method, b.url+path, bytes.NewReader(body))
	if err != nil {
		b.w.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		b.w.t.Fatal(err)
	}
	return resp, readAll(b.w.t, resp)
}

func TestHeadersOfAnAnswer(t *testing.T) {
	w := newWorld(t)
	cert := w.issue(1)[0]
	b := w.start("bridge", nil).ready()
	path := "/ocsp/" + base64.URLEncoding.EncodeToString(request(t, w.ca.Cert, nil, cert))
	resp, der := b.send("GET", path, nil)
	now := w.clock.Now()
	_, answer, err := ocspwire.ParseResponse(der)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"Content-Type":  "application/ocsp-response",
		"Cache-Control": "public, no-transform, must-revalidate, max-age=5",
		"Date":          now.UTC().Format(http.TimeFormat),
		"Expires":       now.Add(5 * time.Second).UTC().Format(http.TimeFormat),
		"Last-Modified": answer.Responses[0].ThisUpdate.UTC().Format(http.TimeFormat),
	} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
		if strings.Contains(want, "GMT") && len(want) != len("Sun, 06 Nov 1994 08:49:37 GMT") {
			t.Errorf("%s: %q is no IMF-fixdate", name, want)
		}
	}
	if tag := resp.Header.Get("ETag"); len(tag) < 10 || tag[0] != '"' || tag[len(tag)-1] != '"' {
		t.Errorf("ETag is %q", tag)
	}
	head, none := b.send("HEAD", path, nil)
	if head.StatusCode != 200 || len(none) != 0 || head.ContentLength != int64(len(der)) || head.Header.Get("ETag") != resp.Header.Get("ETag") {
		t.Errorf("HEAD: %d, %d octets, headers %v", head.StatusCode, len(none), head.Header)
	}
	put, _ := b.send("PUT", "/ocsp", []byte("x"))
	if put.StatusCode != 405 || put.Header.Get("Allow") != "GET, HEAD, POST" {
		t.Errorf("PUT: %d, Allow %q", put.StatusCode, put.Header.Get("Allow"))
	}
}

func TestConditionalRequests(t *testing.T) {
	w := newWorld(t)
	cert := w.issue(1)[0]
	w.clock.Advance(16 * time.Second)
	w.tick()
	b := w.start("bridge", nil).ready()
	w.clock.Advance(15 * time.Second)
	b.applied(w.tick()) // nothing has changed in this second
	der := request(t, w.ca.Cert, nil, cert)
	path := "/ocsp/" + base64.URLEncoding.EncodeToString(der)
	resp, body := b.send("GET", path, nil)
	tag, date := resp.Header.Get("ETag"), resp.Header.Get("Last-Modified")
	parsed, err := http.ParseTime(date)
	if err != nil {
		t.Fatal(err)
	}
	shift := func(d time.Duration) string { return parsed.Add(d).UTC().Format(http.TimeFormat) }
	for _, c := range []struct {
		header []string
		code   int
	}{
		{[]string{"If-None-Match", tag}, 304},
		{[]string{"If-None-Match", "W/" + tag}, 304},
		{[]string{"If-None-Match", `"a", W/"b,c" ,` + tag}, 304},
		{[]string{"If-None-Match", `"a"`, "If-None-Match", tag}, 304},
		{[]string{"If-None-Match", "*"}, 304},
		{[]string{"If-None-Match", `"a", "b"`}, 200},
		{[]string{"If-None-Match", strings.Trim(tag, `"`)}, 200},
		{[]string{"If-None-Match", `"` + tag}, 200},
		{[]string{"If-None-Match", `W/`}, 200},
		{[]string{"If-None-Match", ``}, 200},
		{[]string{"If-Modified-Since", date}, 304},
		{[]string{"If-Modified-Since", shift(time.Hour)}, 304},
		{[]string{"If-Modified-Since", shift(-time.Second)}, 200},
		{[]string{"If-Modified-Since", "yesterday"}, 200},
		{[]string{"If-Modified-Since", date, "If-None-Match", `"a"`}, 200}, // the tag decides
	} {
		for _, method := range []string{"GET", "HEAD"} {
			resp, got := b.send(method, path, nil, c.header...)
			if resp.StatusCode != c.code || method == "GET" && c.code == 200 && !bytes.Equal(got, body) || c.code == 304 && len(got) != 0 {
				t.Errorf("%s %q: %d, %d octets, want %d", method, c.header, resp.StatusCode, len(got), c.code)
			}
			if resp.Header.Get("ETag") != tag || !strings.Contains(resp.Header.Get("Cache-Control"), "max-age=5") || resp.Header.Get("Date") == "" {
				t.Errorf("%s %q: headers %v", method, c.header, resp.Header)
			}
		}
	}
	if resp, _ := b.send("POST", "/ocsp", der, "If-None-Match", tag, "Content-Type", "application/ocsp-request"); resp.StatusCode != 200 {
		t.Errorf("POST with If-None-Match: %d, want 200", resp.StatusCode)
	}
}

// OCSP's dates are whole seconds. A certificate that was good and then revoked within one of them has two answers with one date.
func TestARevocationWithinTheSecondIsNotHiddenByItsDate(t *testing.T) {
	w := newWorld(t)
	cert := w.issue(1)[0]
	b := w.start("bridge", nil).ready()
	w.clock.Advance(15 * time.Second)
	b.applied(w.tick())
	path := "/ocsp/" + base64.URLEncoding.EncodeToString(request(t, w.ca.Cert, nil, cert))
	good, _ := b.send("GET", path, nil)
	b.applied(w.revoke(cert, wire.KeyCompromise)) // the clock stands still
	date := good.Header.Get("Last-Modified")
	resp, der := b.send("GET", path, nil, "If-Modified-Since", date)
	if resp.Header.Get("Last-Modified") != date {
		t.Fatal("the dates differ: this shows nothing")
	}
	if resp.StatusCode != 200 {
		t.Fatalf("If-Modified-Since: %d, the client goes on to take the certificate for good", resp.StatusCode)
	}
	if _, answer, err := ocspwire.ParseResponse(der); err != nil || answer.Responses[0].Status != ocspwire.Revoked {
		t.Errorf("answer is %+v, %v", answer, err)
	}
	if resp, _ := b.send("GET", path, nil, "If-None-Match", good.Header.Get("ETag")); resp.StatusCode != 200 {
		t.Errorf("If-None-Match: %d", resp.StatusCode)
	}
}

func TestMaxAgeIsNeverPastNextUpdate(t *testing.T) {
	w := newWorld(t)
	cert := w.issue(1)[0]
	b := w.start("bridge", func(c *ocspbridge.Config) {
		c.Settings = ocspbridge.DefaultSettings()
		c.Settings.MaxAge = 50 * time.Minute
		c.Enrollers = w.enrollers(20 * time.Minute)
	}).ready()
	path := "/ocsp/" + base64.URLEncoding.EncodeToString(request(t, w.ca.Cert, nil, cert))
	resp, der := b.send("GET", path, nil)
	_, answer, err := ocspwire.ParseResponse(der)
	if err != nil {
		t.Fatal(err)
	}
	expires, err := http.ParseTime(resp.Header.Get("Expires"))
	if err != nil || expires.After(answer.Responses[0].NextUpdate) {
		t.Errorf("Expires is %s, %v, nextUpdate %s", expires, err, answer.Responses[0].NextUpdate)
	}
	left := answer.Responses[0].NextUpdate.Sub(w.clock.Now())
	if cc, want := resp.Header.Get("Cache-Control"), fmt.Sprintf("max-age=%d", int(left.Seconds())); !strings.HasSuffix(cc, want) || left >= 50*time.Minute {
		t.Errorf("Cache-Control is %q, want %s: nextUpdate is in %s", cc, want, left)
	}
}

func TestOCSPIsServedUnderAnotherPathToo(t *testing.T) {
	for path, base := range map[string]string{"/": "", "/pki/ocsp": "/pki/ocsp"} {
		w := newWorld(t)
		cert := w.issue(1)[0]
		b := w.start("bridge", func(c *ocspbridge.Config) {
			c.Settings = ocspbridge.DefaultSettings()
			c.Settings.OCSPPath = path
		}).ready()
		der := request(t, w.ca.Cert, nil, cert)
		std := base64.StdEncoding.EncodeToString(der)
		want := func(what string, resp *http.Response, der []byte) {
			t.Helper()
			if status, _, err := ocspwire.ParseResponse(der); err != nil || status != ocspwire.Successful {
				t.Errorf("%s: %s: %d, %s, %v", path, what, resp.StatusCode, status, err)
			}
		}
		for _, base := range []string{base, "/ocsp", "/" + base} {
			resp := b.getRaw(base + "/" + std)
			want("GET "+base, resp, readAll(t, resp))
			resp = b.getRaw(base + "//" + strings.ReplaceAll(std, "=", "%253D"))
			want("GET twice escaped "+base, resp, readAll(t, resp))
		}
		for _, p := range []string{base + "/", "/ocsp", "/ocsp/"} {
			resp, der := b.send("POST", p, der, "Content-Type", "application/ocsp-request")
			want("POST "+p, resp, der)
		}
		for p, code := range map[string]int{"/readyz": 200, "/ocspx": 404, "/logs": 200, "/": 404} {
			if got, _ := b.get(p, nil); got != code {
				t.Errorf("%s: GET %s: %d, want %d", path, p, got, code)
			}
		}
	}
}
