package ca

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/metrics"
	"github.com/certanchor/certanchor/internal/problem"
)

const (
	publishTimeout = time.Minute
	firstBackoff   = 100 * time.Millisecond
	maxBackoff     = 10 * time.Second
	askServed      = 30 * time.Second // between questions whether a target still serves what it took
	crlContentType = "application/pkix-crl"
)

// crlTarget is an OCSP bridge that is to serve the CRLs. It has a goroutine of its own, so that none waits for another; of each CRL
// only the newest waits.
type crlTarget struct {
	url     string
	id      wire.CAID
	client  *http.Client
	log     *slog.Logger
	now     func() time.Time
	metrics *metrics.CRLs
	step    func(string)
	ask     time.Duration // askServed

	kick chan struct{} // capacity 1

	mu       sync.Mutex
	order    []*crlSlot // in the order in which they are published; guarded by mu, as is what is in them
	badSince time.Time  // zero: current
}

// crlSlot is one CRL's place at a target: the complete one or the delta of a scope.
type crlSlot struct {
	scope   string
	kind    crlKind
	crl     *signedCRL // the newest
	done    bool       // the target has it, or will not take it
	served  uint64     // number of the newest that the target has taken; 0: none
	refused bool
	last    string // what the target said to the last attempt, if that failed
}

// publish makes a CRL the newest of its kind.
func (t *crlTarget) publish(c *signedCRL) {
	t.mu.Lock()
	defer t.mu.Unlock()
	slot := t.slot(c.scope, c.kind)
	slot.crl, slot.done, slot.refused, slot.last = c, false, false, ""
	t.changed()
	t.wake()
}

func (t *crlTarget) wake() {
	select {
	case t.kick <- struct{}{}:
	default:
	}
}

// slot requires mu. A complete CRL comes before the delta against it, and those about all certificates before the shards'.
func (t *crlTarget) slot(scope string, kind crlKind) *crlSlot {
	for _, s := range t.order {
		if s.scope == scope && s.kind == kind {
			return s
		}
	}
	s := &crlSlot{scope: scope, kind: kind}
	at := len(t.order)
	if scope == "" {
		at = 0
		if kind == kindDelta && len(t.order) > 0 && t.order[0].scope == "" {
			at = 1
		}
	}
	t.order = append(t.order, nil)
	copy(t.order[at+1:], t.order[at:])
	t.order[at] = s
	return s
}

// changed requires mu.
func (t *crlTarget) changed() {
	behind := 0
	for _, s := range t.order {
		if s.crl != nil && s.served != s.crl.number {
			behind++
		}
	}
	t.metrics.Behind(t.url, behind)
	switch {
	case behind == 0:
		t.badSince = time.Time{}
	case t.badSince.IsZero():
		t.badSince = t.now()
	}
}

// next is the CRL to publish now; nil for none.
func (t *crlTarget) next() (*crlSlot, *signedCRL) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.order {
		if s.crl != nil && !s.done {
			return s, s.crl
		}
	}
	return nil, nil
}

