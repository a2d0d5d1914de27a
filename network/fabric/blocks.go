package fabric

import (
	"bytes"
	"context"
	"fmt"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"

	"github.com/certanchor/certanchor/network"
)

// Blocks implements network.Ledger. Consecutive blocks must form a chain: a peer that was replaced by one of another channel
// of the same name is noticed at the first block.
func (l *Ledger) Blocks(ctx context.Context, from uint64, fn func(*network.Block) error) error {
	var last []byte // hash of the block before
	return l.RawBlocks(ctx, from, func(raw *common.Block) error {
		block, err := parseBlock(raw, l.cfg.Chaincode)
		if err == nil && last != nil && !bytes.Equal(block.PrevHash, last) {
			err = fmt.Errorf("block %d names %x as its predecessor, which has hash %x", block.Number, block.PrevHash, last)
		}
		if err != nil {
			return &network.UnavailableError{Stage: "read blocks", Err: err}
		}
		last = block.Hash
		return fn(block)
	})
}
