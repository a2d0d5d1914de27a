package ocspbridge

import (
	"context"
	"crypto/sha256"

	"github.com/certanchor/certanchor/internal/integrator"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/index"
)

// integrate moves pending changes of status into the status log, in turns with the other organisations.
func (b *Bridge) integrate(ctx context.Context) {
	integrator.Run(ctx, integrator.Config{
		Submit: b.ledger.Submit, MSPID: b.ledger.MSPID(), Changed: b.index.Changed, Now: b.cfg.Now, After: b.cfg.After, Log: b.log,
		View: func() integrator.View { return integratorView(b.index.View()) },
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

// integratorView is what the organisation's own blocks say to its integrator, also right after a restart.
func integratorView(v *index.View) integrator.View {
	return integrator.View{Consortium: v.Consortium, Size: v.StatusLog().Size, Integrator: v.Integrator, Pending: v.Pending}
}
