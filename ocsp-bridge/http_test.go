package ocspbridge_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ocspwire"
)

// openssl must be there: it is an independent judge, not an option.
func openssl(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("openssl %v: %v\n%s", args, err, out)
	}
	return string(out)
}

func writePEM(t *testing.T, dir string, certs map[string]*x509.Certificate) {
	t.Helper()
	for name, c := range certs {
		data := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOpenSSLBelievesTheAnswers(t *testing.T) {
	w := newWorld(t)
	certs := w.issue(2)
	w.revoke(certs[1], wire.KeyCompromise)
	_, never := w.ca.Issue(t)
	b := w.start("bridge", nil).ready()
	dir := t.TempDir()
	writePEM(t, dir, map[string]*x509.Certificate{"ca.pem": w.ca.Cert, "good.pem": certs[0], "bad.pem": certs[1], "never.pem": never})

	for _, hash := range []string{"-sha1", "-sha256", "-sha384", "-sha512"} {
		out := openssl(t, dir, "ocsp", "-url", b.url+"/ocsp", "-CAfile", "ca.pem", "-issuer", "ca.pem",
			hash, "-cert", "good.pem", hash, "-cert", "bad.pem")
		for _, want := range []string{"Response verify OK", "good.pem: good", "bad.pem: revoked", "Reason: keyCompromise"} {
			if !strings.Contains(out, want) {
				t.Errorf("%s: openssl does not say %q:\n%s", hash, want, out)
			}
		}
		if strings.Contains(out, "WARNING") {
			t.Errorf("%s: openssl warns:\n%s", hash, out)
		}
	}
	ask := exec.Command("openssl", "ocsp", "-url", b.url+"/ocsp", "-CAfile", "ca.pem", "-issuer", "ca.pem", "-cert", "never.pem")
	ask.Dir = dir
	if refusal, err := ask.CombinedOutput(); err == nil || !strings.Contains(string(refusal), "unauthorized") {
		t.Errorf("never issued: openssl says: %v\n%s", err, refusal)
	}
	// openssl sends no GET itself: its request, this test's GET, its judgement.
	openssl(t, dir, "ocsp", "-issuer", "ca.pem", "-cert", "bad.pem", "-no_nonce", "-reqout", "req")
	req, err := os.ReadFile(filepath.Join(dir, "req"))
	if err != nil {
		t.Fatal(err)
	}
	code, der := b.get("/ocsp/"+url.PathEscape(base64.StdEncoding.EncodeToString(req)), nil)
	if err := os.WriteFile(filepath.Join(dir, "resp"), der, 0o600); err != nil || code != http.StatusOK {
		t.Fatal(code, err)
	}
	out := openssl(t, dir, "ocsp", "-respin", "resp", "-CAfile", "ca.pem", "-issuer", "ca.pem", "-cert", "bad.pem", "-no_nonce")
	if !strings.Contains(out, "Response verify OK") || !strings.Contains(out, "bad.pem: revoked") {
		t.Errorf("GET: openssl says:\n%s", out)
	}
}

func TestXCryptoBelievesTheAnswers(t *testing.T) {
	w := newWorld(t)
	cert := w.issue(1)[0]
	b := w.start("bridge", nil).ready()
	req, err := ocsp.CreateRequest(cert, w.ca.Cert, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, der := b.post(req)
	resp, err := ocsp.ParseResponseForCert(der, cert, w.ca.Cert)
	if err != nil {
		t.Fatal(err)
	}
	if resp.Status != ocsp.Good || resp.Certificate == nil {
		t.Errorf("x/crypto reads %+v", resp)
	}
	if age := w.clock.Now().Sub(resp.ThisUpdate); age < 0 || age >= time.Second {
		t.Errorf("thisUpdate is %s, now %s", resp.ThisUpdate, w.clock.Now())
	}
	if v := resp.NextUpdate.Sub(resp.ThisUpdate); v != 5*time.Minute {
		t.Errorf("validity is %s, want 5m", v)
	}
}

func TestGetWorksInEveryFormThatClientsSend(t *testing.T) {
	w := newWorld(t)
	b := w.start("bridge", nil).ready()
	// Serial numbers that put '/', '//', '+' and padding into the base64.
	for i := range 64 {
		cert := w.issue(1)[0]
		b.until("applied", func() (bool, string) { s := b.ask(cert); return s == "good", s })
		der := request(t, w.ca.Cert, bytes.Repeat([]byte{0xff, byte(i)}, 8+i%3), cert)
		std := base64.StdEncoding.EncodeToString(der)
		for form, path := range map[string]string{
			"raw":            "/ocsp/" + std,
			"escaped":        "/ocsp/" + url.QueryEscape(std),
			"lower escaped":  "/ocsp/" + strings.NewReplacer("+", "%2b", "/", "%2f", "=", "%3d").Replace(std),
			"unpadded":       "/ocsp/" + strings.TrimRight(std, "="),
			"base64url":      "/ocsp/" + base64.URLEncoding.EncodeToString(der),
			"base64url raw":  "/ocsp/" + base64.RawURLEncoding.EncodeToString(der),
			"leading slash":  "/ocsp//" + std,
			"leading slash2": "//ocsp/" + std,
			"plus as space":  "/ocsp/" + strings.ReplaceAll(std, "+", "%20"),
		} {
			resp := b.getRaw(path)
			status, answer, err := ocspwire.ParseResponse(readAll(t, resp))
			if err != nil || status != ocspwire.Successful || answer.Responses[0].Status != ocspwire.Good {
				t.Fatalf("%s: %s: %v, %v", form, path, status, err)
			}
		}
	}
}

// getRaw sends a path octet by octet, which net/http's client would not.
func (b *bridge) getRaw(path string) *http.Response {
	b.w.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(b.url, "http://"))
	if err != nil {
		b.w.t.Fatal(err)
	}
	b.w.t.Cleanup(func() { _ = conn.Close() })
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: bridge\r\nConnection: close\r\n\r\n", path); err != nil {
		b.w.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		b.w.t.Fatal(err)
	}
	return resp
}

func TestErrorsAreOCSPErrorsThatNobodyMayKeep(t *testing.T) {
	w := newWorld(t)
	b := w.start("bridge", nil).ready()
	for _, c := range []struct {
		what, method, path, ctype string
		body                      []byte
		code                      int
	}{
		{"rubbish", "POST", "/ocsp", "application/ocsp-request", []byte("hello"), 200},
		{"nothing", "POST", "/ocsp", "application/ocsp-request", nil, 200},
		{"wrong type", "POST", "/ocsp", "application/json", []byte("{}"), 415},
		{"too long", "POST", "/ocsp", "application/ocsp-request", make([]byte, 17<<10), 413},
		{"below the path", "POST", "/ocsp/x", "application/ocsp-request", nil, 404},
		{"wrong method", "PUT", "/ocsp", "", nil, 405},
		{"GET of nothing", "GET", "/ocsp", "", nil, 200},
		{"GET of rubbish", "GET", "/ocsp/%21%21", "", nil, 200},
		{"GET of a line break", "GET", "/ocsp/MF%0AEw", "", nil, 200},
		{"HEAD of rubbish", "HEAD", "/ocsp/xx", "", nil, 200},
	} {
		req, err := http.NewRequest(c.method, b.url+c.path, bytes.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		if c.ctype != "" {
			req.Header.Set("Content-Type", c.ctype)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body := readAll(t, resp)
		if resp.StatusCode != c.code || resp.Header.Get("Content-Type") != "application/ocsp-response" || resp.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: status %d, headers %v", c.what, resp.StatusCode, resp.Header)
		}
		if c.method != "HEAD" && !bytes.Equal(body, ocsp.MalformedRequestErrorResponse) {
			t.Errorf("%s: body %x", c.what, body)
		}
	}
}

func TestOnlyAnswersWithoutNonceMayBeKept(t *testing.T) {
	w := newWorld(t)
	cert := w.issue(1)[0]
	b := w.start("bridge", nil).ready()
	resp, first := b.post(request(t, w.ca.Cert, nil, cert))
	if cc := resp.Header.Get("Cache-Control"); !strings.Contains(cc, "max-age=5") {
		t.Errorf("without a nonce: Cache-Control is %q", cc)
	}
	if _, second := b.post(request(t, w.ca.Cert, nil, cert)); !bytes.Equal(first, second) {
		t.Error("the same answer is signed twice")
	}
	resp, first = b.post(request(t, w.ca.Cert, []byte("nonce-1"), cert))
	if cc := resp.Header.Get("Cache-Control"); cc != "no-store" {
		t.Errorf("with a nonce: Cache-Control is %q", cc)
	}
	_, answer, err := ocspwire.ParseResponse(first)
	if err != nil || string(answer.Nonce) != "nonce-1" {
		t.Errorf("nonce is %q, %v", answer.Nonce, err)
	}
}

func TestSeveralCertificatesInOneRequest(t *testing.T) {
	w := newWorld(t)
	certs := w.issue(2)
	w.revoke(certs[1], wire.Superseded)
	_, never := w.ca.Issue(t)
	b := w.start("bridge", nil).ready()
	_, der := b.post(request(t, w.ca.Cert, nil, certs[0], certs[1], never))
	_, resp, err := ocspwire.ParseResponse(der)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range resp.Responses {
		got = append(got, s.Status.String())
	}
	if fmt.Sprint(got) != "[good revoked unknown]" {
		t.Errorf("statuses are %v", got)
	}
	many := make([]*x509.Certificate, 17)
	for i := range many {
		many[i] = certs[0]
	}
	if got := b.single(request(t, w.ca.Cert, nil, many...)); got != "malformedRequest" {
		t.Errorf("17 certificates: %s", got)
	}
}

func TestCertificatesOfTwoCAsAreNotAnsweredByOneSigner(t *testing.T) {
	w := newWorld(t)
	second := cctest.NewCA(t)
	if _, err := w.node.Connect(wire.RoleAdministrator).Submit(t.Context(), wire.FnRegisterCA, second.RegisterArg(mspID)); err != nil {
		t.Fatal(err)
	}
	cert := w.issue(1)[0]
	_, other := second.Issue(t)
	b := w.start("bridge", nil).ready()
	var items []ocspwire.RequestItem
	for _, der := range [][]byte{request(t, w.ca.Cert, nil, cert), request(t, second.Cert, nil, other)} {
		req, err := ocspwire.ParseRequest(der, 1)
		if err != nil {
			t.Fatal(err)
		}
		items = append(items, req.Items...)
	}
	der, err := (&ocspwire.Request{Items: items}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if got := b.single(der); got != "unauthorized" {
		t.Errorf("answer is %s, want unauthorized", got)
	}
}

// After WaitApplied has returned for a revocation, no request that is sent afterwards may be answered good, however many are
// being answered, signed and cached at the time.
func TestNoGoodAfterARevocationIsAcknowledged(t *testing.T) {
	w := newWorld(t)
	b := w.start("bridge", nil).ready()
	for range 20 {
		cert := w.issue(1)[0]
		b.until("good", func() (bool, string) { s := b.ask(cert); return s == "good", s })
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		for range 4 { // keep caches and signers busy with the old answer
			go func() {
				defer func() { done <- struct{}{} }()
				for ctx.Err() == nil {
					resp, err := http.Post(b.url+"/ocsp", "application/ocsp-request", bytes.NewReader(request(t, w.ca.Cert, nil, cert)))
					if err != nil {
						t.Error(err)
						return
					}
					if _, err := io.Copy(io.Discard, resp.Body); err != nil {
						t.Error(err)
					}
					_ = resp.Body.Close()
				}
			}()
		}
		b.applied(w.revoke(cert, wire.KeyCompromise))
		for range 20 {
			b.want(cert, "revoked")
		}
		cancel()
		for range 4 {
			<-done
		}
	}
}
