package index

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/status"
)

// Record returns a certificate's record, nil if the ledger has none. It is not the certificate's status: Status is.
func (ix *Index) Record(id wire.CAID, s wire.Serial) (rec *wire.CertRecord, err error) {
	err = ix.read(func(_ *View, r pebble.Reader) error {
		rec, err = record(r, id, s)
		return err
	})
	return rec, err
}

// Status returns a certificate's status and the record it is of, which is nil if the ledger has none. All of it is from one
// moment, no older than any View taken before.
func (ix *Index) Status(id wire.CAID, s wire.Serial) (st status.Status, rec *wire.CertRecord, err error) {
	err = ix.read(func(v *View, r pebble.Reader) error {
		if rec, err = record(r, id, s); err != nil || rec == nil {
			return err
		}
		ca := v.CA(id)
		if ca == nil {
			return fmt.Errorf("CA %s has a record and is not on the trust list: the stored index is damaged", id)
		}
		var revs []wire.Revocation
		if ca.revokedByOthers { // most CAs have none, and need no second lookup
			if revs, err = revocations(r, id, s, rec.SPKIHash); err != nil {
				return err
			}
		}
		st = status.Evaluate(rec, revs, ca.Rules)
		return nil
	})
	return st, rec, err
}

// Revocations returns the revocations of a certificate by others than the CA's operator, sorted by source: at most one of each. Those by
// the holders of other keys that have the same serial number do not apply to it and are not read; without a record, no holder's does.
func (ix *Index) Revocations(id wire.CAID, s wire.Serial) (revs []wire.Revocation, err error) {
	err = ix.read(func(_ *View, r pebble.Reader) error {
		rec, err := record(r, id, s)
		if err != nil {
			return err
		}
		var spkiHash []byte
		if rec != nil {
			spkiHash = rec.SPKIHash
		}
		revs, err = revocations(r, id, s, spkiHash)
		return err
	})
	return revs, err
}

// Rules returns the rules about a CA, sorted by N.
func (ix *Index) Rules(id wire.CAID) []wire.Rule {
	if ca := ix.View().CA(id); ca != nil {
		return slices.Clone(ca.Rules)
	}
	return nil
}

// PendingLeaf is a change of status that is not in the status log yet.
type PendingLeaf struct {
	Hash  [sha256.Size]byte
	Leaf  wire.StatusLeaf
	Since time.Time // of the transaction that made the change
}

// Pending returns up to limit pending changes, the oldest first.
func (ix *Index) Pending(limit int) (leaves []PendingLeaf, err error) {
	enough := errors.New("enough")
	err = ix.read(func(_ *View, r pebble.Reader) error {
		// What is deleted leaves traces in the store for a while; to begin where it ends saves reading them.
		from := []byte{queueTag}
		if oldest := ix.oldest.Load(); oldest != nil {
			from = *oldest
		}
		return eachIn(r, from, []byte{queueTag + 1}, func(key, hash []byte) error {
			if len(leaves) == 0 {
				ix.oldest.Store(&key)
			}
			if len(leaves) >= limit {
				return enough
			}
			leaf, err := pendingAt(r, key, hash)
			leaves = append(leaves, leaf)
			return err
		})
	})
	if err != nil && !errors.Is(err, enough) {
		return nil, err
	}
	return leaves, nil
}

// StatusEntry is an entry of the status log.
type StatusEntry struct {
	Index uint64
	Leaf  wire.StatusLeaf
}

// StatusEntries returns up to limit status log entries about a certificate (changes of its record, and revocations by others that apply to
// it, as with Revocations), the newest first; with a nil serial, those about a CA (its state, and rules).
func (ix *Index) StatusEntries(id wire.CAID, s wire.Serial, limit int) (entries []StatusEntry, err error) {
	err = ix.read(func(_ *View, r pebble.Reader) error {
		if entries, err = statusEntries(r, statusAtPrefix(id, s), limit); err != nil || s == nil {
			return err
		}
		rec, err := record(r, id, s)
		if err != nil || rec == nil || len(rec.SPKIHash) == 0 {
			return err
		}
		own, err := statusEntries(r, holderAtPrefix(id, s, rec.SPKIHash), limit)
		if err != nil || len(own) == 0 {
			return err
		}
		entries = append(entries, own...)
		slices.SortFunc(entries, func(a, b StatusEntry) int { return cmp.Compare(b.Index, a.Index) })
		entries = entries[:min(limit, len(entries))]
		return nil
	})
	if err != nil {
		return nil, err
	}
	return entries, nil
}

