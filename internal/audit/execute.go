package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/fxamacker/cbor/v2"

	"github.com/certanchor/certanchor/chaincode"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
)

// Block executes a block's transactions again. A *Difference says where they are not what the block has; other errors are the
// store's. After an error the audit stands where it stood.
func (a *Auditor) Block(b *network.Block) (err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case storeFailure:
			err = fmt.Errorf("audit state %s: %w", a.opts.Dir, p.error)
		default:
			panic(p)
		}
	}()
	a.opts.step("execute")
	contract := a.contract
	next, state, derived, err := a.execute(b)
	if err != nil {
		a.contract = contract
		return err
	}
	a.opts.step("batch")
	batch := a.db.NewBatch()
	defer batch.Close()
	for _, key := range slices.Sorted(maps.Keys(state)) {
		before, rerr := a.Get(key)
		err = errors.Join(err, rerr)
		if before != nil {
			next.State.toggle(key, before)
		}
		if value := state[key]; value == nil {
			err = errors.Join(err, batch.Delete(stateKey(key), nil))
		} else {
			next.State.toggle(key, value)
			err = errors.Join(err, batch.Set(stateKey(key), value, nil))
		}
	}
	err = errors.Join(err, derived.flush(batch, &next))
	for _, c := range a.verified {
		if c.Value == nil {
			err = errors.Join(err, batch.Delete(verifierKey(c.Key), nil))
		} else {
			err = errors.Join(err, batch.Set(verifierKey(c.Key), c.Value, nil))
		}
	}
	encoded, merr := cbor.Marshal(next)
	if err = errors.Join(err, merr, batch.Set(positionKey, encoded, nil)); err != nil {
		return err
	}
	a.opts.step("commit")
	// A crash may cost the last blocks, whole: they are audited again.
	if err := batch.Commit(pebble.NoSync); err != nil {
		return fmt.Errorf("audit state %s: %w", a.opts.Dir, err)
	}
	a.opts.step("committed")
	a.position, a.verified = next, nil
	return nil
}

// execute returns the position after a block, what the block writes, and what follows from it.
func (a *Auditor) execute(b *network.Block) (position, map[string][]byte, *derivation, error) {
	next := a.position
	if b.Number != a.position.Height {
		return next, nil, nil, &Difference{Block: b.Number, Tx: -1, Field: "number", Ledger: fmt.Sprint(b.Number), Rules: fmt.Sprint(a.position.Height)}
	}
	if !bytes.Equal(b.PrevHash, a.position.Hash) {
		return next, nil, nil, &Difference{Block: b.Number, Tx: -1, Field: "previous_hash", Ledger: hex.EncodeToString(b.PrevHash), Rules: hex.EncodeToString(a.position.Hash)}
	}
	if len(b.Hash) != sha256.Size {
		return next, nil, nil, &Difference{Block: b.Number, Tx: -1, Field: "hash", Ledger: hex.EncodeToString(b.Hash), Rules: fmt.Sprintf("%d octets", sha256.Size)}
	}
	state, derived := map[string][]byte{}, &derivation{a: a, next: &next, writes: map[string][]byte{}}
	for i := range b.Txs {
		tx := &b.Txs[i]
		if !tx.Valid {
			continue
		}
		next.Txs, next.Time = next.Txs+1, max(next.Time, wire.MillisOf(tx.Time))
		if err := a.executeTx(b, tx, state, derived); err != nil {
			return next, nil, nil, err
		}
		a.txs++
		if tx.Function == wire.FnInit && next.Founding == nil {
			next.Founding = &wire.Consortium{} // Init answers with the record
			if err := wire.Decode(tx.Result, next.Founding); err != nil {
				return next, nil, nil, err
			}
		}
	}
	next.Height, next.Hash = b.Number+1, b.Hash
	return next, state, derived, nil
}

// discovery is a function of contract-api, not of the contract: it describes the functions there are. Anybody may submit it.
const discovery = "org.hyperledger.fabric:GetMetadata"

// executeTx executes a valid transaction and compares; what it writes is added to block, and what follows to derived.
func (a *Auditor) executeTx(b *network.Block, tx *network.Tx, block map[string][]byte, derived *derivation) error {
	if tx.Function == discovery && len(tx.Writes) == 0 {
		return nil
	}
	if tx.Function == "" {
		return inTx(b, tx, "call", fmt.Sprintf("%d writes caused by another chaincode", len(tx.Writes)), "caused by a call of the contract")
	}
	if a.contract == nil && chaincode.ReadOnly(tx.Function) && len(tx.Writes) == 0 {
		return nil // before the founding an answer depends on how each endorser is configured
	}
	contract, err := a.contractFor(tx)
	if err != nil {
		return inTx(b, tx, "outcome", "accepted", "refused: "+err.Error())
	}
	x := &execution{auditor: a, block: block, writes: map[string][]byte{}}
	result, err := contract.Invoke(x, chaincode.Tx{
		ID: tx.ID, Channel: a.opts.Channel, Time: tx.Time, Caller: chaincode.Caller{MSPID: tx.MSPID, Role: tx.Role},
	}, tx.Function, tx.Arg)
	if x.broken != nil {
		return x.broken
	}
	if err != nil {
		return inTx(b, tx, "outcome", "accepted", "refused: "+err.Error())
	}
	if !bytes.Equal(result, tx.Result) {
		at := firstDifference(tx.Result, result)
		return inTx(b, tx, "result", describeAt(orEmpty(tx.Result), at), describeAt(orEmpty(result), at))
	}
	if key, ledger, rules, ok := compareWrites(tx.Writes, x.sorted()); !ok {
		return inTx(b, tx, "write "+key, ledger, rules)
	}
	if err := derived.tx(tx, x); err != nil {
		return fmt.Errorf("block %d, transaction %d (%s): derive logs: %w", b.Number, tx.Index, tx.ID, err)
	}
	maps.Copy(block, x.writes)
	return nil
}

func orEmpty(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// contractFor returns the contract, made for the consortium that the ledger's first Init founds unless one is expected.
func (a *Auditor) contractFor(tx *network.Tx) (*chaincode.Contract, error) {
	if a.contract != nil {
		return a.contract, nil
	}
	if tx.Function != wire.FnInit {
		return nil, errors.New("the ledger is not founded yet")
	}
	var arg wire.InitArg
	if err := wire.Decode(tx.Arg, &arg); err != nil {
		return nil, err
	}
	err := a.expect(&chaincode.Config{MSPs: arg.MSPs, TickInterval: time.Duration(arg.TickInterval) * time.Millisecond})
	return a.contract, err
}
