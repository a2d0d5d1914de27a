package oplog

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/framelog"
)

// anchored is a log with heads of it that a ledger took.
type anchored struct {
	t       *testing.T
	dir     string
	history []Anchor
	id      wire.CAID
}

func newAnchored(t *testing.T) *anchored { t.Helper(); return &anchored{t: t, dir: newDir(t)} }

// grow makes the log longer, to each of sizes, and anchors it there.
func (a *anchored) grow(sizes ...uint64) {
	a.t.Helper()
	l := open(a.t, a.dir)
	a.id = l.CAID()
	for _, n := range sizes {
		fill(a.t, l, n)
		a.anchor(l)
	}
	shut(a.t, l)
}

func (a *anchored) anchor(l *Log) {
	a.t.Helper()
	n := uint64(len(a.history))
	h := Anchor{OperatorsRecord: wire.OperatorsRecord{V: 1, Head: head(a.t, l), Time: wire.Millis(n), Lost: l.Lost()}, Block: 10 + n}
	if err := follows(a.history, &h); err != nil {
		a.t.Fatal(err)
	}
	a.history = append(a.history, h)
}

func (a *anchored) newest() *wire.OperatorsHead { return &a.history[len(a.history)-1].Head }

func (a *anchored) file(generation uint64) string {
	return filepath.Join(a.dir, DirName, fileName(generation))
}

// records are the encoded records of a generation.
func (a *anchored) records(generation uint64) (all [][]byte) {
	a.t.Helper()
	data, err := os.ReadFile(a.file(generation))
	if err != nil {
		a.t.Fatal(err)
	}
	if _, err := frameMagic.Scan(bytes.NewReader(data), int64(len(data)), func(r []byte, _ framelog.Position) error { all = append(all, r); return nil }); err != nil {
		a.t.Fatal(err)
	}
	return all
}

