package ca

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/keyfile"
)

// position is where a record stands in the journal.
type position struct {
	offset int64 // of its frame
	size   int32 // of the frame, header included
	index  int32 // in the frame
}

// journal is an append-only file of records. Concurrent appends share an fsync.
//
// A file and not a database: it is written strictly in order, read once at start and then by position, and an auditor can
// read it with sixty lines of code. Its frames are documented in record.go.
type journal struct {
	file *os.File
	size int64 // owned by flush
	log  *slog.Logger

	mu      sync.Mutex
	pending []*pendingRecord // waiting for flush
	broken  error            // once a write failed nothing more is accepted: what is on disk is not known any more
	closed  bool

	kick chan struct{} // capacity 1
	done chan struct{} // closed when flush has returned
}

type pendingRecord struct {
	data []byte
	pos  position
	err  error
	done chan struct{}
}

var errJournalClosed = errors.New("the journal is closed")

// openJournal opens or creates the journal of a CA and calls replay for each of its records in order. An incomplete write at
// the end, which nobody was ever told about, is cut off; damage anywhere else is an error. The file stays locked until close.
func openJournal(path string, caID wire.CAID, log *slog.Logger, replay func(*record, position) error) (_ *journal, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, fmt.Errorf("journal %s: another process is running this CA: %w", path, err)
	}
	j := &journal{file: f, log: log, kick: make(chan struct{}, 1), done: make(chan struct{})}
	if err := j.replay(caID, replay); err != nil {
		return nil, fmt.Errorf("journal %s: %w", path, err)
	}
	if err := keyfile.SyncDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	if j.size == 0 {
		if err := j.write([][]byte{encodeRecord(&record{V: recordVersion, Kind: kindHeader, Time: time.Now().UnixMilli(), CAID: caID[:]})}); err != nil {
			return nil, fmt.Errorf("journal %s: %w", path, err)
		}
	}
	go j.flush()
	return j, nil
}

// replay reads the whole file, a frame at a time, and leaves the end of the last valid one in j.size.
func (j *journal) replay(caID wire.CAID, fn func(*record, position) error) error {
	for first := true; ; first = false {
		frame, err := j.readFrame(j.size)
		if errors.Is(err, errBadFrame) {
			return j.cutTail()
		}
		if err != nil || frame == nil {
			return err
		}
		records, err := frameRecords(frame)
		if err != nil {
			return fmt.Errorf("offset %d: %w", j.size, err)
		}
		for i, r := range records {
			if (r.Kind == kindHeader) != (first && i == 0) {
				return fmt.Errorf("offset %d: the first record, and no other, must be the header", j.size)
			}
			if r.Kind == kindHeader {
				if string(r.CAID) != string(caID[:]) {
					return fmt.Errorf("belongs to the CA %x, not to %s", r.CAID, caID)
				}
				continue
			}
			if err := fn(r, position{offset: j.size, size: int32(len(frame)), index: int32(i)}); err != nil { //nolint:gosec // bounded by maxFrame, maxRecords
				return fmt.Errorf("offset %d: %w", j.size, err)
			}
		}
		j.size += int64(len(frame))
	}
}

// readFrame reads the frame at offset; nil at the end of the file.
func (j *journal) readFrame(offset int64) ([]byte, error) {
	st, err := j.file.Stat()
	if err != nil {
		return nil, err
	}
	rest := st.Size() - offset
	if rest == 0 {
		return nil, nil
	}
	head := make([]byte, min(frameHeader, rest))
	if _, err := j.file.ReadAt(head, offset); err != nil {
		return nil, err
	}
	n := min(frameLength(head), rest)
	data := make([]byte, n)
	if _, err := j.file.ReadAt(data, offset); err != nil {
		return nil, err
	}
	return nextFrame(offset, data)
}

