package ocspbridge_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
)

// The handler alone, without a network: decided from the index each time; signed once, or each time.
func BenchmarkOCSP(b *testing.B) {
	for _, c := range []struct {
		name  string
		nonce []byte
	}{{"signed-before", nil}, {"with-nonce", []byte("0123456789abcdef0123456789abcdef")}} {
		b.Run(c.name, func(b *testing.B) {
			w := newWorld(b)
			cert := w.issue(1)[0]
			br := w.start("bridge", nil).ready()
			handler := br.Handler()
			der := request(b, w.ca.Cert, c.nonce, cert)
			var failed atomic.Int64
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					req := httptest.NewRequest(http.MethodPost, "/ocsp", bytes.NewReader(der))
					req.Header.Set("Content-Type", "application/ocsp-request")
					rec := httptest.NewRecorder()
					handler.ServeHTTP(rec, req)
					if rec.Body.Len() < 100 {
						failed.Add(1)
					}
				}
			})
			if failed.Load() > 0 {
				b.Fatalf("%d answers were refusals", failed.Load())
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "answers/s")
		})
	}
}
