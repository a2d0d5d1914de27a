package wire

import (
	"bytes"
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// Version is the format version that every record and argument carries in key 0.
const Version = 1

// MaxResponderLife is how long a delegated OCSP responder certificate may be valid (invariant 9, docs/invariants.md): nobody
// asks for its own status (RFC 6960 section 4.2.2.2.1), so a stolen key is of use until it expires.
const MaxResponderLife = 48 * time.Hour

// DefaultTickInterval is the length of a clock epoch that new ledgers get unless told otherwise.
const DefaultTickInterval = 15 * time.Second

// Limits of one transaction. The contract refuses more; callers split.
const (
	MaxArgBytes = 8 << 20  // encoded argument
	MaxBatch    = 1000     // certificates in an Issue, changes in a SetStatus
	MaxCertDER  = 60 << 10 // one certificate: with what a leaf adds it fits an entry bundle of tlog-tiles, whose entries have 2^16-1 bytes
	MaxSerial   = 20       // octets of a serial number, RFC 5280 4.1.2.2
)

var (
	encMode  cbor.EncMode // a nil slice is an empty one, so that it has one encoding
	nullMode cbor.EncMode // a nil slice is null
	decMode  cbor.DecMode
)

func init() {
	var err error
	options := cbor.CoreDetEncOptions()
	if nullMode, err = options.EncMode(); err != nil {
		panic(err)
	}
	options.NilContainers = cbor.NilContainerAsEmpty
	if encMode, err = options.EncMode(); err != nil {
		panic(err)
	}
	if decMode, err = (cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		MaxArrayElements:  1 << 16,
		MaxMapPairs:       64,
		MaxNestedLevels:   8,
		UTF8:              cbor.UTF8RejectInvalid,
	}).DecMode(); err != nil {
		panic(err)
	}
}

// Encode returns v's deterministic CBOR. It panics on a type that this package does not define: that is a programming error.
func Encode(v any) []byte {
	mode := encMode
	switch v.(type) {
	case ReadResult, *ReadResult: // the one type in which null has a meaning: no such key
		mode = nullMode
	}
	b, err := mode.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("wire: encode %T: %v", v, err))
	}
	return b
}

// versioned is implemented by every top-level type.
type versioned interface{ version() uint }

// Decode parses data into v, which must point to the zero value of one of this package's top-level types. It refuses anything
// but the one deterministic encoding and any version but Version.
func Decode(data []byte, v versioned) error {
	if len(data) > MaxArgBytes {
		return fmt.Errorf("wire: %T is %d bytes, the limit is %d", v, len(data), MaxArgBytes)
	}
	if err := decMode.Unmarshal(data, v); err != nil {
		return fmt.Errorf("wire: %T: %w", v, err)
	}
	if got := v.version(); got != Version {
		return fmt.Errorf("wire: %T has format version %d, this program reads %d", v, got, Version)
	}
	if !bytes.Equal(Encode(v), data) {
		return fmt.Errorf("wire: %T is not in deterministic encoding (RFC 8949 section 4.2.1)", v)
	}
	return nil
}
