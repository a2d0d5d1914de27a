// Package caapi is the HTTP API of the CA bridge: its types and paths, and a client for it.
package caapi

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/httpsig"
	"github.com/certanchor/certanchor/internal/problem"
)

const (
	maxAnswer   = 1 << 20
	retryPause  = time.Second
	maxLost     = 3           // answers, until Issue gives up
	maxUnknown  = 10          // outcomes; the server has tried for half a minute each time
	maxEarly    = 10          // requests that a server which has just started does not take yet
	httpTimeout = time.Minute // a server answers within less
)

// Client talks to one CA. It is safe for concurrent use.
type Client struct {
	base  string
	token string
	hmac  HMAC
	http  *http.Client
	pause time.Duration // before a repetition
}

// Config says how to reach a CA, and with which credential: at most one of a token, an HMAC key and a certificate.
type Config struct {
	URL       string       // base URL, http or https
	Token     string       // bearer token; empty for what needs none, or when TokenFile is set
	TokenFile string       // file that holds it, readable by its owner only
	HMAC      HMAC         // the key of a client that signs its requests
	TLS       TLS          // files for https
	HTTP      *http.Client // default: one with a timeout of a minute. Not with TLS
}

// New returns a client. Errors name the URL or the file that cannot be used.
func New(cfg Config) (*Client, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, wire.Errorf(wire.InvalidArgument, "url", cfg.URL, "must be an absolute http or https URL without query and fragment")
	}
	c := &Client{base: strings.TrimSuffix(cfg.URL, "/"), token: cfg.Token, http: cfg.HTTP, pause: retryPause}
	if err := cfg.oneCredential(); err != nil {
		return nil, err
	}
	if cfg.TokenFile != "" {
		if c.token, err = readToken(cfg.TokenFile); err != nil {
			return nil, err
		}
	}
	if c.hmac, err = cfg.HMAC.read(); err != nil {
		return nil, err
	}
	if cfg.TLS != (TLS{}) {
		if cfg.HTTP != nil || u.Scheme != "https" {
			return nil, wire.Errorf(wire.InvalidArgument, "url", cfg.URL, "must be https, with TLS files and no HTTP client")
		}
		c.http, err = cfg.TLS.client()
	}
	if c.http == nil {
		c.http = &http.Client{Timeout: httpTimeout}
	}
	return c, err
}

// readToken reads a token file, which only its owner may read.
func readToken(path string) (string, error) {
	st, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if perm := st.Mode().Perm(); perm&0o077 != 0 {
		return "", fmt.Errorf("token file %s: mode %04o lets others read it, must be 0600 or stricter", path, perm)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(data))
	if token == "" || strings.ContainsAny(token, " \t\r\n") {
		return "", fmt.Errorf("token file %s: must hold one token", path)
	}
	return token, nil
}

// Issue asks for a certificate. Under idempotencyKey, or a random one if that is empty, it repeats the request some times when
// the answer got lost or the outcome is unknown; the server issues one certificate only. Errors: *problem.Problem when the
// server said why, else a transport error.
func (c *Client) Issue(ctx context.Context, r IssueRequest, idempotencyKey string) (*Certificate, error) {
	return c.issue(ctx, PathCertificates, r, idempotencyKey)
}

// EnrollResponder asks for the certificate of a delegated OCSP responder with a DER request and returns it in DER, once it is on
// the ledger. caID is the CA that is meant; another one's certificate is an error.
func (c *Client) EnrollResponder(ctx context.Context, caID wire.CAID, csr []byte) ([]byte, error) {
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})
	got, err := c.issue(ctx, PathResponders, IssueRequest{CSR: string(text), CAID: caID.String()}, "")
	if err != nil {
		return nil, err
	}
	if got.CAID != caID.String() {
		return nil, fmt.Errorf("%s is the CA %s, not %s", c.base, got.CAID, caID)
	}
	block, _ := pem.Decode([]byte(got.Certificate))
	if block == nil {
		return nil, fmt.Errorf("%s answered without a certificate", c.base)
	}
	return block.Bytes, nil
}

func (c *Client) issue(ctx context.Context, path string, r IssueRequest, key string) (*Certificate, error) {
	if key == "" {
		key = rand.Text()
	}
	header := http.Header{IdempotencyKey: {key}}
	for lost, unknown := 0, 0; ; {
		var cert Certificate
		_, err := c.do(ctx, http.MethodPost, path, header, r, &cert)
		if err == nil {
			return &cert, nil
		}
		p, said := errors.AsType[*problem.Problem](err)
		switch {
		case said && p.Code != problem.CodeUnknownOutcome:
			return nil, err
		case said:
			unknown++
		default:
			lost++
		}
		if lost == maxLost || unknown == maxUnknown {
			return nil, err
		}
		timer := time.NewTimer(c.pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, err
		case <-timer.C:
		}
	}
}

