package dual

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
)

func (w *world) store(now func() time.Time) *Store {
	w.t.Helper()
	s, err := OpenStore(w.dir, now)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *world) propose(s *Store, contents string, now time.Time) *Record {
	w.t.Helper()
	op, err := New(w.id, KindRevoke, ContentParams([]byte(contents)), now, time.Hour)
	if err != nil {
		w.t.Fatal(err)
	}
	r, err := s.Propose(op, "client", []byte(contents))
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func at(t time.Time) func() time.Time { return func() time.Time { return t } }

func TestOperationOutlivesTheProcess(t *testing.T) {
	w := newWorld(t)
	s := w.store(at(noon))
	r := w.propose(s, "list", noon)
	id := r.Operation.ID()
	if r, complete, err := s.Approve(w.policy, id, w.alice.approve(t, r.Operation)); err != nil || complete || r.State != Pending {
		t.Fatal(r, complete, err)
	}
	s = w.store(at(noon))
	if data, err := s.Payload(id); err != nil || string(data) != "list" {
		t.Fatal(string(data), err)
	}
	if r, complete, err := s.Approve(w.policy, id, w.alice.approve(t, r.Operation)); err != nil || complete || len(r.Approvals) != 1 {
		t.Fatal("the same operator completes it", complete, err)
	}
	if r, complete, err := s.Approve(w.policy, id, w.eve.approve(t, r.Operation)); err != nil || !complete || r.State != Approved {
		t.Fatal(r, complete, err)
	}
	s = w.store(at(noon.Add(48 * time.Hour)))
	if ids := s.Unfinished(); len(ids) != 1 || ids[0] != id {
		t.Fatal("not to be finished", ids)
	}
	if _, err := s.Finish(id, json.RawMessage(`{"done":1}`), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Finish(id, nil, nil); err == nil {
		t.Fatal("finished twice")
	}
	if r, err := w.store(at(noon.Add(48 * time.Hour))).Get(id); err != nil || r.State != Done || string(r.Result) != `{"done":1}` {
		t.Fatal(r, err)
	}
	// What a store has carried out is used up for files too.
	if err := w.policy.Verify(r.Operation, []Approval{w.alice.approve(t, r.Operation), w.bob.approve(t, r.Operation)}, noon); err == nil {
		t.Fatal("used twice")
	}
}

func TestTwoLastApprovalsCompleteOnce(t *testing.T) {
	w := newWorld(t)
	s := w.store(at(noon))
	r := w.propose(s, "list", noon)
	id := r.Operation.ID()
	if _, _, err := s.Approve(w.policy, id, w.alice.approve(t, r.Operation)); err != nil {
		t.Fatal(err)
	}
	var completed atomic.Int32
	var group sync.WaitGroup
	for _, who := range []person{w.bob, w.eve, w.bob, w.eve} {
		a := who.approve(t, r.Operation)
		group.Go(func() {
			if _, complete, err := s.Approve(w.policy, id, a); complete && err == nil {
				completed.Add(1)
			}
		})
	}
	group.Wait()
	if n := completed.Load(); n != 1 {
		t.Fatalf("completed %d times", n)
	}
}

func TestRejectedAndExpiredStayInTheList(t *testing.T) {
	w := newWorld(t)
	now := noon
	s := w.store(func() time.Time { return now })
	no, late := w.propose(s, "no", noon), w.propose(s, "late", noon)
	if _, err := s.Reject(w.policy, no.Operation.ID(), w.alice.approve(t, no.Operation)); err == nil {
		t.Fatal("an approval rejects")
	}
	r, err := s.Reject(w.policy, no.Operation.ID(), w.alice.sign(t, no.Operation.RejectionBytes()))
	if err != nil || r.State != Rejected || r.Rejection.Operator != "alice" {
		t.Fatal(r, err)
	}
	if _, _, err := s.Approve(w.policy, no.Operation.ID(), w.bob.approve(t, no.Operation)); err == nil || !strings.Contains(err.Error(), "must be pending") {
		t.Fatal(err)
	}
	now = noon.Add(time.Hour)
	if _, _, err := s.Approve(w.policy, late.Operation.ID(), w.bob.approve(t, late.Operation)); err == nil || !strings.Contains(err.Error(), Expired) {
		t.Fatal(err)
	}
	now = noon.Add(keepFor)
	if all, err := s.List(); err != nil || len(all) != 1 || all[0].State != Expired {
		t.Fatal(all, err)
	}
	now = noon.Add(keepFor + 2*time.Hour)
	if all, err := s.List(); err != nil || len(all) != 0 {
		t.Fatal(all, err)
	}
	if entries, err := os.ReadDir(s.path()); err != nil || len(entries) != 0 {
		t.Fatal(entries, err)
	}
}

func TestRepeatedRequestIsTheSameOperation(t *testing.T) {
	w := newWorld(t)
	s := w.store(at(noon))
	a, b, c := w.propose(s, "list", noon), w.propose(s, "list", noon.Add(time.Minute)), w.propose(s, "another", noon)
	if a.Operation.ID() != b.Operation.ID() || a.Operation.ID() == c.Operation.ID() {
		t.Fatal("not the same")
	}
}

func TestStoreIsBounded(t *testing.T) {
	w := newWorld(t)
	s := w.store(at(noon))
	for i := range maxPending - 1 {
		op := w.op(KindRevoke, ContentParams([]byte{byte(i)}))
		s.records[op.ID()] = &Record{Operation: op, State: Pending, Client: fmt.Sprint(i % 4)}
	}
	w.propose(s, "the last", noon)
	op, err := New(w.id, KindRevoke, ContentParams([]byte("more")), noon, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Propose(op, "client", []byte("more")); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Fatal(err)
	}
}

func TestOneClientLeavesRoomForOthers(t *testing.T) {
	w := newWorld(t)
	s := w.store(at(noon))
	for i := range maxOfClient {
		op := w.op(KindRevoke, ContentParams([]byte{byte(i)}))
		s.records[op.ID()] = &Record{Operation: op, State: Pending, Client: "busy"}
	}
	op := w.op(KindRevoke, ContentParams([]byte("more")))
	if _, err := s.Propose(op, "busy", []byte("more")); err == nil || !strings.Contains(err.Error(), "of one client") {
		t.Fatal(err)
	}
	if _, err := s.Propose(op, "another", []byte("more")); err != nil {
		t.Fatal(err)
	}
}

func TestContentsAreWhatWasSigned(t *testing.T) {
	w := newWorld(t)
	s := w.store(at(noon))
	r := w.propose(s, "list", noon)
	id := r.Operation.ID()
	write(t, s.path(id+".payload"), []byte("tsil"))
	if _, err := s.Payload(id); err == nil {
		t.Fatal("changed contents are taken")
	}
	if _, err := s.Propose(w.op(KindRevoke, ContentParams([]byte("x"))), "client", []byte("y")); err == nil {
		t.Fatal("other contents are taken")
	}
	if _, err := s.Get("../state"); err == nil {
		t.Fatal("a path is an ID")
	} else if we, ok := errors.AsType[*wire.Error](err); !ok || we.Code != wire.NotFound {
		t.Fatal(err)
	}
	// A record for another operation's file name, and one that is none.
	data, err := os.ReadFile(s.path(id + ".json"))
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(s.path(), strings.Repeat("0", 64)+".json")
	write(t, other, data)
	if _, err := OpenStore(w.dir, at(noon)); err == nil {
		t.Fatal("a record under another name is taken")
	}
	write(t, other, []byte("{}"))
	if _, err := OpenStore(w.dir, at(noon)); err == nil {
		t.Fatal("no record is taken")
	}
}

// A crash between the use of an operation and its record: the approval comes again.
func TestApprovalIsRepeatedAfterACrash(t *testing.T) {
	w := newWorld(t)
	s := w.store(at(noon))
	r := w.propose(s, "list", noon)
	if _, _, err := s.Approve(w.policy, r.Operation.ID(), w.alice.approve(t, r.Operation)); err != nil {
		t.Fatal(err)
	}
	if err := w.policy.spendInStore(r.Operation, noon); err != nil {
		t.Fatal(err)
	}
	if _, complete, err := w.store(at(noon)).Approve(w.policy, r.Operation.ID(), w.bob.approve(t, r.Operation)); err != nil || !complete {
		t.Fatal(complete, err)
	}
	// Contents whose record was never written are removed.
	stray := s.path(strings.Repeat("1", 64) + ".payload")
	write(t, stray, []byte("x"))
	w.store(at(noon))
	if _, err := os.Stat(stray); !errors.Is(err, os.ErrNotExist) {
		t.Fatal("stray contents are kept")
	}
}

func TestStoreApplies(t *testing.T) {
	w := newWorld(t)
	s := w.store(at(noon))
	next := []byte(`{"signing":{"y":1}}`)
	op, err := w.policy.NewReplacement(KindProfiles, next, noon)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Propose(op, "client", next); err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(w.policy, op.ID()); err == nil {
		t.Fatal("applied without approvals")
	}
	for _, who := range []person{w.alice, w.bob} {
		if _, _, err := s.Approve(w.policy, op.ID(), who.approve(t, op)); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // a crash may have come before Finish
		if err := w.store(at(noon.Add(48*time.Hour))).Apply(w.policy, op.ID()); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.policy.CheckProfiles(next); err != nil {
		t.Fatal(err)
	}
}
