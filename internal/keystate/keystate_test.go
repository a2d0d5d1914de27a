package keystate

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
)

const testKey = "00ff"

var testTime = time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)

func change(to State) Change {
	return Change{To: to, By: "alice", How: "token", Why: "because", At: testTime}
}

// in returns the history of a new key that went through the given states.
func in(t *testing.T, path ...State) *Store {
	t.Helper()
	s, err := Create(filepath.Join(t.TempDir(), File), testKey, change(path[0]))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // a second time, perhaps
	for _, to := range path[1:] {
		if _, err := s.Change(change(to)); err != nil {
			t.Fatalf("%s: %v", to, err)
		}
	}
	return s
}

// Every pair of states: what may follow, and that what may not leaves no trace.
func TestTransitions(t *testing.T) {
	life := map[State][]State{
		Generated: {Generated}, Active: {Generated, Active}, Suspended: {Generated, Active, Suspended},
		Retired: {Generated, Active, Retired}, Destroyed: {Generated, Active, Retired, Destroyed},
	}
	allowed := map[[2]State]bool{
		{Generated, Active}: true, {Generated, Destroyed}: true,
		{Active, Suspended}: true, {Active, Retired}: true,
		{Suspended, Active}: true, {Suspended, Retired}: true, {Suspended, Destroyed}: true,
		{Retired, Suspended}: true, {Retired, Destroyed}: true,
	}
	check := func(path []State, to State, want bool) {
		t.Run(fmt.Sprintf("%s to %s", path, to), func(t *testing.T) {
			s := in(t, path...)
			before := s.Last()
			r, err := s.Change(change(to))
			if (err == nil) != want {
				t.Fatalf("allowed: %t, want %t: %v", err == nil, want, err)
			}
			if !want {
				we := new(wire.Error)
				if !errors.As(err, &we) || we.Field != "to" || we.Value != string(to) || s.Last() != before {
					t.Fatalf("%v; %+v", err, s.Last())
				}
				return
			}
			if r.From != before.To || r.To != to || r.Seq != before.Seq+1 || s.Last() != r {
				t.Fatalf("%+v", r)
			}
		})
	}
	for _, from := range States {
		for _, to := range States {
			check(life[from], to, allowed[[2]State{from, to}])
		}
	}
	// Suspended while retired: issuing certificates is over.
	for _, to := range States {
		check([]State{Generated, Active, Retired, Suspended}, to, to == Retired || to == Destroyed)
	}
}

func TestUses(t *testing.T) {
	want := map[State][]Use{Active: {Certificates, Responders, CRLs}, Retired: {Responders, CRLs}}
	for _, s := range States {
		for _, u := range []Use{Certificates, Responders, CRLs} {
			may := false
			for _, w := range want[s] {
				may = may || w == u
			}
			r := Record{To: s, Time: testTime, By: "alice", Why: "stolen laptop"}
			err := r.Usable(u)
			if s.Allows(u) != may || (err == nil) != may {
				t.Errorf("%s, %s: %t, %v", s, u, s.Allows(u), err)
			}
			if err == nil {
				continue
			}
			for _, part := range []string{string(s), "2026-05-04T03:02:01Z", "alice", "stolen laptop", string(u)} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%v does not have %q", err, part)
				}
			}
		}
	}
}

