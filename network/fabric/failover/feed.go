package failover

import (
	"context"
	"errors"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"

	"github.com/certanchor/certanchor/network/fabric/verify"
)

// errAnchored ends the stream that brought the first block.
var errAnchored = errors.New("the first block is known")

// feed verifies the own peer's blocks as they come, so that the verifier is where it is needed when the peer goes away. It is beside the stream that
// the bridge reads, which waits for nothing here. It ends with ctx.
func (l *Ledger) feed(ctx context.Context) {
	pause := firstPause
	for ctx.Err() == nil {
		err := l.feedOnce(ctx)
		var wrong *verify.Error
		switch {
		case errors.Is(err, errAnchored):
			continue
		case ctx.Err() != nil:
			return
		case errors.As(err, &wrong):
			// The own peer is trusted, and its blocks go on being answered from. But others' blocks cannot be verified from here on.
			l.log.Error("a block of the own peer does not verify: other organisations' peers are of no use until that is resolved", "error", err)
			pause = lastPause
		default:
			l.log.Warn("the verifier gets no blocks from the own peer", "error", err)
		}
		if !l.rest(ctx, &pause) {
			return
		}
	}
}

// feedOnce reads one stream of the own peer.
func (l *Ledger) feedOnce(ctx context.Context) error {
	from, anchored := l.gate.height()
	return l.own.RawBlocks(ctx, from, func(raw *common.Block) error {
		if !anchored {
			if err := l.gate.anchor(raw); err != nil {
				return err
			}
			return errAnchored
		}
		_, err := l.gate.admit(raw)
		return err
	})
}
