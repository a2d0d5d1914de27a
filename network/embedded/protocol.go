package embedded

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
)

// The protocol between a process that hosts a ledger and its clients, over a Unix socket: HTTP/1.1, bodies in CBOR.
//
//	GET  /v1/ledger             ledgerInfo
//	POST /v1/submit             callRequest -> submitted, or failure
//	POST /v1/evaluate           callRequest -> the answer's bytes, or failure
//	GET  /v1/blocks?from=N      a stream of frames: length, 4 octets big-endian, and a record; ends with the connection
//
// The client says which role it acts in, and is believed: the socket is for processes of the ledger's own user.
const (
	pathLedger   = "/v1/ledger"
	pathSubmit   = "/v1/submit"
	pathEvaluate = "/v1/evaluate"
	pathBlocks   = "/v1/blocks"

	contentType = "application/cbor"
	maxRequest  = wire.MaxArgBytes + 4<<10
	maxAnswer   = 64 << 20
	maxFrame    = 256 << 20 // a block: one transaction above maxBlockBytes, its writes, or many small ones
)

type ledgerInfo struct {
	V       uint   `cbor:"0,keyasint"`
	Channel string `cbor:"1,keyasint"`
	MSPID   string `cbor:"2,keyasint"`
	Height  uint64 `cbor:"3,keyasint"`
}

type callRequest struct {
	V        uint   `cbor:"0,keyasint"`
	Role     string `cbor:"1,keyasint"`
	Function string `cbor:"2,keyasint"`
	Arg      []byte `cbor:"3,keyasint"`
	TxID     string `cbor:"4,keyasint,omitempty"` // submit: random, the client's choice, so that it knows it whatever happens
}

type submitted struct {
	V      uint   `cbor:"0,keyasint"`
	Block  uint64 `cbor:"1,keyasint"`
	Result []byte `cbor:"2,keyasint"`
}

// failure is the body of every status but 200.
type failure struct {
	V      uint        `cbor:"0,keyasint"`
	Class  string      `cbor:"1,keyasint"`
	Reason *wire.Error `cbor:"2,keyasint,omitempty"` // classRejected: what the contract said
	Text   string      `cbor:"3,keyasint,omitempty"`
}

// Classes of failures, and the HTTP status each travels with.
const (
	classRejected    = "rejected"
	classUnavailable = "unavailable"
	classUnknown     = "unknown_outcome"
)

var statusOf = map[string]int{
	classRejected:    http.StatusUnprocessableEntity,
	classUnavailable: http.StatusServiceUnavailable,
	classUnknown:     http.StatusInternalServerError,
}

// failureOf puts an error of the ledger on the wire; err undoes it.
func failureOf(err error) failure {
	f := failure{V: formatVersion, Class: classUnavailable, Text: err.Error()}
	var (
		refused *network.RejectedError
		unknown *network.UnknownOutcomeError
	)
	switch {
	case errors.As(err, &refused):
		f.Class, f.Text = classRejected, refused.Reason.Error()
		errors.As(refused.Reason, &f.Reason)
	case errors.As(err, &unknown):
		f.Class, f.Text = classUnknown, unknown.Err.Error()
	}
	return f
}

// err is the error that a client returns for f.
func (f failure) err(function, stage, txID string) error {
	switch f.Class {
	case classRejected:
		if f.Reason != nil {
			return &network.RejectedError{Function: function, Reason: f.Reason}
		}
		return &network.RejectedError{Function: function, Reason: errors.New(f.Text)}
	case classUnavailable:
		return &network.UnavailableError{Stage: stage, Err: errors.New(f.Text)}
	default:
		return &network.UnknownOutcomeError{TxID: txID, Stage: stage, Err: errors.New(f.Text)}
	}
}

// writeFrame sends one stored block.
func writeFrame(w io.Writer, encoded []byte) error {
	if len(encoded) > maxFrame {
		return fmt.Errorf("block of %d bytes, the protocol allows %d", len(encoded), maxFrame)
	}
	var length [4]byte
	binary.BigEndian.PutUint32(length[:], uint32(len(encoded)))
	if _, err := w.Write(length[:]); err != nil {
		return err
	}
	_, err := w.Write(encoded)
	return err
}

func readFrame(r io.Reader) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n > maxFrame {
		return nil, fmt.Errorf("block of %d bytes, the protocol allows %d", n, maxFrame)
	}
	encoded := make([]byte, n)
	_, err := io.ReadFull(r, encoded)
	return encoded, err
}
