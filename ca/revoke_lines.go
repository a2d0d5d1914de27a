package ca

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/certanchor/certanchor/internal/keyfile"
)

// lines is an append-only file of JSON objects, one in a line. A line counts once it ends: what a crash left of one is cut off.
type lines struct {
	file *os.File
	size int64 // owned by whoever has set writing

	mu      sync.Mutex
	next    *lineBatch // to be written; nil: nothing
	writing bool
	broken  error // a write failed: what is on disk is not known any more
}

type lineBatch struct {
	data []byte
	err  error // set before done is closed
	done chan struct{}
}

// openLines opens or creates the file and calls fn with each line.
func openLines(path string, fn func(line []byte) error) (_ *lines, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
		}
	}()
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	l := &lines{file: f, size: int64(bytes.LastIndexByte(data, '\n') + 1)}
	n := 1
	for line := range bytes.Lines(data[:l.size]) {
		if err := fn(line); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		n++
	}
	if l.size < int64(len(data)) {
		if err := f.Truncate(l.size); err != nil {
			return nil, err
		}
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	return l, keyfile.SyncDir(filepath.Dir(path))
}

// add makes lines durable, all of them or, after a crash, the first few. Concurrent callers share an fsync.
func (l *lines) add(values ...any) error {
	var b bytes.Buffer
	for _, v := range values {
		line, err := json.Marshal(v)
		if err != nil {
			return err
		}
		b.Write(line)
		b.WriteByte('\n')
	}
	l.mu.Lock()
	if l.next == nil {
		l.next = &lineBatch{done: make(chan struct{})}
	}
	mine := l.next
	mine.data = append(mine.data, b.Bytes()...)
	if !l.writing {
		l.writing = true
		l.flush()
	}
	l.mu.Unlock()
	<-mine.done
	return mine.err
}

// flush writes until nobody waits. It requires mu, which it gives up meanwhile.
func (l *lines) flush() {
	for l.next != nil {
		b := l.next
		l.next = nil
		b.err = l.broken
		if b.err == nil {
			l.mu.Unlock()
			_, b.err = l.file.WriteAt(b.data, l.size)
			if b.err == nil {
				b.err = l.file.Sync()
			}
			l.mu.Lock()
			l.broken = b.err
			l.size += int64(len(b.data))
		}
		close(b.done)
	}
	l.writing = false
}

func (l *lines) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken == nil {
		l.broken = os.ErrClosed
	}
	return l.file.Close()
}
