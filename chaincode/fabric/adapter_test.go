package fabric

import (
	"context"
	"crypto/rand"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hyperledger/fabric-chaincode-go/v2/shim"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/certanchor/certanchor/chaincode"
	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
)

var config = chaincode.Config{MSPs: []string{"Org1MSP"}, TickInterval: 15 * time.Second}

var now = at(cctest.T0)

// connect runs executor behind a fake peer in this process.
func connect(t testing.TB, executor Executor, p *fakePeer) *fakePeer {
	t.Helper()
	cc, err := NewChaincode(executor, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	peerEnd, chaincodeEnd := pipe(ctx)
	var running sync.WaitGroup
	running.Go(func() { _ = shim.StartInProc("certanchor:1", chaincodeEnd, cc) })
	t.Cleanup(func() { cancel(); running.Wait() })
	p.stream = peerEnd
	p.shake(t)
	return p
}

func contractOf(t testing.TB) *chaincode.Contract {
	t.Helper()
	c, err := chaincode.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func must(t testing.TB, r *peer.Response) []byte {
	t.Helper()
	if r.GetStatus() != 200 {
		t.Fatalf("status %d: %s", r.GetStatus(), r.GetMessage())
	}
	return r.GetPayload()
}

func initArg() []byte {
	return wire.Encode(&wire.InitArg{V: wire.Version, MSPs: config.MSPs, TickInterval: config.TickInterval.Milliseconds()})
}

var batching = &peer.ChaincodeAdditionalParams{UseWriteBatch: true, MaxSizeWriteBatch: 1000, UseGetMultipleKeys: true, MaxSizeGetMultipleKeys: 1000}

// The same life of a certificate must come out of every way a peer offers its state.
func TestCertificateLifeThroughTheAdapter(t *testing.T) {
	for name, p := range map[string]*fakePeer{
		"one key at a time":  {params: &peer.ChaincodeAdditionalParams{}},
		"batches":            {params: batching},
		"fewer values":       {params: batching, shorten: true},
		"an older peer":      {},
		"small batches only": {params: &peer.ChaincodeAdditionalParams{UseWriteBatch: true, UseGetMultipleKeys: true}},
	} {
		t.Run(name, func(t *testing.T) {
			connect(t, contractOf(t), p)
			admin, operator := identity(t, "Org1MSP", wire.RoleAdministrator), identity(t, "Org1MSP", wire.RoleOperator)
			ca := cctest.NewCA(t)
			ders := ca.IssueMany(t, 120)
			must(t, p.invoke(t, admin, now, []byte(wire.FnInit), initArg()))
			must(t, p.invoke(t, admin, now, []byte(wire.FnRegisterCA), ca.RegisterArg("Org1MSP")))
			must(t, p.invoke(t, operator, now, []byte(wire.FnTick), cctest.TickArg()))
			var issued wire.IssueResult
			cctest.Decode(t, must(t, p.invoke(t, operator, now, []byte(wire.FnIssue), ca.IssueArg(ders...))), &issued)
			if got := issued.Entries[119].Index; got != 119 {
				t.Errorf("last index is %d, want 119", got)
			}
			again := must(t, p.invoke(t, operator, now, []byte(wire.FnIssue), ca.IssueArg(ders...)))
			if string(again) != string(wire.Encode(&issued)) {
				t.Error("the retry answers something else")
			}
			var read wire.ReadResult
			cctest.Decode(t, must(t, p.invoke(t, operator, now, []byte(wire.FnRead), cctest.ReadArg(wire.LogHeadKey(ca.ID), "absent"))), &read)
			if read.Values[0] == nil || read.Values[1] != nil {
				t.Errorf("Read returned %x", read.Values)
			}
			// The channel comes from the proposal, too.
			e := refusalOf(t, p.invoke(t, operator, now, []byte(wire.FnRevoke), ca.RevokeArg(t, "other", ders[0], 0, cctest.T0)))
			if e.Field != "intent.channel" || e.Value != "other" {
				t.Errorf("an intent for another channel is refused with %v", e)
			}
			var imported wire.ImportResult
			items := []wire.ImportItem{{HasCert: true, State: wire.CertValid}, {Serial: wire.Serial{1}, State: wire.CertRevoked, Revoked: 1000}}
			cctest.Decode(t, must(t, p.invoke(t, operator, now, []byte(wire.FnImport), ca.ImportArg(items, ca.IssueMany(t, 1)...))), &imported)
			if e := imported.Entries; e[0].Log == nil || e[0].Log.Index != 120 || e[1].Log != nil {
				t.Errorf("the import is answered with %+v", e)
			}
			must(t, p.invoke(t, operator, now, []byte(wire.FnRevoke), ca.RevokeArg(t, "ch", ders[0], wire.Superseded, cctest.T0)))
			must(t, p.invoke(t, admin, now, []byte(wire.FnDecide), ca.SuspendArg(1)))
			registered := &wire.StatusLeaf{V: wire.Version, Kind: wire.LeafCA, CAID: ca.ID, Change: 1, State: uint(wire.CAActive), Time: wire.MillisOf(cctest.T0)}
			hash := registered.Hash()
			must(t, p.invoke(t, operator, now, []byte(wire.FnIntegrate), cctest.IntegrateArg(0, hash[:])))
			if p.state[wire.PendingKey(hash)] != nil || p.state[wire.StatusHeadKey] == nil {
				t.Error("the status log did not take the CA's registration")
			}
			must(t, p.invoke(t, operator, now, []byte(wire.FnAnchorOperators), cctest.NewOperatorsLog(0, "x", 2).AnchorArg(t, ca, 0, 2)))
			if p.state[wire.OperatorsKey(ca.ID, "")] == nil {
				t.Error("the head of the operators' log is not there")
			}
		})
	}
}

func TestBatchesAreUsedWhereThePeerEnablesThem(t *testing.T) {
	p := connect(t, contractOf(t), &fakePeer{params: batching})
	admin, operator := identity(t, "Org1MSP", wire.RoleAdministrator), identity(t, "Org1MSP", wire.RoleOperator)
	ca := cctest.NewCA(t)
	must(t, p.invoke(t, admin, now, []byte(wire.FnInit), initArg()))
	must(t, p.invoke(t, admin, now, []byte(wire.FnRegisterCA), ca.RegisterArg("Org1MSP")))
	clear(p.messages)
	must(t, p.invoke(t, operator, now, []byte(wire.FnIssue), ca.IssueArg(ca.IssueMany(t, 200)...)))
	want := map[peer.ChaincodeMessage_Type]int{
		peer.ChaincodeMessage_GET_STATE: 1, peer.ChaincodeMessage_GET_STATE_MULTIPLE: 2,
		peer.ChaincodeMessage_WRITE_BATCH_STATE: 1, peer.ChaincodeMessage_COMPLETED: 1,
	}
	for kind, n := range p.messages {
		if want[kind] != n {
			t.Errorf("%d messages of %v for 200 certificates, want %d", n, kind, want[kind])
		}
	}
}

func TestCallsInAnyOtherFormAreRefused(t *testing.T) {
	p := connect(t, contractOf(t), &fakePeer{})
	admin := identity(t, "Org1MSP", wire.RoleAdministrator)
	for _, c := range []struct {
		name  string
		args  [][]byte
		field string
	}{
		{"no function", nil, "function"},
		{"empty function", [][]byte{{}}, "function"},
		{"lower case", [][]byte{[]byte("init"), initArg()}, "function"},
		{"with the contract's name", [][]byte{[]byte("certanchor:Init"), initArg()}, "function"},
		{"unknown", [][]byte{[]byte("Destroy"), initArg()}, "function"},
		{"a helper of contract-api", [][]byte{[]byte("GetInfo")}, "function"},
		{"no argument", [][]byte{[]byte("Init")}, "argument"},
		{"a second argument", [][]byte{[]byte("Init"), initArg(), initArg()}, "argument"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := refusalOf(t, p.invoke(t, admin, now, c.args...))
			if e.Code != wire.InvalidArgument || e.Field != c.field {
				t.Errorf("refused with %s: %v, want invalid_argument about %s", e.Code, e, c.field)
			}
			if len(p.state) != 0 {
				t.Errorf("and yet wrote %d keys", len(p.state))
			}
		})
	}
}

func TestCallerAndTimeComeFromTheProposal(t *testing.T) {
	p := connect(t, contractOf(t), &fakePeer{})
	for _, c := range []struct {
		name    string
		creator []byte
		at      *timestamppb.Timestamp
		code    wire.Code
		field   string
	}{
		{"no role", identity(t, "Org1MSP", ""), now, wire.PermissionDenied, "caller.role"},
		{"other role", identity(t, "Org1MSP", wire.RoleOperator), now, wire.PermissionDenied, "caller.role"},
		{"other organisation", identity(t, "Org2MSP", wire.RoleAdministrator), now, wire.PermissionDenied, "caller.msp"},
		{"no identity", []byte("nobody"), now, wire.PermissionDenied, "caller"},
		{"no time", identity(t, "Org1MSP", wire.RoleAdministrator), nil, wire.InvalidArgument, "time"},
		{"bad time", identity(t, "Org1MSP", wire.RoleAdministrator), &timestamppb.Timestamp{Seconds: 1 << 60}, wire.InvalidArgument, "time"},
		{"before 1970", identity(t, "Org1MSP", wire.RoleAdministrator), &timestamppb.Timestamp{Seconds: -1}, wire.InvalidArgument, "time"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := refusalOf(t, p.invoke(t, c.creator, c.at, []byte(wire.FnInit), initArg()))
			if e.Code != c.code || e.Field != c.field {
				t.Errorf("refused with %s: %v, want %s about %s", e.Code, e, c.code, c.field)
			}
		})
	}
}

