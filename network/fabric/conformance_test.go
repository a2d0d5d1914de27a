package fabric_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/network/fabric"
	"github.com/certanchor/certanchor/network/networktest"
	testnetwork "github.com/certanchor/certanchor/test-network"
	"github.com/certanchor/certanchor/test-network/nettest"
)

// TestFabricLedger holds network/fabric to the contract of package network, on a network of its own: the suite needs a ledger
// that nobody else submits to.
func TestFabricLedger(t *testing.T) {
	n := nettest.Start(t, testnetwork.Options{TickInterval: time.Second})
	f := &fabricLedger{Network: n, proxy: networktest.NewProxy(t, "tcp", "127.0.0.1:0", n.Connection(1, testnetwork.Operator).Endpoint)}
	t.Run("Conformance", func(t *testing.T) { networktest.Run(t, f.engine()) })
	t.Run("HeldEnvelopeDoesNotCommitAfterTwoTicks", f.testHeldEnvelope)
	t.Run("OutcomeIsUnknownUntilTheBlocksSay", f.testUnknownOutcome)
	t.Run("TamperedChaincodeCannotCommit", f.testTampered)
}

type fabricLedger struct {
	*testnetwork.Network
	proxy *networktest.Proxy
}

// identities by the role they carry.
var identities = map[string]string{
	wire.RoleOperator: testnetwork.Operator, wire.RoleAuditor: testnetwork.Auditor, wire.RoleAdministrator: testnetwork.Admin,
}

// connect opens a connection of an organisation, through its peer or through whatever stands before it.
func (f *fabricLedger) connect(t testing.TB, org int, role, endpoint string) *fabric.Ledger {
	t.Helper()
	cfg := f.Connection(org, identities[role])
	if endpoint != "" {
		cfg.Endpoint = endpoint
	}
	l, err := fabric.Open(t.Context(), cfg, fabric.WithLogger(slog.New(slog.DiscardHandler)))
	must(t, err)
	return l
}

// lend is connect for a whole test.
func (f *fabricLedger) lend(t *testing.T, org int, role, endpoint string) *fabric.Ledger {
	t.Helper()
	l := f.connect(t, org, role, endpoint)
	t.Cleanup(func() { must(t, l.Close()) })
	return l
}

func (f *fabricLedger) administrators(t testing.TB) []network.Ledger {
	var admins []network.Ledger
	for org := 1; org <= f.Orgs()/2+1; org++ {
		admins = append(admins, f.connect(t, org, wire.RoleAdministrator, ""))
	}
	return admins
}

func (f *fabricLedger) engine() networktest.Engine {
	const peer = "org1.peer"
	do := func(action func(context.Context, string) error) func(testing.TB) {
		return func(t testing.TB) { must(t, action(t.Context(), peer)) }
	}
	return networktest.Engine{
		Connect:        func(t testing.TB, role string) network.Ledger { return f.connect(t, 1, role, f.proxy.Addr()) },
		Administrators: f.administrators,
		Patience:       30 * time.Second,
		Proxy:          f.proxy,
		Direct:         func(t testing.TB, role string) network.Ledger { return f.connect(t, 1, role, "") },
		Kill:           do(f.Kill),
		Start:          do(f.Start),
		Freeze:         do(f.Freeze),
		Thaw:           do(f.Thaw),
	}
}

// register puts a new CA of org1 on the trust list.
func (f *fabricLedger) register(t *testing.T) *cctest.CA {
	t.Helper()
	ca := cctest.NewCA(t)
	for _, admin := range f.administrators(t) {
		insist(t, admin, wire.FnRegisterCA, ca.RegisterArg(testnetwork.MSPID(1)))
		must(t, admin.Close())
	}
	// The last vote is committed at the voter's peer; the operator's may be a block behind, and its word counts.
	operator := f.lend(t, 1, wire.RoleOperator, "")
	eventually(t, "the CA at the operator's peer", func() bool { return read(t, operator, wire.CAKey(ca.ID)) != nil })
	return ca
}

func (f *fabricLedger) testHeldEnvelope(t *testing.T) {
	ca, operator := f.register(t), f.lend(t, 1, wire.RoleOperator, "")
	prompt, _ := ca.Issue(t)
	envelope := endorse(t, operator, ca.IssueArg(prompt))
	if _, err := operator.SubmitEnvelope(t.Context(), envelope); err != nil {
		t.Fatalf("an envelope that is submitted at once: %v", err)
	}
	held, cert := ca.Issue(t)
	envelope = endorse(t, operator, ca.IssueArg(held))
	for range 3 { // it may have been endorsed after the first one's epoch began
		insistUntil(t, operator, wire.FnTick, cctest.TickArg())
	}
	_, err := operator.SubmitEnvelope(t.Context(), envelope)
	var conflict *network.ConflictError
	if !errors.As(err, &conflict) || conflict.Code != "MVCC_READ_CONFLICT" || conflict.Block == 0 {
		t.Errorf("an envelope that was held back past two ticks: %v, want MVCC_READ_CONFLICT", err)
	}
	if v := read(t, operator, wire.CertKey(ca.ID, cctest.Serial(t, cert))); v != nil {
		t.Error("it recorded its certificate")
	}
}

