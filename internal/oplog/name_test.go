package oplog

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
)

func called(t *testing.T, dir, name string) (*Log, error) {
	t.Helper()
	return OpenWith(dir, Options{Log: quiet, Name: &name})
}

func mustBeCalled(t *testing.T, dir, name string) *Log {
	t.Helper()
	l, err := called(t, dir, name)
	if err != nil {
		t.Fatal(err)
	}
	if l.Name() != name {
		t.Fatalf("it is called %q, want %q", l.Name(), name)
	}
	return l
}

func TestLogSaysItsNameInEachGeneration(t *testing.T) {
	dir := newDir(t)
	l := mustBeCalled(t, dir, "bridge-2")
	fill(t, l, 4)
	lost := head(t, l)
	lost.Size++
	shut(t, l)
	l = open(t, dir) // as a command does that knows no name
	if l.Name() != "bridge-2" {
		t.Fatalf("it is called %q", l.Name())
	}
	shut(t, l)
	if err := MarkRestored(dir, Restored{Restored: time.Now(), From: "test", Name: "bridge-2"}); err != nil {
		t.Fatal(err)
	}
	l = mustBeCalled(t, dir, "bridge-2")
	if err := l.Settle(&lost); err != nil || l.Generation() != 1 {
		t.Fatalf("generation %d, %v", l.Generation(), err)
	}
	shut(t, l)
	for g := range uint64(2) {
		if _, name, err := NameIn(filepath.Join(dir, DirName, fileName(g))); err != nil || name != "bridge-2" {
			t.Fatalf("generation %d is called %q, %v", g, name, err)
		}
	}
	for _, other := range []string{"", "bridge-3"} {
		if l, err := called(t, dir, other); err == nil || !strings.Contains(err.Error(), `is called "bridge-2", and ca.operators_log.name says`) {
			t.Fatalf("as %q: %v, %v", other, l, err)
		}
	}
	files, err := Files(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"bridge-2": 0, "": 2} {
		r, err := Verify(files, caIDIn(t, dir), name, false, nil, nil)
		if err != nil || len(r.Differences) != want {
			t.Fatalf("as %q: %+v, %v", name, r, err)
		}
	}
}

func caIDIn(t *testing.T, dir string) wire.CAID {
	t.Helper()
	id, _, err := NameIn(filepath.Join(dir, DirName, fileName(0)))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// What a bridge leaves that was started without a name, and so refused, is taken under its name; a log with records is not.
func TestLogWithNothingInItTakesAName(t *testing.T) {
	dir := newDir(t)
	shut(t, mustBeCalled(t, dir, ""))
	l := mustBeCalled(t, dir, "bridge-2")
	fill(t, l, 3)
	shut(t, l)
	shut(t, mustBeCalled(t, dir, "bridge-2"))

	dir = newDir(t)
	l = mustBeCalled(t, dir, "")
	fill(t, l, 2)
	shut(t, l)
	if l, err := called(t, dir, "bridge-2"); err == nil || !strings.Contains(err.Error(), "move the directory away") {
		t.Fatalf("%v, %v", l, err)
	}
	shut(t, mustBeCalled(t, dir, ""))
	if err := os.RemoveAll(filepath.Join(dir, DirName)); err != nil {
		t.Fatal(err)
	}
	shut(t, mustBeCalled(t, dir, "bridge-2"))
	if l, err := called(t, newDir(t), "Bridge 2"); err == nil || !strings.Contains(err.Error(), "a-z") {
		t.Fatalf("%v, %v", l, err)
	}
}
