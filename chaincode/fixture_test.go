package chaincode_test

import (
	"crypto/x509"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode"
	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
)

const interval = 15 * time.Second

// org1 operates the CA of most tests, org4 audits.
var consortium = chaincode.Config{MSPs: []string{"Org1MSP", "Org2MSP", "Org3MSP", "Org4MSP"}, TickInterval: interval}

var (
	op1, op2               = cctest.Operator("Org1MSP"), cctest.Operator("Org2MSP")
	admin1, admin2, admin3 = cctest.Admin("Org1MSP"), cctest.Admin("Org2MSP"), cctest.Admin("Org3MSP")
	auditor4               = cctest.Auditor("Org4MSP")
	stranger               = chaincode.Caller{MSPID: "Org9MSP", Role: wire.RoleAdministrator}
)

// founded returns a ledger after Init.
func founded(t testing.TB) *cctest.Ledger {
	t.Helper()
	l := cctest.NewLedger(t, consortium)
	l.Found(t)
	return l
}

// withCA returns a ledger on which org1 operates a CA.
func withCA(t testing.TB, opts ...cctest.CAOption) (*cctest.Ledger, *cctest.CA) {
	t.Helper()
	l := founded(t)
	ca := cctest.NewCA(t, opts...)
	l.Register(t, ca, "Org1MSP")
	return l, ca
}

// decode reads an answer or record.
func decode[T any](t cctest.TB, data []byte) *T {
	t.Helper()
	v := new(T)
	cctest.Decode(t, data, v)
	return v
}

func record[T any](t cctest.TB, l *cctest.Ledger, key string) *T {
	t.Helper()
	value := l.Store.Value(key)
	if value == nil {
		t.Fatalf("%s is not on the ledger", key)
	}
	return decode[T](t, value)
}

// refused asserts that a transaction is refused with code, about field, for a rule that contains word, and changes nothing.
func refused(t *testing.T, l *cctest.Ledger, by chaincode.Caller, function string, arg []byte, code wire.Code, field, word string) {
	t.Helper()
	before := l.Store.Snapshot()
	result, refusal := l.Submit(t, by, function, arg)
	if refusal == nil {
		t.Fatalf("%s succeeded with %x, want %s about %s", function, result, code, field)
	}
	if refusal.Code != code || refusal.Field != field || !strings.Contains(refusal.Rule, word) {
		t.Errorf("%s refused with %s: %v\nwant %s about %s, the rule containing %q", function, refusal.Code, refusal, code, field, word)
	}
	if !maps.EqualFunc(before, l.Store.Snapshot(), slices.Equal) {
		t.Errorf("%s was refused and yet changed the state", function)
	}
}

// unchanged asserts that a transaction succeeds and writes nothing.
func unchanged(t *testing.T, l *cctest.Ledger, by chaincode.Caller, function string, arg []byte) []byte {
	t.Helper()
	e, refusal := l.Endorse(t, by, function, arg)
	if refusal != nil {
		t.Fatalf("%s: %s: %v", function, refusal.Code, refusal)
	}
	if len(e.Writes) != 0 {
		t.Errorf("%s wrote %d keys, the first is %s", function, len(e.Writes), e.Writes[0].Key)
	}
	return e.Result
}

// serialOf returns the serial of a certificate.
func serialOf(t testing.TB, der []byte) wire.Serial {
	t.Helper()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cctest.Serial(t, cert)
}
