package metrics

import "github.com/prometheus/client_golang/prometheus"

// BridgeCRLs is the metrics of an OCSP bridge about the CRLs that it serves. A nil *BridgeCRLs takes no notice.
type BridgeCRLs struct {
	taken   *prometheus.CounterVec
	checked prometheus.Counter
	seconds *prometheus.HistogramVec
}

// CRLState is one CRL at one scrape.
type CRLState struct {
	CA, Name   string
	Number     uint64
	Entries    int
	NextUpdate float64 // Unix time
	Served     bool
	Disagrees  bool // with the ledger or with OCSP
}

// Outcomes of a CRL that was offered.
const (
	CRLTaken     = "taken"
	CRLOld       = "not_newer"
	CRLRefused   = "refused"   // it says something else than the ledger
	CRLMalformed = "malformed" // no CRL that the CA has signed
	CRLFailed    = "failed"    // it could not be judged or kept
)

// BridgeCRLs adds the metrics. state is asked at each scrape, from any goroutine. It may be called once for a registry.
func (r *Registry) BridgeCRLs(state func() []CRLState) *BridgeCRLs {
	name := func(n string) string { return prometheus.BuildFQName(namespace, "crl", n) }
	c := &BridgeCRLs{
		taken:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: name("offered_total"), Help: "CRLs that were offered, by what became of them."}, []string{"ca", "outcome"}),
		checked: prometheus.NewCounter(prometheus.CounterOpts{Name: name("checked_entries_total"), Help: "CRL entries compared with what OCSP answers."}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: name("seconds"), Help: "Time to compute contents, and to judge and keep a CRL.", Buckets: latencies,
		}, []string{"what"}),
	}
	for _, what := range []string{"contents", "accept"} {
		c.seconds.WithLabelValues(what)
	}
	r.reg.MustRegister(c.taken, c.checked, c.seconds, newCRLCollector(state))
	return c
}

// Offered counts a CRL.
func (c *BridgeCRLs) Offered(ca, outcome string) {
	if c != nil {
		c.taken.WithLabelValues(ca, outcome).Inc()
	}
}

// Checked counts entries.
func (c *BridgeCRLs) Checked(n int) {
	if c != nil {
		c.checked.Add(float64(n))
	}
}

// Took notes how long something took, in seconds: contents or accept.
func (c *BridgeCRLs) Took(what string, seconds float64) {
	if c != nil {
		c.seconds.WithLabelValues(what).Observe(seconds)
	}
}

// crlCollector shows one state for all gauges of a scrape.
type crlCollector struct {
	state                                      func() []CRLState
	number, entries, next, served, disagreeing *prometheus.Desc
}

func newCRLCollector(state func() []CRLState) *crlCollector {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName(namespace, "crl", name), help, []string{"ca", "name"}, nil)
	}
	return &crlCollector{
		state:       state,
		number:      desc("number", "Number of the newest CRL: the ledger's height that it is about."),
		entries:     desc("entries", "Its entries."),
		next:        desc("next_update_seconds", "When it runs out, Unix time."),
		served:      desc("served", "1 while it is served."),
		disagreeing: desc("disagrees", "1 if it says something else than the ledger or OCSP: it is served no longer."),
	}
}

// Describe implements prometheus.Collector.
func (c *crlCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.number, c.entries, c.next, c.served, c.disagreeing} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *crlCollector) Collect(ch chan<- prometheus.Metric) {
	one := map[bool]float64{true: 1}
	for _, s := range c.state() {
		gauge := func(d *prometheus.Desc, v float64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, s.CA, s.Name)
		}
		gauge(c.number, float64(s.Number))
		gauge(c.entries, float64(s.Entries))
		gauge(c.next, s.NextUpdate)
		gauge(c.served, one[s.Served])
		gauge(c.disagreeing, one[s.Disagrees])
	}
}
