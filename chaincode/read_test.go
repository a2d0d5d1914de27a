package chaincode_test

import (
	"strings"
	"testing"

	"github.com/certanchor/certanchor/chaincode"
	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
)

func TestReadAnswersMembersOfAnyRole(t *testing.T) {
	l := founded(t)
	arg := cctest.ReadArg("absent", wire.ConsortiumKey, "absent")
	for _, by := range []chaincode.Caller{op1, admin2, auditor4, {MSPID: "Org3MSP"}} {
		got := decode[wire.ReadResult](t, unchanged(t, l, by, wire.FnRead, arg))
		if len(got.Values) != 3 || got.Values[0] != nil || string(got.Values[1]) != string(l.Store.Value(wire.ConsortiumKey)) || got.Values[2] != nil {
			t.Errorf("Read returned %x", got.Values)
		}
	}
	refused(t, l, stranger, wire.FnRead, arg, wire.PermissionDenied, "caller.msp", "consortium")
}

// Before Init an administrator can see that there is none yet.
func TestReadBeforeInitGoesByTheConfiguration(t *testing.T) {
	l := cctest.NewLedger(t, consortium)
	got := decode[wire.ReadResult](t, unchanged(t, l, admin1, wire.FnRead, cctest.ReadArg(wire.ConsortiumKey)))
	if got.Values[0] != nil {
		t.Errorf("Read returned %x", got.Values)
	}
	refused(t, l, stranger, wire.FnRead, cctest.ReadArg(wire.ConsortiumKey), wire.PermissionDenied, "caller.msp", "consortium")
}

func TestReadRefusals(t *testing.T) {
	l := founded(t)
	for _, c := range []struct {
		name  string
		arg   []byte
		field string
	}{
		{"garbage", []byte{1}, "argument"},
		{"no keys", cctest.ReadArg(), "keys"},
		{"too many", cctest.ReadArg(make([]string, wire.MaxBatch+1)...), "keys"},
		{"empty key", cctest.ReadArg("a", ""), "keys[1]"},
		{"long key", cctest.ReadArg(strings.Repeat("x", 257)), "keys[0]"},
		{"composite key", cctest.ReadArg("\x00a"), "keys[0]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			refused(t, l, op1, wire.FnRead, c.arg, wire.InvalidArgument, c.field, "")
		})
	}
}
