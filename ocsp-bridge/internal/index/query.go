package index

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/fxamacker/cbor/v2"

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
			if revs, err = revocations(r, id, s); err != nil {
				return err
			}
		}
		st = status.Evaluate(rec, revs, ca.Rules)
		return nil
	})
	return st, rec, err
}

// Revocations returns the revocations of a serial by others than the CA's operator, sorted by source, then SPKI hash. Not all
// of them need apply to the certificate: status.Applies tells.
func (ix *Index) Revocations(id wire.CAID, s wire.Serial) (revs []wire.Revocation, err error) {
	err = ix.read(func(_ *View, r pebble.Reader) error {
		revs, err = revocations(r, id, s)
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

// StatusEntries returns up to limit status log entries about a certificate (changes of its record, and revocations by others), the
// newest first; with a nil serial, those about a CA (its state, and rules).
func (ix *Index) StatusEntries(id wire.CAID, s wire.Serial, limit int) (entries []StatusEntry, err error) {
	enough := errors.New("enough")
	err = ix.read(func(_ *View, r pebble.Reader) error {
		prefix := statusAtPrefix(id, s)
		return each(r, prefix, func(key, _ []byte) error {
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
			if leaf.CAID != id || !slices.Equal(leaf.Serial, s) {
				return fmt.Errorf("status log entry %d is about CA %s, serial %s: the stored index is damaged", at, leaf.CAID, leaf.Serial)
			}
			entries = append(entries, StatusEntry{Index: at, Leaf: *leaf})
			return nil
		})
	})
	if err != nil && !errors.Is(err, enough) {
		return nil, err
	}
	return entries, nil
}

func record(r pebble.Reader, id wire.CAID, s wire.Serial) (*wire.CertRecord, error) {
	raw, err := get(r, certKey(certTag, id, s))
	if err != nil || raw == nil {
		return nil, err
	}
	rec := new(wire.CertRecord)
	return rec, wire.Decode(raw, rec)
}

func revocations(r pebble.Reader, id wire.CAID, s wire.Serial) ([]wire.Revocation, error) {
	raw, err := get(r, certKey(revokedTag, id, s))
	if err != nil || raw == nil {
		return nil, err
	}
	var revs []wire.Revocation
	if err := cbor.Unmarshal(raw, &revs); err != nil {
		return nil, fmt.Errorf("revocations of %s: the stored index is damaged: %w", s, err)
	}
	return revs, nil
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
