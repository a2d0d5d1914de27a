package dual

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestRemovedPolicyIsMissed(t *testing.T) {
	w := newWorld(t)
	path := filepath.Join(w.dir, PolicyFile)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadPolicy(w.dir); !errors.Is(err, ErrRemoved) {
		t.Fatalf("removed: %v", err)
	}
	write(t, path, policyFile(t, func(f *policyJSON) { f.Rules.Export = false }, w.alice, w.bob, w.eve))
	if _, err := LoadPolicy(w.dir); !errors.Is(err, ErrNotApproved) {
		t.Fatalf("changed: %v", err)
	}
	write(t, path, text)
	w.load()
	write(t, filepath.Join(w.dir, stateDir, stateFile), []byte("{}"))
	if _, err := LoadPolicy(w.dir); err == nil {
		t.Fatal("a damaged state is taken")
	}
}

func TestPolicyChangesUnderTheOldOne(t *testing.T) {
	w := newWorld(t)
	carol := newPerson(t, "carol", RoleAdministrator)
	next := policyFile(t, nil, w.alice, carol)
	op, err := w.policy.NewReplacement(KindPolicy, next, noon)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.policy.Apply(op, []Approval{w.alice.approve(t, op), carol.approve(t, op)}, next, noon); err == nil {
		t.Fatal("the new operators approved themselves")
	}
	both := []Approval{w.alice.approve(t, op), w.bob.approve(t, op)}
	if err := w.policy.Apply(op, both, policyFile(t, nil, w.alice, carol, w.eve), noon); err == nil {
		t.Fatal("another policy was put in place than the one that was signed")
	}
	if err := w.policy.Apply(op, both, next, noon); err != nil {
		t.Fatal(err)
	}
	p := w.load()
	if p.Digest() != Digest(next) {
		t.Fatal("the old one is in force")
	}
	if err := w.policy.Apply(op, both, next, noon); err != nil {
		t.Fatalf("repeated: %v", err)
	}
	// Back to the first, with what was signed under it.
	first := policyFile(t, nil, w.alice, w.bob, w.eve)
	back, err := p.NewReplacement(KindPolicy, first, noon)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Apply(back, []Approval{w.alice.approve(t, back), w.bob.approve(t, back)}, first, noon); err == nil {
		t.Fatal("one who is no operator any more approved")
	}
	if err := p.Apply(back, []Approval{w.alice.approve(t, back), carol.approve(t, back)}, first, noon); err != nil {
		t.Fatal(err)
	}
	if err := w.load().Apply(op, both, next, noon); err == nil || !strings.Contains(err.Error(), "used already") {
		t.Fatalf("an old approval was used again: %v", err)
	}
}

func TestProfilesNeedApproval(t *testing.T) {
	w := newWorld(t)
	path := filepath.Join(w.dir, profilesFile)
	if err := w.policy.CheckProfiles([]byte(`{"signing":{}}`)); err != nil {
		t.Fatalf("those of when the policy came: %v", err)
	}
	next := []byte(`{"signing":{"x":1}}`)
	if err := w.policy.CheckProfiles(next); !errors.Is(err, ErrNotApproved) {
		t.Fatal(err)
	}
	op, err := w.policy.NewReplacement(KindProfiles, next, noon)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.policy.Apply(op, []Approval{w.alice.approve(t, op), w.eve.approve(t, op)}, next, noon); err == nil {
		t.Fatal("an operator of the wrong role approved")
	}
	if err := w.policy.Apply(op, []Approval{w.alice.approve(t, op), w.bob.approve(t, op)}, next, noon); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(path); err != nil || w.policy.CheckProfiles(data) != nil || string(data) != string(next) {
		t.Fatal(string(data), err)
	}
	if err := w.policy.CheckProfiles([]byte(`{"signing":{}}`)); !errors.Is(err, ErrNotApproved) {
		t.Fatalf("the old ones: %v", err)
	}
}

// A rule for profiles that comes later takes those that its operators saw, not those that somebody put there in the meantime.
func TestLaterRuleForProfiles(t *testing.T) {
	w := newWorld(t)
	free := policyFile(t, func(f *policyJSON) { f.Rules.Profiles = false }, w.alice, w.bob)
	dir, _ := newCADir(t)
	write(t, filepath.Join(dir, PolicyFile), free)
	p, err := LoadPolicy(dir)
	if err != nil {
		t.Fatal(err)
	}
	edited := []byte(`{"signing":{"edited":1}}`)
	write(t, filepath.Join(dir, profilesFile), edited)
	strict := policyFile(t, nil, w.alice, w.bob)
	op, err := p.NewReplacement(KindPolicy, strict, noon)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, profilesFile), []byte(`{"signing":{"smuggled":1}}`))
	if err := p.Apply(op, []Approval{w.alice.approve(t, op), w.bob.approve(t, op)}, strict, noon); err != nil {
		t.Fatal(err)
	}
	if p, err = LoadPolicy(dir); err != nil {
		t.Fatal(err)
	}
	if err := p.CheckProfiles([]byte(`{"signing":{"smuggled":1}}`)); !errors.Is(err, ErrNotApproved) {
		t.Fatal(err)
	}
	if err := p.CheckProfiles(edited); err != nil {
		t.Fatal(err)
	}
}

