package metrics

import "github.com/prometheus/client_golang/prometheus"

// FailoverState is what a connection shows that may read other organisations' peers.
type FailoverState struct {
	Abroad   bool   // it does
	Verified uint64 // blocks that were verified
	Peers    []FailoverPeer
}

// FailoverPeer is about one such peer, since the start.
type FailoverPeer struct {
	MSPID, Endpoint string
	Passed, Refused uint64 // blocks that were used, and that did not verify
}

// Failover adds the metrics of such a connection. state is asked at each scrape, from any goroutine.
func (r *Registry) Failover(state func() FailoverState) {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil)
	}
	r.reg.MustRegister(&failoverCollector{
		state:    state,
		abroad:   desc("ledger_on_fallback_peers", "1 while blocks come from other organisations' peers, because the own one is away."),
		verified: desc("ledger_verified_blocks", "Blocks that were verified, so that other organisations' peers can be used from there on."),
		passed:   desc("ledger_fallback_blocks_total", "Verified blocks that were taken from another organisation's peer.", "msp_id", "peer"),
		refused:  desc("ledger_fallback_refused_total", "Blocks of another organisation's peer that were refused: not the channel's, or with wrong validity flags.", "msp_id", "peer"),
	})
}

type failoverCollector struct {
	state func() FailoverState

	abroad, verified, passed, refused *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (c *failoverCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.abroad, c.verified, c.passed, c.refused} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *failoverCollector) Collect(ch chan<- prometheus.Metric) {
	s, abroad := c.state(), 0.0
	if s.Abroad {
		abroad = 1
	}
	ch <- prometheus.MustNewConstMetric(c.abroad, prometheus.GaugeValue, abroad)
	ch <- prometheus.MustNewConstMetric(c.verified, prometheus.GaugeValue, float64(s.Verified))
	for _, p := range s.Peers {
		ch <- prometheus.MustNewConstMetric(c.passed, prometheus.CounterValue, float64(p.Passed), p.MSPID, p.Endpoint)
		ch <- prometheus.MustNewConstMetric(c.refused, prometheus.CounterValue, float64(p.Refused), p.MSPID, p.Endpoint)
	}
}
