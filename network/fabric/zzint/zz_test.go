package integration

import (
	"context"
	"os"
	"testing"
	"time"
	testnetwork "github.com/certanchor/certanchor/test-network"
)

func ledgerNetwork(t *testing.T) *testnetwork.Network {
	dir := "/tmp/lednet"
	n, err := testnetwork.Open(dir)
	if err == nil { return n }
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second); defer cancel()
	start := time.Now()
	n, err = testnetwork.Up(ctx, testnetwork.Options{Dir: dir, Executable: "/tmp/lednet-exe3", TickInterval: time.Second, BasePort: 31000, Progress: os.Stderr})
	if err != nil { t.Fatal(err) }
	t.Log("up took", time.Since(start))
	return n
}
func must(t testing.TB, err error) { t.Helper(); if err != nil { t.Fatal(err) } }
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	end := time.After(time.Minute)
	for !holds() {
		select {
		case <-look.C:
		case <-end:
			t.Fatalf("waited a minute in vain: %s", what)
		}
	}
}
