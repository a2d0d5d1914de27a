package framelog

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

const testMagic Magic = 0xca1e7e57

func open(path string) (*Log, [][]byte, error) {
	var got [][]byte
	l, err := Open(path, "log", testMagic, slog.New(slog.DiscardHandler), func(r []byte, _ Position) error {
		got = append(got, r)
		return nil
	})
	return l, got, err
}

// Records are durable in the order in which they were handed over, whether anybody waits for them or not.
func TestRecordsComeBackInOrderLazyOnesToo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, _, err := open(path)
	if err != nil {
		t.Fatal(err)
	}
	const n = 2000 // more than a frame has
	for i := range n {
		if _, err := l.Enqueue([]byte{byte(i), byte(i >> 8)}, i%3 != 0 || i == n-1); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l, got, err := open(path)
	if err != nil || len(got) != n {
		t.Fatalf("%d records, %v", len(got), err)
	}
	for i, r := range got {
		if !bytes.Equal(r, []byte{byte(i), byte(i >> 8)}) {
			t.Fatalf("record %d is %x", i, r)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestLazyRecordIsWrittenThoughNobodyWaits(t *testing.T) {
	l, _, err := open(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := l.Enqueue([]byte("x"), true)
	if err != nil {
		t.Fatal(err)
	}
	pos, err := p.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := l.Read(pos); err != nil || string(got) != "x" {
		t.Fatalf("%q, %v", got, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Enqueue(nil, true); !errors.Is(err, ErrClosed) {
		t.Fatalf("after close: %v", err)
	}
}

// What a reader without the lock sees of a log that is being written is its beginning.
func TestScanOfABeginningIsNotDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, _, err := open(path)
	if err != nil {
		t.Fatal(err)
	}
	var ends []int64
	for i := range byte(3) {
		pos, err := l.Append([]byte{i})
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, pos.Offset+int64(pos.Size))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range data {
		records := 0
		end, err := testMagic.Scan(bytes.NewReader(data[:n]), int64(n), func([]byte, Position) error { records++; return nil })
		want := 0
		for want < len(ends) && ends[want] <= int64(n) {
			want++
		}
		if err != nil || records != want || (want > 0 && end != ends[want-1]) {
			t.Fatalf("%d of %d bytes: %d records until %d, %v", n, len(data), records, end, err)
		}
	}
	data[ends[0]+HeaderBytes] ^= 1
	if _, err := testMagic.Scan(bytes.NewReader(data), int64(len(data)), func([]byte, Position) error { return nil }); !errors.Is(err, ErrDamaged) {
		t.Fatalf("a flipped bit: %v", err)
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(int64(0), testMagic.Encode(0, [][]byte{{1, 2}, {3}}))
	f.Add(int64(7), testMagic.Encode(7, [][]byte{{0xa0}}))
	f.Fuzz(func(t *testing.T, offset int64, data []byte) {
		frame, err := testMagic.Next(offset, data)
		if found := testMagic.In(offset, data); err == nil && !found {
			t.Fatal("a valid frame was not found")
		}
		if err != nil {
			return
		}
		if _, err := testMagic.Next(offset+1, data); err == nil {
			t.Fatal("a frame is valid in two places")
		}
		rs, err := Records(frame)
		if err == nil && len(rs) == 0 {
			t.Fatal("a frame without records")
		}
	})
}
