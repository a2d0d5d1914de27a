package ocspbridge

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/certanchor/certanchor/internal/problem"
)

// spool takes bodies that anybody may send: what is long goes to a file, not to memory, until the signature in it is verified. All its files
// together have a limit, which octets count against that have come, so that a connection that sends nothing holds nothing.
type spool struct {
	dir string

	mu   sync.Mutex
	left int64 // octets that files may have beside those there are; guarded by mu
}

const (
	spooledCRLs  = 4                // of the greatest length that fit
	spoolMemory  = 64 << 10         // octets of a body that stay in memory
	spoolIdle    = 5 * time.Second  // without an octet, and the body is given up
	spoolTime    = 30 * time.Second // for the whole body
	spoolPattern = ".offered-*"
)

var errSpool = errors.New("couldn't keep a CRL that is offered")

func newSpool(dir string, limit int64) *spool { return &spool{dir: dir, left: limit} }

// deadliner is what is needed of *http.ResponseController.
type deadliner interface{ SetReadDeadline(time.Time) error }

// spooled is a body. Its octets are there until Close.
type spooled struct {
	octets []byte
	spool  *spool
	file   *os.File // nil: in memory
	size   int64    // of the file
	unmap  func() error
}

// read reads a body to its end. Errors: a *problem.Problem, 503, when the spool is full; errSpool for the disk; else those of r.
func (s *spool) read(conn deadliner, r io.Reader) (_ *spooled, err error) {
	b := &spooled{spool: s}
	in := &timed{r: r, conn: conn, end: time.Now().Add(spoolTime)} // the network's time, not the ledger's
	var head bytes.Buffer
	switch _, err := io.CopyN(&head, in, spoolMemory); {
	case errors.Is(err, io.EOF):
		b.octets = head.Bytes()
		return b, in.over()
	case err != nil:
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.Close())
		}
	}()
	if b.file, err = os.CreateTemp(s.dir, spoolPattern); err != nil {
		return nil, fmt.Errorf("%w: %w", errSpool, err)
	}
	if err := os.Remove(b.file.Name()); err != nil { // it is gone with the process, too
		return nil, fmt.Errorf("%w: %w", errSpool, err)
	}
	if _, err := io.CopyBuffer(onlyWriter{b}, io.MultiReader(&head, in), make([]byte, spoolMemory)); err != nil {
		return nil, err
	}
	if b.octets, b.unmap, err = mapFile(b.file, b.size); err != nil {
		return nil, fmt.Errorf("%w: %w", errSpool, err)
	}
	return b, in.over()
}

// onlyWriter hides what io.CopyBuffer would use instead of Write.
type onlyWriter struct{ io.Writer }

// Write adds to the file, within the spool's limit.
func (b *spooled) Write(p []byte) (int, error) {
	if !b.spool.take(int64(len(p))) {
		return 0, problem.New(http.StatusServiceUnavailable, problem.CodeUnavailable, "bridge", "busy",
			"takes no more CRLs until some of those that are on their way are here; ask again")
	}
	b.size += int64(len(p))
	n, err := b.file.Write(p)
	if err != nil {
		err = fmt.Errorf("%w: %w", errSpool, err)
	}
	return n, err
}

func (s *spool) take(n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left < n {
		return false
	}
	s.left -= n
	return true
}

// Close ends the use of the octets, and removes the file.
func (b *spooled) Close() (err error) {
	b.octets = nil
	if b.unmap != nil {
		err = b.unmap()
	}
	if b.file != nil {
		err = errors.Join(err, b.file.Close())
	}
	b.spool.mu.Lock()
	defer b.spool.mu.Unlock()
	b.spool.left += b.size
	b.size = 0
	return err
}

// timed ends a body that comes too slowly.
type timed struct {
	r    io.Reader
	conn deadliner
	end  time.Time
}

func (t *timed) Read(p []byte) (int, error) {
	next := time.Now().Add(spoolIdle)
	if next.After(t.end) {
		next = t.end
	}
	if err := t.until(next); err != nil {
		return 0, err
	}
	return t.r.Read(p)
}

func (t *timed) until(at time.Time) error {
	if err := t.conn.SetReadDeadline(at); !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

// over: the body is here. A deadline that passes later would cancel the request.
func (t *timed) over() error { return t.until(time.Time{}) }
