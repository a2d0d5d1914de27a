package client_test

import (
	"testing"

	"github.com/certanchor/certanchor/client"
)

// BenchmarkMonitorFromTheStart includes what the server does, in the same process.
func BenchmarkMonitorFromTheStart(b *testing.B) {
	w := newLogsWorld(b)
	der, _ := w.cas[0].Issue(b, named("www.example.com"))
	const size = 50_000
	for range size {
		w.log(w.cas[0], der, false)
	}
	for b.Loop() {
		if got := w.watch(func(c *client.MonitorConfig) { c.Sleep = nil }).catchUp(); len(got) != 0 {
			b.Fatalf("events are %+v", got)
		}
	}
	b.ReportMetric(float64(size)*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}
