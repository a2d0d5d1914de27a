package ca

import (
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/certanchor/certanchor/internal/keyfile"
)

// BenchmarkIssue signs, journals and anchors for many requesters at a time, on the embedded ledger.
func BenchmarkIssue(b *testing.B) {
	w := newWorld(b, nil)
	key, err := keyfile.Generate(keyfile.P256)
	if err != nil {
		b.Fatal(err)
	}
	csr := newCSR(b, key)
	b.SetParallelism(100)
	before := cpu(b)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := w.server.Issue(b.Context(), Request{CSR: csr, Profile: "server"}); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N), "cpu-us/op")
}

// cpu is the processor time that this process has used: on a busy machine it says more than the clock.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkSubmitCertificate anchors certificates that were signed elsewhere, for 64 callers at a time, on the embedded ledger.
func BenchmarkSubmitCertificate(b *testing.B) {
	const callers = 64
	w := newWorld(b, nil)
	ca := w.elsewhere()
	todo := make(chan []byte, b.N)
	for range b.N {
		der, _ := ca.Issue(b, shortLived)
		todo <- der
	}
	close(todo)
	var wg sync.WaitGroup
	b.ResetTimer()
	for range callers {
		wg.Go(func() {
			for der := range todo {
				if _, err := w.server.SubmitCertificate(b.Context(), der); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "certs/s")
}
