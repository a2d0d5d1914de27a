package cli

import (
	"io"
	"net/http"
	"os"
	"sync/atomic"
	"testing"
	"time"
)

// TestProofWaitsForTheBundleOfANewCA: there is none before the next tick.
func TestProofWaitsForTheBundleOfANewCA(t *testing.T) {
	p := newParty(t)
	p.Tick()
	real := p.bridge(nil)
	var asked atomic.Int32
	retry := "0"
	early := newServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == 1 || retry != "0" {
			w.Header().Set("Retry-After", retry)
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, `{"detail":"the revocation map has the CA at the next tick"}`)
			return
		}
		real.Config.Handler.ServeHTTP(w, r)
	}))
	defer early.Close()
	out := p.path("waited.bundle")
	args := []string{"proof", p.path("cert.pem"), "--issuer", p.path("ca.pem"), "--bridge", early.URL, "--policy", p.path("policy.txt"), "-o", out}
	code, _, errs := runCLI(args...)
	if code != exitOK || asked.Load() != 2 {
		t.Errorf("exit %d after %d requests, %s", code, asked.Load(), errs)
	}
	contains(t, "standard error", errs, early.URL+" has no bundle yet: the revocation map has the CA at the next tick; waiting, up to 30s")

	retry = "60"
	begun := time.Now()
	code, _, errs = runCLI(append(args, "--timeout", "20s", "-o", p.path("none.bundle"))...)
	if code != exitFailure || time.Since(begun) > 10*time.Second {
		t.Errorf("exit %d after %v, %s", code, time.Since(begun), errs)
	}
	contains(t, "standard error", errs, "no bundle within --timeout 20s: the server cannot answer this now", "the next tick")
	if _, err := os.Stat(p.path("none.bundle")); err == nil {
		t.Error("a file was written")
	}
}