// run publishes until ctx ends.
func (t *crlTarget) run(ctx context.Context) {
	ask := time.NewTicker(t.ask)
	defer ask.Stop()
	backoff := firstBackoff
	for {
		slot, c := t.next()
		if slot == nil {
			select {
			case <-ctx.Done():
				return
			case <-t.kick:
			case <-ask.C:
				t.askAll(ctx)
			}
			continue
		}
		wait, err := t.post(ctx, c)
		if ctx.Err() != nil {
			return
		}
		t.took(slot, c, err)
		if err == nil || isRefusal(err) {
			backoff = firstBackoff
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(max(wait, backoff), maxBackoff)):
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// took records the outcome of an attempt.
func (t *crlTarget) took(slot *crlSlot, c *signedCRL, err error) {
	outcome := "taken"
	switch {
	case isRefusal(err):
		outcome = "refused"
		t.log.Error("an OCSP bridge refuses a CRL of this CA", "target", t.url, "scope", c.scope, "kind", string(c.kind), "number", c.number, "error", err)
	case err != nil:
		outcome = "failed"
		t.log.Warn("a CRL could not be published and is sent again", "target", t.url, "scope", c.scope, "kind", string(c.kind), "number", c.number, "error", err)
	}
	t.metrics.Published(t.url, outcome)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		slot.served = c.number
	}
	if isStatus(err, http.StatusConflict) {
		// It has not got the complete CRL that the delta is against, or has lost it. What it refuses it need not be sent again.
		complete := t.slot(c.scope, kindComplete)
		if complete.done = complete.refused; complete.refused {
			err = refusalError{err}
		}
	}
	if slot.crl == c { // and not one that came in between
		slot.done, slot.refused, slot.last = err == nil || isRefusal(err), isRefusal(err), ""
		if err != nil {
			slot.last = err.Error()
		}
	}
	t.changed()
}

// refusalError is an answer that the same CRL would get again.
type refusalError struct{ error }

func isRefusal(err error) bool {
	_, ok := errors.AsType[refusalError](err)
	return ok
}

// isStatus tells whether err is an answer with that status.
func isStatus(err error, status int) bool {
	p, ok := errors.AsType[*problem.Problem](err)
	return ok && p.Status == status
}

// post sends a CRL. What the target has or had in a newer form it takes without effect, so that an attempt of unknown outcome is
// repeated without harm. wait is how long it asks to be left alone.
func (t *crlTarget) post(ctx context.Context, c *signedCRL) (wait time.Duration, err error) {
	t.step(stepPublishing)
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url+"/crl/"+t.id.String(), bytes.NewReader(c.der))
	if err != nil {
		return 0, refusalError{err}
	}
	req.Header.Set("Content-Type", crlContentType)
	resp, err := t.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if resp.StatusCode/100 == 2 {
		_, err := io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
		t.step(stepPublished)
		return 0, err
	}
	err = answerError(resp)
	switch resp.StatusCode {
	case http.StatusBadRequest, http.StatusForbidden, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return 0, refusalError{err}
	}
	seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After")) // not a number: no wish
	return time.Duration(max(seconds, 0)) * time.Second, err
}

// askAll asks for every CRL that the target has taken whether it still serves it, and has it published again if not.
func (t *crlTarget) askAll(ctx context.Context) {
	t.mu.Lock()
	var held []*signedCRL
	for _, s := range t.order {
		if s.crl != nil && s.served == s.crl.number {
			held = append(held, s.crl)
		}
	}
	t.mu.Unlock()
	for _, c := range held {
		lost, err := t.lost(ctx, c)
		if err != nil {
			t.log.Debug("couldn't ask whether a CRL is served", "target", t.url, "error", err)
			return
		}
		if !lost {
			continue
		}
		t.log.Warn("an OCSP bridge has lost a CRL, which is published again", "target", t.url, "scope", c.scope, "kind", string(c.kind), "number", c.number)
		t.mu.Lock()
		if slot := t.slot(c.scope, c.kind); slot.crl == c {
			slot.done, slot.served, slot.last = false, 0, "it had lost it"
			t.changed()
		}
		t.mu.Unlock()
		t.wake()
	}
}

// status is what operators are shown.
func (t *crlTarget) status() caapi.CRLTarget {
	t.mu.Lock()
	defer t.mu.Unlock()
	st := caapi.CRLTarget{URL: t.url, State: caapi.TargetCurrent}
	for _, s := range t.order {
		if s.scope == "" && s.kind == kindComplete {
			st.Number = s.served
		} else if s.scope == "" {
			st.Delta = s.served
		}
		if s.crl == nil || s.served == s.crl.number {
			continue
		}
		st.Behind++
		switch {
		case s.refused:
			st.State = caapi.TargetRefuses
		case s.last != "" && st.State != caapi.TargetRefuses:
			st.State = caapi.TargetFailing
		case st.State == caapi.TargetCurrent:
			st.State = caapi.TargetBehind
		}
		if s.last != "" && (st.Detail == "" || s.refused) {
			st.Detail = strings.TrimSpace(fmt.Sprintf("%s %s: %s", s.kind, s.scope, s.last))
		}
	}
	if !t.badSince.IsZero() {
		st.Since = t.badSince.UTC().Format(caapi.TimeFormat)
	}
	return st
}
