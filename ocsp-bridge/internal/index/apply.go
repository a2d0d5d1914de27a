package index

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"strings"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
	"github.com/cockroachdb/pebble/v2"
	"github.com/fxamacker/cbor/v2"
	"github.com/transparency-dev/merkle/compact"
)

// applier is one block on its way into the store.
type applier struct {
	block   *network.Block
	batch   *pebble.Batch // reads its own writes
	trees   map[logID]*compact.Range
	view    *View // the next view, private until published
	mapped  mapState
	newLogs map[logID]Log
	fresh   map[place]*freshLeaf // certificates that this block has logged
	queued  uint32               // pending changes that this block has added

	changes []Change // of status, so far

	tx *network.Tx // the transaction being applied
	pendingTx
	touched      []*touch // in the order of writes
	touchedCerts map[certName]*touch
	grown        map[logID]bool // logs with leaves that no head covers yet
	unclaimed    map[place]bool // leaves that no record names yet
	cas          map[wire.CAID]bool
	tick         *wire.Clock
}

// Apply adds the next block. It is atomic: after an error, or a crash at any point, the store holds the blocks before it and
// nothing of this one. Every error is final for this Index; a *DivergenceError will come back after a restart.
func (ix *Index) Apply(b *network.Block) error {
	ix.closeMu.RLock()
	defer ix.closeMu.RUnlock()
	if ix.closed {
		return ErrClosed
	}
	if ix.failed != nil {
		return ix.failed
	}
	if err := ix.apply(b); err != nil {
		ix.failed = err
		return err
	}
	return nil
}

func (ix *Index) apply(b *network.Block) error {
	old := ix.View()
	next := *old
	a := &applier{
		block: b, batch: ix.db.NewIndexedBatch(), trees: ix.trees, view: &next, mapped: ix.mapped,
		newLogs: map[logID]Log{}, fresh: map[place]*freshLeaf{},
	}
	defer func() {
		if err := a.batch.Close(); err != nil {
			ix.opts.Log.Error("index: release batch", "error", err)
		}
	}()
	if err := a.checkChain(old); err != nil {
		return err
	}
	for i := range b.Txs {
		if err := a.applyTx(&b.Txs[i]); err != nil {
			return err
		}
	}
	next.Height, next.Hash = b.Number+1, bytes.Clone(b.Hash)
	if next.Time > old.Time {
		next.Seen = ix.opts.Now()
	}
	if len(a.newLogs) > 0 {
		next.logs = maps.Clone(old.logs)
		maps.Copy(next.logs, a.newLogs)
	}
	return ix.commit(a)
}

// commit writes data and position as one batch and shows them.
func (ix *Index) commit(a *applier) error {
	v := a.view
	pos, err := cbor.Marshal(position{Height: v.Height, Hash: v.Hash, Time: v.Time, Changed: appendPos(nil, v.Changed), Integrator: v.Integrator})
	if err != nil {
		return err
	}
	if err := a.set(positionKey, pos); err != nil {
		return err
	}
	for id, head := range a.newLogs {
		raw, err := cbor.Marshal(head)
		if err != nil {
			return err
		}
		if err := a.set(key32(headTag, id), raw); err != nil {
			return err
		}
	}
	ix.step("built")
	if err := a.batch.Commit(pebble.NoSync); err != nil {
		return fmt.Errorf("index: write block %d: %w", a.block.Number, err)
	}
	ix.mapped = a.mapped
	ix.step("written")
	ix.publish(v, a.changes)
	ix.step("published")
	return nil
}

func (ix *Index) step(name string) {
	if ix.hook != nil {
		ix.hook(name)
	}
}

// CheckKnown compares a block that the ledger delivers with the newest one applied. A ledger that was replaced under a running
// index, or put back to an older copy and gone another way, shows here.
func (ix *Index) CheckKnown(b *network.Block) error {
	v := ix.View()
	if b.Number+1 == v.Height && !bytes.Equal(b.Hash, v.Hash) {
		a := &applier{block: b}
		return a.diverges("block hash", hex.EncodeToString(b.Hash), "this index has applied %x under that number: the ledger is another one, or was changed", v.Hash)
	}
	return nil
}

// checkChain: blocks come in order, and each names the hash of the one before.
func (a *applier) checkChain(old *View) error {
	if a.block.Number != old.Height {
		return a.diverges("block number", fmt.Sprint(a.block.Number), "the next one is %d", old.Height)
	}
	if !bytes.Equal(a.block.PrevHash, old.Hash) {
		return a.diverges("previous hash", hex.EncodeToString(a.block.PrevHash), "block %d before it has %x", int64(old.Height)-1, old.Hash)
	}
	return nil
}

func (a *applier) diverges(field, value, rule string, args ...any) error {
	e := &DivergenceError{Block: a.block.Number, Field: field, Value: value, Rule: fmt.Sprintf(rule, args...)}
	if a.tx != nil {
		e.TxID = a.tx.ID
	}
	return e
}

func (a *applier) set(key, val []byte) error { return a.batch.Set(key, val, nil) }

