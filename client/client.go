package client

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// Defaults of the zero Client.
const (
	DefaultTimeout = 10 * time.Second
	DefaultSkew    = time.Minute

	maxAnswer = 64 << 10 // octets of an OCSP response, a proof or an error
)

// Client asks responders and logs. The zero value works; a Client is safe for concurrent use while its fields are not changed.
type Client struct {
	// HTTP sends the requests. nil: a client of its own that gives up after DefaultTimeout and follows no redirects.
	HTTP *http.Client

	// OCSPURL is the responder to ask. Empty: the first HTTP one that the certificate names (authorityInfoAccess).
	OCSPURL string

	// LogURL is the base URL of an organisation's bridge, which serves its logs under /logs. FetchProof needs it.
	LogURL string

	// NoNonce leaves the nonce out of OCSP requests. Answers can then come from caches, and an attacker on the path can
	// repeat one for as long as it is valid.
	NoNonce bool

	// NonceLength is how many octets the nonce has: 1 to 128 (RFC 9654). 0: 32.
	NonceLength int

	// PreferredAlgorithms asks the responder to sign with the first of these that its key can (RFC 6960 section 4.4.7): ECDSA, RSA
	// PKCS #1 v1.5 or RSASSA-PSS with SHA-2, or Ed25519. It may use another, and the answer is verified as any other. Empty: it chooses.
	PreferredAlgorithms []x509.SignatureAlgorithm

	// MaxAge refuses answers whose thisUpdate is longer ago. 0: whatever the responder's nextUpdate allows.
	MaxAge time.Duration

	// Skew is how far this clock and the responder's may be apart. 0: DefaultSkew; negative: not at all.
	Skew time.Duration

	// Now is the clock. nil: time.Now.
	Now func() time.Time
}

// Errors of Status, FetchProof and VerifyInclusion, for errors.Is. The text of an error says what exactly is wrong.
var (
	ErrWrongIssuer = errors.New("certificate is not issued by the given issuer")
	ErrTransport   = errors.New("no answer from the server")

	// ErrUnavailable is an answer that there is none now; UnavailableError says why, and when to ask again.
	ErrUnavailable = errors.New("the server cannot answer this now")
)

// UnavailableError is an ErrUnavailable as the server explains it.
type UnavailableError struct {
	Address    string
	Detail     string        // in the server's words
	RetryAfter time.Duration // when the server wants to be asked again; 0: it does not say
}

func (e *UnavailableError) Error() string {
	return fmt.Sprintf("%v: %s: %s", ErrUnavailable, e.Address, e.Detail)
}

// Is makes it an ErrUnavailable.
func (e *UnavailableError) Is(target error) bool { return target == ErrUnavailable }

var defaultHTTP = &http.Client{
	Timeout:       DefaultTimeout,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func (c *Client) http() *http.Client {
	if c.HTTP != nil {
		return c.HTTP
	}
	return defaultHTTP
}

func (c *Client) now() time.Time {
	if c.Now != nil {
		return c.Now()
	}
	return time.Now()
}

func (c *Client) skew() time.Duration {
	switch {
	case c.Skew == 0:
		return DefaultSkew
	case c.Skew < 0:
		return 0
	}
	return c.Skew
}

// checkIssued: all that is said later is about a certificate of this issuer.
func checkIssued(cert, issuer *x509.Certificate) error {
	if cert == nil || issuer == nil {
		return fmt.Errorf("%w: certificate and issuer must both be given", ErrWrongIssuer)
	}
	if !bytes.Equal(cert.RawIssuer, issuer.RawSubject) {
		return fmt.Errorf("%w: it names %q, the issuer is %q", ErrWrongIssuer, cert.Issuer, issuer.Subject)
	}
	if err := issuer.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature); err != nil {
		return fmt.Errorf("%w: %w", ErrWrongIssuer, err)
	}
	return nil
}

// CAID is the name that the ledger has for a CA: the SHA-256 of its public key, in hexadecimal.
func CAID(issuer *x509.Certificate) string {
	return wire.CAIDOf(issuer.RawSubjectPublicKeyInfo).String()
}

// do sends a request and returns the answer's status, content type and body.
func (c *Client) do(ctx context.Context, method, address string, body []byte, contentType string) (int, string, []byte, error) {
	return c.doLimit(ctx, method, address, body, contentType, maxAnswer)
}

func (c *Client) doLimit(ctx context.Context, method, address string, body []byte, contentType string, limit int) (int, string, []byte, error) {
	code, header, answer, err := c.exchange(ctx, method, address, body, contentType, limit)
	return code, mediaType(header), answer, err
}

func mediaType(h http.Header) string {
	t, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	return strings.TrimSpace(strings.ToLower(t))
}

// exchange sends a request and returns the answer's status, header and body.
func (c *Client) exchange(ctx context.Context, method, address string, body []byte, contentType string, limit int) (int, http.Header, []byte, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return 0, nil, nil, fmt.Errorf("%w: URL %q: must be an absolute http or https URL", ErrTransport, address)
	}
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return 0, nil, nil, fmt.Errorf("%w: %w", ErrTransport, err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.http().Do(req)
	if err != nil {
		return 0, nil, nil, fmt.Errorf("%w: %w", ErrTransport, err)
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, int64(limit)+1))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return 0, nil, nil, fmt.Errorf("%w: %s: %w", ErrTransport, address, err)
	}
	if len(answer) > limit {
		return 0, nil, nil, fmt.Errorf("%w: %s: answer is longer than %d octets", ErrTransport, address, limit)
	}
	return resp.StatusCode, resp.Header, answer, nil
}
