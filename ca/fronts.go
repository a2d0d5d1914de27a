package ca

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctleaf"
	"github.com/certanchor/certanchor/internal/sct"
)

// Front is an organisation's front of this CA's log, which signs SCTs of the precertificates that are in its own blocks. The organisation's
// own, whose key Submissions has, needs none: its SCTs are signed here.
type Front struct {
	CAID wire.CAID    // whose log it is; a CA leaves others' alone
	URL  string       // submission prefix, that /ct/v1/ is below
	Key  []byte       // of the log, DER SubjectPublicKeyInfo
	HTTP *http.Client // default: one with the system's roots
}

const (
	maxFronts     = 64
	maxAsks       = 1024        // requests to one front at a time
	frontFailures = 3           // in a row, after which a front is only probed
	frontProbe    = time.Second // between probes
	maxFrontReply = 64 << 10
)

// errTooFewFronts: the precertificate is on the ledger, and its certificate can be made when more fronts answer.
var errTooFewFronts = errors.New("too few organisations' fronts gave an SCT")

// fronts gets SCTs. Safe for concurrent use.
type fronts struct {
	ctx     context.Context // of requests to fronts, which may outlive the issuance that makes them
	caID    wire.CAID
	own     *sct.Key // nil: this organisation's front is not here
	others  []*peerFront
	chain   [][]byte // sent after the precertificate: the CA certificate and those above it
	timeout time.Duration
	now     func() time.Time
	log     *slog.Logger
}

// peerFront is a Front with what is known of its health.
type peerFront struct {
	Front
	public *ecdsa.PublicKey
	id     sct.LogID

	mu       sync.Mutex
	asks     int // in progress
	failures int // in a row
	retry    time.Time
}

func newFronts(cfg Config, i *issuer, timeout time.Duration, log *slog.Logger) (*fronts, error) {
	f := &fronts{caID: i.id, timeout: timeout, now: i.now, log: log, chain: [][]byte{i.cert.Raw}}
	for _, c := range i.chain {
		f.chain = append(f.chain, c.Raw)
	}
	seen := map[sct.LogID]bool{}
	if cfg.CT != nil {
		f.own = cfg.CT.Key
		seen[f.own.ID()] = true
	}
	for n, c := range cfg.Fronts {
		if c.CAID != i.id {
			continue
		}
		if f.count() >= maxFronts {
			return nil, invalid("fronts", fmt.Sprintf("%d fronts", len(cfg.Fronts)), "must be at most %d of one CA", maxFronts)
		}
		field := fmt.Sprintf("fronts[%d]", n)
		if u, err := url.Parse(c.URL); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
			return nil, invalid(field+".url", c.URL, "must be the http or https URL that /ct/v1/ is below, without query and fragment")
		}
		id, err := sct.IDOf(c.Key)
		if err != nil {
			return nil, invalid(field+".key", "", "%v", err)
		}
		public, err := x509.ParsePKIXPublicKey(c.Key)
		if err != nil {
			return nil, invalid(field+".key", "", "%v", err)
		}
		if c.HTTP == nil {
			c.HTTP = &http.Client{}
		}
		if f.own != nil && id == f.own.ID() {
			continue // signed here
		}
		if seen[id] {
			return nil, invalid(field+".key", c.URL, "must be another log's: two SCTs with one key are one promise")
		}
		seen[id] = true
		client := *c.HTTP
		// A precertificate goes where the operator said, and nowhere else.
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		c.HTTP, c.URL = &client, strings.TrimRight(c.URL, "/")
		f.others = append(f.others, &peerFront{Front: c, public: public.(*ecdsa.PublicKey), id: id}) //nolint:forcetypeassert // IDOf has seen it
	}
	return f, nil
}

// count is how many SCTs there can be.
func (f *fronts) count() int {
	n := len(f.others)
	if f.own != nil {
		n++
	}
	return n
}

// stamp returns a SignedCertificateTimestampList with k SCTs, of different logs, about a precertificate that is at a place in the log. All fronts
// are asked at once, and the first k good answers are it: fronts that are slow, down or lie do not matter as long as k others answer.
// Errors: errTooFewFronts, with what the fronts said.
func (f *fronts) stamp(ctx context.Context, precert []byte, at wire.LogEntry, k int) ([]byte, error) {
	tbs, err := ctleaf.PrecertTBS(precert)
	if err != nil {
		return nil, err
	}
	leaf, err := ctleaf.Precert(at.Index, at.Time, f.caID, tbs)
	if err != nil {
		return nil, err
	}
	// Nobody signs a promise about other octets than the ledger has.
	if hash := ctleaf.HashLeaf(leaf); !bytes.Equal(hash[:], at.LeafHash) {
		return nil, fmt.Errorf("the ledger has leaf hash %x at index %d, this precertificate would have %x", at.LeafHash, at.Index, hash)
	}
	got := make([]*sct.SCT, 1+len(f.others))
	n, why := 0, error(nil)
	if f.own != nil {
		if got[0], why = f.own.SignSCT(leaf); why == nil { // the key may be in a token that is away
			n++
		}
	}
	if n < k {
		var said error
		n, said = f.ask(ctx, precert, leaf, k, n, got)
		why = errors.Join(why, said)
	}
	if n < k {
		return nil, fmt.Errorf("%d of %d, must be %d: %w", n, f.count(), k, why)
	}
	list := make([]*sct.SCT, 0, k)
	for _, s := range got {
		if s != nil && len(list) < k {
			list = append(list, s)
		}
	}
	return sct.MarshalList(list)
}