// echo is an Executor that answers with its argument.
type echo struct{}

func (echo) Invoke(_ chaincode.State, _ chaincode.Tx, _ string, arg []byte) ([]byte, error) {
	return arg, nil
}

func TestBinaryArgumentsPassUnchanged(t *testing.T) {
	p := connect(t, echo{}, &fakePeer{})
	arg := make([]byte, 2<<20)
	if _, err := rand.Read(arg); err != nil {
		t.Fatal(err)
	}
	got := must(t, p.invoke(t, identity(t, "Org1MSP", ""), now, []byte(wire.FnRead), arg))
	if string(got) != string(arg) {
		t.Errorf("2 MiB of arbitrary octets came back as %d other ones", len(got))
	}
}

func TestMetadataNamesTheFunctions(t *testing.T) {
	p := connect(t, contractOf(t), &fakePeer{})
	got := string(must(t, p.invoke(t, identity(t, "Org1MSP", ""), now, []byte(metadataFunction))))
	for _, f := range functions {
		if !strings.Contains(got, `"name":"`+f+`"`) {
			t.Errorf("metadata lacks %s: %s", f, got)
		}
	}
}

func BenchmarkAdapter2MB(b *testing.B) {
	p := connect(b, echo{}, &fakePeer{})
	creator := identity(b, "Org1MSP", "")
	arg := make([]byte, 2<<20)
	if _, err := rand.Read(arg); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(arg)))
	for b.Loop() {
		must(b, p.invoke(b, creator, now, []byte(wire.FnRead), arg))
	}
}
