package caapi

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/httpsig"
	"github.com/certanchor/certanchor/internal/problem"
)

// server answers with the handlers in turn and remembers the idempotency keys it saw.
func server(t *testing.T, answers ...http.HandlerFunc) (*Client, func() []string) {
	t.Helper()
	var mu sync.Mutex
	var keys []string
	hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Authorization"); got != "Bearer secret" {
			t.Errorf("Authorization %q", got)
		}
		mu.Lock()
		keys = append(keys, r.Header.Get(IdempotencyKey))
		next := answers[0]
		answers = answers[1:]
		mu.Unlock()
		next(w, r) // may panic
	}))
	t.Cleanup(hs.Close)
	c, err := New(Config{URL: hs.URL + "/", Token: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	c.pause = time.Millisecond
	return c, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return keys
	}
}

func answer(code int, v any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		if err := json.NewEncoder(w).Encode(v); err != nil {
			panic(err)
		}
	}
}

func hangUp(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// A lost answer and an unknown outcome are asked about again, under the same key.
func TestIssueRepeatsUnderTheSameKey(t *testing.T) {
	unknown := problem.New(503, problem.CodeUnknownOutcome, "", "", "unknown")
	c, keys := server(t, hangUp, answer(503, unknown), answer(201, Certificate{Serial: "01"}))
	got, err := c.Issue(t.Context(), IssueRequest{CSR: "x", Profile: "server"}, "")
	if err != nil || got.Serial != "01" {
		t.Fatalf("%+v, %v", got, err)
	}
	if k := keys(); len(k) != 3 || k[0] == "" || k[0] != k[1] || k[1] != k[2] {
		t.Fatalf("keys %q", k)
	}
}

func TestRefusalIsNotRepeated(t *testing.T) {
	c, keys := server(t, answer(400, problem.New(400, "invalid_argument", "csr", "v", "r")))
	_, err := c.Issue(t.Context(), IssueRequest{}, "mine")
	var p *problem.Problem
	if !errors.As(err, &p) || p.Field != "csr" || len(keys()) != 1 || (keys())[0] != "mine" {
		t.Fatalf("%v, keys %q", err, keys())
	}
}

func TestIssueGivesUpOnAServerThatIsGone(t *testing.T) {
	c, keys := server(t, hangUp, hangUp, hangUp, hangUp)
	var p *problem.Problem
	if _, err := c.Issue(t.Context(), IssueRequest{}, ""); err == nil || errors.As(err, &p) || len(keys()) != maxLost {
		t.Fatalf("%v after %d attempts", err, len(keys()))
	}
}

func TestIssueGivesUpWithItsContext(t *testing.T) {
	c, _ := server(t, hangUp, hangUp, hangUp)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Issue(ctx, IssueRequest{}, ""); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
}

func TestAnswersThatAreNoProblems(t *testing.T) {
	html := func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "<html>bad gateway", http.StatusBadGateway)
	}
	c, _ := server(t, html)
	var p *problem.Problem
	if _, err := c.Get(t.Context(), "01"); !errors.As(err, &p) || p.Status != 502 || strings.Contains(err.Error(), "html") {
		t.Fatalf("got %v", err)
	}
	c, _ = server(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(200) })
	if _, err := c.CA(t.Context()); err == nil || !strings.Contains(err.Error(), "not understood") {
		t.Fatalf("got %v", err)
	}
}

func TestAcknowledgedMeans200(t *testing.T) {
	c, _ := server(t, answer(202, StatusChange{State: "revoked"}), answer(200, StatusChange{State: "valid"}))
	if change, acked, err := c.Revoke(t.Context(), RevokeRequest{}); err != nil || acked || change.State != "revoked" {
		t.Fatalf("%+v %t %v", change, acked, err)
	}
	if change, acked, err := c.Release(t.Context(), "01"); err != nil || !acked || change.State != "valid" {
		t.Fatalf("%+v %t %v", change, acked, err)
	}
}

func TestEnrollResponder(t *testing.T) {
	id := wire.CAIDOf([]byte("spki"))
	cert := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("der")}))
	c, _ := server(t, answer(201, Certificate{CAID: id.String(), Certificate: cert}), answer(201, Certificate{CAID: "other", Certificate: cert}), answer(201, Certificate{CAID: id.String()}))
	if der, err := c.EnrollResponder(t.Context(), id, []byte("csr")); err != nil || string(der) != "der" {
		t.Fatalf("%q, %v", der, err)
	}
	for range 2 {
		if _, err := c.EnrollResponder(t.Context(), id, []byte("csr")); err == nil {
			t.Fatal("taken")
		}
	}
}

