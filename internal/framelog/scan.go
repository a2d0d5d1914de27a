package framelog

import (
	"errors"
	"fmt"
	"io"
)

// Position is where a record stands in a log.
type Position struct {
	Offset int64 // of its frame
	Size   int32 // of the frame, header included
	Index  int32 // in the frame
}

// ErrDamaged: something that was durable is not what was written.
var ErrDamaged = errors.New("damaged")

// Scan reads a log of size bytes and calls fn for each of its records in order; the bytes are fn's to keep. It returns where the last
// complete frame ends: what follows, if anything, can only be the rest of an interrupted write, or the beginning of one that is under
// way. Errors: ErrDamaged, fn's and r's; they say at which offset.
func (m Magic) Scan(r io.ReaderAt, size int64, fn func(record []byte, pos Position) error) (end int64, err error) {
	for {
		frame, err := m.read(r, size, end)
		if errors.Is(err, ErrBadFrame) {
			return end, m.checkTail(r, size, end)
		}
		if err != nil || frame == nil {
			return end, err
		}
		records, err := Records(frame)
		if err != nil {
			return end, fmt.Errorf("offset %d: %w", end, err)
		}
		for i, rec := range records {
			if err := fn(rec, Position{end, int32(len(frame)), int32(i)}); err != nil { //nolint:gosec // bounded by MaxBody
				return end, fmt.Errorf("offset %d: %w", end, err)
			}
		}
		end += int64(len(frame))
	}
}

// read reads the frame at offset; nil at the end.
func (m Magic) read(r io.ReaderAt, size, offset int64) ([]byte, error) {
	rest := size - offset
	if rest == 0 {
		return nil, nil
	}
	head := make([]byte, min(HeaderBytes, rest))
	if _, err := r.ReadAt(head, offset); err != nil {
		return nil, err
	}
	data := make([]byte, min(frameLength(head), rest))
	if _, err := r.ReadAt(data, offset); err != nil {
		return nil, err
	}
	return m.Next(offset, data)
}

// checkTail tells whether what follows the last valid frame can be the rest of an interrupted write.
func (m Magic) checkTail(r io.ReaderAt, size, end int64) error {
	// An interrupted write left at most one frame. More is damage, and is not read into memory to find out.
	if n := size - end; n > MaxBody+HeaderBytes {
		return fmt.Errorf("offset %d: %w: %d bytes follow that are not a frame", end, ErrDamaged, n)
	}
	tail := make([]byte, size-end)
	if _, err := r.ReadAt(tail, end); err != nil {
		return err
	}
	if m.In(end, tail) {
		return fmt.Errorf("offset %d: %w: valid frames follow; restore it from a backup, and do not run this CA without it", end, ErrDamaged)
	}
	return nil
}
