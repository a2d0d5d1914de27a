package wire

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Code classes the contract's refusals.
type Code string

// Codes of Error.
const (
	InvalidArgument    Code = "invalid_argument"    // the request can never succeed as it is
	NotFound           Code = "not_found"           // it names something the ledger does not have
	AlreadyExists      Code = "already_exists"      // it would record something else under a name in use
	PermissionDenied   Code = "permission_denied"   // the caller's organisation or role may not do this
	FailedPrecondition Code = "failed_precondition" // not in the ledger's present state
	Internal           Code = "internal"            // state that cannot be read or decoded; never the caller's fault
)

// Error is a refusal: which field, with which value, breaks which rule.
type Error struct {
	Code  Code   `json:"code"`
	Field string `json:"field"`
	Value string `json:"value"`
	Rule  string `json:"rule"`
}

func (e *Error) Error() string { return fmt.Sprintf("%s %q: %s", e.Field, e.Value, e.Rule) }

// errorPrefix marks an Error in the message of a chaincode response.
const errorPrefix = "certanchor-error:"

// Message renders e for a chaincode response; ParseMessage undoes it.
func (e *Error) Message() string {
	b, err := json.Marshal(e)
	if err != nil { // four strings always marshal
		panic(err)
	}
	return errorPrefix + string(b)
}

// ParseMessage finds an Error inside msg, which may have text of the transport before it.
func ParseMessage(msg string) (*Error, bool) {
	_, rest, ok := strings.Cut(msg, errorPrefix)
	if !ok {
		return nil, false
	}
	var e Error
	if err := json.NewDecoder(strings.NewReader(rest)).Decode(&e); err != nil || e.Code == "" {
		return nil, false
	}
	return &e, true
}

// Errorf builds an Error; value and rule, which may quote what was sent, are shortened to a printable length.
func Errorf(code Code, field, value, rule string, args ...any) *Error {
	const mostRule = 512
	return &Error{Code: code, Field: field, Value: clip(value), Rule: clipTo(mostRule, fmt.Sprintf(rule, args...))}
}

// clip keeps a hostile value from filling logs and blocks.
func clip(s string) string { return clipTo(128, s) }

func clipTo(most int, s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