func TestReadyIsAnAnswerEvenWhenNot(t *testing.T) {
	c, _ := server(t, answer(503, Ready{Detail: "why"}), answer(404, nil))
	if r, err := c.Ready(t.Context()); err != nil || r.Ready || r.Detail != "why" {
		t.Fatalf("%+v, %v", r, err)
	}
	if _, err := c.Ready(t.Context()); err == nil {
		t.Fatal("404 is an answer")
	}
}

func TestConfigIsChecked(t *testing.T) {
	dir := t.TempDir()
	open, two := filepath.Join(dir, "open"), filepath.Join(dir, "two")
	for path, mode := range map[string]os.FileMode{open: 0o644, two: 0o600} {
		if err := os.WriteFile(path, []byte("a b\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, cfg := range []Config{
		{URL: ""}, {URL: "ca.example"}, {URL: "ftp://x"}, {URL: "http://x?a=b"},
		{URL: "http://x", TokenFile: open}, {URL: "http://x", TokenFile: two}, {URL: "http://x", TokenFile: filepath.Join(dir, "none")},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}

// A server that has just started cannot know whether a signed request is a repetition; it is signed anew and sent again.
func TestSignedRequestIsSignedAnew(t *testing.T) {
	var mu sync.Mutex
	nonces := map[string]bool{}
	hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sig, err := httpsig.Parse(r)
		if err != nil || !sig.Verify(r, make([]byte, 32)) || r.Header.Get("Authorization") != "" {
			t.Errorf("%+v, %v", sig, err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		nonces[sig.Nonce] = true
		if len(nonces) < 3 {
			problem.Write(w, slog.New(slog.DiscardHandler), problem.Later("Signature-Input", "", "too early", time.Second))
			return
		}
		answer(200, StatusChange{State: "valid"})(w, r)
	}))
	defer hs.Close()
	c, err := New(Config{URL: hs.URL, HMAC: HMAC{Name: "robot", Key: make([]byte, 32)}})
	if err != nil {
		t.Fatal(err)
	}
	c.pause = time.Millisecond
	if change, _, err := c.Release(t.Context(), "01"); err != nil || change.State != "valid" {
		t.Fatal(change, err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(nonces) != 3 {
		t.Errorf("%d nonces", len(nonces))
	}
}

// Both a change that is committed and an operation that waits come with 202; they are told apart.
func TestOperationThatWaitsIsNoChange(t *testing.T) {
	c, _ := server(t, answer(202, Pending{Operation: &Operation{ID: "00ff", Need: 2}}))
	_, acked, err := c.Revoke(t.Context(), RevokeRequest{})
	if p, ok := errors.AsType[*PendingError](err); !ok || acked || p.Operation.ID != "00ff" {
		t.Fatal(acked, err)
	}
}

func TestCredentialsAreChecked(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("desk.hmac", strings.Repeat("ab", 32)+"\n", 0o600)
	c, err := New(Config{URL: "http://x", HMAC: HMAC{KeyFile: good}})
	if err != nil || c.hmac.Name != "desk" || len(c.hmac.Key) != 32 {
		t.Fatal(c, err)
	}
	for name, cfg := range map[string]Config{
		"open file": {URL: "http://x", HMAC: HMAC{KeyFile: file("open", strings.Repeat("ab", 32), 0o644)}}, "short": {URL: "http://x", HMAC: HMAC{Name: "a", Key: make([]byte, 15)}},
		"not hexadecimal": {URL: "http://x", HMAC: HMAC{KeyFile: file("text", "secret", 0o600)}}, "two": {URL: "http://x", Token: "t", HMAC: HMAC{KeyFile: good}},
		"certificate without TLS": {URL: "http://x", TLS: TLS{Cert: "a", Key: "b"}}, "no key": {URL: "https://x", TLS: TLS{Cert: "a"}}, "no files": {URL: "https://x", TLS: TLS{Cert: "a", Key: "b"}},
		"no roots": {URL: "https://x", TLS: TLS{CA: good}}, "another client": {URL: "https://x", TLS: TLS{CA: good}, HTTP: http.DefaultClient},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