// rewrite is what somebody does who can write the file and compute every checksum and every hash in it.
func (a *anchored) rewrite(generation uint64, rs []*Record) {
	a.t.Helper()
	last, data := noRecord, [][]byte{}
	for i, r := range rs {
		r.Seq, r.Prev = uint64(i), last
		data = append(data, encode(r))
		last = leafHash(data[i])
	}
	if err := os.WriteFile(a.file(generation), frameMagic.Encode(0, data), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

func (a *anchored) decoded(generation uint64) (rs []*Record) {
	a.t.Helper()
	for _, data := range a.records(generation) {
		r, err := decode(data)
		if err != nil {
			a.t.Fatal(err)
		}
		rs = append(rs, r)
	}
	return rs
}

func (a *anchored) verify() *Report {
	a.t.Helper()
	files, err := Files(a.dir)
	if err != nil {
		a.t.Fatal(err)
	}
	r, err := Verify(files, a.id, "", true, a.history, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	return r
}

func TestHonestLogAgreesWithItsAnchors(t *testing.T) {
	a := newAnchored(t)
	a.grow(1, 5, 20, 33)
	r := a.verify()
	if len(r.Differences) != 0 || len(r.Gaps) != 0 || len(r.Parts) != 1 || r.Parts[0].Heads != 4 || r.Parts[0].Anchored != 33 || r.Parts[0].Records != 33 {
		t.Fatalf("%+v", r)
	}
	// Records behind the newest anchor, and the beginning of a write, are no difference.
	l := open(t, a.dir)
	fill(t, l, 40)
	shut(t, l)
	f, err := os.OpenFile(a.file(0), os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = f.Write([]byte{0xca, 0x1e, 0x0b})
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	if r = a.verify(); len(r.Differences) != 0 || r.Parts[0].Records != 40 || r.Parts[0].Incomplete != 3 {
		t.Fatalf("%+v", r)
	}
}

// Whatever is done to an anchored log is found, and the first place is named.
func TestEveryChangeOfAnAnchoredLogIsFound(t *testing.T) {
	for _, c := range []struct {
		name   string
		spoil  func(a *anchored)
		kind   string
		record uint64 // where at least, and where at most
		most   uint64
		word   string
	}{
		{"a flipped bit", func(a *anchored) {
			data, err := os.ReadFile(a.file(0))
			if err != nil {
				a.t.Fatal(err)
			}
			at := bytes.Index(data, []byte("x 12"))
			data[at] ^= 1
			if err := os.WriteFile(a.file(0), data, 0o600); err != nil {
				a.t.Fatal(err)
			}
		}, KindDamaged, 0, 12, "damaged"},
		{"a record changed, with the checksum", func(a *anchored) {
			rs := a.records(0)
			rs[12] = bytes.Replace(rs[12], []byte("x 12"), []byte("y 12"), 1)
			if err := os.WriteFile(a.file(0), frameMagic.Encode(0, rs), 0o600); err != nil {
				a.t.Fatal(err)
			}
		}, KindDamaged, 13, 13, "does not follow the record before"},
		{"a record changed, and the whole chain behind it", func(a *anchored) {
			rs := a.decoded(0)
			rs[12].Actor = "somebody else"
			a.rewrite(0, rs)
		}, KindChanged, 5, 12, "records 5 to 19"},
		{"a record deleted", func(a *anchored) {
			rs := a.records(0)
			if err := os.WriteFile(a.file(0), frameMagic.Encode(0, append(rs[:7], rs[8:]...)), 0o600); err != nil {
				a.t.Fatal(err)
			}
		}, KindDamaged, 7, 7, "number 8"},
		{"a record deleted, and the chain made good", func(a *anchored) {
			rs := a.decoded(0)
			a.rewrite(0, append(rs[:7], rs[8:]...))
		}, KindChanged, 5, 7, "records 5 to 19"},
		{"a record inserted, and the chain made good", func(a *anchored) {
			rs := a.decoded(0)
			a.rewrite(0, append(append(rs[:25:25], &Record{V: 1, Kind: Tells, Actor: "nobody", Outcome: Done}), rs[25:]...))
		}, KindChanged, 20, 25, "records 20 to 32"},
		{"cut off", func(a *anchored) { a.rewrite(0, a.decoded(0)[:28]) }, KindCut, 28, 28, "5 records more"},
		{"cut off at an anchor", func(a *anchored) { a.rewrite(0, a.decoded(0)[:20]) }, KindCut, 20, 20, "13 records more"},
		{"the tail replaced", func(a *anchored) {
			rs := a.decoded(0)[:28]
			for range 10 {
				rs = append(rs, &Record{V: 1, Kind: Tells, Actor: "a", Outcome: Done})
			}
			a.rewrite(0, rs)
		}, KindChanged, 20, 28, "records 20 to 32"},
		{"an old copy continued", func(a *anchored) {
			a.rewrite(0, a.decoded(0)[:20])
			l := open(a.t, a.dir)
			for range 30 {
				if err := l.RecordLater(Entry{Actor: "forked", Outcome: Done}); err != nil {
					a.t.Fatal(err)
				}
			}
			shut(a.t, l)
		}, KindChanged, 20, 20, "records 20 to 32"},
		{"all of it new", func(a *anchored) {
			if err := os.Remove(a.file(0)); err != nil {
				a.t.Fatal(err)
			}
			l := open(a.t, a.dir)
			fill(a.t, l, 50)
			shut(a.t, l)
		}, KindChanged, 0, 0, "records 0 to 4"},
		{"emptied", func(a *anchored) {
			if err := os.WriteFile(a.file(0), nil, 0o600); err != nil {
				a.t.Fatal(err)
			}
		}, KindDamaged, 0, 0, "no first record"},
		{"another CA's", func(a *anchored) {
			other := newAnchored(a.t)
			other.grow(40)
			data, err := os.ReadFile(other.file(0))
			if err == nil {
				err = os.WriteFile(a.file(0), data, 0o600)
			}
			if err != nil {
				a.t.Fatal(err)
			}
		}, KindOther, 0, 0, "log of the CA"},
		{"another generation's place", func(a *anchored) {
			if err := os.Rename(a.file(0), a.file(7)); err != nil {
				a.t.Fatal(err)
			}
			rs := a.decoded(7)
			rs[0].Generation = 7
			a.rewrite(7, rs)
		}, KindMissing, 0, 0, "there is no file of it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newAnchored(t)
			a.grow(5, 20, 33)
			c.spoil(a)
			r := a.verify()
			if len(r.Differences) == 0 {
				t.Fatalf("nothing found: %+v", r)
			}
			if d := r.Differences[0]; d.Kind != c.kind || d.Record < c.record || d.Record > c.most || !strings.Contains(d.Text, c.word) {
				t.Fatalf("found %+v, want %s at %d to %d, with %q", d, c.kind, c.record, c.most, c.word)
			}
		})
	}
}

// A backup that is older than the newest anchor goes on as another generation, and the audit tells what is lost.
func TestRestoredLogTellsItsGap(t *testing.T) {
	a := newAnchored(t)
	a.grow(5, 20)
	backup, err := os.ReadFile(a.file(0))
	if err != nil {
		t.Fatal(err)
	}
	a.grow(33)
	restore := func() *Log {
		if err := os.WriteFile(a.file(0), backup, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := MarkRestored(a.dir, Restored{Restored: time.Now(), From: "test"}); err != nil {
			t.Fatal(err)
		}
		return open(t, a.dir)
	}
	l := restore()
	if err := l.Settle(a.newest()); err != nil {
		t.Fatal(err)
	}
	fill(t, l, 9)
	a.anchor(l)
	fill(t, l, 12)
	a.anchor(l)
	shut(t, l)
	r := a.verify()
	if len(r.Differences) != 0 || len(r.Gaps) != 1 || r.Gaps[0] != (Gap{Before: 1, From: 20, Anchored: 13}) || r.Parts[1].Heads != 2 {
		t.Fatalf("%+v", r)
	}
	// What is left of the generation before stays what it was.
	for name, spoil := range map[string]func(){
		KindCut:     func() { a.rewrite(0, a.decoded(0)[:19]) },
		KindChanged: func() { rs := a.decoded(0); rs[3].Actor = "other"; a.rewrite(0, rs) },
		KindMissing: func() {
			if err := os.Remove(a.file(0)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		if err := os.WriteFile(a.file(0), backup, 0o600); err != nil {
			t.Fatal(err)
		}
		spoil()
		if r := a.verify(); len(r.Differences) != 1 || r.Differences[0].Kind != name || r.Differences[0].Generation != 0 {
			t.Fatalf("%s: %+v", name, r)
		}
	}
	// A generation that says that less was lost is not the one that the ledger knows.
	if err := os.WriteFile(a.file(0), backup, 0o600); err != nil {
		t.Fatal(err)
	}
	rs := a.decoded(1)
	rs[0].Lost = &a.history[1].Head
	a.rewrite(1, rs)
	if r := a.verify(); len(r.Differences) == 0 || r.Differences[0].Generation != 1 {
		t.Fatalf("%+v", r)
	}
}

// FuzzVerify: whatever the file holds, there is a report, and a log that differs from the anchored one is never said to agree with it.
func FuzzVerify(f *testing.F) {
	dir := newDir(f)
	l := open(f, dir)
	fill(f, l, 6)
	h := head(f, l)
	shut(f, l)
	good, err := os.ReadFile(filepath.Join(dir, DirName, fileName(0)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-5])
	f.Add(bytes.Replace(good, []byte("x 3"), []byte("x 4"), 1))
	f.Add([]byte{})
	var records [][]byte
	if _, err := frameMagic.Scan(bytes.NewReader(good), int64(len(good)), func(r []byte, _ framelog.Position) error { records = append(records, r); return nil }); err != nil {
		f.Fatal(err)
	}
	history := []Anchor{{OperatorsRecord: wire.OperatorsRecord{V: 1, Head: h}}}
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		var seen [][]byte
		r, err := Verify([]string{path}, l.CAID(), "", true, history, func(_ uint64, r *Record) error { seen = append(seen, encode(r)); return nil })
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Differences) == 0 && !slices.EqualFunc(seen[:min(len(seen), len(records))], records, bytes.Equal) {
			t.Fatalf("%d records agree, and are others than those that were anchored", len(seen))
		}
	})
}