// cutTail removes what follows the last valid frame, if it can be the rest of a write that was interrupted.
func (j *journal) cutTail() error {
	st, err := j.file.Stat()
	if err != nil {
		return err
	}
	// An interrupted write left at most one frame. More is damage, and is not read into memory to find out.
	if n := st.Size() - j.size; n > maxFrame+frameHeader {
		return fmt.Errorf("offset %d: damaged: %d bytes follow that are not a frame", j.size, n)
	}
	tail := make([]byte, st.Size()-j.size)
	if _, err := j.file.ReadAt(tail, j.size); err != nil {
		return err
	}
	if validFrameIn(j.size, tail) {
		return fmt.Errorf("offset %d: damaged: valid frames follow; restore it from a backup, and do not run this CA without it", j.size)
	}
	j.log.Warn("journal: cut off an incomplete write", "offset", j.size, "bytes", len(tail))
	if err := j.file.Truncate(j.size); err != nil {
		return err
	}
	return j.file.Sync()
}

// append makes a record durable and returns where it stands.
func (j *journal) append(r *record) (position, error) {
	r.V = recordVersion
	p := &pendingRecord{data: encodeRecord(r), done: make(chan struct{})}
	j.mu.Lock()
	if err := j.unusable(); err != nil {
		j.mu.Unlock()
		return position{}, err
	}
	j.pending = append(j.pending, p)
	select {
	case j.kick <- struct{}{}:
	default: // flush has yet to take the one before, and takes all that is pending then
	}
	j.mu.Unlock()
	<-p.done
	return p.pos, p.err
}

// unusable says why nothing can be appended. Requires mu.
func (j *journal) unusable() error {
	if j.closed {
		return errJournalClosed
	}
	return j.broken
}

// health is nil while the journal accepts records.
func (j *journal) health() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.unusable()
}

// flush writes what is pending until close.
func (j *journal) flush() {
	defer close(j.done)
	for range j.kick {
		for {
			j.mu.Lock()
			batch := j.pending
			if len(batch) > maxRecords {
				batch = batch[:maxRecords]
			}
			j.pending = j.pending[len(batch):]
			err := j.broken
			j.mu.Unlock()
			if len(batch) == 0 {
				break
			}
			j.commit(batch, err)
		}
	}
}

// commit writes one batch, unless an earlier write failed with err, and answers everyone in it.
func (j *journal) commit(batch []*pendingRecord, err error) {
	data := make([][]byte, len(batch))
	for i, p := range batch {
		data[i] = p.data
	}
	offset := j.size
	if err == nil {
		if err = j.write(data); err != nil {
			err = fmt.Errorf("journal: %w", err)
			j.log.Error("journal is broken, nothing more is issued until a restart", "error", err)
			j.mu.Lock()
			j.broken = err
			j.mu.Unlock()
		}
	}
	for i, p := range batch {
		p.pos = position{offset: offset, size: int32(j.size - offset), index: int32(i)} //nolint:gosec // bounded by maxFrame, maxRecords
		p.err = err
		close(p.done)
	}
}

// write appends one frame and syncs it. After an error the file's contents behind size are not known (fsync may have dropped
// the pages), so the caller never writes again.
func (j *journal) write(records [][]byte) error {
	frame := encodeFrame(j.size, records)
	if _, err := j.file.WriteAt(frame, j.size); err != nil {
		return err
	}
	if err := j.file.Sync(); err != nil {
		return err
	}
	j.size += int64(len(frame))
	return nil
}

// read returns the record at pos. The frame's checksum is verified again.
func (j *journal) read(pos position) (*record, error) {
	data := make([]byte, pos.size)
	if _, err := j.file.ReadAt(data, pos.offset); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	frame, err := nextFrame(pos.offset, data)
	if err != nil {
		return nil, fmt.Errorf("journal: offset %d: %w", pos.offset, err)
	}
	records, err := frameRecords(frame)
	if err != nil || int(pos.index) >= len(records) {
		return nil, fmt.Errorf("journal: offset %d: record %d of %d: %w", pos.offset, pos.index, len(records), err)
	}
	return records[pos.index], nil
}

// close waits for what is being written and releases the lock.
func (j *journal) close() error {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return fs.ErrClosed
	}
	j.closed = true
	close(j.kick) // under mu, as is every send
	j.mu.Unlock()
	<-j.done
	return j.file.Close()
}
