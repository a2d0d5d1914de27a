package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// BridgeState is what an OCSP bridge shows at one scrape.
type BridgeState struct {
	Height  uint64        // blocks applied
	ViewAge time.Duration // negative: nothing was read yet
	Fresh   bool          // answers are given
	Pending int           // changes of status that are not in the status log
	Alarms  int64
	Logs    []LogState
}

// LogState is one log.
type LogState struct {
	Name         string
	Size         uint64
	Cosigned     uint64        // size that a quorum has cosigned
	Cosignatures int           // on that checkpoint
	Age          time.Duration // of its oldest cosignature; negative: not known
}

// Bridge is the metrics of an OCSP bridge that are counted as things happen.
type Bridge struct {
	blocks, integrations prometheus.Counter
	delay                prometheus.Histogram
}

// mergeDelays spans the second that a change of status may take to the status log, and what is too long.
var mergeDelays = []float64{.02, .05, .1, .15, .2, .3, .4, .5, .75, 1, 1.5, 2, 5, 15, 60}

// Bridge adds the metrics of an OCSP bridge. state is asked at each scrape, from any goroutine.
func (r *Registry) Bridge(state func() BridgeState) *Bridge {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help})
	}
	b := &Bridge{
		blocks:       counter("applied_blocks_total", "Blocks applied since the start."),
		integrations: counter("integrations_total", "Transactions that moved changes of status into the status log, by whichever organisation."),
		delay: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Name: "status_merge_delay_seconds", Buckets: mergeDelays,
			Help: "From a change of status to its integration into the status log, by the transactions' times.",
		}),
	}
	r.reg.MustRegister(b.blocks, b.integrations, b.delay, newBridgeCollector(state))
	return b
}

// Applied counts a block.
func (b *Bridge) Applied() { b.blocks.Inc() }

// Integrated notes a transaction that integrated changes of status, and how long each had waited.
func (b *Bridge) Integrated(delays []time.Duration) {
	b.integrations.Inc()
	for _, d := range delays {
		b.delay.Observe(d.Seconds())
	}
}

// bridgeCollector shows one BridgeState for all gauges of a scrape.
type bridgeCollector struct {
	state func() BridgeState

	height, age, fresh, pending, alarms *prometheus.Desc
	size, cosigned, count, cosignedAge  *prometheus.Desc
}

func newBridgeCollector(state func() BridgeState) *bridgeCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil)
	}
	return &bridgeCollector{
		state:       state,
		height:      desc("ledger_height_blocks", "Blocks applied."),
		age:         desc("view_age_seconds", "Age of the newest transaction that was read."),
		fresh:       desc("view_fresh", "1 while answers are given."),
		pending:     desc("status_pending_changes", "Changes of status that are not in the status log."),
		alarms:      desc("alarms", "Pieces of evidence of a split view."),
		size:        desc("log_size_entries", "Size of a log in this organisation's blocks.", "log"),
		cosigned:    desc("log_cosigned_entries", "Size of the newest checkpoint that a quorum has cosigned.", "log"),
		count:       desc("log_cosignatures", "Cosignatures on the newest checkpoint that a quorum has cosigned.", "log"),
		cosignedAge: desc("log_cosigned_age_seconds", "Age of the oldest cosignature on that checkpoint.", "log"),
	}
}

// Describe implements prometheus.Collector.
func (c *bridgeCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.height, c.age, c.fresh, c.pending, c.alarms, c.size, c.cosigned, c.count, c.cosignedAge} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *bridgeCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	s := c.state()
	gauge(c.height, float64(s.Height))
	if s.ViewAge >= 0 {
		gauge(c.age, s.ViewAge.Seconds())
	}
	fresh := 0.0
	if s.Fresh {
		fresh = 1
	}
	gauge(c.fresh, fresh)
	gauge(c.pending, float64(s.Pending))
	gauge(c.alarms, float64(s.Alarms))
	for _, l := range s.Logs {
		gauge(c.size, float64(l.Size), l.Name)
		gauge(c.cosigned, float64(l.Cosigned), l.Name)
		gauge(c.count, float64(l.Cosignatures), l.Name)
		if l.Age >= 0 {
			gauge(c.cosignedAge, l.Age.Seconds(), l.Name)
		}
	}
}
