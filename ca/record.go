package ca

import (
	"fmt"

	"github.com/fxamacker/cbor/v2"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/framelog"
)

// frameMagic begins each of the journal's frames; package framelog has their form.
const frameMagic framelog.Magic = 0xca1edb0c

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

	Op   uint64 `cbor:"30,keyasint,omitempty"` // signed: the record of the operators' log (docs/operators-log.md) in whose action it was, generation in the upper bits
	Need uint   `cbor:"20,keyasint,omitempty"` // precert: how many SCTs the certificate is to have
	SCTs []byte `cbor:"21,keyasint,omitempty"` // stamped: SignedCertificateTimestampList (RFC 6962 section 3.3)
}

const recordVersion = 1

var (
	recordEnc cbor.EncMode
	recordDec cbor.DecMode
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
