package oplog

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/transparency-dev/merkle/proof"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/framelog"
)

var quiet = slog.New(slog.DiscardHandler)

// newDir is the directory of a CA, as far as this package looks at it.
func newDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	file := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cctest.NewCA(t).DER})
	if err := os.WriteFile(filepath.Join(dir, certFile), file, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func open(t testing.TB, dir string) *Log {
	t.Helper()
	l, err := OpenWith(dir, Options{Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func shut(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func head(t testing.TB, l *Log) wire.OperatorsHead {
	t.Helper()
	h, err := l.Head()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// fill makes the log n records long.
func fill(t testing.TB, l *Log, n uint64) {
	t.Helper()
	for l.Size() < n {
		if err := l.RecordLater(Entry{Actor: "a", Action: fmt.Sprint("x ", l.Size()), Outcome: Done}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRecordsAreThereAfterARestart(t *testing.T) {
	dir := newDir(t)
	l := open(t, dir)
	seq, err := l.Record(Entry{Actor: "operator", How: "token", Source: "192.0.2.1", Action: "POST /v1/revocations", Detail: map[string]string{"sha256": "00"}})
	if err != nil || seq != 1 {
		t.Fatalf("record %d, %v", seq, err)
	}
	if err := l.End(seq, Done, "0a", nil); err != nil {
		t.Fatal(err)
	}
	left, err := l.Record(Entry{Actor: "operator", Action: "POST /v1/releases"})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.End(seq, Done, "", nil); err == nil {
		t.Fatal("an entry has two outcomes")
	}
	before := head(t, l)
	shut(t, l)
	l = open(t, dir)
	defer shut(t, l)
	if after := head(t, l); !after.Equal(before) || after.Size != 4 {
		t.Fatalf("%v, before it was %v", after, before)
	}
	if got := l.Unfinished(); len(got) != 1 || got[0].Seq != left || got[0].Action != "POST /v1/releases" {
		t.Fatalf("unfinished: %+v", got)
	}
	if err := l.End(left, Unknown, "", nil); err != nil || len(l.Unfinished()) != 0 {
		t.Fatalf("%v, %+v", err, l.Unfinished())
	}
}

func TestConcurrentRecordsGetNumbersOfTheirOwn(t *testing.T) {
	dir := newDir(t)
	l := open(t, dir)
	var mu sync.Mutex
	seen := map[uint64]bool{}
	var wg sync.WaitGroup
	for range 300 {
		wg.Go(func() {
			seq, err := l.Record(Entry{Actor: "a"})
			if err == nil {
				err = l.End(seq, Done, "", nil)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil || seen[seq] {
				t.Errorf("record %d: %v, seen before: %v", seq, err, seen[seq])
			}
			seen[seq] = true
		})
	}
	wg.Wait()
	shut(t, l)
	l = open(t, dir)
	defer shut(t, l)
	if l.Size() != 601 || len(l.Unfinished()) != 0 {
		t.Fatalf("%d records, %d unfinished", l.Size(), len(l.Unfinished()))
	}
}

func TestASecondProcessIsLockedOut(t *testing.T) {
	dir := newDir(t)
	l := open(t, dir)
	if _, err := OpenWith(dir, Options{Log: quiet}); !errors.Is(err, ErrLocked) {
		t.Fatalf("got %v", err)
	}
	shut(t, l)
	shut(t, open(t, dir))
}

// Proofs between any two sizes hold, whatever of the log is in memory, before and after a restart.
func TestConsistencyBetweenAnySizes(t *testing.T) {
	dir := newDir(t)
	l := open(t, dir)
	sizes := []uint64{1, 2, 3, 700, 1023, 1024, 1025, 1500, 2048, 3000, 4096, 4100}
	heads := map[uint64][]byte{}
	for _, n := range sizes {
		fill(t, l, n)
		heads[n] = head(t, l).Root
	}
	check := func() {
		t.Helper()
		for i, from := range sizes {
			if root, err := l.RootAt(from); err != nil || !bytes.Equal(root, heads[from]) {
				t.Fatalf("root at %d: %x, %v", from, root, err)
			}
			for _, to := range sizes[i+1:] {
				path, err := l.Consistency(from, to)
				if err != nil {
					t.Fatalf("%d to %d: %v", from, to, err)
				}
				if err := proof.VerifyConsistency(hasher, from, to, path, heads[from], heads[to]); err != nil {
					t.Fatalf("%d to %d: %v", from, to, err)
				}
			}
		}
	}
	check()
	shut(t, l)
	l = open(t, dir)
	defer shut(t, l)
	check()
}

// Nothing that a request brings can look like another record or field, or be long.
func TestHostileTextsAreEscapedAndCut(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                  "plain",
		"zeile\nzwei\x00":        `zeile\u{a}zwei\u{0}`,
		"\x1b[31mred":            `\u{1b}[31mred`,
		"a\xffb":                 `a\xffb`,
		`\n`:                     `\\n`,
		"übel \u202egnp.exe":     `übel \u{202e}gnp.exe`,
		"zero\u200bwidth\ufeff":  `zero\u{200b}width\u{feff}`,
		strings.Repeat("x", 300): strings.Repeat("x", MaxText-3) + "...",
	} {
		if got := clean(in, MaxText); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
	dir := newDir(t)
	l := open(t, dir)
	defer shut(t, l)
	long := strings.Repeat("\x00", 1<<16)
	detail := map[string]string{}
	for i := range 1000 {
		detail[long+fmt.Sprint(i)] = long
	}
	for i := range 20 {
		detail[fmt.Sprint(i)] = long
	}
	if _, err := l.Record(Entry{long, long, long, long, long, detail, long}); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(filepath.Join(dir, DirName, "0.log"))
	if err != nil || st.Size() > MaxRecord+500 {
		t.Fatalf("%d bytes, %v", st.Size(), err)
	}
}

// Damage to what was durable is refused, wherever it is; a cut at the end loses only what nobody was told about.
func TestDamageIsRefused(t *testing.T) {
	dir := newDir(t)
	l := open(t, dir)
	var ends []int64
	path := filepath.Join(dir, DirName, "0.log")
	for range 3 {
		if _, err := l.Record(Entry{Actor: "a", Outcome: Done}); err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, st.Size())
	}
	shut(t, l)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	reopen := func(data []byte) error {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := OpenWith(dir, Options{Log: quiet})
		if err == nil {
			shut(t, l)
		}
		return err
	}
	for n := range ends[1] {
		bad := bytes.Clone(data)
		bad[n] ^= 1
		if err := reopen(bad); !errors.Is(err, framelog.ErrDamaged) {
			t.Fatalf("byte %d flipped: %v", n, err)
		}
	}
	if err := reopen(data[:ends[2]-1]); err != nil {
		t.Fatal(err)
	}
	// Frames that are valid, of records that do not follow one another: who can write the file can compute checksums.
	records := [][]byte{}
	if _, err := frameMagic.Scan(bytes.NewReader(data), int64(len(data)), func(r []byte, _ framelog.Position) error {
		records = append(records, r)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for name, rs := range map[string][][]byte{
		"deleted": {records[0], records[2], records[3]}, "swapped": {records[0], records[2], records[1], records[3]}, "no first": records[1:], "repeated": {records[0], records[1], records[1]},
	} {
		if err := reopen(frameMagic.Encode(0, rs)); !errors.Is(err, framelog.ErrDamaged) {
			t.Fatalf("%s: %v", name, err)
		}
	}
	if err := reopen(nil); !errors.Is(err, framelog.ErrDamaged) {
		t.Fatalf("emptied: %v", err)
	}
}

func TestLogOfAnotherCAIsRefused(t *testing.T) {
	one, other := newDir(t), newDir(t)
	shut(t, open(t, one))
	if err := os.CopyFS(filepath.Join(other, DirName), os.DirFS(filepath.Join(one, DirName))); err != nil {
		t.Fatal(err)
	}
	if l, err := OpenWith(other, Options{Log: quiet}); err == nil || !strings.Contains(err.Error(), "belongs to the CA") {
		t.Fatalf("%v, %v", l, err)
	}
}

func TestSettle(t *testing.T) {
	dir := newDir(t)
	l := open(t, dir)
	fill(t, l, 5)
	early := head(t, l)
	fill(t, l, 9)
	late := head(t, l)
	other := late
	other.Root = make([]byte, 32)
	later := wire.OperatorsHead{Generation: 1, Size: 2, Root: make([]byte, 32)}
	for _, h := range []*wire.OperatorsHead{nil, &early, &late} {
		if err := l.Settle(h); err != nil {
			t.Fatalf("%v: %v", h, err)
		}
	}
	beyond := late
	beyond.Size = 10
	for _, h := range []*wire.OperatorsHead{&other, &beyond, &later} {
		var behind *BehindError
		if err := l.Settle(h); !errors.As(err, &behind) {
			t.Fatalf("%v: %v", h, err)
		}
	}
	if got := head(t, l); !got.Equal(late) {
		t.Fatalf("it became %v", got)
	}
	shut(t, l)

	// The same directory as an older backup: nothing is recorded before the ledger was asked.
	if err := MarkRestored(dir, Restored{Restored: time.Now(), From: "test"}); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir)
	if _, err := l.Record(Entry{Actor: "a"}); !errors.Is(err, ErrRestored) || !errors.Is(l.Health(), ErrRestored) {
		t.Fatalf("%v, %v", err, l.Health())
	}
	if err := l.Settle(&beyond); err != nil {
		t.Fatal(err)
	}
	if got := head(t, l); got.Generation != 1 || got.Size != 2 || !l.Lost().Equal(beyond) {
		t.Fatalf("%v, lost %v", got, l.Lost())
	}
	if marked, err := IsRestored(dir); err != nil || marked {
		t.Fatalf("still marked: %v, %v", marked, err)
	}
	shut(t, l)

	// What was begun and not anchored goes on, whether the process died before or after it removed the mark.
	if err := MarkRestored(dir, Restored{Restored: time.Now(), From: "test"}); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir)
	if err := l.Settle(&beyond); err != nil {
		t.Fatal(err)
	}
	if got := head(t, l); got.Generation != 1 || got.Size != 3 {
		t.Fatalf("%v", got)
	}
	shut(t, l)
}
