package verify

import (
	"fmt"
	"runtime"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"golang.org/x/sync/errgroup"
)

// workers is how many transactions are looked at together: that is nearly all signatures.
func workers() int { return runtime.GOMAXPROCS(0) }

// checkTransactions decides every transaction's validity and compares it with the flags.
func (v *Verifier) checkTransactions(b *common.Block, up *updates) error {
	data := b.GetData().GetData()
	txs, verdicts := make([]*transaction, len(data)), make([][]verdict, len(data))
	defs := &definitions{verifier: v, known: map[string]*definition{}, keyed: map[string]bool{}}
	var group errgroup.Group
	group.SetLimit(workers())
	for i, raw := range data {
		group.Go(func() (err error) {
			t := v.channel.readTransaction(i, raw)
			txs[i], verdicts[i] = t, []verdict{t.verdict}
			if t.verdict == valid && common.HeaderType(t.header.GetType()) == common.HeaderType_ENDORSER_TRANSACTION {
				verdicts[i], err = v.channel.checkEndorsements(t, defs)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, t := range txs {
		if t.verdict == valid && common.HeaderType(t.header.GetType()) == common.HeaderType_CONFIG {
			return v.errorAt(t, faultf("type", "CONFIG", "must be readable, and alone in its block"))
		}
	}
	if err := v.settle(txs, verdicts); err != nil {
		return err
	}
	return v.compare(b, txs, verdicts, up)
}

// settle finds duplicates, of earlier blocks first, as a peer does: those are not even looked at otherwise. Policies of keys come before
// duplicates within the block.
func (v *Verifier) settle(txs []*transaction, verdicts [][]verdict) error {
	taken, changing := map[string]int{}, map[stateKey]bool{}
	for i, t := range txs {
		if t.verdict != valid {
			continue
		}
		first, err := v.store.Get(txKey(t.id))
		if err != nil {
			return err
		}
		if first != nil {
			verdicts[i] = []verdict{invalid(peer.TxValidationCode_DUPLICATE_TXID, "its ID was used first by the one %s", describeVersion(first))}
			continue
		}
		if verdicts[i][0] != valid {
			continue
		}
		if t.action != nil {
			if late := t.action.settlePolicies(changing); late != valid {
				verdicts[i] = []verdict{late}
				continue
			}
		}
		if other, ok := taken[t.id]; ok {
			verdicts[i] = []verdict{invalid(peer.TxValidationCode_DUPLICATE_TXID, "its ID is that of transaction %d", other)}
			continue
		}
		taken[t.id] = i
	}
	return nil
}

// compare checks versions in the order of the block, and each flag against what it should be.
func (v *Verifier) compare(b *common.Block, txs []*transaction, verdicts [][]verdict, up *updates) error {
	flags := flagsOf(b)
	for i, t := range txs {
		may := verdicts[i]
		if may[0] == valid {
			decided, err := up.check(t)
			if err != nil {
				return v.errorAt(t, err)
			}
			may = []verdict{decided}
		}
		if err := checkFlag(peer.TxValidationCode(flags[i]), may); err != nil {
			return v.errorAt(t, err)
		}
		if may[0] == valid {
			if err := v.checkStrictly(t); err != nil {
				return v.errorAt(t, err)
			}
			if w := t.loneWrite(v.height); w != nil && !v.concerns(t) {
				up.lone = append(up.lone, *w)
			}
			if err := up.apply(v.height, t); err != nil {
				return v.errorAt(t, err)
			}
		}
	}
	for i, t := range txs { // after the last check: within a block only valid ones count as duplicates
		key := string(txKey(t.id))
		if _, ok := up.changed[key]; ok || t.id == "" {
			continue
		}
		if first, err := v.store.Get([]byte(key)); err != nil {
			return err
		} else if first == nil {
			up.changed[key] = encodeVersion(v.height, uint64(i))
		}
	}
	return nil
}

// checkFlag compares a flag with the verdicts that a peer may come to.
func checkFlag(flag peer.TxValidationCode, may []verdict) error {
	for _, m := range may {
		if m.code == flag {
			return nil
		}
	}
	rule := fmt.Sprintf("must be %s", may[0].code)
	if may[0].why != "" {
		rule += ": " + may[0].why
	}
	return faultf(flagsField, flag.String(), "%s", rule)
}
