package conformance

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	typeRequest  = "application/ocsp-request"
	typeResponse = "application/ocsp-response"
)

// exchange is one HTTP answer.
type exchange struct {
	code   int
	header http.Header
	body   []byte
}

// send writes a request's octets as they are, so that nothing on the way changes a path, and reads the answer.
func (w *world) send(method, server, target, header string, body []byte) (*exchange, error) {
	u, err := url.Parse(server)
	w.must(err)
	conn, err := net.DialTimeout("tcp", u.Host, deadline)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	w.must(conn.SetDeadline(time.Now().Add(deadline)))
	head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n%s", method, target, u.Host, header)
	if body != nil {
		head += fmt.Sprintf("Content-Length: %d\r\n", len(body))
	}
	if _, err := io.Copy(conn, io.MultiReader(strings.NewReader(head+"\r\n"), bytes.NewReader(body))); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return &exchange{code: resp.StatusCode, header: resp.Header, body: data}, err
}

func (w *world) post(b *bridge, der []byte) (*exchange, error) {
	return w.send(http.MethodPost, b.url, pathOf(b.url), "Content-Type: "+typeRequest+"\r\n", der)
}

// get asks as RFC 6960 appendix A.1 has it: base64, then URL-encoded.
func (w *world) get(b *bridge, der []byte) (*exchange, error) {
	return w.send(http.MethodGet, b.url, pathOf(b.url)+"/"+url.QueryEscape(base64.StdEncoding.EncodeToString(der)), "", nil)
}

func pathOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		panic(err)
	}
	return u.Path
}

// checkHTTP is what holds of every answer: the code, the type, and that what is for one client only, or says nothing about a
// certificate, is not kept.
func checkHTTP(e *exchange, code int, private bool) error {
	cache := e.header.Get("Cache-Control")
	switch {
	case e.code != code:
		return fmt.Errorf("HTTP status is %d, must be %d", e.code, code)
	case e.header.Get("Content-Type") != typeResponse:
		return fmt.Errorf("content type is %q, must be %s", e.header.Get("Content-Type"), typeResponse)
	case private && !strings.Contains(cache, "no-store"):
		return fmt.Errorf("Cache-Control is %q, must be no-store", cache)
	}
	return nil
}
