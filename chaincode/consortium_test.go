package chaincode_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode"
	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
)

func TestNewRefusesAConsortiumThatCannotBe(t *testing.T) {
	many := make([]string, chaincode.MaxMSPs+1)
	for i := range many {
		many[i] = "Org" + string(rune('A'+i))
	}
	for _, c := range []struct {
		name  string
		cfg   chaincode.Config
		field string
	}{
		{"nobody", chaincode.Config{TickInterval: interval}, "consortium"},
		{"too many", chaincode.Config{MSPs: many, TickInterval: interval}, "consortium"},
		{"empty name", chaincode.Config{MSPs: []string{""}, TickInterval: interval}, "consortium"},
		{"slash", chaincode.Config{MSPs: []string{"Org/1"}, TickInterval: interval}, "consortium"},
		{"NUL", chaincode.Config{MSPs: []string{"Org\x001"}, TickInterval: interval}, "consortium"},
		{"no UTF-8", chaincode.Config{MSPs: []string{"Org\xff"}, TickInterval: interval}, "consortium"},
		{"long name", chaincode.Config{MSPs: []string{strings.Repeat("x", chaincode.MaxMSPIDBytes+1)}, TickInterval: interval}, "consortium"},
		{"twice", chaincode.Config{MSPs: []string{"A", "B", "A"}, TickInterval: interval}, "consortium"},
		{"no interval", chaincode.Config{MSPs: []string{"A"}}, "tick_interval"},
		{"negative", chaincode.Config{MSPs: []string{"A"}, TickInterval: -time.Second}, "tick_interval"},
		{"short", chaincode.Config{MSPs: []string{"A"}, TickInterval: 99 * time.Millisecond}, "tick_interval"},
		{"long", chaincode.Config{MSPs: []string{"A"}, TickInterval: time.Hour + time.Millisecond}, "tick_interval"},
		{"fractions of a millisecond", chaincode.Config{MSPs: []string{"A"}, TickInterval: time.Second + time.Microsecond}, "tick_interval"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := chaincode.New(c.cfg)
			var e *wire.Error
			if !errors.As(err, &e) || e.Code != wire.InvalidArgument || e.Field != c.field {
				t.Errorf("New returned %v, want invalid_argument about %s", err, c.field)
			}
		})
	}
	for _, d := range []time.Duration{chaincode.MinTickInterval, chaincode.MaxTickInterval} {
		if _, err := chaincode.New(chaincode.Config{MSPs: many[:chaincode.MaxMSPs], TickInterval: d}); err != nil {
			t.Errorf("New refuses interval %v: %v", d, err)
		}
	}
}

func TestInitFoundsOnce(t *testing.T) {
	l := cctest.NewLedger(t, consortium)
	got := decode[wire.Consortium](t, l.Must(t, admin2, wire.FnInit, l.InitArg()))
	if rec := record[wire.Consortium](t, l, wire.ConsortiumKey); len(rec.MSPs) != 4 || rec.TickInterval != 15000 || rec.Majority() != 3 || got.TickInterval != 15000 {
		t.Errorf("founded as %+v, answered %+v", rec, got)
	}
	unchanged(t, l, admin1, wire.FnInit, l.InitArg())
}

func TestConfigurationOrderDoesNotMatter(t *testing.T) {
	shuffled := consortium
	shuffled.MSPs = []string{"Org3MSP", "Org1MSP", "Org4MSP", "Org2MSP"}
	l := cctest.NewLedger(t, shuffled)
	l.Must(t, admin1, wire.FnInit, l.InitArg())
}

func initArg(interval int64, msps ...string) []byte {
	return wire.Encode(&wire.InitArg{V: wire.Version, MSPs: msps, TickInterval: interval})
}

