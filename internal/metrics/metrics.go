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
	reg *prometheus.Registry

	anchorOnce sync.Once
	anchor     anchorFamilies
	httpOnce   sync.Once
	http       httpFamilies
}

// New returns a registry with the metrics of the Go runtime and of the process.
func New() *Registry {
	r := &Registry{reg: prometheus.NewRegistry()}
	r.reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Handler serves the metrics in the formats of Prometheus.
func (r *Registry) Handler() http.Handler {
	return promhttp.HandlerFor(r.reg, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError})
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
