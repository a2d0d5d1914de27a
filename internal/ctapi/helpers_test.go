package ctapi

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/internal/ctapi/ctapitest"
	"github.com/certanchor/certanchor/internal/problem"
	"github.com/certanchor/certanchor/internal/sct"
)

func newKey(t testing.TB) *sct.Key {
	t.Helper()
	key, err := sct.LoadOrCreate(filepath.Join(t.TempDir(), "log.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func config(t testing.TB, l *ctapitest.Ledger) Config {
	t.Helper()
	return Config{
		CAID: l.CA.ID, CA: l.Trusted, Log: l, Key: newKey(t), Submitter: l,
		Prefix: "https://log.example/logs/" + l.CA.ID.String(), Logger: slog.New(slog.DiscardHandler),
	}
}

func newLog(t testing.TB, c Config) *Log {
	t.Helper()
	l, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// fixture is a log, and the ledger behind it.
func fixture(t testing.TB) (*Log, *ctapitest.Ledger) {
	t.Helper()
	ledger := ctapitest.New(t)
	return newLog(t, config(t, ledger)), ledger
}

// ask serves one request; in is the body of a POST and nil for GET.
func ask(l *Log, target string, in []byte) *httptest.ResponseRecorder {
	method, reader := http.MethodGet, io.Reader(http.NoBody)
	if in != nil {
		method, reader = http.MethodPost, bytes.NewReader(in)
	}
	w := httptest.NewRecorder()
	l.API().ServeHTTP(w, httptest.NewRequest(method, "http://log.example/ct/v1/"+target, reader))
	return w
}

// refusal serves a request that must be refused with status, and with an explanation of all of words.
func refusal(t testing.TB, l *Log, target string, in []byte, status int, words ...string) {
	t.Helper()
	w := ask(l, target, in)
	var p problem.Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != status || p.Status != status {
		t.Errorf("%s: status %d, want %d: %s, %v", target, w.Code, status, w.Body, err)
		return
	}
	for _, word := range words {
		if !strings.Contains(p.Detail, word) {
			t.Errorf("%s: %q: must say %q", target, p.Detail, word)
		}
	}
	if w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("%s: a refusal may be cached: %q", target, w.Header().Get("Cache-Control"))
	}
	if retry := w.Header().Get("Retry-After"); (retry != "") != (status == http.StatusServiceUnavailable) {
		t.Errorf("%s: status %d with Retry-After %q", target, status, retry)
	}
}

func decode(t testing.TB, w *httptest.ResponseRecorder, v any) {
	t.Helper()
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), v); err != nil {
		t.Fatal(err)
	}
}
