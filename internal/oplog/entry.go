package oplog

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// Entry is one thing that somebody did or tried to do. Texts may come from a hostile request: what is not printable is escaped, and what
// is longer than the limits below is cut.
type Entry struct {
	Actor   string            // who, such as the name of an API client; empty: nobody knows
	How     string            // how they authenticated: "token", "hmac", "certificate", "local" for a command on the CA's directory
	Source  string            // address that a request came from; empty: none
	Action  string            // what, such as "POST /v1/revocations"
	Target  string            // to what, such as a serial number
	Detail  map[string]string // more about it; "sha256" is of a request's body
	Outcome string            // "", "done", "refused: ...", "failed: ...", "unknown"; empty: it is about to begin, and an End follows
}

// Outcomes.
const (
	Done    = "done"
	Unknown = "unknown"
)

// Limits of an Entry's texts in bytes, escapes included.
const (
	MaxActor   = 128
	MaxText    = 256 // all others, a detail's value too
	MaxKey     = 64  // of a detail
	MaxDetails = 16
)

// Kind says what a record is.
type Kind uint

// Kinds of records.
const (
	Begins Kind = 1 // the first of a generation, and no other
	Tells  Kind = 2 // an Entry
	Ends   Kind = 3 // the outcome of an Entry that was recorded before it began
)

// Record is one record of the log. It is hashed and stored as deterministic CBOR (RFC 8949 section 4.2.1).
type Record struct {
	V       uint              `cbor:"0,keyasint" json:"-"`
	Seq     uint64            `cbor:"1,keyasint" json:"seq"`  // its index in the generation
	Prev    []byte            `cbor:"2,keyasint" json:"-"`    // RFC 6962 leaf hash of the record before; 32 zero octets in the first
	Time    wire.Millis       `cbor:"3,keyasint" json:"time"` // this machine's clock
	Kind    Kind              `cbor:"4,keyasint" json:"kind"`
	Actor   string            `cbor:"5,keyasint,omitempty" json:"actor,omitempty"`
	How     string            `cbor:"6,keyasint,omitempty" json:"how,omitempty"`
	Source  string            `cbor:"7,keyasint,omitempty" json:"source,omitempty"`
	Action  string            `cbor:"8,keyasint,omitempty" json:"action,omitempty"`
	Target  string            `cbor:"9,keyasint,omitempty" json:"target,omitempty"`
	Detail  map[string]string `cbor:"10,keyasint,omitempty" json:"detail,omitempty"`
	Outcome string            `cbor:"11,keyasint,omitempty" json:"outcome,omitempty"`
	Of      uint64            `cbor:"12,keyasint,omitempty" json:"of,omitempty"` // Ends: the Seq that it is the outcome of

	CAID       []byte              `cbor:"13,keyasint,omitempty" json:"-"` // Begins
	Generation uint64              `cbor:"14,keyasint,omitempty" json:"generation,omitempty"`
	Lost       *wire.OperatorsHead `cbor:"15,keyasint,omitempty" json:"-"`              // Begins, generation above 0: the last anchored head, which it does not continue
	Kept       *wire.OperatorsHead `cbor:"16,keyasint,omitempty" json:"-"`              // and what there is of the generations before; nil: nothing
	Name       string              `cbor:"17,keyasint,omitempty" json:"name,omitempty"` // Begins: that the log is anchored under; empty: that of the first bridge
}

const recordVersion = 1

// MaxRecord bounds the encoding of a record.
const MaxRecord = MaxActor + 5*MaxText + MaxDetails*(MaxKey+MaxText+8) + 512

var (
	encMode cbor.EncMode
	decMode cbor.DecMode
)

func init() {
	var err error
	if encMode, err = cbor.CoreDetEncOptions().EncMode(); err != nil {
		panic(err)
	}
	if decMode, err = (cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		MaxMapPairs:       64,
		MaxNestedLevels:   4,
		UTF8:              cbor.UTF8RejectInvalid,
	}).DecMode(); err != nil {
		panic(err)
	}
}

func encode(r *Record) []byte {
	b, err := encMode.Marshal(r)
	if err != nil {
		panic(fmt.Sprintf("oplog: encode a record: %v", err)) // only types from this file
	}
	return b
}

func decode(data []byte) (*Record, error) {
	if len(data) > MaxRecord {
		return nil, fmt.Errorf("a record of %d bytes: must have at most %d", len(data), MaxRecord)
	}
	var r Record
	if err := decMode.Unmarshal(data, &r); err != nil {
		return nil, err
	}
	if r.V != recordVersion {
		return nil, fmt.Errorf("record has format version %d, this program reads %d", r.V, recordVersion)
	}
	if err := wire.CheckOperatorsName(r.Name); err != nil {
		return nil, fmt.Errorf("name of the log %q: %w", r.Name, err)
	}
	return &r, nil
}

// record makes e fit to be kept.
func (e *Entry) record(now time.Time) *Record {
	r := &Record{
		V: recordVersion, Time: wire.MillisOf(now), Kind: Tells, Actor: clean(e.Actor, MaxActor), How: clean(e.How, MaxText), Source: clean(e.Source, MaxText),
		Action: clean(e.Action, MaxText), Target: clean(e.Target, MaxText), Outcome: clean(e.Outcome, MaxText),
	}
	r.Detail = cleanDetail(e.Detail)
	return r
}

// cleanDetail keeps the first MaxDetails in the order of their keys.
func cleanDetail(detail map[string]string) map[string]string {
	if len(detail) == 0 {
		return nil
	}
	kept := make(map[string]string, min(len(detail), MaxDetails))
	for _, k := range slices.Sorted(maps.Keys(detail)) {
		if len(kept) < MaxDetails {
			kept[clean(k, MaxKey)] = clean(detail[k], MaxText)
		}
	}
	return kept
}

const cut = "..."

// clean escapes what is not printable, so that no text can look like more than one line or field wherever it is shown, and cuts what is too
// long. A backslash is escaped, so that escapes are what they seem.
func clean(s string, most int) string {
	plain := len(s) <= most
	for i := 0; plain && i < len(s); i++ {
		plain = s[i] >= ' ' && s[i] < 0x7f && s[i] != '\\'
	}
	if plain {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		var piece string
		switch {
		case r == utf8.RuneError && n == 1:
			piece = fmt.Sprintf(`\x%02x`, s[0])
		case r == '\\':
			piece = `\\`
		case unicode.IsPrint(r):
			piece = s[:n]
		default:
			piece = fmt.Sprintf(`\u{%x}`, r)
		}
		if b.Len()+len(piece) > most-len(cut) {
			return b.String() + cut
		}
		b.WriteString(piece)
		s = s[n:]
	}
	return b.String()
}