// statusEntries reads the newest entries under a prefix of the families s and u.
func statusEntries(r pebble.Reader, prefix []byte, limit int) (entries []StatusEntry, err error) {
	enough := errors.New("enough")
	err = each(r, prefix, func(key, _ []byte) error {
		if len(entries) >= limit {
			return enough
		}
		if len(key) != len(prefix)+8 {
			return fmt.Errorf("key %x is damaged", key)
		}
		at := ^binary.BigEndian.Uint64(key[len(prefix):])
		leaf, err := statusLeaf(r, at)
		if err != nil {
			return err
		}
		if !bytes.Equal(statusAtKey(leaf, at), key) {
			return fmt.Errorf("status log entry %d is about CA %s, serial %s: the stored index is damaged", at, leaf.CAID, leaf.Serial)
		}
		entries = append(entries, StatusEntry{Index: at, Leaf: *leaf})
		return nil
	})
	if errors.Is(err, enough) {
		err = nil
	}
	return entries, err
}

func record(r pebble.Reader, id wire.CAID, s wire.Serial) (*wire.CertRecord, error) {
	raw, err := get(r, certKey(certTag, id, s))
	if err != nil || raw == nil {
		return nil, err
	}
	rec := new(wire.CertRecord)
	return rec, wire.Decode(raw, rec)
}

// revocations returns what the holder of the key with this hash and a majority have said about a certificate. It reads two keys, however
// many holders of other keys have revoked certificates with the same serial number.
func revocations(r pebble.Reader, id wire.CAID, s wire.Serial, spkiHash []byte) (revs []wire.Revocation, err error) {
	sources := []wire.Source{wire.SourceHolder, wire.SourceQuorum}
	if len(spkiHash) == 0 {
		sources = sources[1:]
	}
	for _, source := range sources {
		var of []byte
		if source == wire.SourceHolder {
			of = spkiHash
		}
		rev, err := revocation(r, id, s, source, of)
		if err != nil {
			return nil, err
		}
		if rev != nil {
			revs = append(revs, *rev)
		}
	}
	return revs, nil
}

// revocation returns what one source has said about a certificate, nil if nothing.
func revocation(r pebble.Reader, id wire.CAID, s wire.Serial, source wire.Source, spkiHash []byte) (*wire.Revocation, error) {
	raw, err := get(r, revokedKey(id, s, source, spkiHash))
	if err != nil || raw == nil {
		return nil, err
	}
	rev := new(wire.Revocation)
	if err := wire.Decode(raw, rev); err != nil {
		return nil, fmt.Errorf("revocation of %s: the stored index is damaged: %w", s, err)
	}
	if rev.Source != source || !bytes.Equal(rev.SPKIHash, spkiHash) {
		return nil, fmt.Errorf("revocation of %s by source %d is of source %d: the stored index is damaged", s, source, rev.Source)
	}
	return rev, nil
}

// statusLeaf reads an entry of the status log.
func statusLeaf(r pebble.Reader, index uint64) (*wire.StatusLeaf, error) {
	e, err := readEntry(r, statusLog, index)
	if err != nil {
		return nil, err
	}
	leaf := new(wire.StatusLeaf)
	return leaf, wire.Decode(e.Leaf, leaf)
}

// mapLeaf reads an entry of the map log.
func mapLeaf(r pebble.Reader, index uint64) (*wire.MapLeaf, error) {
	e, err := readEntry(r, mapLog, index)
	if err != nil {
		return nil, err
	}
	leaf := new(wire.MapLeaf)
	return leaf, wire.Decode(e.Leaf, leaf)
}
