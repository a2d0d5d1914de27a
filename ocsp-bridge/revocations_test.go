package ocspbridge_test

import (
	"bytes"
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/intent"
	"github.com/certanchor/certanchor/network"
	ocspbridge "github.com/certanchor/certanchor/ocsp-bridge"
)

// counting counts what the peer is asked about revocations.
type counting struct {
	network.Ledger
	asked atomic.Int32
}

func (c *counting) Evaluate(ctx context.Context, function string, arg []byte) ([]byte, error) {
	if function == wire.FnRevoke {
		c.asked.Add(1)
	}
	return c.Ledger.Evaluate(ctx, function, arg)
}

// revokeOwn has the holder of a new certificate of a CA revoke it, and returns the status code.
func (b *bridge) revokeOwn(ca *cctest.CA) int {
	t := b.w.t
	t.Helper()
	_, cert := ca.Issue(t)
	arg, err := intent.Sign(cctest.LeafKey(), cert, ca.Cert, intent.Terms{Channel: channel, Reason: wire.KeyCompromise, Now: b.w.clock.Now()})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Post(b.url+intent.Path, intent.ContentType, bytes.NewReader(intent.Marshal(arg)))
	if err != nil {
		t.Fatal(err)
	}
	readAll(t, resp)
	return resp.StatusCode
}

// TestRevocationsAreHeldAgainstTheOwnTrustListFirst: anybody may send them.
func TestRevocationsAreHeldAgainstTheOwnTrustListFirst(t *testing.T) {
	w := newWorld(t)
	peer := &counting{Ledger: w.conn}
	line := cutLine(peer)
	b := w.startOn("bridge", line, nil)
	if code := b.revokeOwn(w.ca); code != http.StatusServiceUnavailable { // it may be on the list that is not read yet
		t.Errorf("before the trust list is read: %d", code)
	}
	line.set(false)
	b.until("ready", func() (bool, string) {
		w.clock.Advance(10 * time.Millisecond) // lets the retry come due
		r := b.Ready()
		return r.Ready, r.Reason
	})
	if code := b.revokeOwn(cctest.NewCA(t)); code != http.StatusNotFound {
		t.Errorf("of a CA that is not on the list: %d", code)
	}
	if n := peer.asked.Load(); n != 0 {
		t.Errorf("the peer was asked %d times", n)
	}
	if code := b.revokeOwn(w.ca); code != http.StatusOK || peer.asked.Load() != 1 {
		t.Errorf("of a CA on the list: %d; the peer was asked %d times", code, peer.asked.Load())
	}
}

func TestRevocationsOfOneAddressAreLimited(t *testing.T) {
	w := newWorld(t)
	b := w.start("bridge", func(c *ocspbridge.Config) {
		c.Settings = ocspbridge.DefaultSettings()
		c.Settings.RevocationRate = 2
	}).ready()
	stranger := cctest.NewCA(t)
	codes := map[int]int{}
	for range 10 { // the bridge's clock stands
		codes[b.revokeOwn(stranger)]++
	}
	if codes[http.StatusNotFound] != 4 || codes[http.StatusTooManyRequests] != 6 {
		t.Errorf("status codes: %v", codes)
	}
}
