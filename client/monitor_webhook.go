package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"time"
)

const (
	webhookBatch   = 100 // events in a request
	longestBackoff = time.Minute
)

// Webhook delivers events over HTTP: it posts {"events": [...]}, JSON, and takes any status 2xx as accepted. Everything else is tried again, with
// growing pauses and no less than a Retry-After asks for. A receiver that has seen an event's ID before can ignore it.
type Webhook struct {
	URL     string
	HTTP    *http.Client  // default one that follows no redirects
	Timeout time.Duration // of one request; default 30 s
	GiveUp  time.Duration // after which Deliver returns an error; default never
	Log     *slog.Logger  // refusals; default slog.Default

	Now   func() time.Time                           // default time.Now
	Sleep func(context.Context, time.Duration) error // as in MonitorConfig
}

// Check tells whether URL can be used.
func (w *Webhook) Check() error {
	if u, err := url.Parse(w.URL); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("webhook URL %q: must be an absolute http or https URL", w.URL)
	}
	return nil
}

// Deliver is for MonitorConfig.
func (w *Webhook) Deliver(ctx context.Context, events []Event) error {
	for len(events) > 0 {
		n := min(len(events), webhookBatch)
		body, err := json.Marshal(struct {
			Events []Event `json:"events"`
		}{events[:n]})
		if err != nil {
			return err
		}
		if err := w.post(ctx, body); err != nil {
			return err
		}
		events = events[n:]
	}
	return nil
}

// post returns when the receiver has accepted body.
func (w *Webhook) post(ctx context.Context, body []byte) error {
	now, pause, log := w.Now, w.Sleep, w.Log
	if now == nil {
		now = time.Now
	}
	if pause == nil {
		pause = sleep
	}
	if log == nil {
		log = slog.Default()
	}
	began := now()
	for wait := firstBackoff; ; wait = min(2*wait, longestBackoff) {
		err := w.postOnce(ctx, body, now)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		rest := wait
		if answer := (*httpError)(nil); errors.As(err, &answer) {
			rest = max(rest, answer.after)
		}
		if w.GiveUp > 0 && now().Add(rest).Sub(began) > w.GiveUp {
			return fmt.Errorf("webhook has not accepted events for %v: %w", now().Sub(began), err)
		}
		log.Warn("webhook has not accepted events, trying again", "in", rest, "error", err)
		if err := pause(ctx, rest); err != nil {
			return err
		}
	}
}

func (w *Webhook) postOnce(ctx context.Context, body []byte, now func() time.Time) error {
	timeout := w.Timeout
	if timeout == 0 {
		timeout = defaultMonitorTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrTransport, err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := noRedirects(w.HTTP).Do(req)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrTransport, err)
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	err = errors.Join(err, resp.Body.Close())
	if resp.StatusCode/100 == 2 {
		return nil // accepted, whatever became of the rest of the answer
	}
	return errors.Join(err, &httpError{
		address: w.URL, status: resp.StatusCode, detail: detail(answer), after: retryAfter(resp.Header, now()),
	})
}
