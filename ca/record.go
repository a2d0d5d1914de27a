package ca

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/fxamacker/cbor/v2"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// The journal is a sequence of frames, one for each write that was made durable:
//
//	magic (4) | length of body (4) | CRC-32C of the frame's offset (8), the length (4) and the body (4) | body
//
// all big-endian. The body is a sequence of records, each preceded by its length (4). The offset in the checksum means that a
// frame is valid in one place only, so that nothing inside a body can pass for one.
const (
	frameMagic  = 0xca1edb0c
	frameHeader = 12
	maxFrame    = 32 << 20
	maxRecords  = 256 // in one frame; bounds what reading one record costs
)

// kind is what a record says.
type kind uint

const (
	kindHeader    kind = 1 // the CA whose journal this is; always first
	kindSigned    kind = 2 // a certificate exists and will be submitted to the ledger
	kindAnchored  kind = 3 // the ledger has it
	kindRefused   kind = 4 // the ledger refused it for good
	kindAbandoned kind = 5 // it was never submitted and will not be

	// Of certificates with SCTs, in this order; then kindAnchored. kindRefused and kindAbandoned may follow the first, kindRefused the last.
	kindPrecert     kind = 20 // a precertificate exists and will be submitted: it is kindSigned's record
	kindPreAnchored kind = 21 // the ledger has it: it is a promise that there will be a certificate
	kindStamped     kind = 22 // what its certificate embeds; no other certificate of this precertificate is ever signed
	kindFinal       kind = 23 // the certificate exists and will be submitted
)

// record is one entry of the journal, deterministic CBOR.
type record struct {
	V    uint   `cbor:"0,keyasint"`
	Kind kind   `cbor:"1,keyasint"`
	Time int64  `cbor:"2,keyasint"` // milliseconds, this machine's clock
	CAID []byte `cbor:"3,keyasint,omitempty"`

	Serial  []byte `cbor:"4,keyasint,omitempty"`
	Cert    []byte `cbor:"5,keyasint,omitempty"` // signed, precert, final: DER
	Client  string `cbor:"6,keyasint,omitempty"` // signed, precert: who asked
	Profile string `cbor:"7,keyasint,omitempty"` // signed, precert
	Key     []byte `cbor:"8,keyasint,omitempty"` // signed, precert: digest of client and idempotency key, if there was one
	Request []byte `cbor:"9,keyasint,omitempty"` // signed, precert: digest of the request

	Log   *wire.LogEntry `cbor:"10,keyasint,omitempty"` // anchored, preAnchored
	Block uint64         `cbor:"11,keyasint,omitempty"` // anchored, preAnchored
	TxID  string         `cbor:"12,keyasint,omitempty"` // anchored, preAnchored

	Refusal *wire.Error `cbor:"13,keyasint,omitempty"` // refused, abandoned: why

	Need uint   `cbor:"20,keyasint,omitempty"` // precert: how many SCTs the certificate is to have
	SCTs []byte `cbor:"21,keyasint,omitempty"` // stamped: SignedCertificateTimestampList (RFC 6962 section 3.3)
}

const recordVersion = 1

var (
	recordEnc  cbor.EncMode
	recordDec  cbor.DecMode
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

func init() {
	var err error
	if recordEnc, err = cbor.CoreDetEncOptions().EncMode(); err != nil {
		panic(err)
	}
	if recordDec, err = (cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
	}).DecMode(); err != nil {
		panic(err)
	}
}

func encodeRecord(r *record) []byte {
	b, err := recordEnc.Marshal(r)
	if err != nil {
		panic(fmt.Sprintf("ca: encode journal record: %v", err)) // only types from this file
	}
	return b
}

func decodeRecord(b []byte) (*record, error) {
	var r record
	if err := recordDec.Unmarshal(b, &r); err != nil {
		return nil, err
	}
	if r.V != recordVersion {
		return nil, fmt.Errorf("record has format version %d, this program reads %d", r.V, recordVersion)
	}
	if r.Kind != kindHeader {
		if err := wire.Serial(r.Serial).Check(); err != nil {
			return nil, err
		}
	}
	return &r, nil
}

// encodeFrame wraps encoded records for the place offset.
func encodeFrame(offset int64, records [][]byte) []byte {
	b := make([]byte, frameHeader)
	for _, r := range records {
		b = binary.BigEndian.AppendUint32(b, uint32(len(r))) //nolint:gosec // a record is at most some 70 kB
		b = append(b, r...)
	}
	binary.BigEndian.PutUint32(b, frameMagic)
	binary.BigEndian.PutUint32(b[4:], uint32(len(b)-frameHeader)) //nolint:gosec // at most maxRecords of them
	binary.BigEndian.PutUint32(b[8:], frameSum(offset, b))
	return b
}

func frameSum(offset int64, frame []byte) uint32 {
	var place [12]byte
	binary.BigEndian.PutUint64(place[:], uint64(offset)) //nolint:gosec // offsets are not negative
	copy(place[8:], frame[4:8])
	return crc32.Update(crc32.Checksum(place[:], castagnoli), castagnoli, frame[frameHeader:])
}

var errBadFrame = errors.New("not a valid frame")

// nextFrame takes the frame at offset off the front of data. errBadFrame: there is none, or only part of one.
func nextFrame(offset int64, data []byte) (frame []byte, err error) {
	if len(data) < frameHeader || binary.BigEndian.Uint32(data) != frameMagic {
		return nil, errBadFrame
	}
	n := binary.BigEndian.Uint32(data[4:])
	if n == 0 || n > maxFrame || int(n) > len(data)-frameHeader {
		return nil, errBadFrame
	}
	frame = data[:frameHeader+int(n)]
	if frameSum(offset, frame) != binary.BigEndian.Uint32(frame[8:]) {
		return nil, errBadFrame
	}
	return frame, nil
}

// frameLength is how many bytes to read for the frame that begins with head. For a header that cannot be one, nextFrame says so
// when it gets as many.
func frameLength(head []byte) int64 {
	if len(head) < frameHeader {
		return int64(len(head))
	}
	if n := binary.BigEndian.Uint32(head[4:]); n <= maxFrame {
		return frameHeader + int64(n)
	}
	return frameHeader
}

// frameRecords decodes the records of a valid frame.
func frameRecords(frame []byte) ([]*record, error) {
	var rs []*record
	for body := frame[frameHeader:]; len(body) > 0; {
		if len(body) < 4 {
			return nil, errors.New("frame ends inside a record")
		}
		n := binary.BigEndian.Uint32(body)
		body = body[4:]
		if uint64(n) > uint64(len(body)) {
			return nil, errors.New("frame ends inside a record")
		}
		r, err := decodeRecord(body[:n])
		if err != nil {
			return nil, err
		}
		rs, body = append(rs, r), body[n:]
	}
	return rs, nil
}

// validFrameIn looks for a valid frame anywhere in data, which begins at offset. If there is one behind a bad frame, the bad one
// had been made durable and was damaged later.
func validFrameIn(offset int64, data []byte) bool {
	magic := binary.BigEndian.AppendUint32(nil, frameMagic)
	for i := 0; ; i++ {
		next := bytes.Index(data[i:], magic)
		if next < 0 {
			return false
		}
		i += next
		if _, err := nextFrame(offset+int64(i), data[i:]); err == nil {
			return true
		}
	}
}
