// Package keystate keeps the life of a private key as custodians do (ISO/TR 23576 sections 5.4 and 9.3): which state it is in, since when, who
// put it there and why. What is recorded is appended to one file, each record with the hash of the one before, and durable before it counts.
//
// Reading order: keystate.go (states and who may follow whom), history.go (the file's format), store.go (the file).
package keystate

import (
	"fmt"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// State is where a key is in its life.
type State string

// States.
const (
	Generated State = "generated" // made, not in use yet
	Active    State = "active"    // signs everything
	Suspended State = "suspended" // signs nothing, until it is resumed
	Retired   State = "retired"   // signs no more certificates; what was issued keeps its status
	Destroyed State = "destroyed" // is no more
)

// States are all of them, in the order of a life.
var States = []State{Generated, Active, Suspended, Retired, Destroyed}

// Use is what a signature is for.
type Use string

// Uses.
const (
	Certificates Use = "certificates"
	Responders   Use = "certificates of OCSP responders"
	CRLs         Use = "CRLs"
	Promised     Use = "certificates whose precertificates are on the ledger" // RFC 6962 section 3.1: a promise made before
)

// Allows reports whether a key in state s may make signatures for u.
func (s State) Allows(u Use) bool {
	switch s {
	case Active:
		return true
	case Retired:
		return u == Responders || u == CRLs || u == Promised
	}
	return false
}

// follows are the states that may come after each. A suspended key goes back to the state that it was in, or on.
var follows = map[State][]State{
	"":        {Generated, Active}, // Active: a key from before states were kept
	Generated: {Active, Destroyed},
	Active:    {Suspended, Retired}, // what is in use is taken out of use before it is destroyed
	Suspended: {Active, Retired, Destroyed},
	Retired:   {Suspended, Destroyed},
	Destroyed: {},
}

// Parse reads the name of a state. Errors are *wire.Error about field.
func Parse(field, name string) (State, error) {
	for _, s := range States {
		if string(s) == name {
			return s, nil
		}
	}
	return "", wire.Errorf(wire.InvalidArgument, field, name, "must be generated, active, suspended, retired or destroyed")
}

// Change is one that somebody asks for.
type Change struct {
	To  State
	By  string // who, 1 to 200 octets
	How string // how that is known: token, hmac, certificate, command line
	Why string // 1 to 500 octets
	At  time.Time
}

// Record is one change, as it is kept.
type Record struct {
	Seq  uint64    `json:"seq"` // 1 for the first
	Key  string    `json:"key"` // SHA-256 of the SubjectPublicKeyInfo, hexadecimal
	From State     `json:"from,omitempty"`
	To   State     `json:"to"`
	Time time.Time `json:"time"`
	By   string    `json:"by"`
	How  string    `json:"how"`
	Why  string    `json:"why"`
	Prev string    `json:"prev"` // SHA-256 of the line before without its newline, hexadecimal; empty in the first
}

// String says state, since when, by whom and why.
func (r *Record) String() string {
	return fmt.Sprintf("%s since %s by %s (%s): %s", r.To, r.Time.UTC().Format(time.RFC3339), r.By, r.How, r.Why)
}

// Usable returns nil if the key may make signatures for u, else a *wire.Error that names the state, since when, and who.
func (r *Record) Usable(u Use) error {
	if r.To.Allows(u) {
		return nil
	}
	return wire.Errorf(wire.FailedPrecondition, "ca.key", string(r.To), "is so since %s by %s (%s): such a key signs no %s",
		r.Time.UTC().Format(time.RFC3339), r.By, r.Why, u)
}

// check refuses a change that may not follow. before is the state that a suspended key was in.
func check(from, before, to State) error {
	for _, s := range follows[from] {
		if s == to && !(from == Suspended && before == Retired && to == Active) {
			return nil
		}
	}
	switch {
	case from == to:
		return wire.Errorf(wire.FailedPrecondition, "to", string(to), "the key is %s already", from)
	case from == Destroyed:
		return wire.Errorf(wire.FailedPrecondition, "to", string(to), "the key is destroyed, which is for ever")
	case from == Active && to == Destroyed:
		return wire.Errorf(wire.FailedPrecondition, "to", string(to), "a key that is active must be suspended or retired first")
	case from == Suspended && before == Retired:
		return wire.Errorf(wire.FailedPrecondition, "to", string(to), "the key was retired before it was suspended: it goes back to that or is destroyed")
	}
	return wire.Errorf(wire.FailedPrecondition, "to", string(to), "a key that is %s may become %s", from, names(follows[from]))
}

func names(states []State) string {
	text := ""
	for i, s := range states {
		switch {
		case i > 0 && i == len(states)-1:
			text += " or "
		case i > 0:
			text += ", "
		}
		text += string(s)
	}
	return text
}
