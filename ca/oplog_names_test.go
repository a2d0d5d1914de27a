package ca

import (
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/oplog"
)

// furtherDir is a directory for another bridge of w's CA, as docs/high-availability.md makes it.
func (w *world) furtherDir() string {
	w.t.Helper()
	dir := w.t.TempDir()
	tokens, err := filepath.Glob(filepath.Join(w.dir, "*.token"))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, file := range append(tokens, filepath.Join(w.dir, "ca.pem"), filepath.Join(w.dir, "profiles.json"), filepath.Join(w.dir, "clients")) {
		data, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, filepath.Base(file)), data, 0o600)
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
	return dir
}

// TestBridgesOfOneCAKeepLogsOfTheirOwn: two bridges with two names both anchor; one without a name of its own is refused, and told why.
func TestBridgesOfOneCAKeepLogsOfTheirOwn(t *testing.T) {
	w := newWorld(t, quickly)
	start := func(dir, name string) {
		t.Helper()
		set := Settings{OperatorsLog: OperatorsLogSettings{AnchorEvery: 100 * time.Millisecond, Name: name}}
		s, err := New(Config{Dir: dir, Key: prepared.key, Log: slog.New(slog.DiscardHandler), Settings: set}, w.ledger)
		if err != nil {
			t.Fatal(err)
		}
		w.dir = dir
		w.serve(s)
	}
	issued := func() {
		t.Helper()
		if _, err := w.client("requester").Issue(t.Context(), caapi.IssueRequest{CSR: newCSR(t, nil), Profile: "server"}, ""); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "anchor", w.anchored)
		if r, _ := w.audited(); len(r.Differences) != 0 || r.Parts[0].Heads == 0 || r.Parts[0].Anchored < 3 {
			t.Fatalf("%+v", r)
		}
	}
	refused := func(words ...string) {
		t.Helper()
		code, _, b := w.call("POST", caapi.PathCertificates, serverRequest(t), nil)
		for _, word := range words {
			if code != http.StatusServiceUnavailable || !strings.Contains(asProblem(t, b).Rule, word) {
				t.Fatalf("%d %s", code, b)
			}
		}
		if w.server.Ready(t.Context()).Ready {
			t.Fatal("it is ready")
		}
	}
	first := w.server
	issued()
	second, third := w.furtherDir(), w.furtherDir()

	start(second, "")
	refused("further bridge", "ca.operators_log.name", "certanchor ca restored")
	if err := w.server.Close(); err != nil {
		t.Fatal(err)
	}
	start(second, "bridge-2")
	issued()

	start(third, "bridge-2") // the second one's name
	refused("further bridge", `under the name "bridge-2"`)

	// Both go on.
	if err := first.operators.anchor(t.Context()); err != nil {
		t.Fatal(err)
	}
	histories, err := oplog.Histories(t.Context(), w.node.Connect(wire.RoleAuditor), first.issuer.id, nil)
	if err != nil || len(histories) != 2 || len(histories[""]) == 0 || len(histories["bridge-2"]) == 0 {
		t.Fatalf("%+v, %v", histories, err)
	}
}
