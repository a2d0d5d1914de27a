package ocspbridge_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// A CRL in the bridge's directory that the CA has signed and that differs from the ledger is found out after a restart: it is not served,
// health says that it is degraded and why, and so does a metric, until the CA publishes a right one. OCSP goes on: nobody need restart anything.
func TestCRLThatDisagreesIsToldAndStopsNothingElse(t *testing.T) {
	w := newWorld(t)
	certs := w.issue(2)
	w.revoke(certs[0], wire.Superseded)
	w.revoke(certs[1], wire.Superseded)
	b := w.start("bridge", nil).ready()
	right := b.crlContents("", 0)
	if code, out := b.publish(w.signCRL(right, time.Hour)); code != http.StatusOK {
		t.Fatal(code, out)
	}
	if code, body := b.get("/healthz", nil); code != http.StatusOK {
		t.Fatal(code, string(body))
	}
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	wrong := *right
	wrong.Entries = right.Entries[1:]
	path := filepath.Join(w.dir, "bridge", "crl", w.ca.ID.String(), "full.crl")
	if err := os.WriteFile(path, w.signCRL(&wrong, time.Hour), 0o600); err != nil {
		t.Fatal(err)
	}
	b = w.start("bridge", nil).ready()
	b.until("found out", func() (bool, string) {
		code, body := b.get("/healthz", nil)
		return code == http.StatusOK && strings.Contains(string(body), `"degraded"`) && strings.Contains(string(body), "is missing"), string(body)
	})
	if code, body := b.get("/readyz", nil); code != http.StatusOK {
		t.Errorf("readyz is %d %s", code, body)
	}
	if resp, body := b.crl(http.MethodGet, "full.crl"); resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(body), "disagrees") {
		t.Errorf("%s: %s", resp.Status, body)
	}
	metric := `certanchor_crl_disagrees{ca="` + w.ca.ID.String() + `",name="full.crl"} `
	if _, text := b.get("/metrics", nil); !strings.Contains(string(text), metric+"1") {
		t.Error("no metric of it")
	}
	if code, out := b.publish(w.signCRL(right, time.Hour)); code != http.StatusOK || out["taken"] != true {
		t.Error(code, out)
	}
	if code, body := b.get("/healthz", nil); code != http.StatusOK || !strings.Contains(string(body), `"alive"`) {
		t.Error(code, string(body))
	}
	if _, text := b.get("/metrics", nil); !strings.Contains(string(text), metric+"0") {
		t.Error("the metric stays")
	}
}
