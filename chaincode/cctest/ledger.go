package cctest

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/certanchor/certanchor/chaincode"
	"github.com/certanchor/certanchor/chaincode/wire"
)

// T0 is when the clock of a Ledger starts: the beginning of an epoch of every interval that divides a day.
var T0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Channel is the name of a Ledger.
const Channel = "test"

// Ledger runs the contract as several endorsers would: every transaction is executed twice, by two contracts on two states, and
// the test fails unless reads, writes, answers and errors are the same, octet for octet. A refusal must leave nothing behind.
type Ledger struct {
	Config chaincode.Config
	Now    time.Time // time of the next transaction
	Store  *Store

	twin      *Store
	contracts [2]*chaincode.Contract
}

// NewLedger returns a ledger that is not founded yet.
func NewLedger(t TB, cfg chaincode.Config) *Ledger {
	t.Helper()
	l := &Ledger{Config: cfg, Now: T0, Store: NewStore(), twin: NewStore()}
	for i := range l.contracts {
		c, err := chaincode.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		l.contracts[i] = c
	}
	return l
}

// Endorse executes a transaction on the present state without committing it.
func (l *Ledger) Endorse(t TB, by chaincode.Caller, function string, arg []byte) (*Envelope, *wire.Error) {
	t.Helper()
	tx := chaincode.Tx{ID: "tx", Channel: Channel, Time: l.Now, Caller: by}
	var envelopes [2]*Envelope
	var errs [2]*wire.Error
	for i, store := range []*Store{l.Store, l.twin} {
		own := bytes.Clone(arg)
		x := store.Simulate()
		result, err := l.contracts[i].Invoke(x, tx, function, own)
		if !bytes.Equal(own, arg) {
			t.Fatalf("%s changed its argument", function)
		}
		if err != nil && !errors.As(err, &errs[i]) {
			t.Fatalf("%s: error is a %T: %v", function, err, err)
		}
		envelopes[i] = x.Envelope(result)
	}
	if (errs[0] == nil) != (errs[1] == nil) || errs[0] != nil && *errs[0] != *errs[1] {
		t.Fatalf("%s: two executions, two outcomes: %v and %v", function, errs[0], errs[1])
	}
	if !same(envelopes[0], envelopes[1]) {
		t.Fatalf("%s: two executions differ:\n%+v\n%+v", function, envelopes[0], envelopes[1])
	}
	if errs[0] != nil && (len(envelopes[0].Writes) > 0 || envelopes[0].Result != nil) {
		t.Fatalf("%s refused (%v) and yet wrote %d keys", function, errs[0], len(envelopes[0].Writes))
	}
	if errs[0] == nil && chaincode.ReadOnly(function) && len(envelopes[0].Writes) > 0 {
		t.Fatalf("%s is read-only and wrote %d keys", function, len(envelopes[0].Writes))
	}
	return envelopes[0], errs[0]
}

// Commit applies a block to both states.
func (l *Ledger) Commit(t TB, block ...*Envelope) []bool {
	t.Helper()
	valid, twin := l.Store.Commit(block...), l.twin.Commit(block...)
	if !slices.Equal(valid, twin) {
		t.Fatalf("two states validate one block differently: %v and %v", valid, twin)
	}
	return valid
}

// Submit executes a transaction and commits it in a block of its own.
func (l *Ledger) Submit(t TB, by chaincode.Caller, function string, arg []byte) ([]byte, *wire.Error) {
	t.Helper()
	e, refusal := l.Endorse(t, by, function, arg)
	if refusal != nil {
		return nil, refusal
	}
	if !l.Commit(t, e)[0] {
		t.Fatalf("%s: a transaction without competition lost the version check", function)
	}
	return e.Result, nil
}

// Must is Submit for a transaction that has to succeed.
func (l *Ledger) Must(t TB, by chaincode.Caller, function string, arg []byte) []byte {
	t.Helper()
	result, refusal := l.Submit(t, by, function, arg)
	if refusal != nil {
		t.Fatalf("%s: %s: %v", function, refusal.Code, refusal)
	}
	return result
}

// Set changes a key of both states behind the contract's back.
func (l *Ledger) Set(key string, value []byte) {
	l.Store.Set(key, value)
	l.twin.Set(key, value)
}

// Found executes Init with the ledger's own configuration.
func (l *Ledger) Found(t TB) {
	t.Helper()
	l.Must(t, Admin(l.Config.MSPs[0]), wire.FnInit, l.InitArg())
}

// Register has a majority of administrators register ca.
func (l *Ledger) Register(t TB, ca *CA, operatingMSP string) {
	t.Helper()
	for _, msp := range l.Config.MSPs[:len(l.Config.MSPs)/2+1] {
		l.Must(t, Admin(msp), wire.FnRegisterCA, ca.RegisterArg(operatingMSP))
	}
}

// InitArg is the encoded argument of Init for the ledger's own configuration.
func (l *Ledger) InitArg() []byte {
	return wire.Encode(&wire.InitArg{
		V: wire.Version, MSPs: slices.Sorted(slices.Values(l.Config.MSPs)), TickInterval: l.Config.TickInterval.Milliseconds(),
	})
}

// TickArg is the encoded argument of Tick.
func TickArg() []byte { return wire.Encode(&wire.TickArg{V: wire.Version}) }

// ReadArg is the encoded argument of Read.
func ReadArg(keys ...string) []byte {
	return wire.Encode(&wire.ReadArg{V: wire.Version, Keys: keys})
}

// Callers by role.
func Admin(msp string) chaincode.Caller {
	return chaincode.Caller{MSPID: msp, Role: wire.RoleAdministrator}
}
func Operator(msp string) chaincode.Caller {
	return chaincode.Caller{MSPID: msp, Role: wire.RoleOperator}
}
func Auditor(msp string) chaincode.Caller {
	return chaincode.Caller{MSPID: msp, Role: wire.RoleAuditor}
}

func same(a, b *Envelope) bool {
	return maps.Equal(a.Reads, b.Reads) && bytes.Equal(a.Result, b.Result) && slices.EqualFunc(a.Writes, b.Writes, func(x, y Write) bool {
		return x.Key == y.Key && bytes.Equal(x.Value, y.Value) && (x.Value == nil) == (y.Value == nil)
	})
}