// applyTx takes what the argument says first, then the writes, then compares one with the other.
func (a *applier) applyTx(tx *network.Tx) error {
	// A transaction without writes changes nothing, whatever it says it called. That of an Issue or Import is looked at nevertheless: a
	// repeated one has none, and it must not promise a leaf that is not there.
	if !tx.Valid || len(tx.Writes) == 0 && tx.Function != wire.FnIssue && tx.Function != wire.FnImport {
		return nil
	}
	a.tx, a.tick, a.pendingTx = tx, nil, pendingTx{}
	a.grown, a.unclaimed, a.cas = map[logID]bool{}, map[place]bool{}, map[wire.CAID]bool{}
	a.touched, a.touchedCerts = nil, nil
	var err error
	switch tx.Function {
	case wire.FnIssue:
		err = a.applyIssue()
	case wire.FnImport:
		err = a.applyImport()
	case wire.FnIntegrate:
		err = a.applyIntegrate()
	}
	if err != nil {
		return err
	}
	for _, w := range tx.Writes {
		if err := a.applyWrite(w); err != nil {
			return err
		}
	}
	if err := a.checkComplete(); err != nil {
		return err
	}
	if err := a.settle(); err != nil {
		return err
	}
	// Only writes show that the contract's endorsement policy was met: nobody alone may say what time it is.
	if t := wire.MillisOf(tx.Time); t > a.view.Time && len(tx.Writes) > 0 {
		a.view.Time = t
	}
	return a.applyTick()
}

// checkComplete: what one write says, the writes that belong to it say too.
func (a *applier) checkComplete() error {
	for id := range a.grown {
		return a.diverges("head of log "+id.String(), "not written", "a transaction that adds leaves must write the head")
	}
	for at := range a.unclaimed {
		return a.diverges(fmt.Sprintf("leaf %d of log %s", at.index, at.log), "without a record", "a transaction that adds a leaf must write the record that names it")
	}
	for id := range a.cas {
		if ca := a.view.cas[id]; ca.Record.Rules != uint64(len(ca.Rules)) {
			return a.diverges(wire.CAKey(id)+" rules", fmt.Sprint(ca.Record.Rules), "there are %d", len(ca.Rules))
		}
	}
	return a.checkLeaves()
}

func (a *applier) applyWrite(w network.Write) error {
	switch {
	case w.Key == wire.ConsortiumKey:
		c := new(wire.Consortium)
		if err := wire.Decode(w.Value, c); err != nil {
			return a.unreadable(w, err)
		}
		a.view.Consortium = c
		return a.set(consortiumKey, w.Value)
	case w.Key == wire.StatusHeadKey:
		return a.applyStatusHead(w)
	case strings.HasPrefix(w.Key, wire.CAPrefix):
		return a.applyCA(w)
	case strings.HasPrefix(w.Key, wire.CertPrefix):
		return a.applyCert(w)
	case strings.HasPrefix(w.Key, wire.RevokePrefix):
		return a.applyRevocation(w)
	case strings.HasPrefix(w.Key, wire.RulePrefix):
		return a.applyRule(w)
	case strings.HasPrefix(w.Key, wire.LogPrefix):
		return a.applyHead(w)
	case strings.HasPrefix(w.Key, wire.PendingPrefix):
		return a.applyPending(w)
	case strings.HasPrefix(w.Key, wire.ClockPrefix):
		return a.applyClock(w)
	case strings.HasPrefix(w.Key, wire.OperatorsPrefix):
		return a.applyOperators(w)
	case strings.HasPrefix(w.Key, "proposal/"), strings.HasPrefix(w.Key, "vote/"):
		return nil // what a decision is counts, not how it came about
	}
	return a.diverges("key", w.Key, "is of no family this program knows: it may be older than the ledger's rules, and must not answer without them")
}

func (a *applier) unreadable(w network.Write, err error) error {
	return a.diverges(w.Key, "unreadable", "%v", err)
}

// grow appends a leaf to a log, with its new complete subtrees and the way back from its hash.
func (a *applier) grow(log logID, hash [sha256.Size]byte, entry []byte) (index uint64, err error) {
	tree := a.tree(log)
	index = tree.End()
	var storeErr error
	store := func(n compact.NodeID, h []byte) {
		if err := a.set(nodeKey(log, n), h); err != nil {
			storeErr = err
		}
	}
	if err := tree.Append(hash[:], store); err != nil {
		return index, err
	}
	if storeErr != nil {
		return index, storeErr
	}
	a.grown[log] = true
	if err := a.set(findKey(log, hash, index), nil); err != nil {
		return index, err
	}
	return index, a.set(entryKey(log, index), entry)
}

// checkHead compares a recorded head with the tree that this index computed.
func (a *applier) checkHead(key string, log logID, size uint64, recorded []byte, t wire.Millis) error {
	tree := a.tree(log)
	if size != tree.End() {
		return a.diverges(key+" size", fmt.Sprint(size), "this index holds %d leaves", tree.End())
	}
	root, err := rootOf(tree)
	if err != nil {
		return err
	}
	if !bytes.Equal(recorded, root[:]) {
		return a.diverges(key+" root", hex.EncodeToString(recorded), "the root of its %d leaves is %x", size, root)
	}
	if before := a.head(log); t < before.Time {
		return a.diverges(key+" time", fmt.Sprint(t), "it was %d before, and must not go back", before.Time)
	}
	a.newLogs[log] = Log{Size: size, Root: root, Time: t}
	delete(a.grown, log)
	return nil
}

// head is a log's head as far as this block has come.
func (a *applier) head(log logID) Log {
	if l, ok := a.newLogs[log]; ok {
		return l
	}
	return a.view.head(log)
}

// tree returns a log's compact range, an empty one for a new log.
func (a *applier) tree(log logID) *compact.Range {
	t := a.trees[log]
	if t == nil {
		t = ranges.NewEmptyRange(0)
		a.trees[log] = t
	}
	return t
}
