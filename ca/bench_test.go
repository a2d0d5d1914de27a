package ca

import (
	"testing"

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
