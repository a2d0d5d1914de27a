package client

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctleaf"
	"github.com/certanchor/certanchor/internal/lognames"
	"github.com/certanchor/certanchor/internal/tlogproof"
)

// Reasons why an inclusion proof is not believed, or not there, for errors.Is.
var (
	ErrProofFormat = errors.New("inclusion proof is malformed")
	ErrCheckpoint  = errors.New("checkpoint is not a trusted one of this log")
	ErrNotIncluded = errors.New("certificate is not in the log that the checkpoint commits to")
	ErrNotLogged   = errors.New("log has no such certificate")
)

// Inclusion is what a verified proof shows.
type Inclusion struct {
	Index    uint64            // position in the log, from 0
	Logged   time.Time         // the leaf's timestamp: when the certificate was recorded
	Origin   string            // the log
	Size     uint64            // of the log at the checkpoint
	Root     [sha256.Size]byte // of the log at the checkpoint
	SignedBy []string          // names of the keys, among those given, that signed the checkpoint
}

// Origin is the name, in checkpoints, of the issuance log of a CA on a ledger.
func Origin(channel string, issuer *x509.Certificate) string {
	return lognames.Issuance(channel, wire.CAIDOf(issuer.RawSubjectPublicKeyInfo))
}

// ParseLogKeys reads verifier keys in the form of C2SP signed-note, as organisations publish them.
func ParseLogKeys(vkeys ...string) ([]note.Verifier, error) {
	var keys []note.Verifier
	for _, v := range vkeys {
		k, err := note.NewVerifier(strings.TrimSpace(v))
		if err != nil {
			return nil, fmt.Errorf("log key %q: must be a signed-note verifier key: %w", v, err)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// VerifyInclusion checks, without any network, that cert is in the issuance log of its CA: text is a C2SP tlog-proof whose
// checkpoint is of the given origin (see Origin) and signed by one of keys. Keys that are not given are ignored, so a proof
// may carry more signatures.
func VerifyInclusion(cert, issuer *x509.Certificate, text []byte, origin string, keys ...note.Verifier) (*Inclusion, error) {
	if err := checkIssued(cert, issuer); err != nil {
		return nil, err
	}
	// The origin binds the proof to one CA's log; one of another CA would be about another certificate.
	if want := Origin("", issuer); !strings.HasSuffix(origin, want) || len(origin) == len(want) {
		return nil, fmt.Errorf("%w: origin %q: must be a channel and %q, the log of this issuer", ErrCheckpoint, origin, want)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%w: no log key is given to trust", ErrCheckpoint)
	}
	p, err := tlogproof.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProofFormat, err)
	}
	cp, signers, err := tlogproof.OpenCheckpoint(p.Checkpoint, origin, keys...)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCheckpoint, err)
	}
	leaf, err := ctleaf.Hash(p.Index, p.Time, cert.Raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotIncluded, err)
	}
	if err := p.Verify(leaf, cp); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotIncluded, err)
	}
	return &Inclusion{Index: p.Index, Logged: p.Time.Time(), Origin: origin, Size: cp.Size, Root: cp.Root, SignedBy: signers}, nil
}

// FetchProof gets the inclusion proof of cert from LogURL. The text is not verified: VerifyInclusion does. Errors: ErrNotLogged;
// ErrUnavailable when the server has none now, as before its checkpoint covers the certificate; ErrTransport.
func (c *Client) FetchProof(ctx context.Context, cert, issuer *x509.Certificate) ([]byte, error) {
	if err := checkIssued(cert, issuer); err != nil {
		return nil, err
	}
	serial, err := wire.SerialOf(cert.SerialNumber)
	if err != nil {
		return nil, err
	}
	address := strings.TrimRight(c.LogURL, "/") + "/logs/" + CAID(issuer) + "/proof?serial=" + serial.String()
	code, header, text, err := c.exchange(ctx, http.MethodGet, address, nil, "", maxAnswer)
	switch {
	case err != nil:
		return nil, err
	case code == http.StatusOK:
		return text, nil
	case code == http.StatusNotFound:
		return nil, fmt.Errorf("%w: %s: %s", ErrNotLogged, address, detail(text))
	}
	return nil, c.refused(address, code, header, text)
}

// refused is the error that an answer with a status code other than 200 and 404 is.
func (c *Client) refused(address string, code int, header http.Header, body []byte) error {
	if code == http.StatusServiceUnavailable || code == http.StatusTooManyRequests {
		return &UnavailableError{Address: address, Detail: detail(body), RetryAfter: retryAfter(header, c.now())}
	}
	return fmt.Errorf("%w: %s: HTTP status %d: %s", ErrTransport, address, code, detail(body))
}

// detail finds the explanation in an RFC 9457 problem.
func detail(body []byte) string {
	var p struct {
		Detail string `json:"detail"`
	}
	if err := json.Unmarshal(body, &p); err != nil || p.Detail == "" {
		return "no explanation given"
	}
	return p.Detail
}
