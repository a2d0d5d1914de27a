package ocspbridge_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	ocspbridge "github.com/certanchor/certanchor/ocsp-bridge"
)

// logBuffer is a log that can be read while it is written.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logBuffer) has(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), s)
}

// startApart starts a bridge whose clock is ahead of the ledger's by so much.
func (w *world) startApart(name string, ahead time.Duration) (*bridge, *logBuffer) {
	log := &logBuffer{}
	return w.start(name, func(c *ocspbridge.Config) {
		c.Now = func() time.Time { return w.clock.Now().Add(ahead) }
		c.Log = slog.New(slog.NewTextHandler(log, nil))
	}), log
}

func (b *bridge) awaitOffset(seconds string) {
	b.w.t.Helper()
	const name = "\ncertanchor_ledger_clock_offset_seconds "
	b.until("offset", func() (bool, string) {
		_, text := b.get("/metrics", nil)
		_, rest, _ := strings.Cut("\n"+string(text), name)
		line, _, _ := strings.Cut(rest, "\n")
		return line == seconds, line
	})
}

func TestClockBehindTheLedgersIsNoticedAtStart(t *testing.T) {
	w := newWorld(t)
	b := w.start("bridge", nil).ready()
	cert := w.issue(1)[0]
	b.until("good", func() (bool, string) { s := b.ask(cert); return s == "good", s })
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}

	// Of the index that is there, before any block comes.
	b, log := w.startApart("bridge", -21*time.Second)
	b.until("refusal", func() (bool, string) { r := b.Ready(); return strings.Contains(r.Reason, "local clock"), r.Reason })
	b.want(cert, "tryLater")
	b.awaitOffset("21")
	if !log.has("level=ERROR") || !log.has("the local clock is behind the ledger's by more than clock_tolerance") {
		t.Errorf("the log does not say so: %s", log.text.String())
	}
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}

	b, log = w.startApart("bridge", -19*time.Second) // tolerated, and said
	b.until("good", func() (bool, string) { s := b.ask(cert); return s == "good", s })
	b.awaitOffset("19")
	if log.has("level=ERROR") || !log.has("the local clock is behind the ledger's") {
		t.Errorf("the log: %s", log.text.String())
	}
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}

	b, log = w.startApart("bridge", 0)
	b.until("good", func() (bool, string) { s := b.ask(cert); return s == "good", s })
	if log.has("clock") {
		t.Errorf("nothing is wrong, but the log says: %s", log.text.String())
	}
}

func TestClockAheadOfTheLedgersIsNoticedAtTheFirstBlock(t *testing.T) {
	w := newWorld(t)
	cert := w.issue(1)[0]
	const apart = 7 * time.Second
	b, log := w.startApart("bridge", apart)
	b.until("good", func() (bool, string) { s := b.ask(cert); return s == "good", s })
	b.applied(w.revoke(cert, wire.KeyCompromise))
	b.awaitOffset("-7")
	if !log.has("the local clock and the ledger's are apart") {
		t.Errorf("the log does not say so: %s", log.text.String())
	}
	b.want(cert, "revoked")
}
