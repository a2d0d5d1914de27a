package dual

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/internal/oplog"
)

// TestOperationsFromBeforeARestore: neither approved files nor what a store has of before the restore counts, also when the mark is gone; what is asked for
// afterwards does.
func TestOperationsFromBeforeARestore(t *testing.T) {
	w := newWorld(t)
	at := noon
	now := func() time.Time { return at }
	ask := func() Operation {
		t.Helper()
		op, err := New(w.policy.caID, KindRevoke, ContentParams([]byte("list")), at, 0)
		if err != nil {
			t.Fatal(err)
		}
		return op
	}
	agreed := func(op Operation) []Approval { return []Approval{w.alice.approve(t, op), w.bob.approve(t, op)} }
	s, err := OpenStore(w.dir, now)
	if err != nil {
		t.Fatal(err)
	}
	file, stored, waiting := ask(), ask(), ask()
	waiting.Params[ParamCount] = "1" // not the same request
	for _, op := range []Operation{stored, waiting} {
		if _, err := s.Propose(op, "c", []byte("list")); err != nil {
			t.Fatal(err)
		}
	}
	for _, a := range agreed(stored) {
		if _, _, err := s.Approve(w.policy, stored.ID(), a); err != nil {
			t.Fatal(err)
		}
	}
	if ids := s.Unfinished(); len(ids) != 1 {
		t.Fatal(ids)
	}

	at = at.Add(time.Minute)
	if err := oplog.MarkRestored(w.dir, oplog.Restored{Restored: at}); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		p := w.load()
		if err := p.Verify(file, agreed(file), at); err == nil || !strings.Contains(err.Error(), "restored") {
			t.Fatalf("carried out an operation from before: %v", err)
		}
		if s, err = OpenStore(w.dir, now); err != nil {
			t.Fatal(err)
		}
		if ids := s.Unfinished(); len(ids) != 0 {
			t.Fatal(ids)
		}
		for _, op := range []Operation{stored, waiting} {
			if r, err := s.Get(op.ID()); err != nil || r.State != Failed || !strings.Contains(r.Error, "restored") {
				t.Fatalf("%+v, %v", r, err)
			}
		}
		if i == 0 {
			if err := os.Remove(filepath.Join(w.dir, oplog.RestoredFile)); err != nil {
				t.Fatal(err)
			}
		}
	}
	at = at.Add(time.Minute)
	op := ask()
	if err := w.load().Verify(op, agreed(op), at); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(w.dir, stateDir, restoredFile), []byte("yesterday\n"))
	if _, err := LoadPolicy(w.dir); err == nil {
		t.Fatal("a damaged time is taken")
	}
}
