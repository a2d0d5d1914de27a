package oplog

import (
	"context"
	"errors"
	"fmt"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
)

// Anchor is a head as the ledger took it.
type Anchor struct {
	wire.OperatorsRecord
	Block uint64
	TxID  string
}

var errAllRead = errors.New("all blocks read")

// History reads every anchored head of a CA's log from the ledger's blocks up to its present height, in their order. progress may be nil.
// Errors: the ledger's; a head that does not follow the one before by the contract's rules.
func History(ctx context.Context, ledger network.Ledger, id wire.CAID, progress func(done, of uint64)) ([]Anchor, error) {
	height, err := ledger.Height(ctx)
	if err != nil || height == 0 {
		return nil, err
	}
	var all []Anchor
	key := wire.OperatorsKey(id)
	err = ledger.Blocks(ctx, 0, func(b *network.Block) error {
		for i := range b.Txs {
			tx := &b.Txs[i]
			for _, w := range tx.Writes {
				if !tx.Valid || w.Key != key {
					continue
				}
				a := Anchor{Block: b.Number, TxID: tx.ID}
				if err := wire.Decode(w.Value, &a.OperatorsRecord); err != nil {
					return fmt.Errorf("block %d, transaction %s: %w", b.Number, tx.ID, err)
				}
				if err := follows(all, &a); err != nil {
					return fmt.Errorf("block %d, transaction %s: %w", b.Number, tx.ID, err)
				}
				all = append(all, a)
			}
		}
		if progress != nil {
			progress(b.Number+1, height)
		}
		if b.Number+1 >= height {
			return errAllRead
		}
		return nil
	})
	if errors.Is(err, errAllRead) {
		err = nil
	}
	return all, err
}

// follows: proofs are for certanchor audit to check, which executes the contract again.
func follows(all []Anchor, a *Anchor) error {
	if len(all) == 0 {
		return nil
	}
	last := all[len(all)-1].Head
	grows := a.Head.Generation == last.Generation && a.Head.Size > last.Size
	begins := a.Head.Generation == last.Generation+1 && a.Lost != nil && a.Lost.Equal(last)
	if !grows && !begins {
		return fmt.Errorf("the head %v must not follow %v", a.Head, last)
	}
	return nil
}

// Newest is the newest anchored head, from the ledger's state; nil: none.
func Newest(ctx context.Context, ledger network.Ledger, id wire.CAID) (*Anchor, error) {
	answer, err := ledger.Evaluate(ctx, wire.FnRead, wire.Encode(&wire.ReadArg{V: wire.Version, Keys: []string{wire.OperatorsKey(id)}}))
	if err != nil {
		return nil, err
	}
	var r wire.ReadResult
	if err := wire.Decode(answer, &r); err != nil {
		return nil, err
	}
	if len(r.Values) != 1 {
		return nil, fmt.Errorf("the ledger gave %d values for one key", len(r.Values))
	}
	if r.Values[0] == nil {
		return nil, nil
	}
	a := new(Anchor)
	return a, wire.Decode(r.Values[0], &a.OperatorsRecord)
}
