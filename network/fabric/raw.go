package fabric

import (
	"context"
	"errors"
	"fmt"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/protobuf/proto"

	"github.com/certanchor/certanchor/network"
)

// RawBlocks is Blocks with blocks as the peer delivers them: nothing in them was checked, for network/fabric/verify. fn may keep
// what it is given.
func (l *Ledger) RawBlocks(ctx context.Context, from uint64, fn func(*common.Block) error) error {
	inner, cancel := l.untilClosed(ctx)
	defer cancel()
	var fnErr error
	err := l.follow(inner, from, fullBlocks, func(r *peer.DeliverResponse) error {
		fnErr = fn(r.GetBlock())
		return fnErr
	})
	switch {
	case fnErr != nil:
		return fnErr
	case ctx.Err() != nil:
		return ctx.Err()
	case inner.Err() != nil:
		return l.unavailable(inner, "read blocks", err)
	default:
		return err
	}
}

// ConfigBlock returns the block with the channel's present configuration, as the peer says. Error: *network.UnavailableError.
func (l *Ledger) ConfigBlock(ctx context.Context) (*common.Block, error) {
	const stage = "ask for the channel's configuration"
	answer, err := l.query(ctx, stage, "GetConfigBlock", l.network.GetContract("cscc"), []byte(l.cfg.Channel))
	if err != nil {
		var refused *network.RejectedError
		if errors.As(err, &refused) {
			err = &network.UnavailableError{Stage: stage, Err: refused.Reason}
		}
		return nil, err
	}
	block := &common.Block{}
	if err := proto.Unmarshal(answer, block); err != nil {
		return nil, &network.UnavailableError{Stage: stage, Err: fmt.Errorf("parse block: %w", err)}
	}
	return block, nil
}

// ParseBlock reads a raw block of which chaincode's transactions are wanted, trusting the validity flags in its metadata.
func ParseBlock(b *common.Block, chaincode string) (*network.Block, error) {
	return parseBlock(b, chaincode)
}

// HeaderHash is the hash of a block: what the next one names as its predecessor.
func HeaderHash(h *common.BlockHeader) ([]byte, error) { return headerHash(h) }
