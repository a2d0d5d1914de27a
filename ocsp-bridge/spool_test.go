package ocspbridge

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/certanchor/certanchor/internal/problem"
)

type noDeadline struct{}

func (noDeadline) SetReadDeadline(time.Time) error { return http.ErrNotSupported }

func spoolLeft(s *spool) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.left
}

// A long body is in no memory of the process and in no file that outlives it, and all of them together have a limit.
func TestSpoolKeepsLongBodiesInFiles(t *testing.T) {
	const limit = 3*spoolMemory + 16
	s := newSpool(t.TempDir(), limit)
	body := bytes.Repeat([]byte("0123456789abcdef"), 2*spoolMemory/16)
	first, err := s.read(noDeadline{}, bytes.NewReader(body))
	if err != nil || !bytes.Equal(first.octets, body) || first.file == nil {
		t.Fatal(err)
	}
	if files, err := os.ReadDir(s.dir); err != nil || len(files) != 0 {
		t.Error(files, err)
	}
	if left := spoolLeft(s); left != limit-int64(len(body)) {
		t.Errorf("%d octets left", left)
	}
	_, err = s.read(noDeadline{}, bytes.NewReader(body))
	var p *problem.Problem
	if !errors.As(err, &p) || p.Status != http.StatusServiceUnavailable {
		t.Errorf("more than fits: %v", err)
	}
	small, err := s.read(noDeadline{}, bytes.NewReader(body[:spoolMemory-1]))
	if err != nil || small.file != nil || len(small.octets) != spoolMemory-1 {
		t.Error("a short one needs no place:", err)
	}
	broken := io.MultiReader(bytes.NewReader(body[:spoolMemory+1]), &failing{})
	if _, err := s.read(noDeadline{}, broken); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error("broken off:", err)
	}
	if err := errors.Join(first.Close(), small.Close()); err != nil {
		t.Error(err)
	}
	if left := spoolLeft(s); left != limit {
		t.Errorf("%d octets left when nothing is there, want %d", left, limit)
	}
}

type failing struct{}

func (*failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// deadlines remembers what was set.
type deadlines struct{ all []time.Time }

func (d *deadlines) SetReadDeadline(at time.Time) error {
	d.all = append(d.all, at)
	return nil
}

// A body that does not come on is given up, one that does not end too; and once it is here no deadline cancels the request.
func TestSpoolSetsDeadlines(t *testing.T) {
	s, conn := newSpool(t.TempDir(), 1<<20), &deadlines{}
	before := time.Now()
	b, err := s.read(conn, io.LimitReader(zeros{}, 3*spoolMemory))
	if err != nil {
		t.Fatal(err)
	}
	after := time.Now()
	last := len(conn.all) - 1
	for i, at := range conn.all[:last] {
		if at.Before(before.Add(spoolIdle)) || at.After(after.Add(spoolIdle)) {
			t.Errorf("deadline %d is %s after the start", i, at.Sub(before))
		}
	}
	if last < 1 || !conn.all[last].IsZero() {
		t.Error("the last deadline stays", conn.all)
	}
	in := &timed{r: zeros{}, conn: conn, end: before.Add(time.Second)}
	if _, err := in.Read(make([]byte, 1)); err != nil || !conn.all[len(conn.all)-1].Equal(in.end) {
		t.Error("not at the end of the time for the whole:", conn.all[len(conn.all)-1], err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
