package anchor

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/anchor/anchortest"
	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/network/embedded"
)

// fast makes retries quick and batches small enough that there are several. Who holds a transaction up for long turns nobody away.
var fast = Options{MaxWait: -1, MaxBatch: 7, MinBackoff: time.Millisecond, MaxBackoff: 2 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)}

func openLedger(t testing.TB) *embedded.Node {
	t.Helper()
	node, err := embedded.Open(embedded.Options{Dir: t.TempDir(), MSPID: "Org1MSP"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := node.Close(); err != nil {
			t.Error(err)
		}
	})
	return node
}

// setup registers a new CA and returns it with a faulty connection as its operator.
func setup(t testing.TB, node *embedded.Node) (*cctest.CA, *anchortest.Ledger) {
	t.Helper()
	ca := cctest.NewCA(t)
	if _, err := node.Connect(wire.RoleAdministrator).Submit(t.Context(), wire.FnRegisterCA, ca.RegisterArg("Org1MSP")); err != nil {
		t.Fatal(err)
	}
	return ca, anchortest.New(node.Connect(wire.RoleOperator), nil)
}

func start(t testing.TB, ledger network.Ledger, ca *cctest.CA, o Options) *Log {
	t.Helper()
	l, err := New(ledger, ca.ID, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// onLedger returns the records of certificates, nil for each that is not there, and checks that the log holds exactly those.
func onLedger(t testing.TB, ledger network.Ledger, ca *cctest.CA, certs [][]byte) []*wire.CertRecord {
	t.Helper()
	keys := []string{wire.LogHeadKey(ca.ID)}
	for _, der := range certs {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, wire.CertKey(ca.ID, cctest.Serial(t, cert)))
	}
	answer, err := ledger.Evaluate(context.Background(), wire.FnRead, wire.Encode(&wire.ReadArg{V: wire.Version, Keys: keys}))
	if err != nil {
		t.Fatal(err)
	}
	var r wire.ReadResult
	if err := wire.Decode(answer, &r); err != nil {
		t.Fatal(err)
	}
	var head wire.LogHead
	if err := wire.Decode(r.Values[0], &head); err != nil {
		t.Fatal(err)
	}
	recs := make([]*wire.CertRecord, len(certs))
	seen := map[uint64]bool{}
	for i, v := range r.Values[1:] {
		if v == nil {
			continue
		}
		recs[i] = new(wire.CertRecord)
		if err := wire.Decode(v, recs[i]); err != nil {
			t.Fatal(err)
		}
		if x := recs[i].Final.Index; seen[x] || x >= head.Size {
			t.Fatalf("index %d is used twice or lies outside the log of %d", x, head.Size)
		}
		seen[recs[i].Final.Index] = true
	}
	if uint64(len(seen)) != head.Size {
		t.Fatalf("the log has %d entries for %d certificates", head.Size, len(seen))
	}
	return recs
}

func TestConcurrentCallersShareTransactions(t *testing.T) {
	node := openLedger(t)
	ca, ledger := setup(t, node)
	certs := ca.IssueMany(t, 60)
	o := fast
	o.MaxBatch = 100
	l := start(t, ledger, ca, o)
	release := held(t, ledger)
	first := inFlight(t, l, ledger, certs[0])
	var wg sync.WaitGroup
	for _, der := range certs[1:] {
		wg.Go(func() {
			if _, _, err := l.Issue(t.Context(), der); err != nil {
				t.Error(err)
			}
		})
	}
	waitFor(t, func() bool { return queued(l) == len(certs)-1 })
	release()
	wg.Wait()
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	onLedger(t, ledger, ca, certs)
	if n := ledger.Sent(); n != 2 {
		t.Fatalf("%d transactions, want 2", n)
	}
}

func TestOneBadCertificateDoesNotFailTheOthers(t *testing.T) {
	node := openLedger(t)
	ca, ledger := setup(t, node)
	stranger := cctest.NewCA(t)
	certs := ca.IssueMany(t, 20)
	bad := map[int]bool{0: true, 7: true, 8: true, 19: true}
	for i := range bad {
		certs[i], _ = stranger.Issue(t)
	}
	o := fast
	o.MaxBatch = 100
	errs := issueTogether(t, ledger, ca, o, certs)
	recs := onLedger(t, ledger, ca, certs)
	for i, err := range errs {
		var we *wire.Error
		switch {
		case bad[i] != (recs[i] == nil):
			t.Errorf("certificate %d: bad %t, record %v", i, bad[i], recs[i])
		case !bad[i] && err != nil:
			t.Errorf("certificate %d: %v", i, err)
		case bad[i] && (!network.IsRejected(err) || !errors.As(err, &we) || we.Field != "certificate.issuer"):
			t.Errorf("certificate %d: %v", i, err)
		}
	}
}

// A refusal that names no entry: the same certificate, recorded before, among others.
func TestRetriesSucceedBesideNewEntries(t *testing.T) {
	node := openLedger(t)
	ca, ledger := setup(t, node)
	certs := ca.IssueMany(t, 5)
	first := issueTogether(t, ledger, ca, fast, certs[:3])
	before := onLedger(t, ledger, ca, certs)
	again := issueTogether(t, ledger, ca, fast, certs)
	after := onLedger(t, ledger, ca, certs)
	for i := range certs {
		if i < 3 && (first[i] != nil || before[i].Final.Index != after[i].Final.Index) || again[i] != nil {
			t.Errorf("certificate %d: %v, %v", i, first[min(i, 2)], again[i])
		}
	}
}

func issueTogether(t *testing.T, ledger network.Ledger, ca *cctest.CA, o Options, certs [][]byte) []error {
	t.Helper()
	l, err := New(ledger, ca.ID, o)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	errs := make([]error, len(certs))
	var wg sync.WaitGroup
	for i, der := range certs {
		wg.Go(func() { _, _, errs[i] = l.Issue(t.Context(), der) })
	}
	wg.Wait()
	return errs
}

func TestStatusChangesSurviveFaults(t *testing.T) {
	node := openLedger(t)
	ca, ledger := setup(t, node)
	certs := ca.IssueMany(t, 30)
	issueTogether(t, ledger, ca, Options{}, certs)
	n := 0
	var mu sync.Mutex
	ledger.Plan(func(string) anchortest.Fault {
		mu.Lock()
		defer mu.Unlock()
		n++
		return anchortest.Fault(n % int(anchortest.Hang))
	})
	l := start(t, ledger, ca, fast)
	var wg sync.WaitGroup
	for _, rec := range onLedger(t, ledger, ca, certs) {
		if rec == nil {
			t.Fatal("not issued")
		}
	}
	for _, der := range certs {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the same change twice at the same time
			wg.Go(func() {
				res, _, err := l.SetStatus(t.Context(), wire.StatusChange{Serial: cctest.Serial(t, cert), Op: wire.OpRevoke, Reason: wire.KeyCompromise})
				if err != nil || res.State != wire.CertRevoked || res.Change != 1 {
					t.Errorf("%+v, %v", res, err)
				}
			})
		}
	}
	wg.Wait()
	for i, rec := range onLedger(t, ledger, ca, certs) {
		if rec.State != wire.CertRevoked || rec.Change != 1 {
			t.Errorf("certificate %d: %+v", i, rec)
		}
	}
	_, _, err := l.SetStatus(t.Context(), wire.StatusChange{Serial: wire.Serial{0x77}, Op: wire.OpRevoke})
	var we *wire.Error
	if !errors.As(err, &we) || we.Code != wire.NotFound || we.Field != "serial" {
		t.Fatalf("unknown serial: %v", err)
	}
}

// queued counts the certificates that wait for their first transaction.
func queued(l *Log) int {
	l.issues.mu.Lock()
	defer l.issues.mu.Unlock()
	return l.issues.count
}

func waitFor(t testing.TB, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !cond(); {
		if time.Now().After(deadline) {
			t.Fatal("condition not met in time")
		}
		<-time.After(time.Millisecond)
	}
}
