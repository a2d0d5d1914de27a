package caimport

import (
	"fmt"
	"strings"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// Where is a place in a source, for whoever has to mend it.
type Where struct {
	Source string // file, or "standard input"
	Line   int    // from 1; 0: the source has no lines
	Offset int64  // octets from the start, of DER; -1: not DER
	Entry  int    // of a CRL's entries or a database's rows, from 1; 0: neither
}

func (w Where) String() string {
	switch {
	case w.Entry > 0:
		return fmt.Sprintf("%s, entry %d", w.Source, w.Entry)
	case w.Line > 0:
		return fmt.Sprintf("%s:%d", w.Source, w.Line)
	case w.Offset > 0:
		return fmt.Sprintf("%s, offset %d", w.Source, w.Offset)
	}
	return w.Source
}

// Bad is an entry that cannot be imported, and why.
type Bad struct {
	Where string `json:"where"`
	Field string `json:"field"`
	Value string `json:"value"`
	Rule  string `json:"rule"`

	serial wire.Serial // whose status is in doubt for it; nil: not known
}

// about says which certificate is in doubt.
func (b *Bad) about(s wire.Serial) *Bad {
	b.serial = s
	return b
}

func (b *Bad) Error() string { return fmt.Sprintf("%s: %s %q: %s", b.Where, b.Field, b.Value, b.Rule) }

// Serial is the number of the certificate that it is about; nil: not known.
func (b *Bad) Serial() wire.Serial { return b.serial }

// maxShown bounds a value in a Bad: whoever wrote the source must not choose how long a report gets.
const maxShown = 96

func bad(w Where, field, value, rule string, args ...any) *Bad {
	value = strings.ToValidUTF8(value, "\uFFFD")
	if len(value) > maxShown {
		value = strings.ToValidUTF8(value[:maxShown], "") + "..."
	}
	return &Bad{Where: w.String(), Field: field, Value: value, Rule: fmt.Sprintf(rule, args...)}
}

// Status is what a source says about a certificate beside the certificate itself.
type Status struct {
	State      wire.CertState // 0: the source does not say
	Reason     wire.Reason
	Revoked    wire.Millis // 0 unless held or revoked
	Invalidity wire.Millis // revoked only; 0: not given
	Removed    bool        // of a delta CRL: no longer on hold. State is then CertValid
}

// Record is one entry of a source: a certificate, a status, or both.
type Record struct {
	Where    Where
	Serial   wire.Serial // nil with DER: it is the certificate's
	DER      []byte      // nil: the source has no certificate for it
	Status   Status
	NotAfter wire.Millis // without DER: as the source says; 0: it does not
	Expired  bool        // the source calls it expired
}

// Reasons by their lower-case names: RFC 5280's, which openssl and cfssl use with other capitals.
var reasons = func() map[string]wire.Reason {
	m := map[string]wire.Reason{}
	for r := wire.Unspecified; r <= wire.AACompromise; r++ {
		if r.Known() {
			m[strings.ToLower(r.String())] = r
		}
	}
	return m
}()

const removeFromCRL = 8 // RFC 5280 section 5.3.1

// stateOf is the state that goes with a reason: certificateHold is no final revocation.
func stateOf(r wire.Reason) wire.CertState {
	if r == wire.CertificateHold {
		return wire.CertHeld
	}
	return wire.CertRevoked
}

// sink is where a source puts what it finds. A source that returns an error could not be read to its end.
type sink struct {
	record func(*Record) error
	bad    func(*Bad) error
	skip   func(kind string) // something that is no entry, by what it is
}

// source is one thing to read. read may be called again, and then finds the same in the same order unless it has changed meanwhile.
type source interface {
	name() string
	kind() string
	read(s *sink) error
}
