package cli

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/chaincode/cctest"
)

func TestWatchCommandPrintsEvents(t *testing.T) {
	ca := cctest.NewCA(t)
	issuer := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(issuer, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.DER}), 0o600); err != nil {
		t.Fatal(err)
	}
	asked := ""
	// The last event is none, which ends the command.
	server := newServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.Path + "?" + r.URL.RawQuery + " after " + r.Header.Get("Last-Event-ID")
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, `id: 7-1
event: status
data: {"block":7,"n":1,"ca_id":"ab","serial":"4f0c","state":"revoked","was":"valid","reason":"superseded","time":"2026-05-01T12:00:00.5Z","at":"2026-05-01T12:00:01Z"}

id: 7-2
event: status
data: {"block":7,"n":2,"ca_id":"ab","state":"revoked","reason":"cACompromise","rule":1,"from":"2026-05-01T00:00:00Z","to":"2026-05-02T00:00:00Z","time":"2026-05-01T12:00:00Z","at":"2026-05-01T12:00:01Z"}

id: 7-3
event: status
data: {"block":7,"n":3,"ca_id":"a\u001b[2Jb","state":"suspended","time":"2026-05-01T12:00:00Z","at":"2026-05-01T12:00:01Z"}

id: end
data: {}

`)
	}))
	defer server.Close()
	code, out, errs := runCLI("cert", "watch", "--bridge", server.URL, "--issuer", issuer, "--after", "6-9")
	if code != exitFailure || !strings.Contains(errs, `event "end"`) {
		t.Errorf("exit %d, %s", code, errs)
	}
	if want := "/v1/events?ca=" + ca.ID.String() + " after 6-9"; asked != want {
		t.Errorf("asked for %s, want %s", asked, want)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 3 || strings.Contains(out, "\x1b") {
		t.Fatalf("output is\n%q", out)
	}
	for i, want := range []string{"4f0c  of CA ab  7-1", "all logged from 2026-05-01T00:00:00Z to 2026-05-02T00:00:00Z", "suspended"} {
		if !strings.Contains(lines[i], want) || !strings.HasPrefix(lines[i], "2026-05-01T12:00:00Z  ") {
			t.Errorf("line %d is %q, want %q in it", i, lines[i], want)
		}
	}
	code, out, _ = runCLI("cert", "watch", "--bridge", server.URL, "--json")
	var e struct {
		ID, Serial, Reason string
		Block              uint64
	}
	first, _, _ := strings.Cut(out, "\n")
	if err := json.Unmarshal([]byte(first), &e); err != nil || fmt.Sprint(e) != "{7-1 4f0c superseded 7}" || code != exitFailure {
		t.Errorf("exit %d, %+v, %v in %s", code, e, err, out)
	}
	if code, _, errs := runCLI("cert", "watch", "--after", "7"); code != exitUsage || !strings.Contains(errs, "--after") {
		t.Errorf("exit %d, %s", code, errs)
	}
}
