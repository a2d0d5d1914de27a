package index

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ocspwire"
	"github.com/cockroachdb/pebble/v2"
)

// CA is one entry of the trust list.
type CA struct {
	ID     wire.CAID
	Record *wire.CARecord
	Certs  []*x509.Certificate // Record.Certs, parsed; all have the CA's key
}

// idKey is the issuer's part of a CertID.
type idKey struct {
	hash crypto.Hash
	name string
	key  string
}

// addCA parses a trust list entry and makes it findable by CertID, for each certificate and hash algorithm.
func (v *View) addCA(id wire.CAID, val []byte) error {
	ca := &CA{ID: id, Record: new(wire.CARecord)}
	if err := wire.Decode(val, ca.Record); err != nil {
		return err
	}
	for _, der := range ca.Record.Certs {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("CA %s: certificate: %w", id, err)
		}
		if wire.CAIDOf(cert.RawSubjectPublicKeyInfo) != id {
			return fmt.Errorf("CA %s: certificate %x has another key", id, cert.SerialNumber)
		}
		ca.Certs = append(ca.Certs, cert)
	}
	v.cas[id] = ca
	for _, cert := range ca.Certs {
		for _, h := range ocspwire.Hashes() {
			cid, err := ocspwire.NewCertID(h, cert, cert.SerialNumber)
			if err != nil {
				return fmt.Errorf("CA %s: %w", id, err)
			}
			v.ids[idKey{h, string(cid.NameHash), string(cid.KeyHash)}] = ca
		}
	}
	return nil
}

func (v *View) addClock(val []byte) error {
	var c wire.Clock
	if err := wire.Decode(val, &c); err != nil {
		return err
	}
	if c.Epoch > v.Tick.Epoch || v.Tick.V == 0 {
		v.Tick = c
	}
	return nil
}

// CA returns a trust list entry, nil if there is none.
func (v *View) CA(id wire.CAID) *CA { return v.cas[id] }

// CAs returns the trust list, sorted by ID.
func (v *View) CAs() []*CA {
	return slices.SortedFunc(maps.Values(v.cas), func(a, b *CA) int { return bytes.Compare(a.ID[:], b.ID[:]) })
}

// Issuer returns the CA that a CertID names, nil if it is not on the trust list.
func (v *View) Issuer(id ocspwire.CertID) *CA {
	return v.ids[idKey{id.Hash, string(id.NameHash), string(id.KeyHash)}]
}

// Log returns the head of a CA's issuance log as this index computed it; the zero Log if it has none.
func (v *View) Log(id wire.CAID) (Log, bool) {
	l, ok := v.logs[id]
	return l, ok
}

// Record returns a certificate's record, nil if the ledger has none. The error is the store's.
func (ix *Index) Record(id wire.CAID, s wire.Serial) (*wire.CertRecord, error) {
	var raw []byte
	err := ix.read(func(db *pebble.DB) (err error) {
		raw, err = get(db, certKey(id, s))
		return err
	})
	if err != nil || raw == nil {
		return nil, err
	}
	rec := new(wire.CertRecord)
	return rec, wire.Decode(raw, rec)
}

// Entry returns what stands at an index of a log. It must be below the size of the log in some View returned before.
func (ix *Index) Entry(id wire.CAID, index uint64) (Entry, error) {
	var raw []byte
	if err := ix.read(func(db *pebble.DB) (err error) {
		raw, err = get(db, entryKey(id, index))
		return err
	}); err != nil {
		return Entry{}, err
	}
	return decodeEntry(raw)
}

// read runs fn while the store cannot be closed.
func (ix *Index) read(fn func(*pebble.DB) error) error {
	ix.closeMu.RLock()
	defer ix.closeMu.RUnlock()
	if ix.closed {
		return ErrClosed
	}
	return fn(ix.db)
}

// get returns a copy of a value, nil if there is none.
func get(r pebble.Reader, key []byte) ([]byte, error) {
	val, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("index: read: %w", err)
	}
	out := append([]byte{}, val...) // not nil, even when empty
	return out, closer.Close()
}