// Get returns a certificate and its status.
func (c *Client) Get(ctx context.Context, serial string) (*Certificate, error) {
	var cert Certificate
	_, err := c.do(ctx, http.MethodGet, PathCertificates+"/"+url.PathEscape(serial), nil, nil, &cert)
	return &cert, err
}

// Revoke revokes or holds a certificate. acknowledged is true when every responder of the CA's organisation has applied it; it
// is committed on the ledger in any case when err is nil.
func (c *Client) Revoke(ctx context.Context, r RevokeRequest) (change *StatusChange, acknowledged bool, err error) {
	return c.change(ctx, PathRevocations, r)
}

// Release ends a hold, in the same way.
func (c *Client) Release(ctx context.Context, serial string) (change *StatusChange, acknowledged bool, err error) {
	return c.change(ctx, PathReleases, ReleaseRequest{Serial: serial})
}

func (c *Client) change(ctx context.Context, path string, body any) (*StatusChange, bool, error) {
	var change StatusChange
	code, err := c.do(ctx, http.MethodPost, path, nil, body, &change)
	return &change, err == nil && code == http.StatusOK, err
}

// CA describes the CA.
func (c *Client) CA(ctx context.Context) (*CA, error) {
	var ca CA
	_, err := c.do(ctx, http.MethodGet, PathCA, nil, nil, &ca)
	return &ca, err
}

// Ready tells whether the CA can issue now. A CA that cannot is not an error.
func (c *Client) Ready(ctx context.Context) (*Ready, error) {
	var ready Ready
	code, body, err := c.roundTrip(ctx, http.MethodGet, PathReady, nil, nil)
	if err != nil {
		return nil, err
	}
	if code != http.StatusOK && code != http.StatusServiceUnavailable {
		return nil, fmt.Errorf("GET %s%s: status %d", c.base, PathReady, code)
	}
	return &ready, json.Unmarshal(body, &ready)
}

// do makes one request and decodes its answer into out.
func (c *Client) do(ctx context.Context, method, path string, header http.Header, in, out any) (int, error) {
	code, body, err := c.roundTrip(ctx, method, path, header, in)
	if err != nil {
		return 0, err
	}
	if code/100 != 2 {
		return code, asProblem(method, c.base+path, code, body)
	}
	if code == http.StatusAccepted {
		if op := pending(body); op != nil {
			return code, &PendingError{Operation: op}
		}
	}
	if err := json.Unmarshal(body, out); err != nil {
		return code, fmt.Errorf("%s %s%s: the answer is not understood: %w", method, c.base, path, err)
	}
	return code, nil
}

func (c *Client) roundTrip(ctx context.Context, method, path string, header http.Header, in any) (int, []byte, error) {
	payload, err := marshal(in)
	if err != nil {
		return 0, nil, err
	}
	return c.send(ctx, method, path, header, payload, maxAnswer)
}

// send makes one request; a signed one that a server has not run long enough for is signed anew and made again.
func (c *Client) send(ctx context.Context, method, path string, header http.Header, payload []byte, limit int64) (int, []byte, error) {
	for tries := 1; ; tries++ {
		code, body, err := c.sendOnce(ctx, method, path, header, payload, limit)
		if err != nil || code != http.StatusServiceUnavailable || len(c.hmac.Key) == 0 || tries == maxEarly || !tooEarly(body) {
			return code, body, err
		}
		select {
		case <-ctx.Done():
			return code, body, nil
		case <-time.After(c.pause):
		}
	}
}

func (c *Client) sendOnce(ctx context.Context, method, path string, header http.Header, payload []byte, limit int64) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, reader(payload))
	if err != nil {
		return 0, nil, err
	}
	for k, v := range header {
		req.Header[http.CanonicalHeaderKey(k)] = v
	}
	if payload != nil && req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/json")
	}
	switch {
	case c.token != "":
		req.Header.Set("Authorization", "Bearer "+c.token)
	case len(c.hmac.Key) > 0:
		if err := httpsig.Sign(req, payload, c.hmac.Name, c.hmac.Key, time.Now()); err != nil {
			return 0, nil, err
		}
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit))
	return resp.StatusCode, body, errors.Join(err, resp.Body.Close())
}

// asProblem reads an RFC 9457 answer. What is not one, from a proxy for example, becomes one.
func asProblem(method, target string, code int, body []byte) error {
	var p problem.Problem
	if err := json.Unmarshal(body, &p); err == nil && p.Status == code && p.Detail != "" {
		return &p
	}
	return &problem.Problem{Type: "about:blank", Title: http.StatusText(code), Status: code, Code: string(wire.Internal),
		Detail: fmt.Sprintf("%s %s: status %d without an explanation", method, target, code)}
}
