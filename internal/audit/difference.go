package audit

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/certanchor/certanchor/network"
)

// Difference is the first place where the ledger is not what the rules make it.
type Difference struct {
	Block    uint64
	Tx       int    // position in the block; -1: the block itself
	TxID     string // of Tx
	Function string // of Tx
	Field    string // what differs: "number", "previous_hash", "call", "outcome", "result" or "write <key>"
	Ledger   string // what the ledger says
	Rules    string // what the rules say
}

func (d *Difference) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "block %d", d.Block)
	if d.Tx >= 0 {
		fmt.Fprintf(&b, ", transaction %d (%s, %s)", d.Tx, d.TxID, d.Function)
	}
	fmt.Fprintf(&b, ": %s: the ledger says %s, by the rules it is %s", d.Field, d.Ledger, d.Rules)
	return b.String()
}

func inTx(b *network.Block, tx *network.Tx, field, ledger, rules string) *Difference {
	return &Difference{Block: b.Number, Tx: tx.Index, TxID: tx.ID, Function: tx.Function, Field: field, Ledger: ledger, Rules: rules}
}

// compareWrites returns the first write, in key order, that is not the same on both sides; ok is true when there is none.
func compareWrites(ledger, rules []network.Write) (key, says, must string, ok bool) {
	for len(ledger) > 0 || len(rules) > 0 {
		switch {
		case len(rules) == 0 || len(ledger) > 0 && ledger[0].Key < rules[0].Key:
			return ledger[0].Key, describe(ledger[0].Value), "not written", false
		case len(ledger) == 0 || rules[0].Key < ledger[0].Key:
			return rules[0].Key, "not written", describe(rules[0].Value), false
		case (ledger[0].Value == nil) != (rules[0].Value == nil) || !bytes.Equal(ledger[0].Value, rules[0].Value):
			at := firstDifference(ledger[0].Value, rules[0].Value)
			return ledger[0].Key, describeAt(ledger[0].Value, at), describeAt(rules[0].Value, at), false
		}
		ledger, rules = ledger[1:], rules[1:]
	}
	return "", "", "", true
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// shown is how many octets of a value an error shows.
const shown = 16

func describe(value []byte) string {
	if value == nil {
		return "deleted"
	}
	return describeAt(value, 0)
}

func describeAt(value []byte, at int) string {
	if value == nil {
		return "deleted"
	}
	part, more := value[min(at, len(value)):], ""
	if len(part) > shown {
		part, more = part[:shown], "..."
	}
	return fmt.Sprintf("%d octets with %x%s at %d", len(value), part, more, at)
}