type frontAnswer struct {
	front int
	sct   *sct.SCT
	err   error
}

// ask adds others' SCTs to the n that got has until there are k. got[0] is the own front's.
func (f *fronts) ask(ctx context.Context, precert, leaf []byte, k, n int, got []*sct.SCT) (int, error) {
	why := errTooFewFronts
	body, err := json.Marshal(map[string][][]byte{"chain": append([][]byte{precert}, f.chain...)})
	if err != nil {
		return n, errors.Join(why, err)
	}
	answers := make(chan frontAnswer, len(f.others))
	open := 0
	for i, p := range f.others {
		if err := p.admit(f.now()); err != nil {
			why = fmt.Errorf("%w; %s: %w", why, p.URL, err)
			continue
		}
		open++
		go func() {
			// Not ended with the issuance that has enough: a front that never answers must be known to, and its connections stay usable.
			ctx, cancel := context.WithTimeout(f.ctx, f.timeout)
			defer cancel()
			s, err := p.ask(ctx, body, leaf)
			p.settle(f, err)
			answers <- frontAnswer{i, s, err}
		}()
	}
	for n < k && open > 0 {
		select {
		case a := <-answers:
			open--
			if a.err != nil {
				why = fmt.Errorf("%w; %w", why, a.err)
				continue
			}
			got[a.front+1] = a.sct
			n++
		case <-ctx.Done():
			return n, fmt.Errorf("%w; %w", why, ctx.Err())
		}
	}
	return n, why
}

// admit reserves a request to a front, unless it has failed so often that one at a time finds out whether it is back.
func (p *peerFront) admit(now time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.asks >= maxAsks:
		return fmt.Errorf("%d requests are waiting for it", p.asks)
	case p.failures >= frontFailures && now.Before(p.retry):
		return fmt.Errorf("failed %d times in a row", p.failures)
	case p.failures >= frontFailures:
		p.retry = now.Add(frontProbe)
	}
	p.asks++
	return nil
}

func (p *peerFront) settle(f *fronts, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asks--
	before := p.failures
	if err == nil {
		p.failures = 0
	} else if f.ctx.Err() == nil {
		p.failures++
		p.retry = f.now().Add(frontProbe)
	}
	switch {
	case before < frontFailures && p.failures >= frontFailures:
		f.log.Warn("a front gives no SCTs", "url", p.URL, "error", err)
	case before >= frontFailures && p.failures == 0:
		f.log.Info("a front gives SCTs again", "url", p.URL)
	}
}

// failing counts the fronts that give no SCTs now.
func (f *fronts) failing() int {
	n := 0
	for _, p := range f.others {
		p.mu.Lock()
		if p.failures >= frontFailures {
			n++
		}
		p.mu.Unlock()
	}
	return n
}

// ask submits a precertificate (RFC 6962 section 4.2) and verifies the answer.
func (p *peerFront) ask(ctx context.Context, body, leaf []byte) (*sct.SCT, error) {
	fail := func(err error) (*sct.SCT, error) { return nil, fmt.Errorf("%s: %w", p.URL, err) }
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.URL+"/ct/v1/add-pre-chain", bytes.NewReader(body))
	if err != nil {
		return fail(err)
	}
	req.Header.Set("Content-Type", "application/json")
	// The same octets always get the same SCT, so net/http may repeat the request on a connection that turns out to be closed. (Not sent.)
	req.Header["Idempotency-Key"] = []string{}
	resp, err := p.HTTP.Do(req)
	if err != nil {
		return fail(err)
	}
	defer resp.Body.Close() //nolint:errcheck // whatever is left in it does not matter
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxFrontReply+1))
	switch {
	case err != nil:
		return fail(err)
	case len(text) > maxFrontReply:
		return fail(fmt.Errorf("answer: must have at most %d bytes", maxFrontReply))
	case resp.StatusCode != http.StatusOK:
		return fail(fmt.Errorf("status %d: %.300q", resp.StatusCode, text))
	}
	s, err := parseStamp(text)
	if err == nil && s.LogID != p.id {
		err = fmt.Errorf("sct: log ID %x: must be %x", s.LogID, p.id)
	}
	if err == nil {
		err = s.Verify(p.public, leaf)
	}
	if err != nil {
		return fail(err)
	}
	return s, nil
}

// parseStamp reads an add-pre-chain answer (RFC 6962 section 4.1). Whether it is true, SCT.Verify says.
func parseStamp(text []byte) (*sct.SCT, error) {
	var a struct {
		Version    *int   `json:"sct_version"`
		ID         []byte `json:"id"`
		Time       int64  `json:"timestamp"`
		Extensions []byte `json:"extensions"`
		Signature  []byte `json:"signature"`
	}
	if err := json.Unmarshal(text, &a); err != nil || a.Version == nil || *a.Version != 0 || a.Time < 0 || len(a.ID) != len(sct.LogID{}) || len(a.Signature) == 0 {
		return nil, errors.New("answer: must be an SCT, version 0, as RFC 6962 section 4.1 has it")
	}
	return &sct.SCT{LogID: sct.LogID(a.ID), Time: wire.Millis(a.Time), Extensions: a.Extensions, Signature: a.Signature}, nil
}
