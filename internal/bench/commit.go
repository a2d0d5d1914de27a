package bench

import (
	"context"
	"fmt"

	"github.com/certanchor/certanchor/ca"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/network"
)

// Commit is submit-to-commit, idle, one transaction in flight.
type Commit struct {
	Noop  Latency `json:"noop"`  // a transaction that writes nothing: the baseline
	Issue Latency `json:"issue"` // one certificate of about 1.2 kB
	Ratio float64 `json:"p50_ratio"`
}

func (c Commit) String() string {
	return fmt.Sprintf("  submit to commit, idle, one in flight\n    no-op (baseline)  %s\n    one certificate   %s\n    ratio of p50      %.2f", c.Noop, c.Issue, c.Ratio)
}

// measureCommit registers a CA, for which it takes a majority of administrators, and measures.
func measureCommit(ctx context.Context, operator network.Ledger, admins []network.Ledger, n int) (Commit, error) {
	var c Commit
	authority, err := newAuthority("bench CA", keyfile.P256)
	if err != nil {
		return c, err
	}
	for _, admin := range admins {
		if _, err := ca.Register(ctx, admin, authority.cert.Raw, nil, operator.MSPID()); err != nil {
			return c, err
		}
	}
	certs, err := authority.sign(n)
	if err != nil {
		return c, err
	}
	const warmUp = 5
	if _, err := sequence(ctx, warmUp, noop(operator)); err != nil {
		return c, err
	}
	if c.Noop, err = sequence(ctx, n, noop(operator)); err != nil {
		return c, err
	}
	id := wire.CAIDOf(authority.cert.RawSubjectPublicKeyInfo)
	if c.Issue, err = sequence(ctx, n, issuer(operator, id, certs)); err != nil {
		return c, err
	}
	c.Ratio = c.Issue.P50 / c.Noop.P50
	return c, nil
}