func (f *fabricLedger) testUnknownOutcome(t *testing.T) {
	ca, direct := f.register(t), f.lend(t, 1, wire.RoleOperator, "")
	proxied := f.lend(t, 1, wire.RoleOperator, f.proxy.Addr())
	first, _ := ca.Issue(t)
	insist(t, proxied, wire.FnIssue, ca.IssueArg(first)) // its streams are open now
	for _, c := range []struct {
		name  string
		after func(cancel context.CancelFunc)
		known bool
	}{
		{"the answer never comes", func(cancel context.CancelFunc) { cancel() }, false},
		{"the answer is lost, the connection comes back", func(context.CancelFunc) { f.proxy.Cut(); f.proxy.Release() }, true},
	} {
		der, cert := ca.Issue(t)
		envelope := endorse(t, proxied, ca.IssueArg(der))
		f.proxy.Hold()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		var (
			receipt network.Receipt
			err     error
			wg      sync.WaitGroup
		)
		wg.Go(func() { receipt, err = proxied.SubmitEnvelope(ctx, envelope) })
		eventually(t, "it commits", func() bool {
			return read(t, direct, wire.CertKey(ca.ID, cctest.Serial(t, cert))) != nil
		})
		c.after(cancel)
		wg.Wait()
		cancel()
		f.proxy.Release()
		if c.known && err != nil || !c.known && !(errors.Is(err, network.ErrUnknownOutcome) && errors.Is(err, context.Canceled)) {
			t.Errorf("%s: %+v, %v", c.name, receipt, err)
		}
		again := insist(t, proxied, wire.FnIssue, ca.IssueArg(der))
		if string(again.Result) != string(envelope.Result) {
			t.Errorf("%s: submitted again it answers %x, endorsed was %x", c.name, again.Result, envelope.Result)
		}
	}
}

func (f *fabricLedger) testTampered(t *testing.T) {
	const org = 4
	must(t, f.RestartChaincode(t.Context(), org, os.Args[0], tamperedChaincode))
	t.Cleanup(func() { must(t, f.RestartChaincode(context.Background(), org)) })
	hostile := f.lend(t, org, wire.RoleAdministrator, "")
	planted := cctest.NewCA(t)
	_, err := hostile.Submit(t.Context(), wire.FnRegisterCA, planted.RegisterArg(testnetwork.MSPID(org)))
	var conflict *network.ConflictError
	if !errors.As(err, &conflict) || conflict.Block != 0 || conflict.Detail == "" {
		t.Errorf("what the tampered chaincode made of a transaction: %v, want a ConflictError that tells what endorsers said", err)
	}
	// Its own endorsement alone is easily had, and orderers take what it signs. The others' peers do not.
	alone, err := hostile.EndorseAlone(t.Context(), wire.FnRegisterCA, planted.RegisterArg(testnetwork.MSPID(org)))
	must(t, err)
	_, err = hostile.SubmitEnvelope(t.Context(), alone)
	if !errors.As(err, &conflict) || conflict.Block == 0 || conflict.Code != "ENDORSEMENT_POLICY_FAILURE" {
		t.Errorf("what it endorsed alone: %v, want an ENDORSEMENT_POLICY_FAILURE in a block", err)
	}
	operator := f.lend(t, 1, wire.RoleOperator, "")
	nettest.Level(t, f.Network, func() { insist(t, operator, wire.FnRead, cctest.ReadArg(wire.ConsortiumKey)) })
	if v := read(t, operator, wire.CAKey(planted.ID)); v != nil {
		t.Errorf("it planted %x", v)
	}
	ca := f.register(t)
	for range 5 { // whose endorsers take turns, the hostile one among them
		der, cert := ca.Issue(t)
		insist(t, operator, wire.FnIssue, ca.IssueArg(der))
		var rec wire.CertRecord
		must(t, wire.Decode(read(t, operator, wire.CertKey(ca.ID, cctest.Serial(t, cert))), &rec))
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits for a condition that nothing announces.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for !holds() {
		select {
		case <-look.C:
		case <-ctx.Done():
			t.Fatalf("waited a minute in vain: %s", what)
		}
	}
}

func endorse(t *testing.T, l *fabric.Ledger, arg []byte) *fabric.Envelope {
	t.Helper()
	e, err := l.Endorse(t.Context(), wire.FnIssue, arg)
	must(t, err)
	return e
}

// insist submits the same bytes until they committed.
func insist(t *testing.T, l network.Ledger, function string, arg []byte) network.Receipt {
	t.Helper()
	return submit(t, l, function, arg, network.IsRejected)
}

// insistUntil is insist for what the contract refuses until its time has come.
func insistUntil(t *testing.T, l network.Ledger, function string, arg []byte) network.Receipt {
	t.Helper()
	return submit(t, l, function, arg, func(error) bool { return false })
}

func submit(t *testing.T, l network.Ledger, function string, arg []byte, hopeless func(error) bool) (r network.Receipt) {
	t.Helper()
	eventually(t, function, func() bool {
		var err error
		if r, err = l.Submit(t.Context(), function, arg); err != nil && hopeless(err) {
			t.Fatal(err)
		}
		return err == nil
	})
	return r
}

func read(t *testing.T, l network.Ledger, key string) []byte {
	t.Helper()
	answer, err := l.Evaluate(t.Context(), wire.FnRead, cctest.ReadArg(key))
	must(t, err)
	var r wire.ReadResult
	must(t, wire.Decode(answer, &r))
	return r.Values[0]
}
