package client

import (
	"cmp"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ocspwire"
)

// Status is what a responder says about a certificate.
type Status int

// Statuses of RFC 6960 section 2.2. The zero value is none of them.
const (
	Good    = Status(ocspwire.Good)    // issued, and not revoked
	Revoked = Status(ocspwire.Revoked) // for good, or on hold
	Unknown = Status(ocspwire.Unknown) // never issued, as far as the responder knows
)

func (s Status) String() string { return ocspwire.CertStatus(s).String() }

// Answer is a verified OCSP answer about one certificate.
type Answer struct {
	Status     Status
	RevokedAt  time.Time // Revoked only
	Reason     string    // Revoked only: RFC 5280's name of the reason; "unspecified" when none was given
	ThisUpdate time.Time // the status is known to have been right at this time
	NextUpdate time.Time // newer information will be there by this time; zero: the responder always has newer
	ProducedAt time.Time
	Signer     *x509.Certificate // the issuer or its delegate
	Raw        []byte            // DER of the OCSPResponse
}

// Reasons why an OCSP answer is not believed, for errors.Is.
var (
	ErrSigner    = ocspwire.ErrSigner    // not signed by the issuer or its delegate
	ErrSignature = ocspwire.ErrSignature // the signature does not verify
	ErrNonce     = ocspwire.ErrNonce     // not an answer to this very request
	ErrNotAsked  = ocspwire.ErrNotAsked  // about another certificate
	ErrNotNow    = ocspwire.ErrNotNow    // outside thisUpdate to nextUpdate
	ErrMalformed = errors.New("OCSP response is malformed")
)

// ResponderError is an OCSP answer that carries no status. It is not signed, so it says nothing about the certificate.
type ResponderError struct {
	Status string // RFC 6960 section 4.2.1's name: malformedRequest, internalError, tryLater, sigRequired or unauthorized
}

func (e *ResponderError) Error() string { return "OCSP responder answers " + e.Status }

// Is makes errors.Is(err, ErrTryLater) and the like work.
func (e *ResponderError) Is(target error) bool {
	var t *ResponderError
	return errors.As(target, &t) && t.Status == e.Status
}

// The two refusals that callers tell apart.
var (
	ErrTryLater     error = &ResponderError{Status: ocspwire.TryLater.String()}     // the responder has no fresh view now
	ErrUnauthorized error = &ResponderError{Status: ocspwire.Unauthorized.String()} // the responder has no record of the certificate
)

// Status asks a responder about cert and verifies the answer: signed by issuer or its delegate, about cert, in answer to this
// request (unless NoNonce), and valid now. A nil error means that the Answer can be relied on; its Status may be any of the three.
func (c *Client) Status(ctx context.Context, cert, issuer *x509.Certificate) (*Answer, error) {
	if err := checkIssued(cert, issuer); err != nil {
		return nil, err
	}
	address, err := c.responder(cert)
	if err != nil {
		return nil, err
	}
	return c.ask(ctx, address, cert.SerialNumber, issuer)
}

// StatusOfSerial is Status for a certificate of issuer of which only the serial number is known. OCSPURL must be set.
func (c *Client) StatusOfSerial(ctx context.Context, serial *big.Int, issuer *x509.Certificate) (*Answer, error) {
	if serial == nil || issuer == nil {
		return nil, errors.New("serial number and issuer must both be given")
	}
	if c.OCSPURL == "" {
		return nil, errors.New("OCSPURL must be set: a serial number does not say where to ask")
	}
	return c.ask(ctx, c.OCSPURL, serial, issuer)
}

func (c *Client) ask(ctx context.Context, address string, serial *big.Int, issuer *x509.Certificate) (*Answer, error) {
	req, err := c.request(serial, issuer)
	if err != nil {
		return nil, err
	}
	der, err := req.Marshal()
	if err != nil {
		return nil, err
	}
	raw, err := c.post(ctx, address, der)
	if err != nil {
		return nil, err
	}
	return c.verify(raw, ocspwire.VerifyOptions{
		Issuer: issuer, ID: req.Items[0].ID, Nonce: req.Nonce, Now: c.now(), Skew: c.skew(), MaxAge: c.MaxAge,
	})
}

func (c *Client) request(serial *big.Int, issuer *x509.Certificate) (*ocspwire.Request, error) {
	// SHA-1 here only finds the issuer, and every responder knows it (RFC 5019 section 2.1.1); the signature decides.
	id, err := ocspwire.NewCertID(crypto.SHA1, issuer, serial)
	if err != nil {
		return nil, err
	}
	req := &ocspwire.Request{Items: []ocspwire.RequestItem{{ID: id}}}
	if len(c.PreferredAlgorithms) > 0 {
		ext, err := ocspwire.PreferredAlgorithmsExtension(c.PreferredAlgorithms...)
		if err != nil {
			return nil, fmt.Errorf("PreferredAlgorithms: %w", err)
		}
		req.Extensions = append(req.Extensions, ext)
	}
	if c.NoNonce {
		return req, nil
	}
	n := cmp.Or(c.NonceLength, ocspwire.DefaultNonce)
	if n < ocspwire.MinNonce || n > ocspwire.MaxNonce {
		return nil, fmt.Errorf("NonceLength: %d: must be 1 to 128 octets, or 0 for 32 (RFC 9654 section 2.1)", n)
	}
	req.Nonce = make([]byte, n)
	_, err = rand.Read(req.Nonce)
	return req, err
}

func (c *Client) responder(cert *x509.Certificate) (string, error) {
	if c.OCSPURL != "" {
		return c.OCSPURL, nil
	}
	for _, u := range cert.OCSPServer {
		if strings.HasPrefix(u, "http://") || strings.HasPrefix(u, "https://") {
			return u, nil
		}
	}
	return "", fmt.Errorf("%w: OCSPURL is not set and the certificate names no OCSP responder (authorityInfoAccess)", ErrTransport)
}

func (c *Client) post(ctx context.Context, address string, der []byte) ([]byte, error) {
	code, mediaType, raw, err := c.do(ctx, http.MethodPost, address, der, "application/ocsp-request")
	if err != nil {
		return nil, err
	}
	if code != http.StatusOK || mediaType != "application/ocsp-response" {
		return nil, fmt.Errorf("%w: %s: HTTP status %d with content type %q: must be 200 with application/ocsp-response", ErrTransport, address, code, mediaType)
	}
	return raw, nil
}

func (c *Client) verify(raw []byte, opts ocspwire.VerifyOptions) (*Answer, error) {
	status, resp, err := ocspwire.ParseResponse(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if status != ocspwire.Successful {
		return nil, &ResponderError{Status: status.String()}
	}
	single, signer, err := resp.Verify(opts)
	if err != nil {
		return nil, err
	}
	a := &Answer{
		Status: Status(single.Status), ThisUpdate: single.ThisUpdate, NextUpdate: single.NextUpdate,
		ProducedAt: resp.ProducedAt, Signer: signer, Raw: raw,
	}
	if single.Status == ocspwire.Revoked {
		a.RevokedAt, a.Reason = single.RevokedAt, reasonName(single.Reason)
	}
	return a, nil
}

func reasonName(reason int) string {
	if reason == ocspwire.NoReason {
		return wire.Unspecified.String()
	}
	if reason == 8 { // RFC 5280 section 5.3.1; the ledger has no such state
		return "removeFromCRL"
	}
	return wire.Reason(reason).String()
}
