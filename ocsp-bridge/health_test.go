package ocspbridge_test

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

type healthBody struct {
	Status  string
	Reasons []string
}

func (b *bridge) wantHealth(code int, status, reason string) {
	b.w.t.Helper()
	var h healthBody
	got, body := b.get("/healthz", &h)
	if got != code || h.Status != status || !strings.Contains(strings.Join(h.Reasons, "\n"), reason) {
		b.w.t.Errorf("healthz is %d %s, want %d %q with %q", got, body, code, status, reason)
	}
}

func TestHealthIsRedWhileTheViewIsStale(t *testing.T) {
	w := newWorld(t)
	b := w.start("bridge", nil).ready()
	b.wantHealth(http.StatusOK, "alive", "")
	w.clock.Advance(3*tick + time.Second)
	b.wantHealth(http.StatusServiceUnavailable, "stale", "the newest transaction is 46s old")
	b.applied(w.tick())
	b.wantHealth(http.StatusOK, "alive", "")
	w.clock.Advance(-time.Minute)
	b.wantHealth(http.StatusServiceUnavailable, "stale", "behind the ledger's")
}
