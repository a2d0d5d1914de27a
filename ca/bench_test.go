package ca

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/certanchor/certanchor/internal/caapi"
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
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := w.server.Issue(b.Context(), Request{CSR: csr, Profile: "server"}); err != nil {
				b.Error(err)
			}
		}
	})
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

// BenchmarkRecordedIssue issues for 200 requesters at a time, with and without the operators' log.
func BenchmarkRecordedIssue(b *testing.B) {
	key, err := keyfile.Generate(keyfile.P256)
	if err != nil {
		b.Fatal(err)
	}
	request := body(b, caapi.IssueRequest{CSR: newCSR(b, key), Profile: "server"})
	for _, recorded := range []bool{false, true} {
		b.Run(fmt.Sprintf("recorded=%t", recorded), func(b *testing.B) {
			w := newWorld(b, nil)
			h := handler(w.server.postCertificate)
			if recorded {
				h = w.server.recorded(actIssue, h)
			}
			b.SetParallelism(100)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					r := httptest.NewRequest("POST", caapi.PathCertificates, strings.NewReader(request))
					r.Header.Set("Content-Type", "application/json")
					if err := h(httptest.NewRecorder(), r, &client{name: "requester", role: RoleRequester, how: howToken}); err != nil {
						b.Error(err)
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "certs/s")
		})
	}
}