func TestHistoryIsThereAfterACrash(t *testing.T) {
	s := in(t, Generated, Active, Suspended)
	if _, err := Open(s.path, testKey); !errors.Is(err, ErrLocked) {
		t.Fatalf("a second process may change it: %v", err)
	}
	history := s.History()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Change(change(Active)); err == nil {
		t.Fatal("changed after Close")
	}
	whole, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	// Killed while the last record was written, at every octet.
	last := bytes.LastIndexByte(whole[:len(whole)-1], '\n') + 1
	for cut := last; cut < len(whole); cut++ {
		if err := os.WriteFile(s.path, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := Open(s.path, testKey)
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if got.Last() != history[1] {
			t.Fatalf("cut at %d: %+v", cut, got.Last())
		}
		r, err := got.Change(change(Suspended))
		if err != nil || r != history[2] {
			t.Fatalf("cut at %d: %+v, %v", cut, r, err)
		}
		if err := got.Close(); err != nil {
			t.Fatal(err)
		}
		if again, err := os.ReadFile(s.path); err != nil || !bytes.Equal(again, whole) {
			t.Fatalf("cut at %d: %q, %v", cut, again, err)
		}
	}
	read, err := Read(s.path, testKey)
	if err != nil || StateOf(read) != Suspended || len(read) != 3 {
		t.Fatalf("%+v, %v", read, err)
	}
}

// Whoever changes, takes out or moves a record is found out, unless it is the last one that is missing.
func TestTamperingIsDetected(t *testing.T) {
	s := in(t, Generated, Active, Retired, Suspended)
	data, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	if _, whole, err := ParseHistory(data, testKey); err != nil || whole != len(data) {
		t.Fatal(whole, err)
	}
	lines := bytes.SplitAfter(data, []byte("\n"))[:4]
	join := func(i ...int) []byte {
		var out []byte
		for _, n := range i {
			out = append(out, lines[n]...)
		}
		return out
	}
	for name, bad := range map[string][]byte{
		"other who":     bytes.Replace(data, []byte(`"by":"alice"`), []byte(`"by":"mallo"`), 1),
		"other state":   bytes.Replace(data, []byte(`"to":"retired"`), []byte(`"to":"active"`), 1),
		"taken out":     join(0, 2, 3),
		"moved":         join(0, 2, 1, 3),
		"first gone":    join(1, 2, 3),
		"doubled":       join(0, 1, 1, 2, 3),
		"another form":  bytes.Replace(data, []byte(`"seq":1`), []byte(`"seq": 1`), 1),
		"unknown field": bytes.Replace(data, []byte(`{"seq":1`), []byte(`{"x":0,"seq":1`), 1),
		"not JSON":      append(bytes.Clone(data), "x\n"...),
	} {
		if _, _, err := ParseHistory(bad, testKey); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, _, err := ParseHistory(data, "ff00"); err == nil {
		t.Error("another key's history is accepted")
	}
}

func TestAKeyWithoutAHistoryIsActive(t *testing.T) {
	path := filepath.Join(t.TempDir(), File)
	history, err := Read(path, testKey)
	if err != nil || StateOf(history) != Active {
		t.Fatal(history, err)
	}
	s, err := Open(path, testKey)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if r := s.Last(); r.To != Active || r.Seq != 1 || r.Why != adopted {
		t.Fatalf("%+v", r)
	}
}

func TestEmptyAndHostileTextIsRefused(t *testing.T) {
	s := in(t, Generated)
	for name, c := range map[string]Change{
		"nobody":    {To: Active, How: "token", Why: "x"},
		"no reason": {To: Active, By: "a", How: "token"},
		"newline":   {To: Active, By: "a", How: "token", Why: "x\ny"},
		"no UTF-8":  {To: Active, By: "\xff", How: "token", Why: "x"},
		"long":      {To: Active, By: "a", How: "token", Why: strings.Repeat("x", maxWhy+1)},
	} {
		if _, err := s.Change(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if s.Last().To != Generated {
		t.Fatal(s.Last())
	}
}

func FuzzParseHistory(f *testing.F) {
	f.Add([]byte(""))
	f.Add([]byte("{}\n"))
	f.Add([]byte(`{"seq":1,"key":"00ff","to":"generated","time":"2026-05-04T03:02:01Z","by":"alice","how":"token","why":"because","prev":""}` + "\n"))
	f.Add([]byte(`{"seq":1,"key":"00ff","to":"active","time":"2026-05-04T03:02:01Z","by":"a","how":"b","why":"c","prev":""}` + "\n" + `{"seq":2,`))
	f.Fuzz(func(t *testing.T, data []byte) {
		history, whole, err := ParseHistory(data, testKey)
		if err != nil {
			return
		}
		// What is accepted can be continued.
		path := filepath.Join(t.TempDir(), File)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(path, testKey)
		if err != nil {
			t.Fatalf("%d records, %d octets: %v", len(history), whole, err)
		}
		if n := len(s.History()); n != max(1, len(history)) {
			t.Fatalf("%d records, then %d", len(history), n)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
