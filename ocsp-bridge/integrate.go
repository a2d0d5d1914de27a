package ocspbridge

import (
	"context"
	"crypto/sha256"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/integrator"
	"github.com/certanchor/certanchor/network"
)

// integrate moves pending changes of status into the status log, in turns with the other organisations.
func (b *Bridge) integrate(ctx context.Context) {
	integrator.Run(ctx, integrator.Config{
		Submit: b.ledger.Submit, MSPID: b.ledger.MSPID(), Changed: b.index.Changed, Now: b.cfg.Now, After: b.cfg.After, Log: b.log,
		View: func() integrator.View {
			v := b.index.View()
			out := integrator.View{Consortium: v.Consortium, Size: v.StatusLog().Size, Pending: v.Pending}
			if last := b.integrator.Load(); last != nil {
				out.Integrator = *last
			}
			return out
		},
		Pending: func(limit int) ([][sha256.Size]byte, error) {
			leaves, err := b.index.Pending(limit)
			if err != nil {
				return nil, err
			}
			hashes := make([][sha256.Size]byte, len(leaves))
			for i := range leaves {
				hashes[i] = leaves[i].Hash
			}
			return hashes, nil
		},
	})
}

// noteIntegrator remembers which organisation moved the status log's head last. After a restart nobody is known until the next one
// does: the queue is another one then for one turn, and the contract still decides.
func (b *Bridge) noteIntegrator(block *network.Block) {
	for i := range block.Txs {
		tx := &block.Txs[i]
		if !tx.Valid || tx.Function != wire.FnIntegrate {
			continue
		}
		for _, w := range tx.Writes {
			var head wire.StatusHead
			if w.Key == wire.StatusHeadKey && wire.Decode(w.Value, &head) == nil { // the index has read it as well
				b.integrator.Store(&head.MSP)
			}
		}
	}
}
