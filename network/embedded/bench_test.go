package embedded

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
)

// BenchmarkSubmit measures from submission to acknowledgement, on a real disk: callers with one transaction in flight each,
// and transactions of several certificates.
func BenchmarkSubmit(b *testing.B) {
	for _, c := range []struct{ callers, certs int }{{1, 1}, {16, 1}, {64, 1}, {1, 200}, {1, 1000}} {
		b.Run(fmt.Sprintf("callers=%d/certs=%d", c.callers, c.certs), func(b *testing.B) {
			node := open(b, Options{Dir: b.TempDir()})
			s := newStory(b, 0)
			if err := s.tell(b.Context(), node.Connect(wire.RoleAdministrator), node.Connect(wire.RoleOperator)); err != nil {
				b.Fatal(err)
			}
			args := make(chan []byte, b.N)
			for range b.N {
				args <- s.ca.IssueArg(s.ca.IssueMany(b, c.certs)...)
			}
			close(args)
			b.ResetTimer()
			took := submitAll(b, node.Connect(wire.RoleOperator), args, c.callers)
			b.StopTimer()
			slices.Sort(took)
			ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
			b.ReportMetric(float64(b.N*c.certs)/b.Elapsed().Seconds(), "certs/s")
			b.ReportMetric(ms(took[len(took)/2]), "p50-ms")
			b.ReportMetric(ms(took[len(took)*99/100]), "p99-ms")
		})
	}
}

func submitAll(b *testing.B, l network.Ledger, args <-chan []byte, callers int) []time.Duration {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		took []time.Duration
	)
	for range callers {
		wg.Go(func() {
			for arg := range args {
				began := time.Now()
				_, err := l.Submit(b.Context(), wire.FnIssue, arg)
				if err != nil {
					b.Error(err)
					return
				}
				mu.Lock()
				took = append(took, time.Since(began))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return took
}
