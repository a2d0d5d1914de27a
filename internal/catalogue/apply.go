package catalogue

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
)

// block is what one block changes.
type block struct {
	store *Store
	batch *pebble.Batch // indexed: later transactions see what earlier ones wrote
	at    position
	fresh []*Cert
	lost  []Key
	ticks []wire.Millis // times of the Ticks in it
}

// errForked: the block does not follow the one before it. The ledger is another one than before.
var errForked = errors.New("the block does not follow the last one that was applied")

// apply takes a block into the store.
func (s *Store) apply(b *network.Block) (err error) {
	if b.Number != s.at.Next || len(s.at.Hash) > 0 && !bytes.Equal(b.PrevHash, s.at.Hash) {
		return fmt.Errorf("block %d: %w", b.Number, errForked)
	}
	w := &block{store: s, batch: s.db.NewIndexedBatch(), at: s.at}
	defer func() { err = errors.Join(err, w.batch.Close()) }()
	for i := range b.Txs {
		if tx := &b.Txs[i]; tx.Valid {
			if err := w.transaction(b.Number, tx); err != nil {
				return fmt.Errorf("block %d, transaction %s: %w", b.Number, tx.ID, err)
			}
		}
	}
	w.at.Next, w.at.Hash = b.Number+1, b.Hash
	if err := w.batch.Set(positionKey, encode(w.at), nil); err != nil {
		return err
	}
	// Not synced: what a crash of the machine takes is read from the blocks again.
	if err := w.batch.Commit(pebble.NoSync); err != nil {
		return err
	}
	w.publish()
	return nil
}

func (w *block) publish() {
	s := w.store
	now := s.opts.Now()
	s.mu.Lock()
	s.at = w.at
	for _, k := range w.lost {
		s.lost[k] = struct{}{}
	}
	for _, t := range w.ticks {
		if s.skew.last != 0 {
			s.skew.Every = min(t.Time().Sub(s.skew.last.Time()), maxEvery)
		}
		if s.skew.last = t; w.at.Next > s.live {
			s.skew.Ahead = now.Sub(t.Time())
		}
	}
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
	for _, c := range w.fresh {
		s.opts.Recorded(c)
	}
}

func (w *block) transaction(number uint64, tx *network.Tx) error {
	w.at.Time = max(w.at.Time, wire.MillisOf(tx.Time))
	if tx.Function == wire.FnTick {
		w.ticks = append(w.ticks, wire.MillisOf(tx.Time))
	}
	own := w.store.opts.CAID.String() + "/"
	var shown map[string]*x509.Certificate // by serial; nil: not looked at yet
	for _, write := range tx.Writes {
		var err error
		switch {
		case strings.HasPrefix(write.Key, wire.CertPrefix+own):
			if shown == nil {
				shown = certificates(tx)
			}
			err = w.record(number, tx.ID, write, shown)
		case strings.HasPrefix(write.Key, wire.RevokePrefix+own):
			err = w.byOther(write)
		case strings.HasPrefix(write.Key, wire.PendingPrefix) && write.Value != nil:
			err = w.pending(write)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", write.Key, err)
		}
	}
	return w.integrated(tx)
}

// certificates returns the certificates in a transaction's argument, by serial. What cannot be read has no names here; the ledger took it.
func certificates(tx *network.Tx) map[string]*x509.Certificate {
	shown := map[string]*x509.Certificate{}
	var ders [][]byte
	var issue wire.IssueArg
	var imported wire.ImportArg
	switch {
	case tx.Function == wire.FnIssue && wire.Decode(tx.Arg, &issue) == nil:
		ders, _ = issue.Certs() // none after an error
	case tx.Function == wire.FnImport && wire.Decode(tx.Arg, &imported) == nil:
		ders, _ = imported.Certs()
	}
	for _, der := range ders {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			continue
		}
		if serial, err := wire.SerialOf(cert.SerialNumber); err == nil {
			shown[string(serial)] = cert
		}
	}
	return shown
}

