package witness

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/transparency-dev/merkle/compact"
	"golang.org/x/mod/sumdb/note"

	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/tlogproof"
)

// forks has the watch see n roots of one size that no log has, signed by the same keys.
func (b *bench) forks(n int, mark byte, by ...note.Signer) (err error) {
	b.t.Helper()
	for i := range n {
		cp := &tlogproof.Checkpoint{Origin: origin, Size: 9, Root: [32]byte{mark, byte(i), byte(i >> 8)}}
		if err = b.server.cfg.Watch.Compare(b.sign(cp, by...), b.log); !errors.Is(err, ErrSplitView) {
			b.t.Fatalf("fork %d: %v", i, err)
		}
	}
	return err
}

// TestOneSignerCannotCrowdOutTheEvidenceAgainstOthers: each signed root raises the alarm, and what is kept is bounded for each set of signers.
func TestOneSignerCannotCrowdOutTheEvidenceAgainstOthers(t *testing.T) {
	b := newBench(t, 9)
	one, two := b.c.Orgs[1].Log, b.c.Orgs[2].Log
	const many = 3 * maxPerSigners
	if err := b.forks(many, 1, one); !errors.Is(err, ErrNotKept) {
		t.Errorf("beyond the limit: %v", err)
	}
	if n := len(b.alarmed()); n != many {
		t.Errorf("%d alarms of %d signed roots", n, many)
	}
	if _ = b.forks(many, 1, one); len(b.alarmed()) != many { // the peers are looked at again at each Tick
		t.Errorf("%d alarms when the same is seen again", len(b.alarmed()))
	}
	if err := b.forks(2, 2, two); errors.Is(err, ErrNotKept) {
		t.Errorf("another signer: %v", err)
	}
	if err := b.forks(1, 3, two, one); errors.Is(err, ErrNotKept) {
		t.Errorf("both: %v", err)
	}
	want := []string{one.Name(), two.Name(), one.Name() + "\n" + two.Name()}
	for _, what := range []string{"at once", "after a restart"} {
		all := b.server.cfg.Watch.All()
		if len(all) != maxPerSigners+3 {
			t.Fatalf("%s: %d pieces are kept", what, len(all))
		}
		var first []string
		for _, e := range all[:3] {
			first = append(first, setOf(e.Signers))
		}
		if slices.Sort(first); !slices.Equal(first, slices.Sorted(slices.Values(want))) {
			t.Errorf("%s: the list begins with %q", what, first)
		}
		b.start()
	}
	if err := b.forks(1, 4, one); !errors.Is(err, ErrNotKept) || len(b.alarmed()) != many+4 {
		t.Errorf("the limit after a restart: %v, %d alarms", err, len(b.alarmed()))
	}
}

// TestAFullShelfHasRoomForAnotherCulprit, since no set of signers may hide a key that nothing else convicts.
func TestAFullShelfHasRoomForAnotherCulprit(t *testing.T) {
	s, err := openShelf(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxEvidence {
		s.put(string(rune(i)), &Evidence{Signers: []string{"a", string(rune('b' + i))}})
	}
	if isNew, err := s.keep("1.evidence", &Evidence{Signers: []string{"a"}}); !isNew || !errors.Is(err, ErrNotKept) {
		t.Errorf("of a convicted key: %v, %v", isNew, err)
	}
	if isNew, err := s.keep("2.evidence", &Evidence{Signers: []string{"a", "Z"}}); !isNew || err != nil {
		t.Errorf("of another key: %v, %v", isNew, err)
	}
}

// TestAFullDiskDoesNotSilenceTheAlarm, and what could not be written is written when it can be, without another alarm.
func TestAFullDiskDoesNotSilenceTheAlarm(t *testing.T) {
	b := newBench(t, 9)
	dir := filepath.Join(b.dir, "evidence")
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := b.forks(1, 1, b.c.Orgs[1].Log); err == nil || !strings.Contains(err.Error(), dir) || len(b.alarmed()) != 1 {
		t.Errorf("%v, %d alarms", err, len(b.alarmed()))
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := b.forks(1, 1, b.c.Orgs[1].Log); errors.Is(err, ErrNotKept) {
		t.Error(err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 || len(b.alarmed()) != 1 {
		t.Errorf("%d files, %v, %d alarms", len(files), err, len(b.alarmed()))
	}
}

// TestDamagedEvidenceIsNotTakenForNone: it says which file.
func TestDamagedEvidenceIsNotTakenForNone(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "1.evidence"), []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openShelf(dir); err == nil || !strings.Contains(err.Error(), "1.evidence") {
		t.Errorf("%v", err)
	}
}

// closing is a log whose store closes after some reads.
type closing struct {
	merklelog.Log
	reads int
}

var errClosed = errors.New("store is closed")

func (c *closing) Nodes(ids []compact.NodeID) ([][]byte, error) {
	if c.reads--; c.reads < 0 {
		return nil, errClosed
	}
	return c.Log.Nodes(ids)
}

// TestALogThatCannotBeReadIsNotForked: a bridge that ends, or whose disk fails, must not halt for good.
func TestALogThatCannotBeReadIsNotForked(t *testing.T) {
	b := newBench(t, 9)
	b.mustAdd(0, 5)
	body := b.body(b.log, 5, 9)
	log := &closing{Log: b.log}
	b.server.cfg.Logs = func(string) (merklelog.Log, bool) { return log, true }
	for reads := range 2 { // the first is of the checkpoint's root, the second of what was cosigned
		log.reads = reads
		if _, err := b.server.add(t.Context(), []byte(body)); !errors.Is(err, errClosed) || errors.Is(err, ErrForked) {
			t.Errorf("after %d reads: %v", reads, err)
		}
	}
	log.reads = 2
	if _, err := b.server.add(t.Context(), []byte(body)); err != nil {
		t.Errorf("when it can be read again: %v", err)
	}
}
