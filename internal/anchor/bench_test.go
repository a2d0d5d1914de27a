package anchor

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/internal/anchor/anchortest"
)

// BenchmarkLogs measures Logs on the embedded ledger: one alone, without delay; and several of one CA with a block every 20 ms, which
// compete for its head. void is the share of transactions that lost.
func BenchmarkLogs(b *testing.B) {
	const callers = 64
	for _, callers := range []int{callers, 400} {
		b.Run(fmt.Sprintf("alone/callers=%d", callers), func(b *testing.B) {
			node := openLedger(b)
			ca, ledger := setup(b, node)
			measure(b, ca, []*Log{start(b, ledger.Ledger, ca, Options{})}, callers)
		})
	}
	for n := 1; n <= 3; n++ {
		b.Run(fmt.Sprintf("block=20ms/logs=%d", n), func(b *testing.B) { benchRivals(b, n, callers, true) })
		if n > 1 {
			b.Run(fmt.Sprintf("block=20ms/logs=%d/turns=no", n), func(b *testing.B) { benchRivals(b, n, callers, false) })
		}
	}
}

func benchRivals(b *testing.B, n, callers int, turns bool) {
	node := openLedger(b)
	ca, plain := setup(b, node)
	orderer := anchortest.NewOrderer(b.Context(), 20*time.Millisecond)
	logs := make([]*Log, n)
	for i := range logs {
		logs[i] = start(b, orderer.Connect(plain.Ledger), ca, Options{})
		if !turns {
			logs[i].issues.turns.head = nil
		}
	}
	measure(b, ca, logs, callers)
	sent, void := orderer.Counts()
	b.ReportMetric(float64(void)/float64(sent), "void")
}

// measure shares b.N certificates among callers, and those among logs.
func measure(b *testing.B, ca *cctest.CA, logs []*Log, callers int) {
	todo := make(chan []byte, b.N)
	for _, der := range ca.IssueMany(b, b.N) {
		todo <- der
	}
	close(todo)
	var mu sync.Mutex
	var took []time.Duration
	var wg sync.WaitGroup
	b.ResetTimer()
	for i := range callers * len(logs) {
		wg.Go(func() {
			for der := range todo {
				began := time.Now()
				if _, _, err := logs[i%len(logs)].Issue(b.Context(), der); err != nil {
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
	b.StopTimer()
	slices.Sort(took)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "certs/s")
	b.ReportMetric(ms(took[len(took)/2]), "p50-ms")
	b.ReportMetric(ms(took[len(took)*99/100]), "p99-ms")
}
