package crls

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/crl"
	"github.com/certanchor/certanchor/internal/metrics"
	"github.com/certanchor/certanchor/internal/problem"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/index"
)

const deadline = 30 * time.Second

// bridge is one organisation's index and store.
type bridge struct {
	*Store
	w   *world
	ix  *index.Index
	dir string

	mu    sync.Mutex
	now   time.Time
	lie   func(*Decision) // what OCSP says instead
	halt  error
	fires []chan time.Time // timers that were asked for, not fired
}

// open opens a bridge whose index has applied as many blocks. The clock stands at the ledger's newest time.
func (w *world) open(dir string, blocks int) *bridge {
	w.t.Helper()
	b := &bridge{w: w, ix: w.index(blocks), dir: dir, now: w.ledger.Now}
	b.reopen()
	return b
}

func (b *bridge) reopen() {
	b.w.t.Helper()
	s, err := Open(Config{
		Dir: b.dir, Ledger: b.ix, Changed: b.ix.Changed, Decide: b.decide, Usable: b.usable, Tolerance: 20 * time.Second, Now: b.clock,
		After: b.after, Metrics: metrics.New(), Log: quiet(),
	})
	if err != nil {
		b.w.t.Fatal(err)
	}
	b.Store = s
}

func (b *bridge) clock() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

func (b *bridge) usable() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.halt
}

// after returns timers that fire when the test says so.
func (b *bridge) after(d time.Duration) <-chan time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	ch := make(chan time.Time, 1)
	if d <= 0 {
		ch <- b.now
	} else {
		b.fires = append(b.fires, ch)
	}
	return ch
}

// advance moves the clock, and fires every timer.
func (b *bridge) advance(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = b.now.Add(d)
	for _, ch := range b.fires {
		ch <- b.now
	}
	b.fires = nil
}

func (b *bridge) decide(id wire.CAID, serial wire.Serial) (Decision, error) {
	st, rec, err := b.ix.Status(id, serial)
	if err != nil || rec == nil {
		return Decision{}, err
	}
	d := Decision{Revoked: st.Bad()}
	if d.Revoked {
		d.Time, d.Reason, d.Invalidity = st.Since(), st.Reason, st.Invalidity
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lie != nil {
		b.lie(&d)
	}
	return d, nil
}

// run runs the self-check until the test ends.
func (b *bridge) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.Run(ctx)
	}()
	b.w.t.Cleanup(func() {
		cancel()
		<-done
	})
}

// until polls a condition, letting timers fire.
func (b *bridge) until(what string, cond func() bool) {
	b.w.t.Helper()
	look, limit := time.NewTicker(time.Millisecond), time.After(deadline)
	defer look.Stop()
	for !cond() {
		select {
		case <-look.C:
			b.advance(0)
		case <-limit:
			b.w.t.Fatalf("%s: not within %s", what, deadline)
		}
	}
}

// contents is what the CA's own bridge would have it sign now.
func (b *bridge) contents(ca *cctest.CA, scope string, base uint64) *crl.Contents {
	b.w.t.Helper()
	m := NewMaker(b.ix)
	c, err := m.Contents(m.Newest(ca.ID, scope, base))
	if err != nil {
		b.w.t.Fatal(err)
	}
	return c
}

func (w *world) sign(ca *cctest.CA, c *crl.Contents) []byte {
	w.t.Helper()
	der, err := crl.Build(c, crl.Form{Issuer: ca.Cert, NextUpdate: c.ThisUpdate.Add(time.Hour)}, ca.Key)
	if err != nil {
		w.t.Fatal(err)
	}
	return der
}

func (b *bridge) offer(ca *cctest.CA, der []byte) (Outcome, error) {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	return b.Accept(ctx, ca.ID, der)
}

func (b *bridge) takes(ca *cctest.CA, c *crl.Contents) []byte {
	b.w.t.Helper()
	der := b.w.sign(ca, c)
	if out, err := b.offer(ca, der); err != nil || !out.Taken {
		b.w.t.Fatalf("not taken: %+v, %v", out, err)
	}
	return der
}

func wantStatus(t *testing.T, what string, err error, status int, text string) {
	t.Helper()
	var p *problem.Problem
	if !errors.As(err, &p) || p.Status != status || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: %v, want %d about %q", what, err, status, text)
	}
}

// someRevoked is a ledger with certificates on hold, revoked and good.
func someRevoked(t testing.TB) (*world, *cctest.CA) {
	w := newWorld(t, 2)
	ca := w.cas[0]
	for range 6 {
		w.issue(ca, shards[1])
		w.commit() // two in a block would want the same place in the log
	}
	w.set(&w.certs[0], wire.OpRevoke, wire.Superseded)
	w.set(&w.certs[1], wire.OpHold, wire.CertificateHold)
	w.set(&w.certs[2], wire.OpRevoke, wire.KeyCompromise)
	return w, ca
}

func logTo(b *bytes.Buffer) *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }
