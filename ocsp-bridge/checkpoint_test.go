package ocspbridge_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The ledger's directory is put back to an older copy, or replaced, and the index deleted: the log key must not sign a second
// history all the same.
func TestLogKeyDoesNotSignTwoHistories(t *testing.T) {
	w := newWorld(t)
	w.issue(3)
	b := w.start("bridge", nil).ready()
	path := "/logs/" + w.ca.ID.String() + "/checkpoint"
	if code, body := b.get(path, nil); code != http.StatusOK || !strings.Contains(string(body), "\n4\n") {
		t.Fatalf("checkpoint: %d %s", code, body)
	}
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(w.dir, "bridge", "index")); err != nil {
		t.Fatal(err)
	}
	other := newWorldOf(t, w.ca) // the same CA, another history
	other.issue(2)
	w.conn, other.conn = other.conn, w.conn

	b = w.start("bridge", nil)
	b.until("fresh", func() (bool, string) { // all but the responder certificate of the first history, which is not on this ledger
		r := b.Ready().Reason
		return strings.Contains(r, "no usable responder certificate"), r
	})
	if code, body := b.get(path, nil); code != http.StatusServiceUnavailable || !strings.Contains(string(body), "the ledger went back") {
		t.Errorf("smaller than what was signed: %d %s", code, body)
	}
	_, r := w.issueIn(2)
	b.applied(r)
	if code, body := b.get(path, nil); code != http.StatusServiceUnavailable || !strings.Contains(string(body), "two histories") {
		t.Errorf("other than what was signed: %d %s", code, body)
	}
	if r := b.Ready(); r.Ready || !strings.Contains(r.Reason, "two histories") {
		t.Errorf("readiness is %+v", r)
	}
	if err := b.stop(); err == nil {
		t.Error("Run did not say why it ended")
	}
}

func TestCheckpointOfTheSameHeadIsTheSameAfterRestart(t *testing.T) {
	w := newWorld(t)
	w.issue(3)
	b := w.start("bridge", nil).ready()
	path := "/logs/" + w.ca.ID.String() + "/checkpoint"
	_, before := b.get(path, nil)
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	b = w.start("bridge", nil).ready()
	if _, after := b.get(path, nil); string(after) != string(before) {
		t.Errorf("after a restart:\n%s\nbefore:\n%s", after, before)
	}
}

// The same for the log that every relying party depends on.
func TestMapLogDoesNotForkWithARestoredLedger(t *testing.T) {
	w := newWorld(t)
	w.integrate()
	w.nextTick()
	b := w.start("bridge", nil).ready()
	b.applied(w.nextTick())
	const path = "/logs/map/checkpoint"
	if code, body := b.get(path, nil); code != http.StatusOK || !strings.Contains(string(body), "\n2\n") {
		t.Fatalf("checkpoint: %d %s", code, body)
	}
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(w.dir, "bridge", "index")); err != nil {
		t.Fatal(err)
	}
	other := newWorldOf(t, w.ca)
	other.clock.Advance(w.clock.Now().Sub(other.clock.Now()))
	other.tickIfDue()
	w.conn, other.conn = other.conn, w.conn
	b = w.start("bridge", nil)
	b.until("fresh", func() (bool, string) {
		r := b.Ready().Reason
		return strings.Contains(r, "no usable responder certificate"), r
	})
	if code, body := b.get(path, nil); code != http.StatusServiceUnavailable || !strings.Contains(string(body), "the ledger went back") {
		t.Errorf("smaller than what was signed: %d %s", code, body)
	}
	w.clock, other.clock = other.clock, w.clock
	w.integrate() // so that the next map is another
	w.nextTick()
	w.nextTick() // the bridge may halt before it has applied this one
	b.until("refused", func() (bool, string) {
		code, body := b.get(path, nil)
		return code == http.StatusServiceUnavailable && strings.Contains(string(body), "two histories"), string(body)
	})
}
