package ca

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/framelog"
)

// position is where a record stands in the journal.
type position = framelog.Position

// journal is an append-only file of records. Concurrent appends share an fsync. Package framelog has the form of the file.
type journal struct {
	frames *framelog.Log
}

// openJournal opens or creates the journal of a CA and calls replay for each of its records in order. An incomplete write at
// the end, which nobody was ever told about, is cut off; damage anywhere else is an error. The file stays locked until close.
func openJournal(path string, caID wire.CAID, log *slog.Logger, replay func(*record, position) error) (*journal, error) {
	var last *record
	frames, err := framelog.Open(path, "journal", frameMagic, log, func(data []byte, pos position) error {
		r, err := decodeRecord(data)
		if err != nil {
			return err
		}
		first := last == nil
		last = r
		if (r.Kind == kindHeader) != first {
			return errors.New("the first record, and no other, must be the header")
		}
		if !first {
			return replay(r, pos)
		}
		if string(r.CAID) != string(caID[:]) {
			return fmt.Errorf("belongs to the CA %x, not to %s", r.CAID, caID)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	j := &journal{frames}
	if last == nil {
		if _, err := j.append(&record{Kind: kindHeader, Time: time.Now().UnixMilli(), CAID: caID[:]}); err != nil {
			return nil, errors.Join(err, j.close())
		}
	}
	return j, nil
}

// append makes a record durable and returns where it stands.
func (j *journal) append(r *record) (position, error) {
	r.V = recordVersion
	return j.frames.Append(encodeRecord(r))
}

// health is nil while the journal accepts records.
func (j *journal) health() error { return j.frames.Health() }

// read returns the record at pos. The frame's checksum is verified again.
func (j *journal) read(pos position) (*record, error) {
	data, err := j.frames.Read(pos)
	if err != nil {
		return nil, err
	}
	r, err := decodeRecord(data)
	if err != nil {
		return nil, fmt.Errorf("journal: offset %d: %w", pos.Offset, err)
	}
	return r, nil
}

// close waits for what is being written and releases the lock.
func (j *journal) close() error { return j.frames.Close() }
