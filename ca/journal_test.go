package ca

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/framelog"
)

var quiet = slog.New(slog.DiscardHandler)

func signedRecord(n byte) *record {
	return &record{V: recordVersion, Kind: kindSigned, Serial: []byte{n}, Cert: bytes.Repeat([]byte{n}, 100), Request: make([]byte, 32)}
}

// readJournal opens the journal in path and returns the serials of its records.
func readJournal(t testing.TB, path string) ([]byte, error) {
	t.Helper()
	var serials []byte
	j, err := openJournal(path, wire.CAID{1}, quiet, func(r *record, _ position) error {
		serials = append(serials, r.Serial...)
		return nil
	})
	if err == nil {
		err = j.close()
	}
	return serials, err
}

// breakDisk makes every further write fail.
func breakDisk(t testing.TB, j *journal) {
	t.Helper()
	closed, err := os.Open(os.DevNull)
	if err == nil {
		err = closed.Close()
	}
	if err == nil {
		err = j.frames.Swap(closed).Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// writeJournal makes a journal with records 1 to n, each in a frame of its own, and returns where each frame ends.
func writeJournal(t testing.TB, path string, n byte) []int64 {
	t.Helper()
	j, err := openJournal(path, wire.CAID{1}, quiet, func(*record, position) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	ends := []int64{st.Size()}
	for i := byte(1); i <= n; i++ {
		pos, err := j.append(signedRecord(i))
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, pos.Offset+int64(pos.Size))
	}
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	return ends
}

// A write that stopped anywhere loses what was not acknowledged and nothing else.
func TestJournalCutAtEveryByte(t *testing.T) {
	whole := filepath.Join(t.TempDir(), "journal")
	ends := writeJournal(t, whole, 3)
	data, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "journal")
	for n := range data {
		if err := os.WriteFile(path, data[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		want := 0
		for i, end := range ends {
			if i > 0 && int64(n) >= end {
				want = i
			}
		}
		got, err := readJournal(t, path)
		if err != nil || len(got) != want {
			t.Fatalf("cut after %d bytes: %d records, %v; want %d", n, len(got), err, want)
		}
		if again, err := readJournal(t, path); err != nil || len(again) != want {
			t.Fatalf("cut after %d bytes, second start: %d records, %v", n, len(again), err)
		}
	}
}

// Damage to what was made durable is not taken for an interrupted write.
func TestJournalDamagedInTheMiddle(t *testing.T) {
	whole := filepath.Join(t.TempDir(), "journal")
	ends := writeJournal(t, whole, 3)
	data, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "journal")
	for n := range ends[2] { // in any frame but the last
		bad := bytes.Clone(data)
		bad[n] ^= 0x10
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := readJournal(t, path); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Fatalf("byte %d flipped: %v, %v", n, got, err)
		}
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, bad) {
			t.Fatalf("byte %d flipped: the file was changed (%v)", n, err)
		}
	}
	// Frames in another order have valid bodies in the wrong place.
	swapped := bytes.Join([][]byte{data[:ends[0]], data[ends[1]:ends[2]], data[ends[0]:ends[1]], data[ends[2]:]}, nil)
	if err := os.WriteFile(path, swapped, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := readJournal(t, path); err == nil {
		t.Fatalf("swapped frames were read: %v", got)
	}
}

func TestJournalOfAnotherCA(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	writeJournal(t, path, 1)
	if _, err := openJournal(path, wire.CAID{2}, quiet, nil); err == nil || !strings.Contains(err.Error(), "belongs to the CA 01") {
		t.Fatalf("got %v", err)
	}
}

func TestJournalIsLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j, err := openJournal(path, wire.CAID{1}, quiet, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openJournal(path, wire.CAID{1}, quiet, nil); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Fatalf("got %v", err)
	}
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	if _, err := j.append(signedRecord(1)); !errors.Is(err, framelog.ErrClosed) {
		t.Fatalf("append after close: %v", err)
	}
}

func TestConcurrentAppendsAreAllReadBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j, err := openJournal(path, wire.CAID{1}, quiet, nil)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for n := byte(1); n < 200; n++ {
		wg.Go(func() {
			pos, err := j.append(signedRecord(n))
			if err != nil {
				t.Error(err)
				return
			}
			if r, err := j.read(pos); err != nil || r.Serial[0] != n {
				t.Errorf("record %d: %+v, %v", n, r, err)
			}
		})
	}
	wg.Wait()
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	if got, err := readJournal(t, path); err != nil || len(got) != 199 {
		t.Fatalf("%d records, %v", len(got), err)
	}
}

// After a failed write nothing is accepted: nobody knows what is on the disk.
func TestBrokenJournalStaysBroken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j, err := openJournal(path, wire.CAID{1}, quiet, nil)
	if err != nil {
		t.Fatal(err)
	}
	breakDisk(t, j)
	for range 2 {
		if _, err := j.append(signedRecord(1)); err == nil {
			t.Fatal("a record was taken")
		}
	}
	if j.health() == nil {
		t.Fatal("a broken journal calls itself healthy")
	}
	if err := j.close(); !errors.Is(err, os.ErrClosed) { // the file
		t.Fatal(err)
	}
}

func TestBookRefusesContradictions(t *testing.T) {
	log := &wire.LogEntry{}
	for name, rs := range map[string][]*record{
		"signed twice":             {signedRecord(1), signedRecord(1)},
		"anchored, never signed":   {{Kind: kindAnchored, Serial: []byte{1}, Log: log}},
		"anchored twice":           {signedRecord(1), {Kind: kindAnchored, Serial: []byte{1}, Log: log}, {Kind: kindAnchored, Serial: []byte{1}, Log: log}},
		"refused, then anchored":   {signedRecord(1), {Kind: kindRefused, Serial: []byte{1}}, {Kind: kindAnchored, Serial: []byte{1}, Log: log}},
		"anchored without a place": {signedRecord(1), {Kind: kindAnchored, Serial: []byte{1}}},
		"signed without a request": {{Kind: kindSigned, Serial: []byte{1}, Cert: []byte{1}}},
		"unknown kind":             {signedRecord(1), {Kind: 9, Serial: []byte{1}}},
	} {
		b := newBook()
		var err error
		for _, r := range rs {
			if err != nil {
				t.Errorf("%s: refused early: %v", name, err)
			}
			err = b.apply(r, position{})
		}
		if err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func FuzzJournal(f *testing.F) {
	path := filepath.Join(f.TempDir(), "seed")
	writeJournal(f, path, 2)
	data, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(data[:len(data)-3])
	f.Add([]byte{})
	f.Add(frameMagic.Encode(0, [][]byte{{0xa0}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "journal")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		first, err := readJournal(t, path)
		if err != nil {
			return
		}
		// What opened once opens again with the same records.
		if second, err := readJournal(t, path); err != nil || !bytes.Equal(first, second) {
			t.Fatalf("%x, then %x, %v", first, second, err)
		}
	})
}

func FuzzRecord(f *testing.F) {
	f.Add(encodeRecord(signedRecord(1)))
	f.Add(encodeRecord(&record{V: recordVersion, Kind: kindRefused, Serial: []byte{1}, Refusal: &wire.Error{Code: wire.NotFound}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := decodeRecord(data); err == nil {
			if again, err := decodeRecord(encodeRecord(r)); err != nil || !bytes.Equal(again.Serial, r.Serial) || again.Kind != r.Kind {
				t.Fatalf("%+v, %v", again, err)
			}
		}
	})
}
