package problem

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
)

func TestFrom(t *testing.T) {
	refused := wire.Errorf(wire.AlreadyExists, "serial", "01", "is in use")
	for _, tc := range []struct {
		name   string
		err    error
		status int
		code   string
		field  string
		tx     string
	}{
		{"refusal", refused, 409, "already_exists", "serial", ""},
		{"refusal by the ledger", &network.RejectedError{Function: wire.FnIssue, Reason: refused}, 409, "already_exists", "serial", ""},
		{"not found", wire.Errorf(wire.NotFound, "serial", "01", "r"), 404, "not_found", "serial", ""},
		{"denied", wire.Errorf(wire.PermissionDenied, "role", "x", "r"), 403, "permission_denied", "role", ""},
		{"code from a newer contract", wire.Errorf("novel", "f", "v", "r"), 500, "novel", "f", ""},
		{"rejected without a form", &network.RejectedError{Function: wire.FnIssue, Reason: errors.New("secret")}, 500, "internal", "", ""},
		{"unknown", fmt.Errorf("x: %w", &network.UnknownOutcomeError{TxID: "t1", Stage: "s", Err: context.DeadlineExceeded}), 503, "unknown_outcome", "", "t1"},
		{"unknown, then refused", &network.UnknownOutcomeError{TxID: "t1", Stage: "s", Err: refused}, 503, "unknown_outcome", "", "t1"},
		{"conflict", &network.ConflictError{TxID: "t", Code: "MVCC"}, 503, "conflict", "", ""},
		{"unavailable", &network.UnavailableError{Stage: "s", Err: errors.New("x")}, 503, "unavailable", "", ""},
		{"deadline", context.DeadlineExceeded, 503, "unavailable", "", ""},
		{"body too large", &http.MaxBytesError{Limit: 7}, 413, "invalid_argument", "body", ""},
		{"problem", New(401, CodeUnauthenticated, "Authorization", "", "r"), 401, "unauthenticated", "Authorization", ""},
		{"anything else", errors.New("secret"), 500, "internal", "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := From(tc.err)
			if p.Status != tc.status || p.Code != tc.code || p.Field != tc.field || p.TxID != tc.tx || p.Title != http.StatusText(tc.status) || p.Detail == "" {
				t.Fatalf("got %+v", p)
			}
		})
	}
}

func TestWrite(t *testing.T) {
	w := httptest.NewRecorder()
	Write(w, slog.New(slog.DiscardHandler), &network.UnavailableError{Stage: "s", Err: errors.New("secret")})
	var p Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatal(err)
	}
	if w.Code != 503 || p.Status != 503 || p.Type != "about:blank" || w.Header().Get("Retry-After") == "" ||
		w.Header().Get("Content-Type") != "application/problem+json" || w.Header().Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %v %+v", w.Code, w.Header(), p)
	}
}

// later is an error that says when to come again.
type later struct{ time.Duration }

func (later) Error() string               { return "too many" }
func (l later) RetryAfter() time.Duration { return l.Duration }

func TestOverloadSaysWhenToComeAgain(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "1", time.Millisecond: "1", time.Second: "1", 1001 * time.Millisecond: "2", 30 * time.Second: "30"} {
		w := httptest.NewRecorder()
		Write(w, slog.New(slog.DiscardHandler), &network.UnavailableError{Stage: "s", Err: later{d}})
		if got := w.Header().Get("Retry-After"); w.Code != http.StatusServiceUnavailable || got != want {
			t.Errorf("%v: %d, Retry-After %q, want %q", d, w.Code, got, want)
		}
	}
}
