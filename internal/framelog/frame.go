// Package framelog is an append-only file of records in which concurrent appends share an fsync. An interrupted write at the end is cut
// off, damage anywhere else is refused.
//
// A file and not a database: it is written strictly in order, read once at start and then by position, and an auditor can read it with
// sixty lines of code. It is a sequence of frames, one for each write that was made durable:
//
//	magic (4) | length of body (4) | CRC-32C of the frame's offset (8), the length (4) and the body | body
//
// all big-endian. The body is a sequence of records, each preceded by its length (4). The offset in the checksum means that a
// frame is valid in one place only, so that nothing inside a body can pass for one.
package framelog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
)

const (
	// HeaderBytes is the length of what a frame has before its body.
	HeaderBytes = 12
	// MaxBody is the longest body of a frame in bytes.
	MaxBody = 32 << 20

	maxRecords = 256 // in one frame; bounds what reading one record costs
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrBadFrame: the bytes are not a frame, or not all of one.
var ErrBadFrame = errors.New("not a valid frame")

// Magic begins every frame of a kind of log.
type Magic uint32

// Encode wraps records for the place offset. Requires at least one record, and less than MaxBody bytes of them.
func (m Magic) Encode(offset int64, records [][]byte) []byte {
	b := make([]byte, HeaderBytes)
	for _, r := range records {
		b = binary.BigEndian.AppendUint32(b, uint32(len(r))) //nolint:gosec // less than MaxBody
		b = append(b, r...)
	}
	binary.BigEndian.PutUint32(b, uint32(m))
	binary.BigEndian.PutUint32(b[4:], uint32(len(b)-HeaderBytes)) //nolint:gosec // at most MaxBody
	binary.BigEndian.PutUint32(b[8:], frameSum(offset, b))
	return b
}

func frameSum(offset int64, frame []byte) uint32 {
	var place [12]byte
	binary.BigEndian.PutUint64(place[:], uint64(offset)) //nolint:gosec // offsets are not negative
	copy(place[8:], frame[4:8])
	return crc32.Update(crc32.Checksum(place[:], castagnoli), castagnoli, frame[HeaderBytes:])
}

// Next takes the frame at offset off the front of data. ErrBadFrame: there is none, or only part of one.
func (m Magic) Next(offset int64, data []byte) (frame []byte, err error) {
	if len(data) < HeaderBytes || binary.BigEndian.Uint32(data) != uint32(m) {
		return nil, ErrBadFrame
	}
	n := binary.BigEndian.Uint32(data[4:])
	if n == 0 || n > MaxBody || int(n) > len(data)-HeaderBytes {
		return nil, ErrBadFrame
	}
	frame = data[:HeaderBytes+int(n)]
	if frameSum(offset, frame) != binary.BigEndian.Uint32(frame[8:]) {
		return nil, ErrBadFrame
	}
	return frame, nil
}

// frameLength is how many bytes to read for the frame that begins with head. For a header that cannot be one, Next says so when it
// gets as many.
func frameLength(head []byte) int64 {
	if len(head) < HeaderBytes {
		return int64(len(head))
	}
	if n := binary.BigEndian.Uint32(head[4:]); n <= MaxBody {
		return HeaderBytes + int64(n)
	}
	return HeaderBytes
}

// Records returns the records of a valid frame.
func Records(frame []byte) ([][]byte, error) {
	var rs [][]byte
	for body := frame[HeaderBytes:]; len(body) > 0; {
		if len(body) < 4 {
			return nil, errors.New("frame ends inside a record")
		}
		n := binary.BigEndian.Uint32(body)
		body = body[4:]
		if uint64(n) > uint64(len(body)) {
			return nil, errors.New("frame ends inside a record")
		}
		rs, body = append(rs, body[:n:n]), body[n:]
	}
	return rs, nil
}

// In looks for a valid frame anywhere in data, which begins at offset. If there is one behind a bad frame, the bad one had been made
// durable and was damaged later.
func (m Magic) In(offset int64, data []byte) bool {
	magic := binary.BigEndian.AppendUint32(nil, uint32(m))
	for i := 0; ; i++ {
		next := bytes.Index(data[i:], magic)
		if next < 0 {
			return false
		}
		i += next
		if _, err := m.Next(offset+int64(i), data[i:]); err == nil {
			return true
		}
	}
}
