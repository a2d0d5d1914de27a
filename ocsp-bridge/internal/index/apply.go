package index

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"maps"
	"strings"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctleaf"
	"github.com/certanchor/certanchor/network"
	"github.com/cockroachdb/pebble/v2"
	"github.com/fxamacker/cbor/v2"
	"github.com/transparency-dev/merkle/compact"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// applier is one block on its way into the store.
type applier struct {
	block   *network.Block
	tx      *network.Tx // the transaction being applied
	batch   *pebble.Batch
	trees   map[wire.CAID]*compact.Range
	view    *View // the next view, private until published
	newLogs map[wire.CAID]Log
	grown   map[wire.CAID]bool // logs with leaves that no head covers yet
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
		block: b, batch: ix.db.NewIndexedBatch(), trees: ix.trees, view: &next,
		newLogs: map[wire.CAID]Log{}, grown: map[wire.CAID]bool{},
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
	pos, err := cbor.Marshal(position{Height: v.Height, Hash: v.Hash, Time: v.Time})
	if err != nil {
		return err
	}
	if err := a.batch.Set(positionKey, pos, nil); err != nil {
		return err
	}
	ix.step("built")
	if err := a.batch.Commit(pebble.NoSync); err != nil {
		return fmt.Errorf("index: write block %d: %w", a.block.Number, err)
	}
	ix.step("written")
	ix.publish(v)
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

func (a *applier) applyTx(tx *network.Tx) error {
	if !tx.Valid {
		return nil
	}
	a.tx = tx
	if tx.Function == wire.FnIssue {
		if err := a.applyIssue(); err != nil {
			return err
		}
	}
	for _, w := range tx.Writes {
		if err := a.applyWrite(w); err != nil {
			return err
		}
	}
	for id := range a.grown {
		return a.diverges(wire.LogHeadKey(id), "not written", "a transaction that adds leaves must write the head")
	}
	if t := wire.MillisOf(tx.Time); t > a.view.Time {
		a.view.Time = t
	}
	return nil
}

// applyIssue appends the leaves of an Issue, rebuilt from the certificates in its argument.
func (a *applier) applyIssue() error {
	var (
		arg wire.IssueArg
		res wire.IssueResult
	)
	if err := wire.Decode(a.tx.Arg, &arg); err != nil {
		return a.diverges("Issue argument", "unreadable", "%v", err)
	}
	if err := wire.Decode(a.tx.Result, &res); err != nil {
		return a.diverges("Issue result", "unreadable", "%v", err)
	}
	if len(res.Entries) != len(arg.Certs) {
		return a.diverges("Issue result", fmt.Sprint(len(res.Entries))+" entries", "the argument has %d certificates", len(arg.Certs))
	}
	for i, der := range arg.Certs {
		if err := a.applyLeaf(arg.CAID, der, res.Entries[i]); err != nil {
			return err
		}
	}
	return nil
}

// applyLeaf checks one entry against its certificate and appends it, unless it is a repetition of one that is there.
func (a *applier) applyLeaf(id wire.CAID, der []byte, e wire.LogEntry) error {
	hash, err := ctleaf.Hash(e.Index, e.Time, der)
	if err != nil {
		return a.diverges("log entry", fmt.Sprint(e.Index), "%v", err)
	}
	field := fmt.Sprintf("leaf %d of log %s", e.Index, id)
	if !bytes.Equal(hash[:], e.LeafHash) {
		return a.diverges(field, hex.EncodeToString(e.LeafHash), "the certificate in the argument gives %x", hash)
	}
	size := a.tree(id).End()
	if e.Index < size {
		return a.checkLeaf(id, &e, nil)
	}
	if e.Index > size {
		return a.diverges(field, "ahead", "the next leaf is %d", size)
	}
	serial, err := serialOf(der)
	if err != nil {
		return a.diverges(field, "certificate", "%v", err)
	}
	a.grown[id] = true
	return a.appendLeaf(id, hash, Entry{Kind: FinalEntry, Time: e.Time, Serial: serial})
}

// checkLeaf compares an entry of a record or a result with the leaf this index holds; serial nil is not compared.
func (a *applier) checkLeaf(id wire.CAID, e *wire.LogEntry, serial wire.Serial) error {
	field := fmt.Sprintf("leaf %d of log %s", e.Index, id)
	have, err := get(a.batch, nodeKey(id, compact.NewNodeID(0, e.Index)))
	if err != nil {
		return err
	}
	if !bytes.Equal(have, e.LeafHash) {
		return a.diverges(field, hex.EncodeToString(e.LeafHash), "this index computed %x", have)
	}
	raw, err := get(a.batch, entryKey(id, e.Index))
	if err != nil {
		return err
	}
	entry, err := decodeEntry(raw)
	if err != nil {
		return err
	}
	if entry.Time != e.Time || serial != nil && !bytes.Equal(entry.Serial, serial) {
		return a.diverges(field, fmt.Sprintf("serial %s, time %d", serial, e.Time), "this index holds serial %s, time %d", entry.Serial, entry.Time)
	}
	return nil
}

func (a *applier) applyWrite(w network.Write) error {
	var err error
	switch {
	case w.Key == wire.ConsortiumKey:
		c := new(wire.Consortium)
		if err = wire.Decode(w.Value, c); err == nil {
			a.view.Consortium = c
			return a.batch.Set(consortiumKey, w.Value, nil)
		}
	case strings.HasPrefix(w.Key, wire.CAPrefix):
		return a.applyCA(w)
	case strings.HasPrefix(w.Key, wire.CertPrefix):
		return a.applyCert(w)
	case strings.HasPrefix(w.Key, wire.LogPrefix):
		return a.applyHead(w)
	case strings.HasPrefix(w.Key, wire.ClockPrefix):
		n := strings.TrimPrefix(w.Key, wire.ClockPrefix)
		if len(n) != 1 || n[0] < '0' || n[0] >= '0'+wire.ClockKeys {
			return a.diverges("clock key", w.Key, "must end in 0 to %d", wire.ClockKeys-1)
		}
		if err = a.view.addClock(w.Value); err == nil {
			return a.batch.Set(clockKey(n[0]-'0'), w.Value, nil)
		}
	case ignored(w.Key):
		return nil
	default:
		return a.diverges("key", w.Key, "is of no family this program knows: it may be older than the ledger's rules, and must not answer without them")
	}
	return a.diverges(w.Key, "unreadable", "%v", err)
}

// ignored lists the families that say nothing about a certificate's status beyond what the others say.
func ignored(key string) bool {
	return strings.HasPrefix(key, "proposal/") || strings.HasPrefix(key, "vote/") || strings.HasPrefix(key, wire.PendingPrefix)
}

func (a *applier) applyCA(w network.Write) error {
	id, err := wire.ParseCAID(strings.TrimPrefix(w.Key, wire.CAPrefix))
	if err != nil {
		return a.diverges("key", w.Key, "%v", err)
	}
	a.view.cas, a.view.ids = maps.Clone(a.view.cas), maps.Clone(a.view.ids)
	if err := a.view.addCA(id, w.Value); err != nil {
		return a.diverges(w.Key, "unreadable", "%v", err)
	}
	return a.batch.Set(caKey(caTag, id), w.Value, nil)
}

// applyCert replicates a certificate's record. A record counts only with its leaf in the log.
func (a *applier) applyCert(w network.Write) error {
	id, serial, err := wire.ParseCertKey(w.Key)
	if err != nil {
		return a.diverges("key", w.Key, "%v", err)
	}
	var rec wire.CertRecord
	if err := wire.Decode(w.Value, &rec); err != nil {
		return a.diverges(w.Key, "unreadable", "%v", err)
	}
	if rec.Final == nil && rec.Pre == nil {
		return a.diverges(w.Key, "without a log entry", "every record must name its leaf")
	}
	for _, e := range []*wire.LogEntry{rec.Final, rec.Pre} {
		if e == nil {
			continue
		}
		if err := a.checkLeaf(id, e, serial); err != nil {
			return err
		}
	}
	key := certKey(id, serial)
	if err := a.checkSuccession(w.Key, key, &rec); err != nil {
		return err
	}
	return a.batch.Set(key, w.Value, nil)
}

// checkSuccession: a final revocation is never undone, and keeps its date.
func (a *applier) checkSuccession(name string, key []byte, rec *wire.CertRecord) error {
	raw, err := get(a.batch, key)
	if err != nil || raw == nil {
		return err
	}
	var old wire.CertRecord
	if err := wire.Decode(raw, &old); err != nil {
		return err
	}
	if old.State == wire.CertRevoked && (rec.State != wire.CertRevoked || rec.StatusTime != old.StatusTime) {
		return a.diverges(name, fmt.Sprintf("state %d since %d", rec.State, rec.StatusTime), "it was revoked at %d, which is final", old.StatusTime)
	}
	return nil
}

func (a *applier) applyHead(w network.Write) error {
	id, err := wire.ParseLogHeadKey(w.Key)
	if err != nil {
		return a.diverges("key", w.Key, "%v", err)
	}
	var head wire.LogHead
	if err := wire.Decode(w.Value, &head); err != nil {
		return a.diverges(w.Key, "unreadable", "%v", err)
	}
	if err := a.checkHead(id, &head); err != nil {
		return err
	}
	return a.batch.Set(caKey(headTag, id), w.Value, nil)
}

// serialOf reads the serial number of a DER certificate (RFC 5280 section 4.1).
func serialOf(der []byte) (wire.Serial, error) {
	var (
		s         = cryptobyte.String(der)
		cert, tbs cryptobyte.String
		serial    []byte
	)
	if !s.ReadASN1(&cert, cbasn1.SEQUENCE) || !cert.ReadASN1(&tbs, cbasn1.SEQUENCE) ||
		!tbs.SkipOptionalASN1(cbasn1.Tag(0).Constructed().ContextSpecific()) || !tbs.ReadASN1Integer(&serial) {
		return nil, fmt.Errorf("must begin with a serial number")
	}
	return wire.Serial(serial), wire.Serial(serial).Check()
}
