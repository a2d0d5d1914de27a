package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// How an OCSP request came by its answer.
const (
	CacheHit  = "hit"  // an answer that was kept
	CacheMiss = "miss" // signed, or signed for another request at the same moment, and kept
	CacheLive = "live" // signed for this request alone
	CacheNone = "none" // a refusal, which nobody signs
)

// OCSPState is what an OCSP responder shows at one scrape.
type OCSPState struct {
	Waiting, Signing        int // requests
	KeptAnswers, KeptOctets int
	Lag                     int64          // blocks that the peer has and that are not applied; negative: the peer does not tell
	ClockOffset             *time.Duration // newest block's transaction time minus the local time of its arrival; nil: none has arrived yet
}

// OCSP is the metrics of an OCSP responder. It is safe for concurrent use.
type OCSP struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	hits     prometheus.Observer
	visible  prometheus.Histogram
}

var (
	// answerTimes spans a kept answer and a signature that had to queue, in seconds.
	answerTimes = []float64{2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, .001, .002, .005, .01, .02, .05, .1, .25, .5, 1}
	// visibleTimes spans the way of a revocation from a CA's bridge over the ledger to a responder.
	visibleTimes = []float64{.005, .01, .02, .03, .04, .05, .06, .08, .1, .125, .15, .2, .3, .5, 1, 2.5, 5, 15, 60}
)

// OCSP adds the metrics of an OCSP responder. state is asked at each scrape, from any goroutine.
func (r *Registry) OCSP(state func() OCSPState) *OCSP {
	o := &OCSP{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "ocsp_requests_total",
			Help: "OCSP requests by answer (good, revoked, unknown, several, or the status of a refusal), CA ID of the issuer, and how the answer was come by.",
		}, []string{"answer", "issuer", "cache"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Name: "ocsp_request_seconds", Buckets: answerTimes,
			Help: "From when an OCSP request was read to when its answer was written.",
		}, []string{"cache"}),
		visible: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Name: "revocation_visible_seconds", Buckets: visibleTimes,
			Help: "From a revocation's or hold's transaction time to when this responder answers with it. Clocks that differ show in it.",
		}),
	}
	o.hits = o.seconds.WithLabelValues(CacheHit)
	r.reg.MustRegister(o.requests, o.seconds, o.visible, newOCSPCollector(state))
	return o
}

// Requests returns the counter of one kind of answer.
func (o *OCSP) Requests(answer, issuer, cache string) prometheus.Counter {
	return o.requests.WithLabelValues(answer, issuer, cache)
}

// Hit notes how long an answer took that was kept. It allocates nothing.
func (o *OCSP) Hit(took time.Duration) { o.hits.Observe(took.Seconds()) }

// Took notes how long another answer took.
func (o *OCSP) Took(cache string, took time.Duration) {
	o.seconds.WithLabelValues(cache).Observe(took.Seconds())
}

// Visible notes how long a revocation or hold took to this responder.
func (o *OCSP) Visible(took time.Duration) { o.visible.Observe(took.Seconds()) }

type ocspCollector struct {
	state func() OCSPState

	waiting, signing, kept, octets, lag, offset *prometheus.Desc
}

func newOCSPCollector(state func() OCSPState) *ocspCollector {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, nil, nil)
	}
	return &ocspCollector{
		state:   state,
		waiting: desc("ocsp_signer_queue", "OCSP requests that wait for a signer."),
		signing: desc("ocsp_signers_busy", "OCSP answers that are being signed."),
		kept:    desc("ocsp_kept_answers", "Signed answers that are kept."),
		octets:  desc("ocsp_kept_octets", "Memory of the signed answers that are kept."),
		lag:     desc("ledger_lag_blocks", "Blocks that the peer has and that are not applied. Absent while the peer does not tell."),
		offset:  desc("ledger_clock_offset_seconds", "Transaction time of the newest block minus the local time of its arrival: how far clocks are apart, less the way here."),
	}
}

// Describe implements prometheus.Collector.
func (c *ocspCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.waiting, c.signing, c.kept, c.octets, c.lag, c.offset} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *ocspCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64) { ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	s := c.state()
	gauge(c.waiting, float64(s.Waiting))
	gauge(c.signing, float64(s.Signing))
	gauge(c.kept, float64(s.KeptAnswers))
	gauge(c.octets, float64(s.KeptOctets))
	if s.Lag >= 0 {
		gauge(c.lag, float64(s.Lag))
	}
	if s.ClockOffset != nil {
		gauge(c.offset, s.ClockOffset.Seconds())
	}
}
