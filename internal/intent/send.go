package intent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/problem"
)

const (
	defaultPause   = time.Second
	attemptTimeout = 15 * time.Second // then the next bridge is asked; the same intent twice does no harm
	maxAnswer      = 64 << 10
)

// Sender sends intents to bridges.
type Sender struct {
	Bridges []string      // base URLs, asked in turn: any organisation's will do
	HTTP    *http.Client  // nil: one that follows no redirects
	Pause   time.Duration // before all of them are asked again. Default 1 s
}

var defaultHTTP = &http.Client{
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// Send has one of the bridges submit arg, and repeats the same bytes until ctx ends while bridges cannot be reached, are busy or do not know the
// outcome. A bridge that refuses is not asked again; when all have, the error is the first's *problem.Problem. An answer is the
// bridge's word: a bundle proves the revocation.
func (s *Sender) Send(ctx context.Context, arg *wire.RevokeArg) (*Result, error) {
	intent, _, err := Check(arg)
	if err != nil {
		return nil, err
	}
	bridges, body := slices.Clone(s.Bridges), Marshal(arg)
	if len(bridges) == 0 {
		return nil, errors.New("no bridge is given to send the intent to")
	}
	for _, b := range bridges {
		if u, err := url.Parse(b); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
			return nil, invalid("bridge", b, "must be an absolute http or https URL without query and fragment")
		}
	}
	var refusal, lost error
	for {
		for _, b := range slices.Clone(bridges) {
			result, err := s.post(ctx, strings.TrimRight(b, "/")+Path, body)
			if err == nil {
				err = result.about(intent)
			}
			if err == nil {
				return result, nil
			}
			if ctx.Err() == nil && isFinal(err) {
				if refusal == nil {
					refusal = err
				}
				bridges = slices.DeleteFunc(bridges, func(x string) bool { return x == b })
				continue
			}
			if lost == nil || ctx.Err() == nil { // what a bridge said says more than that time is up
				lost = err
			}
		}
		if len(bridges) == 0 {
			return nil, refusal
		}
		if !s.rest(ctx) {
			return nil, fmt.Errorf("gave up; the intent may have reached the ledger all the same, and the same one may be sent again: %w", lost)
		}
	}
}

// rest waits before the next round. false: ctx has ended.
func (s *Sender) rest(ctx context.Context) bool {
	pause := s.Pause
	if pause == 0 {
		pause = defaultPause
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// isFinal: a server error, too many requests or no HTTP answer at all may be different next time.
func isFinal(err error) bool {
	p, said := errors.AsType[*problem.Problem](err)
	return said && p.Status < 500 && p.Status != http.StatusTooManyRequests
}

func (s *Sender) post(ctx context.Context, address string, body []byte) (_ *Result, err error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", ContentType)
	h := s.HTTP
	if h == nil {
		h = defaultHTTP
	}
	resp, err := h.Do(req)
	if err != nil {
		return nil, err
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusAccepted {
		return nil, asProblem(address, resp.StatusCode, answer)
	}
	var r Result
	if err := json.Unmarshal(answer, &r); err != nil {
		return nil, fmt.Errorf("POST %s: the answer is not understood: %w", address, err)
	}
	return &r, nil
}

// asProblem reads an RFC 9457 answer. What is not one, from a proxy for example, becomes one.
func asProblem(address string, code int, body []byte) error {
	var p problem.Problem
	if err := json.Unmarshal(body, &p); err == nil && p.Status == code && p.Detail != "" {
		return &p
	}
	return &problem.Problem{Type: "about:blank", Title: http.StatusText(code), Status: code, Code: string(wire.Internal),
		Detail: fmt.Sprintf("POST %s: status %d without an explanation", address, code)}
}

// about refuses an answer that is about something else.
func (r *Result) about(i *wire.RevokeIntent) error {
	if r.CAID != i.CAID.String() || r.Serial != i.Serial.String() {
		return fmt.Errorf("the bridge answered about certificate %q of CA %q: must be %s of %s", r.Serial, r.CAID, i.Serial, i.CAID)
	}
	return nil
}
