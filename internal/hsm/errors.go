package hsm

import (
	"errors"
	"fmt"
)

// What can be wrong; see Error. All but ErrUnavailable need a person.
var (
	ErrUnavailable = errors.New("token is not available")         // it may be again: absent, unplugged, too slow
	ErrPIN         = errors.New("token refuses the PIN")          // or there is none
	ErrNotFound    = errors.New("no such key pair")               // in that token
	ErrKey         = errors.New("key cannot be used")             // its kind, its permissions, or it is another one than before
	ErrModule      = errors.New("PKCS #11 module cannot be used") // the library
	ErrNoSupport   = errors.New("built without PKCS #11 support")
)

// Error says which key cannot be used and why. It is one of the errors above (errors.Is). It never holds a PIN.
type Error struct {
	Field string // of the configuration
	Value string // the part of the URI that is at fault
	Rule  string
	Kind  error // one of the errors above; nil: the URI itself is wrong
	Err   error // what the module said; may be nil
}

func (e *Error) Error() string {
	text := fmt.Sprintf("%s: %q: %s", e.Field, e.Value, e.Rule)
	if e.Kind != nil {
		text = fmt.Sprintf("%s: %q: %v: %s", e.Field, e.Value, e.Kind, e.Rule)
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap returns Kind and Err.
func (e *Error) Unwrap() []error {
	var all []error
	for _, err := range []error{e.Kind, e.Err} {
		if err != nil {
			all = append(all, err)
		}
	}
	return all
}
