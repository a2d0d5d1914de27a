package ctfront

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/internal/ctapi/ctapitest"
	"github.com/certanchor/certanchor/internal/ctleaf"
	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/merklelog/merklelogtest"
	"github.com/certanchor/certanchor/internal/sct"
)

// signedLog is a front that has signed a head of n entries.
func signedLog(t testing.TB, n int) (*org, *ctapitest.Ledger, []byte) {
	t.Helper()
	o, l := newOrg(t, "Org1MSP"), ctapitest.New(t)
	l.Fill(t, n)
	o.trust(l, l, l)
	return o, l, o.ask(l, "ct/v1/get-sth", nil).ok(t)
}

// fork is a log that has its first entries in common with l, and n others after them.
func fork(t testing.TB, l *ctapitest.Ledger, common uint64, n int) *merklelogtest.Memory {
	t.Helper()
	m := copyOf(t, l, common)
	for range n {
		der, at := l.Chain(t)[0], l.Head().Time+1
		leaf, err := ctleaf.X509(m.Head().Size, at, der)
		if err != nil {
			t.Fatal(err)
		}
		m.Append(at, merklelog.Entry{Kind: merklelog.X509, Time: at, Leaf: leaf, DER: der})
	}
	return m
}

func TestBackupRestoredThatForksTheLogIsNotSigned(t *testing.T) {
	const size = 9
	for name, others := range map[string]int{"to the size that is signed": 4, "beyond it": 7, "far beyond it": 300} {
		t.Run(name, func(t *testing.T) {
			o, l, _ := signedLog(t, size)
			o.setLog(l.CA.ID, fork(t, l, 5, others))
			o.restart()
			calls := l.Calls()
			for range 2 { // asking again does not help
				o.ask(l, "ct/v1/get-sth", nil).refused(t, http.StatusInternalServerError, "internal")
				o.ask(l, "static/checkpoint", nil).refused(t, http.StatusInternalServerError, "internal")
				o.ask(l, "ct/v1/get-proof-by-hash?hash="+strings.Repeat("A", 43)+"=&tree_size=5", nil).refused(t, http.StatusNotFound, "not_found")
				o.ask(l, "ct/v1/get-entry-and-proof?leaf_index=0&tree_size=9", nil).refused(t, http.StatusInternalServerError, "internal")
				o.ask(l, "ct/v1/add-chain", ctapitest.Body(l.Chain(t)...)).refused(t, http.StatusInternalServerError, "internal")
				o.ask(l, "ct/v1/get-entries?start=0&end=0", nil).refused(t, http.StatusInternalServerError, "internal")
				o.ask(l, "static/tile/0/000.p/9", nil).refused(t, http.StatusInternalServerError, "internal")
			}
			if l.Calls() != calls {
				t.Error("a submission reached the ledger of a forked log")
			}
		})
	}
}

func TestBackupRestoredSignsNothingUntilItHasCaughtUp(t *testing.T) {
	o, l, before := signedLog(t, 9)
	log := follow(l)
	log.pull(t, 5)
	o.setLog(l.CA.ID, log)
	o.restart()
	o.ask(l, "ct/v1/get-sth", nil).refused(t, http.StatusServiceUnavailable, "unavailable")
	o.ask(l, "static/checkpoint", nil).refused(t, http.StatusServiceUnavailable, "unavailable")
	o.ask(l, "ct/v1/add-pre-chain", ctapitest.Body(l.Chain(t, ctapitest.Poison)...)).refused(t, http.StatusServiceUnavailable, "unavailable")
	log.pull(t, 9)
	if again := o.ask(l, "ct/v1/get-sth", nil).ok(t); !bytes.Equal(again, before) {
		t.Errorf("head is %s, want the one signed before, %s", again, before)
	}
	l.Fill(t, 1)
	log.pull(t, 10)
	if next := o.ask(l, "ct/v1/get-sth", nil).ok(t); bytes.Equal(next, before) {
		t.Error("the log does not grow any more")
	}
}

func TestClockSetBackOverARestartGivesTheSameHead(t *testing.T) {
	o, l, _ := signedLog(t, 4)
	l.Append(ctapitest.Start + 90_000) // a tick
	ahead := o.ask(l, "ct/v1/get-sth", nil).ok(t)
	o.setLog(l.CA.ID, copyOf(t, l, 4)) // without the tick
	o.restart()
	if again := o.ask(l, "ct/v1/get-sth", nil).ok(t); !bytes.Equal(again, ahead) {
		t.Errorf("head is %s, want %s", again, ahead)
	}
}

func TestKilledWhileAHeadIsWritten(t *testing.T) {
	o, l, before := signedLog(t, 4)
	next := o.headPath(l.CA.ID) + ".next"
	if err := os.WriteFile(next, []byte(`{"ca_id":"`), 0o600); err != nil { // before it took its place
		t.Fatal(err)
	}
	o.restart()
	if again := o.ask(l, "ct/v1/get-sth", nil).ok(t); !bytes.Equal(again, before) {
		t.Errorf("head is %s, want %s", again, before)
	}
	l.Fill(t, 1)
	o.ask(l, "ct/v1/get-sth", nil).ok(t)
	o.restart()
	o.ask(l, "ct/v1/get-sth", nil).ok(t)
}

