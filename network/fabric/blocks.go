package fabric

import (
	"bytes"
	"context"
	"fmt"

	"github.com/hyperledger/fabric-protos-go-apiv2/peer"

	"github.com/certanchor/certanchor/network"
)

// Blocks implements network.Ledger. Consecutive blocks must form a chain: a peer that was replaced by one of another channel
// of the same name is noticed at the first block.
func (l *Ledger) Blocks(ctx context.Context, from uint64, fn func(*network.Block) error) error {
	inner, cancel := l.untilClosed(ctx)
	defer cancel()
	var (
		last  []byte // hash of the block before
		fnErr error
	)
	err := l.follow(inner, from, fullBlocks, func(r *peer.DeliverResponse) error {
		block, err := parseBlock(r.GetBlock(), l.cfg.Chaincode)
		if err == nil && last != nil && !bytes.Equal(block.PrevHash, last) {
			err = fmt.Errorf("block %d names %x as its predecessor, which has hash %x", block.Number, block.PrevHash, last)
		}
		if err != nil {
			return &network.UnavailableError{Stage: "read blocks", Err: err}
		}
		last = block.Hash
		fnErr = fn(block)
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
