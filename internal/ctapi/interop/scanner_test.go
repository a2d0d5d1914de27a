package interop

import (
	"context"
	"sync"
	"testing"

	ct "github.com/google/certificate-transparency-go"
	"github.com/google/certificate-transparency-go/scanner"
)

// The fetcher behind certificate-transparency-go's scanlog and behind monitors built on it: parallel, page after page.
func TestMonitorsOfRFC6962FetchEveryEntryOnce(t *testing.T) {
	const n = 700
	f := newFixture(t)
	f.ledger.Fill(t, n)
	fetcher := scanner.NewFetcher(google(t, f), &scanner.FetcherOptions{BatchSize: 1000, ParallelFetch: 3, StartIndex: 0, EndIndex: 0})
	if head, err := fetcher.Prepare(t.Context()); err != nil || head.TreeSize != n {
		t.Fatalf("%+v, %v", head, err)
	}
	var mu sync.Mutex
	seen := map[int64]int{}
	if err := fetcher.Run(t.Context(), func(b scanner.EntryBatch) {
		mu.Lock()
		defer mu.Unlock()
		for i := range b.Entries {
			seen[b.Start+int64(i)]++
			if _, err := ct.LogEntryFromLeaf(b.Start+int64(i), &b.Entries[i]); err != nil {
				t.Errorf("entry %d: %v", b.Start+int64(i), err)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	for i := range int64(n) {
		if seen[i] != 1 {
			t.Errorf("entry %d came %d times", i, seen[i])
		}
	}
}

func TestScannerFindsCertificatesAndPrecertificates(t *testing.T) {
	const n = 90
	f := newFixture(t)
	f.ledger.Fill(t, n)
	s := scanner.NewScanner(google(t, f), scanner.ScannerOptions{
		FetcherOptions: scanner.FetcherOptions{BatchSize: 50, ParallelFetch: 2}, Matcher: scanner.MatchAll{}, NumWorkers: 2,
	})
	var mu sync.Mutex
	certs, precerts := 0, 0
	count := func(n *int) func(*ct.RawLogEntry) {
		return func(*ct.RawLogEntry) {
			mu.Lock()
			defer mu.Unlock()
			*n++
		}
	}
	if err := s.Scan(context.WithoutCancel(t.Context()), count(&certs), count(&precerts)); err != nil {
		t.Fatal(err)
	}
	if certs != n*2/3 || precerts != n/3 {
		t.Errorf("found %d certificates and %d precertificates, want %d and %d", certs, precerts, n*2/3, n/3)
	}
}