// Mammoth 2024: the disk was full in the middle of a batch.
func TestMammoth2024NoHeadLeavesThatCannotBeKept(t *testing.T) {
	o, l, before := signedLog(t, 4)
	next := o.headPath(l.CA.ID) + ".next"
	if err := os.Mkdir(next, 0o700); err != nil { // stands for whatever keeps the file from being written
		t.Fatal(err)
	}
	if again := o.ask(l, "ct/v1/get-sth", nil).ok(t); !bytes.Equal(again, before) {
		t.Error("a head that is kept needs no room")
	}
	l.Fill(t, 1)
	o.ask(l, "ct/v1/get-sth", nil).refused(t, http.StatusInternalServerError, "internal")
	o.ask(l, "static/checkpoint", nil).refused(t, http.StatusInternalServerError, "internal")
	if err := os.Remove(next); err != nil {
		t.Fatal(err)
	}
	o.ask(l, "ct/v1/get-sth", nil).ok(t)
}

func TestHeadFileThatSaysSomethingElseKeepsTheLogClosed(t *testing.T) {
	o, l, _ := signedLog(t, 4)
	path := o.headPath(l.CA.ID)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other, l2, _ := signedLog(t, 4)
	foreign, err := os.ReadFile(other.headPath(l2.CA.ID))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"empty": "", "cut": string(good[:len(good)/2]), "two": string(good) + string(good), "of another log": string(foreign), "another version": `{"v":2}`,
		"no root": strings.Replace(string(good), `"sha256_root_hash":"`, `"sha256_root_hash":"AA==","x":"`, 1), "long": string(good) + strings.Repeat(" ", maxHeadFile),
		"negative time": strings.Replace(string(good), `"timestamp":`, `"timestamp":-`, 1), "null": "null",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		o.restart()
		for _, p := range []string{"ct/v1/get-sth", "static/checkpoint", "ct/v1/get-roots"} {
			if got := o.ask(l, p, nil).StatusCode; got != http.StatusInternalServerError {
				t.Errorf("%s: %s: status %d", name, p, got)
			}
		}
	}
	// The log list has the other logs.
	o.trust(l2, l2, l2)
	list := o.askIn(t.Context(), o.url+"/log_list.json", nil).ok(t)
	if !bytes.Contains(list, []byte(l2.CA.ID.String())) || bytes.Contains(list, []byte(l.CA.ID.String())) {
		t.Errorf("list is %s", list)
	}
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	o.ask(l, "ct/v1/get-sth", nil).ok(t) // without a restart
}

// A key that is gone is not replaced by another: clients would take that for another log.
func TestLostKeyIsNotReplaced(t *testing.T) {
	o, l, _ := signedLog(t, 4)
	if err := os.Remove(filepath.Join(o.cfg.Dir, l.CA.ID.String()+".pem")); err != nil {
		t.Fatal(err)
	}
	if _, err := New(o.cfg); err == nil || !strings.Contains(err.Error(), "bring the key back") {
		t.Errorf("%v", err)
	}
}

func TestHeadFileHasWhatWasStored(t *testing.T) {
	h := &headFile{path: filepath.Join(t.TempDir(), "x.head")}
	if got, err := h.Load(); got != nil || err != nil {
		t.Fatalf("%v, %v of no file", got, err)
	}
	for i := range 5 {
		want := sct.STH{Size: uint64(i) << 60, Time: 1 << 50, Root: [32]byte{byte(i)}}
		if err := h.Store(want); err != nil {
			t.Fatal(err)
		}
		if got, err := h.Load(); err != nil || *got != want {
			t.Errorf("%+v, %v, want %+v", got, err, want)
		}
	}
}

func BenchmarkGetSTH(b *testing.B) {
	o, l, _ := signedLog(b, 300)
	ask := func(b *testing.B) {
		b.Helper()
		w := newDiscard()
		o.ServeLog(w, getSTH, l.CA.ID, "ct/v1/get-sth")
		if w.status != http.StatusOK && w.status != 0 {
			b.Fatal(w.status)
		}
	}
	b.Run("same head", func(b *testing.B) {
		for b.Loop() {
			ask(b)
		}
	})
	b.Run("new head each", func(b *testing.B) {
		at := l.Head().Time
		for b.Loop() {
			at++
			l.Append(at)
			ask(b)
		}
	})
}

var getSTH, _ = http.NewRequest(http.MethodGet, "/", nil)

type discard struct {
	h      http.Header
	status int
}

func newDiscard() *discard                     { return &discard{h: http.Header{}} }
func (d *discard) Header() http.Header         { return d.h }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }
