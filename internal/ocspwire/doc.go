// Package ocspwire is OCSP's wire format: RFC 6960 requests and responses with the nonce of RFC 9654, in strict DER.
//
// A responder uses ParseRequest (or Request.Unmarshal, which allocates nothing once it is warm), ChooseAlgorithm, Response.SignWith and
// ErrorResponse; a client Request.Marshal or Request.Sign, ParseResponse and Response.Verify. Nothing here decides what a
// certificate's status is, and nothing reads a clock: times are arguments.
//
// Strict means: DER as X.690 section 10 and 11 has it, no default values encoded, no trailing octets, no repeated extension. A
// request or response that breaks a rule is a *MalformedError that names the field, the value and the rule.
package ocspwire

import (
	"errors"
	"fmt"
)

// MalformedError says which field of a message breaks which rule.
type MalformedError struct {
	Field string // path in RFC 6960's ASN.1, for example "tbsRequest.requestList"
	Value string // what was found, shortened; may be empty
	Rule  string
}

func (e *MalformedError) Error() string {
	if e.Value == "" {
		return fmt.Sprintf("ocsp: %s: %s", e.Field, e.Rule)
	}
	return fmt.Sprintf("ocsp: %s is %s: %s", e.Field, e.Value, e.Rule)
}

func malformed(field, value, rule string) error {
	return &MalformedError{Field: field, Value: value, Rule: rule}
}

// within puts the field of a malformed part under the one that holds it. Paths are made here, when something is wrong, so that
// reading what is right builds no strings.
func within(field string, err error) error {
	var m *MalformedError
	if !errors.As(err, &m) {
		return err
	}
	if m.Field != "" {
		field += "." + m.Field
	}
	return &MalformedError{Field: field, Value: m.Value, Rule: m.Rule}
}