// Killed at any write, the CA starts, with the old policy or the new one, and repeating finishes.
func TestApplySurvivesEveryCrash(t *testing.T) {
	for step := range 3 {
		w := newWorld(t)
		next := policyFile(t, nil, w.alice, w.bob)
		op, err := w.policy.NewReplacement(KindPolicy, next, noon)
		if err != nil {
			t.Fatal(err)
		}
		both := []Approval{w.alice.approve(t, op), w.bob.approve(t, op)}
		// What the directory looks like after the first, second and third write.
		st, err := readState(w.dir)
		if err != nil {
			t.Fatal(err)
		}
		st.NextPolicy = Digest(next)
		if err := st.write(w.dir); err != nil {
			t.Fatal(err)
		}
		if step > 0 {
			if err := w.policy.spend(op, byFile, noon); err != nil {
				t.Fatal(err)
			}
		}
		if step > 1 {
			write(t, filepath.Join(w.dir, PolicyFile), next)
		}
		p := w.load()
		if want := map[bool]string{true: Digest(next), false: w.policy.Digest()}[step > 1]; p.Digest() != want {
			t.Fatalf("step %d: the other policy", step)
		}
		if err := p.Apply(op, both, next, noon); err != nil {
			t.Fatalf("step %d: %v", step, err)
		}
		if w.load().Digest() != Digest(next) {
			t.Fatalf("step %d: not in place", step)
		}
		if err := w.load().Verify(op, both, noon); err == nil {
			t.Fatalf("step %d: the operation was not used up", step)
		}
	}
}

func TestAdoptIsForTheFirst(t *testing.T) {
	dir, _ := newCADir(t)
	a, b := newPerson(t, "a", RoleAdministrator), newPerson(t, "b", RoleAdministrator)
	if err := Adopt(dir, []byte("{}")); err == nil {
		t.Fatal("no policy was adopted")
	}
	if err := Adopt(dir, policyFile(t, nil, a, b)); err != nil {
		t.Fatal(err)
	}
	if err := Adopt(dir, policyFile(t, nil, b, a)); !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, PolicyFile)); err != nil {
		t.Fatal(err)
	}
	if err := Adopt(dir, policyFile(t, nil, b, a)); !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
}

func TestApprovalFilesAreAboutOneOperation(t *testing.T) {
	w := newWorld(t)
	op, other := w.op(KindExport, nil), w.op(KindExport, nil)
	data, err := MarshalApproval(op, w.alice.approve(t, op))
	if err != nil {
		t.Fatal(err)
	}
	a, err := ParseApproval(op, data)
	if err != nil || w.policy.CheckApproval(op, a, noon) != nil {
		t.Fatal(a, err)
	}
	if _, err := ParseApproval(other, data); err == nil {
		t.Fatal("taken for another operation")
	}
}

func TestWindowCountsWhatWentBefore(t *testing.T) {
	w := newWorld(t)
	now := noon
	s, err := OpenStore(w.dir, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	take := func(n int, want bool) {
		t.Helper()
		if got, err := s.Take(w.policy, n); err != nil || got != want {
			t.Fatalf("%d more: %t, %v", n, got, err)
		}
	}
	take(101, false)
	take(60, true)
	now = now.Add(12 * time.Hour)
	take(40, true)
	take(1, false)
	if s, err = OpenStore(w.dir, func() time.Time { return now }); err != nil { // restarted
		t.Fatal(err)
	}
	take(1, false)
	now = now.Add(13 * time.Hour) // the first 60 have left the window
	take(61, false)
	take(60, true)
	take(1, false)
	if free, err := s.Take(nil, 1<<20); !free || err != nil {
		t.Fatal(free, err)
	}
}

// Lost keys do not lock a CA up; what was in force is remembered, and the next policy is a first one again.
func TestAbandonedPolicyIsRemembered(t *testing.T) {
	w := newWorld(t)
	if err := Abandon(w.dir); err != nil {
		t.Fatal(err)
	}
	if p, err := LoadPolicy(w.dir); p != nil || err != nil {
		t.Fatal(p, err)
	}
	if err := Abandon(w.dir); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	next := policyFile(t, nil, w.alice, w.eve, newPerson(t, "carol", RoleAdministrator))
	if err := Adopt(w.dir, next); err != nil {
		t.Fatal(err)
	}
	for digest, want := range map[string]bool{w.policy.Digest(): true, Digest(next): true, Digest(nil): false} {
		if got, err := Succeeds(w.dir, digest); err != nil || got != want {
			t.Errorf("%s: %t, %v", digest, got, err)
		}
	}
	if got, err := Succeeds(t.TempDir(), Digest(next)); got || err != nil {
		t.Error("an empty directory succeeds a policy", err)
	}
}
