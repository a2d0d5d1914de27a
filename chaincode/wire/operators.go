package wire

import (
	"fmt"
	"strings"
)

// FnAnchorOperators is the function that anchors the head of the operators' log of a CA; see AnchorOperatorsArg.
const FnAnchorOperators = "AnchorOperators"

// OperatorsPrefix begins the keys of OperatorsKey.
const OperatorsPrefix = "operators/"

// MaxOperatorsName is the longest name of an operators' log, in bytes.
const MaxOperatorsName = 32

// CheckOperatorsName accepts the name of an operators' log: empty, or 1 to MaxOperatorsName of a-z, 0-9 and "-". Error: a text that says the rule.
func CheckOperatorsName(name string) error {
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' || len(name) > MaxOperatorsName {
			return fmt.Errorf("must be empty, or 1 to %d of a-z, 0-9 and -", MaxOperatorsName)
		}
	}
	return nil
}

// OperatorsKey is the newest anchored head of an operators' log of a CA, absent until the first AnchorOperators. Each bridge of a CA that has
// several keeps a log of its own; that of the first one has the empty name.
func OperatorsKey(id CAID, name string) string {
	if name == "" {
		return OperatorsPrefix + id.String()
	}
	return OperatorsPrefix + id.String() + "/" + name
}

// ParseOperatorsKey undoes OperatorsKey.
func ParseOperatorsKey(key string) (id CAID, name string, err error) {
	s, ok := strings.CutPrefix(key, OperatorsPrefix)
	if !ok {
		return CAID{}, "", fmt.Errorf("wire: %q is not a key of an operators' log", key)
	}
	s, name, named := strings.Cut(s, "/")
	if err := CheckOperatorsName(name); err != nil || named && name == "" {
		return CAID{}, "", fmt.Errorf("wire: %q is not a key of an operators' log: the name has 1 to %d of a-z, 0-9 and -", key, MaxOperatorsName)
	}
	id, err = ParseCAID(s)
	return id, name, err
}

// OperatorsHead is a state of an operators' log (docs/operators-log.md): RFC 6962 section 2.1 over its records.
//
// A log that was lost in part goes on as a new generation, which begins at size 0.
type OperatorsHead struct {
	Generation uint64 `cbor:"0,keyasint"` // from 0
	Size       uint64 `cbor:"1,keyasint"` // records, at least 1
	Root       []byte `cbor:"2,keyasint"` // SHA-256
}

// Equal tells whether two heads are the same.
func (h OperatorsHead) Equal(o OperatorsHead) bool {
	return h.Generation == o.Generation && h.Size == o.Size && string(h.Root) == string(o.Root)
}

func (h OperatorsHead) String() string {
	return fmt.Sprintf("generation %d, size %d, root %x", h.Generation, h.Size, h.Root)
}

// OperatorsRecord is the newest anchored head of a CA's operators' log, at OperatorsKey.
type OperatorsRecord struct {
	V    uint           `cbor:"0,keyasint"`
	Head OperatorsHead  `cbor:"1,keyasint"`
	Time Millis         `cbor:"2,keyasint"`           // of the transaction that anchored it, never before the one before
	Lost *OperatorsHead `cbor:"3,keyasint,omitempty"` // of a generation after the first: the last anchored head before it
}

// AnchorOperatorsArg anchors a head of the operators' log of a CA. Within a generation the log only grows, and Proof shows it: the
// contract takes no head that does not contain the one before. A generation begins by naming the head that it does not continue.
// Repeating the newest with the same head succeeds.
type AnchorOperatorsArg struct {
	V     uint           `cbor:"0,keyasint"`
	CAID  CAID           `cbor:"1,keyasint"`
	Head  OperatorsHead  `cbor:"2,keyasint"`
	Proof [][]byte       `cbor:"3,keyasint"`           // RFC 6962 section 2.1.2, from the anchored head to Head; empty if nothing is anchored or Lost is set
	Lost  *OperatorsHead `cbor:"4,keyasint,omitempty"` // begins a new generation: the newest anchored head, of the generation before
	Name  string         `cbor:"5,keyasint,omitempty"` // of the log, for CheckOperatorsName; each name has a history of its own
}

// AnchorOperatorsResult is what stands at OperatorsKey afterwards.
type AnchorOperatorsResult struct {
	V       uint          `cbor:"0,keyasint"`
	Head    OperatorsHead `cbor:"1,keyasint"`
	Time    Millis        `cbor:"2,keyasint"`
	Changed bool          `cbor:"3,keyasint"` // false: it was so already
}

func (r *OperatorsRecord) version() uint       { return r.V }
func (a *AnchorOperatorsArg) version() uint    { return a.V }
func (r *AnchorOperatorsResult) version() uint { return r.V }
