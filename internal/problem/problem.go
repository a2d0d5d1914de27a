// Package problem answers HTTP requests with RFC 9457 problem details.
package problem

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
)

// Problem is the body of an error answer (application/problem+json).
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Code   string `json:"code"` // wire.Code, or one of the codes below

	// Instance is where to ask later how a request of unknown outcome ended (RFC 9457 section 3.1.5).
	Instance string `json:"instance,omitempty"`

	Field string `json:"field,omitempty"` // which field, with which value, breaks which rule
	Value string `json:"value,omitempty"`
	Rule  string `json:"rule,omitempty"`
	TxID  string `json:"tx_id,omitempty"` // of a transaction whose outcome is unknown

	retry time.Duration // Retry-After; 0: as usual
}

func (p *Problem) Error() string { return p.Detail }

// Codes beside wire's.
const (
	CodeUnauthenticated = "unauthenticated"
	CodeUnavailable     = "unavailable"
	CodeUnknownOutcome  = "unknown_outcome"
	CodeConflict        = "conflict"
	CodeTooMany         = "too_many_requests"
)

var statusOf = map[wire.Code]int{
	wire.InvalidArgument:    http.StatusBadRequest,
	wire.NotFound:           http.StatusNotFound,
	wire.AlreadyExists:      http.StatusConflict,
	wire.PermissionDenied:   http.StatusForbidden,
	wire.FailedPrecondition: http.StatusConflict,
	wire.Internal:           http.StatusInternalServerError,
}

// From maps an error to a problem. A *wire.Error keeps its field, value and rule; what the ledger engines return becomes
// 503 (with the difference between "nothing happened" and "outcome unknown" in Code); anything else is a 500 without details.
// An unknown outcome comes before all else that the error wraps: a refusal of a retry does not tell how the first attempt ended.
func From(err error) *Problem {
	var (
		p    *Problem
		we   *wire.Error
		unk  *network.UnknownOutcomeError
		deny *http.MaxBytesError
	)
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &unk):
		q := build(http.StatusServiceUnavailable, CodeUnknownOutcome, "the transaction was handed to the ledger and its outcome is not known; ask again with the same request", nil)
		q.TxID = unk.TxID
		return q
	case errors.As(err, &we):
		st := statusOf[we.Code]
		if st == 0 {
			st = http.StatusInternalServerError
		}
		return build(st, string(we.Code), we.Error(), we)
	case errors.Is(err, network.ErrConflict):
		return build(http.StatusServiceUnavailable, CodeConflict, "the transaction conflicted with others and was not applied; ask again", nil)
	case errors.Is(err, network.ErrUnavailable), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return unavailable(err)
	case errors.As(err, &deny):
		return New(http.StatusRequestEntityTooLarge, string(wire.InvalidArgument), "body", "", fmt.Sprintf("must have at most %d bytes", deny.Limit))
	}
	return build(http.StatusInternalServerError, string(wire.Internal), "internal error; the server's log says more", nil)
}

// unavailable keeps what an error that turns requests away says about when to come again.
func unavailable(err error) *Problem {
	var later interface{ RetryAfter() time.Duration }
	if !errors.As(err, &later) {
		return build(http.StatusServiceUnavailable, CodeUnavailable, "the ledger is not available; nothing was changed", nil)
	}
	p := build(http.StatusServiceUnavailable, CodeUnavailable, "too many requests wait for the ledger; nothing was taken, ask again later", nil)
	p.retry = later.RetryAfter()
	return p
}

// New makes a problem with a status of the caller's choice: field's value breaks rule.
func New(status int, code, field, value, rule string) *Problem {
	e := wire.Errorf(wire.Code(code), field, value, "%s", rule)
	return build(status, code, e.Error(), e)
}

// TooMany makes a 429 that says when to come again (RFC 6585 section 4).
func TooMany(field, value, rule string, retry time.Duration) *Problem {
	p := New(http.StatusTooManyRequests, CodeTooMany, field, value, rule)
	p.retry = max(retry, time.Second)
	return p
}

// Later makes a 503 that says when to come again: nothing was done.
func Later(field, value, rule string, retry time.Duration) *Problem {
	p := New(http.StatusServiceUnavailable, CodeUnavailable, field, value, rule)
	p.retry = max(retry, time.Second)
	return p
}

func build(status int, code, detail string, e *wire.Error) *Problem {
	p := &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail, Code: code}
	if e != nil {
		p.Field, p.Value, p.Rule = e.Field, e.Value, e.Rule
	}
	return p
}

// Write answers with err's problem. 5xx answers are logged with the whole error; 503 carries Retry-After, a
// second unless the error has a method RetryAfter that says more.
func Write(w http.ResponseWriter, log *slog.Logger, err error) {
	p := From(err)
	switch {
	case p.retry > 0: // overload is the metrics' to tell of: a line for each would be more load
		log.Debug("request turned away", "error", err)
	case p.Status >= 500:
		log.Error("request failed", "status", p.Status, "code", p.Code, "error", err)
	}
	body, merr := json.Marshal(p)
	if merr != nil { // strings and an int always marshal
		panic(merr)
	}
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	if p.Status == http.StatusServiceUnavailable || p.Status == http.StatusTooManyRequests {
		h.Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(p.retry.Seconds()))))) // RFC 9110 section 10.2.3: whole seconds
	}
	w.WriteHeader(p.Status)
	if _, werr := w.Write(body); werr != nil {
		log.Debug("answer not delivered", "error", werr)
	}
}
