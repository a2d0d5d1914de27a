package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Outcome is how one attempt to commit a transaction ended.
type Outcome string

// Outcomes.
const (
	Committed   Outcome = "committed"
	Conflict    Outcome = "conflict"    // another transaction was first, or endorsers disagreed: nothing was written
	Rejected    Outcome = "rejected"    // the contract refused
	Unavailable Outcome = "unavailable" // it was not sent
	Unknown     Outcome = "unknown"     // sent, and not heard of
)

var outcomes = []Outcome{Committed, Conflict, Rejected, Unavailable, Unknown}

// Reason is why a request was turned away.
type Reason string

// Reasons.
const (
	ByWait    Reason = "wait"    // it would have waited too long
	ByEntries Reason = "entries" // too many wait
	ByBytes   Reason = "bytes"   // what waits is too large
)

var reasons = []Reason{ByWait, ByEntries, ByBytes}

// latencies spans an embedded ledger's commit and a network with a frozen leader, in seconds.
var latencies = []float64{.001, .0025, .005, .01, .02, .03, .05, .075, .1, .15, .25, .5, 1, 2.5, 5, 10, 30}

var batchSizes = []float64{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000}

type anchorFamilies struct {
	entries, bytes, wait, rate, inFlight *prometheus.GaugeVec
	batch, submit                        *prometheus.HistogramVec
	attempts, coalesced, away            *prometheus.CounterVec
}

// Lane is the metrics of one lane of an anchor.Log. A nil Lane takes no notice.
type Lane struct {
	entries, bytes, wait, rate, inFlight prometheus.Gauge
	batch, submit                        prometheus.Observer
	attempts                             map[Outcome]prometheus.Counter // not changed after Lane
	away                                 map[Reason]prometheus.Counter  // nor this
	coalesced                            prometheus.Counter
}

// Lane returns the metrics of the lane of a CA; nil for a nil registry. Lanes with the same labels share them.
func (r *Registry) Lane(ca, lane string) *Lane {
	if r == nil {
		return nil
	}
	r.anchorOnce.Do(r.addAnchor)
	f, labels := &r.anchor, prometheus.Labels{"ca": ca, "lane": lane}
	l := &Lane{
		entries: f.entries.With(labels), bytes: f.bytes.With(labels), inFlight: f.inFlight.With(labels),
		wait: f.wait.With(labels), rate: f.rate.With(labels), batch: f.batch.With(labels), submit: f.submit.With(labels),
		attempts: map[Outcome]prometheus.Counter{}, away: map[Reason]prometheus.Counter{}, coalesced: f.coalesced.With(labels),
	}
	for _, o := range outcomes { // those that have not happened are there too, as zero
		l.attempts[o] = f.attempts.MustCurryWith(labels).WithLabelValues(string(o))
	}
	for _, why := range reasons {
		l.away[why] = f.away.MustCurryWith(labels).WithLabelValues(string(why))
	}
	return l
}

func (r *Registry) addAnchor() {
	labels := []string{"ca", "lane"}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Subsystem: "anchor", Name: name, Help: help}, labels)
	}
	counter := func(name, help string, more ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Subsystem: "anchor", Name: name, Help: help}, append(labels, more...))
	}
	histogram := func(name, help string, buckets []float64) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Subsystem: "anchor", Name: name, Help: help, Buckets: buckets}, labels)
	}
	f := &r.anchor
	f.entries = gauge("queue_entries", "Entries that wait for their first transaction.")
	f.bytes = gauge("queue_bytes", "Bytes of the entries that wait for their first transaction.")
	f.wait = gauge("expected_wait_seconds", "How much later than on an idle ledger a request that came now would be answered.")
	f.rate = gauge("expected_entries_per_second", "What full transactions are expected to take to the ledger, by how long the last ones took.")
	f.inFlight = gauge("in_flight_entries", "Entries of the transaction that is on its way.")
	f.batch = histogram("batch_entries", "Entries of each transaction submitted.", batchSizes)
	f.submit = histogram("submit_seconds", "From submitting a transaction to its end, however it ended.", latencies)
	f.attempts = counter("transactions_total", "Transactions submitted, by how they ended.", "outcome")
	f.coalesced = counter("coalesced_total", "Requests that shared the entry of an identical one.")
	f.away = counter("turned_away_total", "Requests turned away because they would have waited too long, or too many or too large ones waited.", "reason")
	r.reg.MustRegister(f.entries, f.bytes, f.wait, f.rate, f.inFlight, f.batch, f.submit, f.attempts, f.coalesced, f.away)
}

// Queue sets how much waits, how long a newcomer would, and how many entries a second are expected to commit.
func (l *Lane) Queue(entries, bytes int, wait time.Duration, rate float64) {
	if l != nil {
		l.entries.Set(float64(entries))
		l.bytes.Set(float64(bytes))
		l.wait.Set(wait.Seconds())
		l.rate.Set(rate)
	}
}

// Depart notes that a transaction of so many entries is on its way; the returned function notes its end.
func (l *Lane) Depart(entries int) func(Outcome) {
	if l == nil {
		return func(Outcome) {}
	}
	began := time.Now()
	l.batch.Observe(float64(entries))
	l.inFlight.Set(float64(entries))
	return func(o Outcome) {
		l.inFlight.Set(0)
		l.submit.Observe(time.Since(began).Seconds())
		l.attempts[o].Inc()
	}
}

// Coalesced notes a request that shares another's entry.
func (l *Lane) Coalesced() {
	if l != nil {
		l.coalesced.Inc()
	}
}

// TurnedAway notes a request that was turned away.
func (l *Lane) TurnedAway(why Reason) {
	if l != nil {
		l.away[why].Inc()
	}
}
