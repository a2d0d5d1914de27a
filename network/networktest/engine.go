// Package networktest holds every ledger engine to the contract that package network states: one suite, run over each.
//
// Run is all of it. RunContract is the part that needs no faults, for connections that cannot be cut or killed. Reading order:
// engine.go, audit.go (what the ledger is compared with), contract.go, status.go, concurrency.go, faults.go, proxy.go.
package networktest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
)

// Engine is a running, founded ledger that the suite has to itself. Nothing else may submit to it, ticks included.
type Engine struct {
	// Connect opens a connection of this organisation in a role.
	Connect func(t testing.TB, role string) network.Ledger
	// Administrators opens connections of administrators of as many organisations as a registration needs, this one first.
	Administrators func(t testing.TB) []network.Ledger
	// Patience is how long a call may take at most, faults included.
	Patience time.Duration

	// The rest is for Run only.

	// Proxy stands between every connection of Connect and the process that serves it; Direct connects without it.
	Proxy  *Proxy
	Direct func(t testing.TB, role string) network.Ledger
	// Kill ends that process with SIGKILL and returns when it is gone; Start brings it back and returns when it answers.
	Kill, Start func(t testing.TB)
	// Freeze stops that process (SIGSTOP) and Thaw lets it go on.
	Freeze, Thaw func(t testing.TB)
}

// Run runs the whole suite.
func Run(t *testing.T, e Engine) {
	RunContract(t, e)
	for _, c := range []testCase{
		{"EveryAcknowledgedTransactionSurvivesKill", testKillWhileSubmitting},
		{"NothingIsSubmittedWhileTheLedgerIsDown", testDown},
		{"CallsOnAFrozenLedgerEndInTime", testFrozen},
		{"StreamResumesWithoutGapOrRepeat", testStreamResumes},
		{"RetryAfterACutConnectionRecordsOnce", testRetryAfterCut},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(newBench(t, e)) })
	}
}

// RunContract runs what needs no faults.
func RunContract(t *testing.T, e Engine) {
	for _, c := range []testCase{
		{"WhatIsAcknowledgedIsVisible", testVisible},
		{"RejectedChangesNothing", testRejected},
		{"SameBytesAgainGiveTheSameResult", testSameBytes},
		{"BlocksTellEverything", testBlocksTell},
		{"BlocksReplayedAreTheState", testReplay},
		{"BlocksStartAnywhereAndWait", testBlocksWait},
		{"LargeBatches", testLargeBatches},
		{"APrecertificateComesBeforeItsCertificate", testPrecert},
		{"ImportMergesWhatACASays", testImport},
		{"LargeImports", testLargeImport},
		{"TheHolderOfAKeyRevokes", testHolderRevokes},
		{"AMajorityDecides", testDecisions},
		{"ChangesEnterTheStatusLog", testIntegrate},
		{"TheOperatorsLogHasOneHistory", testOperators},
		{"ConcurrentSubmitsEndInSuccessOrConflict", testConflicts},
		{"ConcurrentSubmitsAllSucceedWhenRetried", testRetriedConflicts},
		{"AnEndedContextSubmitsNothing", testEndedContext},
		{"AClosedConnectionSaysSo", testClosed},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(newBench(t, e)) })
	}
}

type testCase struct {
	name string
	run  func(*bench)
}

// bench is one test's view of the engine.
type bench struct {
	*testing.T
	Engine
	ctx      context.Context // ends long before the test binary would be killed
	operator network.Ledger
	ca       *cctest.CA // registered, operated by this organisation, nothing issued yet
}

func newBench(t *testing.T, e Engine) *bench {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	b := &bench{T: t, Engine: e, ctx: ctx, operator: e.Connect(t, wire.RoleOperator)}
	t.Cleanup(func() { check(t, b.operator.Close()) })
	b.ca = b.register()
	return b
}

// register puts a new CA on the trust list.
func (b *bench) register() *cctest.CA {
	b.Helper()
	ca := cctest.NewCA(b)
	admins := b.Administrators(b)
	for _, admin := range admins {
		b.insist(admin, wire.FnRegisterCA, ca.RegisterArg(b.operator.MSPID()))
		check(b, admin.Close())
	}
	key := wire.CAKey(ca.ID)
	b.eventually("the CA is registered here too", func() bool { return b.read(key)[0] != nil })
	return ca
}

// insist does what package network tells callers to do: submit the same bytes until it is known that they committed.
func (b *bench) insist(l network.Ledger, function string, arg []byte) network.Receipt {
	b.Helper()
	r, err := insist(b.ctx, b.Patience, l, function, arg)
	if err != nil {
		b.Fatalf("%s: %v", function, err)
	}
	return r
}

// insist is for goroutines: it fails only when the contract refused or ctx ended.
func insist(ctx context.Context, patience time.Duration, l network.Ledger, function string, arg []byte) (network.Receipt, error) {
	for {
		attempt, cancel := context.WithTimeout(ctx, patience)
		r, err := l.Submit(attempt, function, arg)
		cancel()
		if err == nil || network.IsRejected(err) || ctx.Err() != nil {
			return r, err
		}
		if unclassified(err) {
			return r, errors.Join(errors.New("not one of the contract's errors"), err)
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// unclassified reports whether err is an error that Submit must not return.
func unclassified(err error) bool {
	return !network.IsRejected(err) && !errors.Is(err, network.ErrConflict) && !errors.Is(err, network.ErrUnavailable) && !errors.Is(err, network.ErrUnknownOutcome)
}

// issue records certificates and returns where they stand.
func (b *bench) issue(ders ...[]byte) (network.Receipt, []wire.LogEntry) {
	b.Helper()
	r := b.insist(b.operator, wire.FnIssue, b.ca.IssueArg(ders...))
	return r, entriesOf(b, r.Result)
}

func entriesOf(t testing.TB, result []byte) []wire.LogEntry {
	t.Helper()
	var issued wire.IssueResult
	check(t, wire.Decode(result, &issued))
	return issued.Entries
}

// read returns the values of keys as this organisation sees them.
func (b *bench) read(keys ...string) [][]byte {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, b.Patience)
	defer cancel()
	answer, err := b.operator.Evaluate(ctx, wire.FnRead, cctest.ReadArg(keys...))
	if err != nil {
		b.Fatalf("read: %v", err)
	}
	var r wire.ReadResult
	check(b, wire.Decode(answer, &r))
	return r.Values
}

func (b *bench) height() uint64 {
	b.Helper()
	h, err := b.operator.Height(b.ctx)
	check(b, err)
	return h
}

// eventually waits for a condition that nothing announces.
func (b *bench) eventually(what string, holds func() bool) {
	b.Helper()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	for !holds() {
		select {
		case <-look.C:
		case <-ctx.Done():
			b.Fatalf("waited a minute in vain: %s", what)
		}
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
