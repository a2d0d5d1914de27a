package anchor

import (
	"crypto/x509"
	"errors"
	"math/big"
	"slices"
	"sync"
	"testing"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/anchor/anchortest"
	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/network/embedded"
)

// suspend has the organisation's administrator suspend a CA that was registered a moment ago.
func suspend(t *testing.T, node *embedded.Node, ca *cctest.CA) {
	t.Helper()
	if _, err := node.Connect(wire.RoleAdministrator).Submit(t.Context(), wire.FnDecide, ca.SuspendArg(1)); err != nil {
		t.Fatal(err)
	}
}

// A batch of a suspended CA's certificates costs two transactions and a look, whatever it holds: new ones are refused together, recorded
// ones and the certificates of recorded precertificates succeed.
func TestSuspendedCAsBatchIsNotTriedInParts(t *testing.T) {
	node := openLedger(t)
	for _, c := range []struct{ fresh, recorded, want int }{{200, 0, 1}, {200, 30, 2}, {0, 30, 1}, {1, 1, 2}, {1, 0, 1}} {
		ca, ledger := setup(t, node)
		o := fast
		o.MaxBatch = 1000
		known := ca.IssueMany(t, c.recorded)
		for _, err := range issueTogether(t, ledger, ca, o, known) {
			if err != nil {
				t.Fatal(err)
			}
		}
		pre, _, final := ca.Precert(t, func(cert *x509.Certificate) { // with a serial number that begins with a zero octet in DER
			cert.SerialNumber = new(big.Int).Lsh(big.NewInt(0x80), 64)
		})
		promised, _ := final(cctest.SCTList())
		if err := issueTogether(t, ledger, ca, o, [][]byte{pre})[0]; err != nil {
			t.Fatal(err)
		}
		suspend(t, node, ca)
		if c.recorded > 0 {
			known = append(known, promised)
		}
		certs := slices.Concat(ca.IssueMany(t, c.fresh), known)
		before := ledger.Sent()
		errs := inOneBatch(t, ledger, ca, o, certs)
		for i, err := range errs {
			we, refused := errors.AsType[*wire.Error](err)
			if i < c.fresh && (!network.IsRejected(err) || !refused || we.Field != "ca.state") || i >= c.fresh && err != nil {
				t.Errorf("%d new, %d recorded: certificate %d: %v", c.fresh, c.recorded, i, err)
			}
		}
		if sent := ledger.Sent() - before - 1; sent != c.want { // one is what held the others up
			t.Errorf("%d new, %d recorded: %d transactions, want %d", c.fresh, c.recorded, sent, c.want)
		}
	}
}

// inOneBatch has all certificates wait behind a first transaction, which is refused, and returns what becomes of them.
func inOneBatch(t *testing.T, ledger *anchortest.Ledger, ca *cctest.CA, o Options, certs [][]byte) []error {
	t.Helper()
	l := start(t, ledger, ca, o)
	release := held(t, ledger)
	stranger, _ := cctest.NewCA(t).Issue(t)
	before := ledger.Sent()
	first := make(chan error, 1)
	go func() {
		_, _, err := l.Issue(t.Context(), stranger)
		first <- err
	}()
	waitFor(t, func() bool { return ledger.Sent() == before+1 })
	errs := make([]error, len(certs))
	var wg sync.WaitGroup
	for i, der := range certs {
		wg.Go(func() { _, _, errs[i] = l.Issue(t.Context(), der) })
	}
	waitFor(t, func() bool { return queued(l) == len(certs) })
	release()
	wg.Wait()
	if err := <-first; !network.IsRejected(err) {
		t.Errorf("another CA's certificate: %v", err)
	}
	return errs
}
