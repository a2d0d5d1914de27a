package oplog

import (
	"context"
	"errors"
	"fmt"
	"strings"

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

// Histories reads every anchored head of a CA's logs, by their names, from the ledger's blocks up to its present height, in their order. progress may be nil.
// Errors: the ledger's; a head that does not follow the one before by the contract's rules.
func Histories(ctx context.Context, ledger network.Ledger, id wire.CAID, progress func(done, of uint64)) (map[string][]Anchor, error) {
	height, err := ledger.Height(ctx)
	if err != nil || height == 0 {
		return nil, err
	}
	all := map[string][]Anchor{}
	err = ledger.Blocks(ctx, 0, func(b *network.Block) error {
		for i := range b.Txs {
			tx := &b.Txs[i]
			for _, w := range tx.Writes {
				if !tx.Valid || !strings.HasPrefix(w.Key, wire.OperatorsPrefix) {
					continue
				}
				of, name, err := wire.ParseOperatorsKey(w.Key)
				if err != nil {
					return fmt.Errorf("block %d, transaction %s: %w", b.Number, tx.ID, err)
				}
				if of != id {
					continue
				}
				a := Anchor{Block: b.Number, TxID: tx.ID}
				if err := wire.Decode(w.Value, &a.OperatorsRecord); err != nil {
					return fmt.Errorf("block %d, transaction %s: %w", b.Number, tx.ID, err)
				}
				if err := follows(all[name], &a); err != nil {
					return fmt.Errorf("block %d, transaction %s: %w", b.Number, tx.ID, err)
				}
				all[name] = append(all[name], a)
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

// Newest is the newest anchored head of the log of a name, from the ledger's state; nil: none.
func Newest(ctx context.Context, ledger network.Ledger, id wire.CAID, name string) (*Anchor, error) {
	answer, err := ledger.Evaluate(ctx, wire.FnRead, wire.Encode(&wire.ReadArg{V: wire.Version, Keys: []string{wire.OperatorsKey(id, name)}}))
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
