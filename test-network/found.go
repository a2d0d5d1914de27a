package testnetwork

import (
	"context"
	"errors"
	"fmt"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/network/fabric"
)

// found submits the contract's first transaction and waits until every peer has its block. On a network that was founded
// before, the contract accepts the same bytes again: it then shows that the network still commits.
func (n *Network) found(ctx context.Context) error {
	arg := wire.Encode(&wire.InitArg{V: wire.Version, MSPs: n.MSPIDs(), TickInterval: n.state.TickInterval.Milliseconds()})
	var receipt network.Receipt
	err := n.asAdmin(ctx, 1, func(ledger network.Ledger) error {
		return retry(ctx, func(ctx context.Context) (err error) {
			receipt, err = ledger.Submit(ctx, wire.FnInit, arg)
			if refusal := (*wire.Error)(nil); errors.As(err, &refusal) {
				return permanent{err}
			}
			return err
		})
	})
	if err != nil {
		return fmt.Errorf("founding the ledger: %w", err)
	}
	return n.eachOrg(ctx, func(ctx context.Context, org int) error {
		return n.asAdmin(ctx, org, func(ledger network.Ledger) error { return awaitHeight(ctx, ledger, receipt.Block+1) })
	})
}

// asAdmin lends fn a connection of an organisation's administrator.
func (n *Network) asAdmin(ctx context.Context, org int, fn func(network.Ledger) error) error {
	ledger, err := fabric.Open(ctx, n.Connection(org, Admin))
	if err != nil {
		return err
	}
	defer ledger.Close()
	return fn(ledger)
}

func awaitHeight(ctx context.Context, ledger network.Ledger, height uint64) error {
	return retry(ctx, func(ctx context.Context) error {
		have, err := ledger.Height(ctx)
		if err == nil && have < height {
			err = fmt.Errorf("peer of %s has %d blocks, not yet %d", ledger.MSPID(), have, height)
		}
		return err
	})
}
