package ctfront

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"golang.org/x/crypto/cryptobyte"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/problem"
	"github.com/certanchor/certanchor/network"
)

// maxAnswer is far more than an SCT or a problem needs.
const maxAnswer = 64 << 10

// maxField is longer than the name of any field.
const maxField = 128

// hint is what another organisation's SCT says about where an entry is. Nothing about it is true until the own log has the entry.
type hint struct {
	index uint64
	time  wire.Millis
}

// read makes a hint or an error of an answer.
func (f *forwarder) read(answer *http.Response) (hint, error) {
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	if err == nil && len(text) > maxAnswer {
		err = fmt.Errorf("answer is longer than %d bytes", maxAnswer)
	}
	if answer.StatusCode == http.StatusOK {
		if err != nil {
			return hint{}, f.unknown(err)
		}
		at, err := parseHint(text)
		if err != nil {
			return hint{}, f.unknown(err)
		}
		return at, nil
	}
	var p problem.Problem
	if err := json.Unmarshal(text, &p); err != nil { // not everything between here and there speaks RFC 9457
		p = problem.Problem{Detail: string(text)}
	}
	return hint{}, f.refusal(answer.StatusCode, &p)
}

// refusal says what another status than 200 means.
func (f *forwarder) refusal(status int, p *problem.Problem) error {
	said := fmt.Errorf("status %d: %.300q", status, p.Detail)
	switch {
	case status == http.StatusBadRequest && refusals[wire.Code(p.Code)]:
		return &network.RejectedError{Function: wire.FnIssue, Reason: reason(p)}
	case status == http.StatusServiceUnavailable && p.Code != problem.CodeUnknownOutcome:
		return f.unavailable(said)
	case status >= 400 && status < 500: // it is this front that is not welcome there, or the URL that is wrong, not the certificate
		return f.unavailable(said)
	}
	return f.unknown(said)
}

// refusals are the codes that a 400 has if it is about the certificate.
var refusals = map[wire.Code]bool{
	wire.InvalidArgument: true, wire.NotFound: true, wire.AlreadyExists: true, wire.PermissionDenied: true, wire.FailedPrecondition: true,
}

// reason is a problem as the contract would have said it. It is another's text: wire.Errorf shortens it.
func reason(p *problem.Problem) *wire.Error {
	if p.Rule == "" || len(p.Field) > maxField {
		return wire.Errorf(wire.Code(p.Code), "chain", "", "must be one that the CA's operator takes: %s", p.Detail)
	}
	return wire.Errorf(wire.Code(p.Code), p.Field, p.Value, "%s", p.Rule)
}

var errHint = errors.New("answer must be an SCT as add-chain has it (RFC 6962 section 4.1), with one leaf_index extension (c2sp.org/static-ct-api)")

// parseHint reads an add-chain answer. Version, log ID and signature are not looked at: they are the other organisation's word.
func parseHint(text []byte) (hint, error) {
	var sct struct {
		Time       int64  `json:"timestamp"`
		Extensions []byte `json:"extensions"`
	}
	if err := json.Unmarshal(text, &sct); err != nil || sct.Time < 0 {
		return hint{}, errHint
	}
	index, ok := leafIndex(sct.Extensions)
	if !ok {
		return hint{}, errHint
	}
	return hint{index: index, time: wire.Millis(sct.Time)}, nil
}

// leafIndex reads CtExtensions that are one leaf_index: type 0, length 5, the index.
func leafIndex(extensions []byte) (uint64, bool) {
	var (
		kind uint8
		data cryptobyte.String
	)
	s := cryptobyte.String(extensions)
	if !s.ReadUint8(&kind) || kind != 0 || !s.ReadUint16LengthPrefixed(&data) || len(data) != 5 || !s.Empty() {
		return 0, false
	}
	index := uint64(0)
	for _, b := range data {
		index = index<<8 | uint64(b)
	}
	return index, true
}
