package ca

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/anchor/anchortest"
	"github.com/certanchor/certanchor/internal/framelog"
	"github.com/certanchor/certanchor/internal/keystate"
	"github.com/certanchor/certanchor/internal/oplog"
)

// cutOutcome takes the newest record off the operators' log of a CA that does not run: its process died before that was on the disk.
func cutOutcome(t *testing.T, dir string) {
	t.Helper()
	path := filepath.Join(dir, oplog.DirName, "0.log")
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	var last framelog.Position
	if _, err := framelog.Magic(0xca1e0b1c).Scan(f, st.Size(), func(_ []byte, pos framelog.Position) error { last = pos; return nil }); err != nil {
		t.Fatal(err)
	}
	if last.Index != 0 {
		t.Fatalf("the newest record shares its frame: %+v", last)
	}
	if err := f.Truncate(last.Offset); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestGenerationsOfAKeyShareTheOperatorsLog: what a later generation signed is found as the outcome of an action whose process ended, and a restored
// CA takes in the certificates of every generation.
func TestGenerationsOfAKeyShareTheOperatorsLog(t *testing.T) {
	w := newKeyWorld(t, func(c *Config) { c.OpenKey = openTestKey; quickly(c) })
	restart := func(dir string) {
		t.Helper()
		key, err := openTestKey(dir)
		if err != nil {
			t.Fatal(err)
		}
		s, err := New(Config{Dir: dir, Key: key, OpenKey: openTestKey, Log: quiet}, w.ledger)
		if err != nil {
			t.Fatal(err)
		}
		w.dir = dir
		w.serve(s)
		waitFor(t, "comparison with the ledger", s.operators.settled.Load)
	}
	r := rotated(t, w.dir)
	w.await(keystate.Active, keystate.Generated)
	w.registerCert(r.Certificate)
	w.await(keystate.Retired, keystate.Active)
	w.ledger.Plan(func(function string) anchortest.Fault {
		if function == wire.FnAnchorOperators {
			return anchortest.Unavailable
		}
		return anchortest.None
	})
	fresh := w.issueOne("")
	w.told()
	if err := w.server.Close(); err != nil {
		t.Fatal(err)
	}
	cutOutcome(t, w.dir)
	w.ledger.Plan(nil)
	restart(w.dir)
	entries, outcomes := w.told()
	e := entries[len(entries)-1]
	if end := outcomes[e.Seq]; e.Action != http.MethodPost+" /v1/certificates" || end.Outcome != oplog.Done || end.Target != fresh.Serial || end.Detail[foundHow] == "" {
		t.Fatalf("%+v ended with %+v", e, end)
	}
	rotation := 0
	for _, e := range entries {
		if e.Actor == bySuccession {
			rotation++
		}
	}
	if rotation != 2 {
		t.Errorf("the rotation has %d records", rotation)
	}
	if _, err := os.Stat(filepath.Join(w.dir, nextDir, oplog.DirName)); err == nil {
		t.Error("the later generation has a log of its own")
	}

	if err := w.server.Close(); err != nil {
		t.Fatal(err)
	}
	old := filepath.Join(t.TempDir(), "old")
	copyTree(t, old, w.dir)
	restart(w.dir)
	lost := w.issueOne("")
	if err := w.server.Close(); err != nil {
		t.Fatal(err)
	}
	if err := oplog.MarkRestored(old, oplog.Restored{Restored: time.Now(), From: "a copy"}); err != nil {
		t.Fatal(err)
	}
	restart(old)
	if got, err := w.client("auditor").Get(t.Context(), lost.Serial); err != nil || got.Certificate != lost.Certificate || got.CAID != fresh.CAID {
		t.Fatalf("%+v, %v", got, err)
	}
	w.issueOne("")
}