func TestInitRefusals(t *testing.T) {
	four := consortium.MSPs
	for _, c := range []struct {
		name  string
		by    chaincode.Caller
		arg   []byte
		code  wire.Code
		field string
		word  string
	}{
		{"garbage", admin1, []byte("hello"), wire.InvalidArgument, "argument", "InitArg"},
		{"nothing", admin1, nil, wire.InvalidArgument, "argument", "EOF"},
		{"other version", admin1, wire.Encode(&wire.InitArg{V: 2, MSPs: four, TickInterval: 15000}), wire.InvalidArgument, "argument", "version 2"},
		{"trailing byte", admin1, append(initArg(15000, four...), 0), wire.InvalidArgument, "argument", "extraneous"},
		{"nobody", admin1, initArg(15000), wire.InvalidArgument, "consortium", "1 to 64"},
		{"not sorted", admin1, initArg(15000, "Org2MSP", "Org1MSP", "Org3MSP", "Org4MSP"), wire.InvalidArgument, "consortium", "sorted"},
		{"twice", admin1, initArg(15000, "Org1MSP", "Org1MSP", "Org3MSP", "Org4MSP"), wire.InvalidArgument, "consortium", "repeat"},
		{"interval overflows", admin1, initArg(math.MaxInt64, four...), wire.InvalidArgument, "tick_interval", "1h"},
		{"negative interval", admin1, initArg(-1, four...), wire.InvalidArgument, "tick_interval", "100ms"},
		{"stranger", stranger, initArg(15000, four...), wire.PermissionDenied, "caller.msp", "consortium"},
		{"operator", op1, initArg(15000, four...), wire.PermissionDenied, "caller.role", "administrator"},
		{"no role", chaincode.Caller{MSPID: "Org1MSP"}, initArg(15000, four...), wire.PermissionDenied, "caller.role", wire.RoleAttribute},
		{"smaller consortium", admin1, initArg(15000, "Org1MSP"), wire.FailedPrecondition, "consortium", "Org1MSP,Org2MSP,Org3MSP,Org4MSP"},
		{"other interval", admin1, initArg(10000, four...), wire.FailedPrecondition, "tick_interval", "15000 ms"},
	} {
		t.Run(c.name, func(t *testing.T) {
			refused(t, cctest.NewLedger(t, consortium), c.by, wire.FnInit, c.arg, c.code, c.field, c.word)
		})
	}
}

// An endorser whose configuration was changed later does not found the ledger anew.
func TestInitRefusesALedgerFoundedOtherwise(t *testing.T) {
	l := cctest.NewLedger(t, consortium)
	l.Set(wire.ConsortiumKey, wire.Encode(&wire.Consortium{V: wire.Version, MSPs: consortium.MSPs, TickInterval: 20000}))
	refused(t, l, admin1, wire.FnInit, l.InitArg(), wire.AlreadyExists, "consortium", "founded by another")
}

func TestNothingIsWrittenBeforeInit(t *testing.T) {
	ca := cctest.NewCA(t)
	der, cert := ca.Issue(t)
	for function, arg := range map[string][]byte{
		wire.FnRegisterCA: ca.RegisterArg("Org1MSP"),
		wire.FnIssue:      ca.IssueArg(der),
		wire.FnSetStatus:  ca.StatusArg(wire.StatusChange{Serial: cctest.Serial(t, cert), Op: wire.OpRevoke}),
		wire.FnTick:       cctest.TickArg(),
	} {
		refused(t, cctest.NewLedger(t, consortium), admin1, function, arg, wire.FailedPrecondition, "consortium", "Init")
	}
}

func TestUnknownFunctionAndTimeAreRefused(t *testing.T) {
	l := founded(t)
	refused(t, l, admin1, "issue", nil, wire.InvalidArgument, "function", "Issue")
	for _, at := range []time.Time{{}, time.UnixMilli(-1), maxTime.Add(time.Second), time.Unix(math.MaxInt64/2, 0)} {
		l.Now = at
		refused(t, l, admin1, wire.FnTick, cctest.TickArg(), wire.InvalidArgument, "time", "1970")
	}
	l.Now = maxTime
	l.Must(t, admin1, wire.FnTick, cctest.TickArg())
}

var maxTime = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

func TestReadOnly(t *testing.T) {
	for _, f := range []string{wire.FnInit, wire.FnRegisterCA, wire.FnIssue, wire.FnSetStatus, wire.FnTick, ""} {
		if chaincode.ReadOnly(f) {
			t.Errorf("%q is called read-only", f)
		}
	}
	if !chaincode.ReadOnly(wire.FnRead) {
		t.Error("Read is not called read-only")
	}
}
