package ca

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/dual"
	"github.com/certanchor/certanchor/internal/keystate"
	"github.com/certanchor/certanchor/internal/oplog"
)

// askResume asks for a suspended key to be resumed, which must need approvals.
func (w *world) askResume(why string) *caapi.Operation {
	w.t.Helper()
	_, err := w.client("administrator").ChangeKey(w.t.Context(), caapi.KeyRequest{To: "active", Why: why})
	p, ok := errors.AsType[*caapi.PendingError](err)
	if !ok {
		w.t.Fatalf("no approvals are asked for: %v", err)
	}
	return p.Operation
}

// One operator suspends, two resume; and an approval is for one suspension.
func TestResumingNeedsTwoOperators(t *testing.T) {
	w, s := dualWorld(t, `{"resume_key":true}`)
	issue := func() error {
		_, err := w.server.Issue(t.Context(), Request{CSR: newCSR(t, nil), Profile: "server"})
		return err
	}
	w.key("suspended", "stolen")
	op := w.askResume("it was found")
	for _, part := range []string{"it was found", "active", w.server.CAID().String(), "administrator"} {
		if op.Kind != dual.KindKeyResume || !strings.Contains(op.Text, part) {
			t.Errorf("the operators read %q, without %q", op.Text, part)
		}
	}
	admin := w.client("administrator")
	approve := func(op *caapi.Operation, name string) *caapi.Operation {
		t.Helper()
		got, err := admin.Approve(t.Context(), op.ID, s.sign(t, name, op))
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := approve(op, "alice"); got.State != dual.Pending || issue() == nil {
		t.Fatalf("resumed by one: %+v", got)
	}
	stale := w.askResume("another try") // about the same suspension
	if got := approve(op, "bob"); got.State != dual.Done {
		t.Fatalf("%+v", got)
	}
	if err := issue(); err != nil {
		t.Fatal(err)
	}
	if last := w.server.custody.states.Last(); last.By != "administrator" || last.Why != "it was found" || !strings.Contains(last.How, "approved") {
		t.Errorf("%+v", last)
	}

	w.key("suspended", "stolen again")
	approve(stale, "alice")
	if got := approve(stale, "bob"); got.State != dual.Failed || !strings.Contains(got.Error, "earlier suspension") || issue() == nil {
		t.Fatalf("an old approval has resumed the key: %+v", got)
	}
	// The command on the directory does not go around it either.
	if err := w.server.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := ChangeKeyOffline(w.dir, "", KeyChange{To: keystate.Active, By: "root", Why: "x"}); err == nil || !strings.Contains(err.Error(), "several operators") {
		t.Fatal(err)
	}
}

func TestKeyOfACAThatDoesNotRun(t *testing.T) {
	w := newKeyWorld(t, nil)
	change := func(c KeyChange) error {
		c.By, c.Why = "alice", "no bridge"
		_, err := ChangeKeyOffline(w.dir, "", c)
		return err
	}
	if err := change(KeyChange{To: keystate.Suspended}); !errors.Is(err, oplog.ErrLocked) || !strings.Contains(err.Error(), "--ca-url") {
		t.Fatalf("changed behind the running CA's back: %v", err)
	}
	if err := w.server.Close(); err != nil {
		t.Fatal(err)
	}
	if err := change(KeyChange{To: keystate.Suspended}); err != nil {
		t.Fatal(err)
	}
	k, err := KeyOffline(w.dir, "")
	if err != nil || k.State != "suspended" || k.By != "alice" || k.How != commandLine {
		t.Fatalf("%+v, %v", k, err)
	}
	id := w.server.CAID().String()
	if err := change(KeyChange{To: keystate.Destroyed, Confirm: id}); err == nil || !strings.Contains(err.Error(), w.server.issuer.cert.NotAfter.UTC().Format(time.RFC3339)) {
		t.Fatal(err)
	}
	for range 2 { // a second time finishes what a crash has left, and harms nothing
		if err := change(KeyChange{To: keystate.Destroyed, Confirm: id, Force: true}); err != nil {
			t.Fatal(err)
		}
	}
	if k, err := KeyOffline(w.dir, id); err != nil || k.State != "destroyed" {
		t.Fatalf("%+v, %v", k, err)
	}
}
