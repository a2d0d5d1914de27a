package ca

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/crl"
	"github.com/certanchor/certanchor/internal/problem"
)

// crlSource is the OCSP bridge whose view of the ledger the CRLs are made of.
type crlSource struct {
	base   string
	client *http.Client
	bridge Responder
}

const (
	contentsTimeout = 30 * time.Second
	maxContents     = 256 << 20 // octets: five million entries
	eventsSilence   = time.Minute
	maxEvent        = 1 << 20
)

func newCRLSource(base string, client *http.Client) *crlSource {
	base = strings.TrimSuffix(base, "/")
	return &crlSource{base: base, client: client, bridge: NewHTTPResponder(base, client)}
}

// contents asks what a CRL must say now. base is 0 for a complete CRL.
func (s *crlSource) contents(ctx context.Context, id wire.CAID, scope string, base uint64) (_ *crl.Contents, err error) {
	ctx, cancel := context.WithTimeout(ctx, contentsTimeout)
	defer cancel()
	q := url.Values{}
	if scope != "" {
		q.Set("scope", scope)
	}
	if base != 0 {
		q.Set("base", strconv.FormatUint(base, 10))
	}
	target := s.base + "/v1/crl/contents/" + id.String()
	if len(q) > 0 {
		target += "?" + q.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: %w", target, answerError(resp))
	}
	c, err := crl.ReadContents(io.LimitReader(resp.Body, maxContents))
	if err != nil {
		return nil, fmt.Errorf("GET %s: %w", target, err)
	}
	switch {
	case c.CAID != id:
		return nil, invalid("ca_id", c.CAID.String(), "must be the one asked for, %s", id)
	case c.Scope != scope:
		return nil, invalid("scope", c.Scope, "must be the one asked for, %q", scope)
	case c.Base != base:
		return nil, invalid("base", strconv.FormatUint(c.Base, 10), "must be the one asked for, %d", base)
	}
	return c, nil
}

// answerError is what an answer other than 200 says.
func answerError(resp *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return err
	}
	var p problem.Problem
	if json.Unmarshal(body, &p) == nil && p.Status == resp.StatusCode && p.Detail != "" {
		return fmt.Errorf("%s: %w", resp.Status, &p)
	}
	return errors.New(resp.Status)
}

// follow calls changed for each change of a certificate of the CA that the bridge tells of, until ctx ends or the stream does. What
// exactly has changed is for the contents to say.
func (s *crlSource) follow(ctx context.Context, id wire.CAID, changed func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silence := time.AfterFunc(eventsSilence, cancel) // a stream that is cut off without an end
	defer silence.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base+"/v1/events?ca="+id.String(), nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "text/event-stream")
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // nothing is written to it
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		return fmt.Errorf("GET %s: %w", req.URL, answerError(resp))
	}
	changed() // before the stream began, perhaps
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxEvent)
	for lines.Scan() {
		silence.Reset(eventsSilence)
		if strings.HasPrefix(lines.Text(), "data:") {
			changed()
		}
	}
	return errors.Join(lines.Err(), io.EOF)
}
