package metrics

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func scrape(r *Registry) string {
	rec := httptest.NewRecorder()
	r.Handler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return "\n" + rec.Body.String()
}

func expect(t *testing.T, text string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("no line %q in\n%s", line, text)
		}
	}
}

func TestRegistriesDoNotMeet(t *testing.T) {
	a, b := New(), New()
	a.Gauge("things", "Things.", func() float64 { return 3 })
	b.Gauge("things", "Things.", func() float64 { return 4 })
	expect(t, scrape(a), "certanchor_things 3")
	expect(t, scrape(b), "certanchor_things 4")
}

func TestHTTPCountsByRouteNotByPath(t *testing.T) {
	r := New()
	teapot := r.HTTP("/pot/{n}", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	for _, path := range []string{"/pot/1", "/pot/2"} {
		teapot.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, path, nil))
	}
	r.HTTP("/other", teapot)
	expect(t, scrape(r), `certanchor_http_requests_total{code="418",method="get",route="/pot/{n}"} 2`, `certanchor_http_request_seconds_count{route="/pot/{n}"} 2`)
}

func TestLaneWithoutRegistryTakesNoNotice(t *testing.T) {
	l := (*Registry)(nil).Lane("ca", "issue")
	l.Queue(1, 2, time.Second, 3)
	l.Depart(3)(Committed)
	l.Coalesced()
	l.TurnedAway(ByWait)
}

func TestLanesWithTheSameLabelsShareMetrics(t *testing.T) {
	r := New()
	r.Lane("x", "issue").Depart(2)(Conflict)
	r.Lane("x", "issue").Depart(2)(Conflict)
	expect(t, scrape(r), `certanchor_anchor_transactions_total{ca="x",lane="issue",outcome="conflict"} 2`,
		`certanchor_anchor_transactions_total{ca="x",lane="issue",outcome="unknown"} 0`)
}
