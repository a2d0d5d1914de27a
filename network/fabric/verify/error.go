package verify

import (
	"fmt"
	"strings"
)

// Error says what is wrong in a block: where, and which rule what value breaks. The verifier has not moved: it takes another
// version of the same block, from another peer.
type Error struct {
	Block uint64
	Tx    int    // position in the block; -1: the block itself
	TxID  string // of Tx, as its header says
	Field string // what is wrong, for example "header.previous_hash"
	Value string // what it is
	Rule  string // what it must be
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "block %d", e.Block)
	if e.Tx >= 0 {
		fmt.Fprintf(&b, ", transaction %d", e.Tx)
		if e.TxID != "" {
			fmt.Fprintf(&b, " (%s)", e.TxID)
		}
	}
	fmt.Fprintf(&b, ": %s: ", e.Field)
	if e.Value != "" {
		fmt.Fprintf(&b, "%s, ", e.Value)
	}
	return b.String() + e.Rule
}

// fault is an Error that does not know its place yet.
type fault struct{ field, value, rule string }

func (f *fault) Error() string { return fmt.Sprintf("%s: %s, %s", f.field, f.value, f.rule) }

func faultf(field, value, rule string, args ...any) *fault {
	return &fault{field, value, fmt.Sprintf(rule, args...)}
}

func (f *fault) at(block uint64, tx int, id string) *Error {
	return &Error{Block: block, Tx: tx, TxID: id, Field: f.field, Value: f.value, Rule: f.rule}
}
