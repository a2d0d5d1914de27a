// Package metrics is what the bridges tell Prometheus. Each server has a Registry of its own: two of them in one process, and two
// tests, do not meet in a global one.
package metrics

import (
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const namespace = "certanchor"

// Registry holds one server's metrics. It is safe for concurrent use.
type Registry struct {
	reg prometheus.Registerer
	own *prometheus.Registry

	subsMu sync.Mutex // guards subs
	subs   []*Registry

	anchorOnce sync.Once
	anchor     anchorFamilies
	httpOnce   sync.Once
	http       httpFamilies
}

// New returns a registry with the metrics of the Go runtime and of the process.
func New() *Registry {
	own := prometheus.NewRegistry()
	r := &Registry{reg: own, own: own}
	r.reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Handler serves the metrics in the formats of Prometheus.
func (r *Registry) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		all := prometheus.Gatherers{r.own}
		r.subsMu.Lock()
		for _, s := range r.subs {
			all = append(all, s.own)
		}
		r.subsMu.Unlock()
		promhttp.HandlerFor(all, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError}).ServeHTTP(w, req)
	})
}

// Sub returns a registry whose metrics have one more label and are served with r's.
func (r *Registry) Sub(label, value string) *Registry {
	own := prometheus.NewRegistry()
	sub := &Registry{reg: prometheus.WrapRegistererWith(prometheus.Labels{label: value}, own), own: own}
	r.subsMu.Lock()
	defer r.subsMu.Unlock()
	r.subs = append(r.subs, sub)
	return sub
}

// Gauge adds a gauge that value answers at each scrape, from any goroutine. The name gets the prefix certanchor_ and must be
// new to the registry; it panics otherwise.
func (r *Registry) Gauge(name, help string, value func() float64) {
	r.reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, value))
}

type httpFamilies struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

// HTTP counts and times what next answers, under the name route: a pattern, not a path, of which there are too many.
func (r *Registry) HTTP(route string, next http.Handler) http.Handler {
	r.httpOnce.Do(func() {
		r.http = httpFamilies{
			requests: prometheus.NewCounterVec(prometheus.CounterOpts{
				Namespace: namespace, Name: "http_requests_total", Help: "Requests answered.",
			}, []string{"route", "method", "code"}),
			seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
				Namespace: namespace, Name: "http_request_seconds", Help: "From request to answer.", Buckets: latencies,
			}, []string{"route"}),
		}
		r.reg.MustRegister(r.http.requests, r.http.seconds)
	})
	label := prometheus.Labels{"route": route}
	return promhttp.InstrumentHandlerDuration(r.http.seconds.MustCurryWith(label),
		promhttp.InstrumentHandlerCounter(r.http.requests.MustCurryWith(label), next))
}