// record takes a certificate's record as it is now.
func (w *block) record(number uint64, txID string, write network.Write, shown map[string]*x509.Certificate) error {
	_, serial, err := wire.ParseCertKey(write.Key)
	if err != nil {
		return err
	}
	if write.Value == nil {
		return errors.New("a record is never deleted")
	}
	var rec wire.CertRecord
	if err := wire.Decode(write.Value, &rec); err != nil {
		return err
	}
	c, err := get(w.batch, serial)
	if err != nil {
		return err
	}
	known := c != nil
	if !known {
		c = &Cert{Serial: serial}
	}
	if !known || rec.Change != c.Change {
		c.Block, c.TxID, c.Position = number, txID, nil
	}
	hadKey := len(c.Key) > 0
	c.set(&rec)
	if cert := shown[string(serial)]; cert != nil {
		c.name(cert)
	}
	if !hadKey && len(c.Key) == sha256.Size {
		if err := w.batch.Set(keyKey(Key(c.Key), serial), nil, nil); err != nil {
			return err
		}
		w.fresh = append(w.fresh, c)
	}
	if rec.State == wire.CertRevoked && rec.Reason == wire.KeyCompromise && len(c.Key) == sha256.Size {
		if err := w.lose(Key(c.Key)); err != nil {
			return err
		}
	}
	return w.batch.Set(certKey(serial), encode(c), nil)
}

func (w *block) lose(k Key) error {
	w.lost = append(w.lost, k)
	return w.batch.Set(append([]byte{lostTag}, k[:]...), nil, nil)
}

// byOther takes a revocation by the holder of a key: it may be the first to say that the key is in other hands.
func (w *block) byOther(write network.Write) error {
	var r wire.Revocation
	if write.Value == nil {
		return nil
	}
	if err := wire.Decode(write.Value, &r); err != nil {
		return err
	}
	if r.Source == wire.SourceHolder && r.Reason == wire.KeyCompromise && len(r.SPKIHash) == sha256.Size {
		return w.lose(Key(r.SPKIHash))
	}
	return nil
}

// pending notes which change a leaf of the status log to come is of.
func (w *block) pending(write network.Write) error {
	var leaf wire.StatusLeaf
	if err := wire.Decode(write.Value, &leaf); err != nil {
		return err
	}
	if leaf.Kind != wire.LeafCert || leaf.CAID != w.store.opts.CAID {
		return nil
	}
	hash, err := hex.DecodeString(strings.TrimPrefix(write.Key, wire.PendingPrefix))
	if err != nil {
		return err
	}
	return w.batch.Set(pendingKey(hash), encode(pending{leaf.Serial, leaf.Change}), nil)
}

// integrated gives changes the places that the status log has for them.
func (w *block) integrated(tx *network.Tx) error {
	if tx.Function != wire.FnIntegrate {
		return nil
	}
	var arg wire.IntegrateArg
	if err := wire.Decode(tx.Arg, &arg); err != nil {
		return err
	}
	for i, hash := range arg.Leaves {
		v, err := readFrom(w.batch, pendingKey(hash))
		if err != nil {
			return err
		}
		if v == nil {
			continue // of another CA, or not about a certificate's record
		}
		var p pending
		if err := dec.Unmarshal(v, &p); err != nil {
			return err
		}
		c, err := get(w.batch, p.Serial)
		if err != nil {
			return err
		}
		if c != nil && c.Change == p.Change {
			at := arg.Size + uint64(i) //nolint:gosec // an index
			c.Position = &at
			if err := w.batch.Set(certKey(p.Serial), encode(c), nil); err != nil {
				return err
			}
		}
		if err := w.batch.Delete(pendingKey(hash), nil); err != nil {
			return err
		}
	}
	return nil
}

func certKey(s wire.Serial) []byte { return append([]byte{certTag}, s...) }

func keyKey(k Key, s wire.Serial) []byte { return append(append([]byte{keyTag}, k[:]...), s...) }

func pendingKey(hash []byte) []byte { return append([]byte{pendingTag}, hash...) }

// get returns a certificate, nil if there is none.
func get(r pebble.Reader, serial wire.Serial) (*Cert, error) {
	v, err := readFrom(r, certKey(serial))
	if err != nil || v == nil {
		return nil, err
	}
	c := &Cert{Serial: serial}
	return c, dec.Unmarshal(v, c)
}
