package session_test

import (
	"testing"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// BenchmarkAudit is of a whole audit of an embedded ledger with some thousand certificates more, and of what one bridge serves of it.
func BenchmarkAudit(b *testing.B) {
	const batches, each = 40, 200
	w := newWorld(b)
	for range batches {
		w.submit(wire.FnIssue, w.ca.IssueArg(w.ca.IssueMany(b, each)...))
	}
	w.applied(w.tick())
	for name, bridges := range map[string][]string{"blocks": nil, "blocks and bridge": {w.url}} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				o := w.options(b.TempDir())
				o.Bridges = bridges
				agrees(b, w.audit(o))
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*batches*each), "µs/certificate")
		})
	}
}
