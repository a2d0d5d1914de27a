package index

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ocspwire"
)

// View is what one moment's blocks say. It never changes. Reads of the index answer from the newest moment, which is never
// older than a View that was taken before.
type View struct {
	Height     uint64      // blocks applied
	Hash       []byte      // of the newest block
	Time       wire.Millis // newest time that a valid transaction with writes carries; 0: none yet
	Seen       time.Time   // local time when Time was learnt (or the index opened)
	Consortium *wire.Consortium
	Tick       wire.Clock // newest tick; Time 0: none yet
	Pending    int        // changes of status that are not in the status log yet
	Changed    Pos        // of the newest Change; zero: none yet
	Integrator string     // MSP ID of the organisation that integrated last; empty: none yet

	cas    map[wire.CAID]*CA
	ids    map[idKey]wire.CAID
	mapped map[[sha256.Size]byte]wire.CAID // by wire.CAMapKey
	logs   map[logID]Log
}

// Log is the head of a log, recomputed by this index.
type Log struct {
	Size uint64            `cbor:"0,keyasint"`
	Root [sha256.Size]byte `cbor:"1,keyasint"`
	Time wire.Millis       `cbor:"2,keyasint"` // of the newest leaf; of the status log, of the newest Integrate
}

// CA is one entry of the trust list. It is replaced, never changed.
type CA struct {
	ID     wire.CAID
	Record *wire.CARecord
	Certs  []*x509.Certificate // Record.Certs, parsed; all have the CA's key
	Rules  []wire.Rule         // sorted by N, effective, whether or not the status log has them yet

	revokedByOthers bool // some serial has a revocation by others than the CA's operator
}

// idKey is the issuer's part of a CertID.
type idKey struct {
	hash crypto.Hash
	name string
	key  string
}

// own makes the trust list this view's own, so that it can change without changing the view it was copied from.
func (v *View) own() {
	v.cas, v.ids, v.mapped = maps.Clone(v.cas), maps.Clone(v.ids), maps.Clone(v.mapped)
}

// addCA parses a trust list entry and makes it findable by CertID, for each certificate and hash algorithm. What others have
// decided about the CA stays. The view must own its trust list.
func (v *View) addCA(id wire.CAID, val []byte) error {
	ca := &CA{ID: id, Record: new(wire.CARecord)}
	if old := v.cas[id]; old != nil {
		ca.Rules, ca.revokedByOthers = old.Rules, old.revokedByOthers
	}
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
	v.cas[id], v.mapped[wire.CAMapKey(id)] = ca, id
	for _, cert := range ca.Certs {
		for _, h := range ocspwire.Hashes() {
			cid, err := ocspwire.NewCertID(h, cert, cert.SerialNumber)
			if err != nil {
				return fmt.Errorf("CA %s: %w", id, err)
			}
			v.ids[idKey{h, string(cid.NameHash), string(cid.KeyHash)}] = id
		}
	}
	return nil
}

// addRule adds the next rule about a CA. The view must own its trust list.
func (v *View) addRule(id wire.CAID, n uint64, val []byte) error {
	ca := v.cas[id]
	if ca == nil {
		return fmt.Errorf("CA %s is not on the trust list", id)
	}
	var rule wire.Rule
	if err := wire.Decode(val, &rule); err != nil {
		return err
	}
	if rule.N != n || n != uint64(len(ca.Rules))+1 || n > wire.MaxRules {
		return fmt.Errorf("rule %d about CA %s, at key %d, is not the next one", rule.N, id, n)
	}
	changed := *ca
	changed.Rules = append(slices.Clone(ca.Rules), rule)
	v.cas[id] = &changed
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
	return v.cas[v.ids[idKey{id.Hash, string(id.NameHash), string(id.KeyHash)}]]
}

// Log returns the head of a CA's issuance log; false if it has none.
func (v *View) Log(id wire.CAID) (Log, bool) {
	l, ok := v.logs[logID(id)]
	return l, ok
}

// StatusLog returns the head of the status log.
func (v *View) StatusLog() Log { return v.head(statusLog) }

// MapLog returns the head of the map log: one entry for each Tick.
func (v *View) MapLog() Log { return v.head(mapLog) }

func (v *View) head(id logID) Log {
	if l, ok := v.logs[id]; ok {
		return l
	}
	return Log{Root: emptyRoot}
}
