package bundle

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"

	"github.com/certanchor/certanchor/chaincode/wire"
)

const (
	// ContentType of a bundle over HTTP.
	ContentType = "application/vnd.certanchor.bundle+cbor"

	// Extension of a bundle's file name.
	Extension = ".bundle"

	// MaxSize bounds a bundle, in octets. One with a few rules has 5 to 10 kB.
	MaxSize = 256 << 10

	// MaxNewer bounds the status leaves after the map's, so that verifying takes a bounded time.
	MaxNewer = 16

	version = 2
)

// Kind of an issuance log entry, as in merklelog.Kind.
type Kind uint

// Kinds of entries.
const (
	Final   Kind = 1 // the certificate, an x509_entry
	Precert Kind = 2 // its precertificate, a precert_entry
)

func (k Kind) String() string {
	switch k {
	case Final:
		return "certificate"
	case Precert:
		return "precertificate"
	}
	return fmt.Sprintf("kind %d", uint(k))
}

// Bundle is the decoded file. Nothing in it is verified. docs/bundle.md has its CDDL.
type Bundle struct {
	V       uint     `cbor:"0,keyasint"`
	Channel string   `cbor:"1,keyasint"`
	CAKey   []byte   `cbor:"2,keyasint"` // DER SubjectPublicKeyInfo; not the CA's certificate, of which the ledger authenticates only the key
	Entries []Entry  `cbor:"3,keyasint"` // 1 or 2, sorted by kind
	Tick    Leaf     `cbor:"4,keyasint"` // a wire.MapLeaf and its place in the map log
	CA      Value    `cbor:"5,keyasint"` // wire.MapCA at wire.CAMapKey
	Cert    Value    `cbor:"6,keyasint"` // wire.MapCert at wire.CertMapKey, or absent
	Holder  Value    `cbor:"7,keyasint"` // wire.MapHolder at wire.HolderMapKey, of the certificate's key, or absent
	Rules   [][]byte `cbor:"8,keyasint"` // wire.Rule: all those about the CA, sorted by N
	Newer   []Leaf   `cbor:"9,keyasint"` // wire.StatusLeaf: some that came after the Tick, with their places in the status log, sorted
}

// Entry is where a certificate stands in its CA's issuance log.
type Entry struct {
	Kind  Kind   `cbor:"0,keyasint"`
	Proof []byte `cbor:"1,keyasint"` // C2SP tlog-proof with the leaf's timestamp: tlogproof.Parse
}

// Leaf is a leaf of the map log or status log.
type Leaf struct {
	Leaf  []byte `cbor:"0,keyasint"`
	Proof []byte `cbor:"1,keyasint"` // C2SP tlog-proof: tlogproof.ParseBare
}

// Value is what the revocation map has at a key.
type Value struct {
	Value []byte `cbor:"0,keyasint,omitempty"` // empty: the proof is of absence
	Proof []byte `cbor:"1,keyasint"`           // revmap.ParseProof
}

var (
	encMode cbor.EncMode
	decMode cbor.DecMode
)

func init() {
	options := cbor.CoreDetEncOptions() // RFC 8949 section 4.2.1
	options.NilContainers = cbor.NilContainerAsEmpty
	var err error
	if encMode, err = options.EncMode(); err != nil {
		panic(err)
	}
	if decMode, err = (cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		MaxArrayElements:  wire.MaxRules + MaxNewer,
		MaxMapPairs:       16,
		MaxNestedLevels:   4,
		UTF8:              cbor.UTF8RejectInvalid,
	}).DecMode(); err != nil {
		panic(err)
	}
}

// Marshal encodes b in its one form.
func (b *Bundle) Marshal() ([]byte, error) {
	data, err := encMode.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	if _, err := Parse(data); err != nil {
		return nil, err
	}
	return data, nil
}

// Parse decodes a bundle, and accepts only what Marshal writes. Errors are ErrFormat.
func Parse(data []byte) (*Bundle, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("%w: %d octets: must be at most %d", ErrFormat, len(data), MaxSize)
	}
	var b Bundle
	if err := decMode.Unmarshal(data, &b); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if err := b.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	again, err := encMode.Marshal(&b)
	if err != nil || !bytes.Equal(again, data) {
		return nil, fmt.Errorf("%w: must be in deterministic encoding (RFC 8949 section 4.2.1)", ErrFormat)
	}
	return &b, nil
}

func (b *Bundle) check() error {
	if b.V != version {
		return fmt.Errorf("format version %d: this program reads %d", b.V, version)
	}
	switch n := len(b.Entries); {
	case n != 1 && n != 2:
		return fmt.Errorf("%d issuance entries: must be 1 or 2", n)
	case n == 2 && (b.Entries[0].Kind != Final || b.Entries[1].Kind != Precert):
		return errors.New("two issuance entries: must be the certificate's, then the precertificate's")
	}
	if k := b.Entries[0].Kind; k != Final && k != Precert {
		return fmt.Errorf("issuance entry of kind %d: must be %d (certificate) or %d (precertificate)", k, Final, Precert)
	}
	if n := len(b.Rules); n > wire.MaxRules {
		return fmt.Errorf("%d rules: must be at most %d", n, wire.MaxRules)
	}
	if n := len(b.Newer); n > MaxNewer {
		return fmt.Errorf("%d newer status leaves: must be at most %d", n, MaxNewer)
	}
	return nil
}
