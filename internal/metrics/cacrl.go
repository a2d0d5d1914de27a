package metrics

import "github.com/prometheus/client_golang/prometheus"

// CRLs counts what a CA bridge does about its CRLs. A nil *CRLs takes no notice.
type CRLs struct {
	signed, failed    *prometheus.CounterVec
	published         *prometheus.CounterVec
	targets, nextTime *prometheus.GaugeVec
}

// CRLs adds the metrics of CRLs. It may be called once for a registry.
func (r *Registry) CRLs() *CRLs {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Subsystem: "ca_crl", Name: name, Help: help}, labels)
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Subsystem: "ca_crl", Name: name, Help: help}, labels)
	}
	c := &CRLs{
		signed:    counter("signed_total", "CRLs signed: complete, delta, or complete ones of a shard.", "kind"),
		failed:    counter("failures_total", "CRLs that were due and not made, by what was in the way.", "stage"),
		published: counter("published_total", "Attempts to publish a CRL: taken, refused for what it says, or failed and repeated.", "target", "outcome"),
		targets:   gauge("target_behind", "CRLs that a target does not serve in their newest form.", "target"),
		nextTime:  gauge("next_update_seconds", "When the newest CRL about all certificates runs out, Unix time.", "kind"),
	}
	r.reg.MustRegister(c.signed, c.failed, c.published, c.targets, c.nextTime)
	return c
}

// Signed counts a CRL; nextUpdate is Unix time, 0 for a shard's.
func (c *CRLs) Signed(kind string, nextUpdate int64) {
	if c == nil {
		return
	}
	c.signed.WithLabelValues(kind).Inc()
	if nextUpdate != 0 {
		c.nextTime.WithLabelValues(kind).Set(float64(nextUpdate))
	}
}

// Failed counts a CRL that could not be made.
func (c *CRLs) Failed(stage string) {
	if c != nil {
		c.failed.WithLabelValues(stage).Inc()
	}
}

// Published counts an attempt to publish.
func (c *CRLs) Published(target, outcome string) {
	if c != nil {
		c.published.WithLabelValues(target, outcome).Inc()
	}
}

// Behind says how many CRLs a target lacks.
func (c *CRLs) Behind(target string, n int) {
	if c != nil {
		c.targets.WithLabelValues(target).Set(float64(n))
	}
}
