package index

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/fxamacker/cbor/v2"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/status"
)

// Pos is where a change stands: the block of its transaction, and the change's number in that block, from 1. The zero Pos is before all.
type Pos struct {
	Block uint64
	N     uint32
}

// Compare is negative if p is before q, positive if it is after q.
func (p Pos) Compare(q Pos) int { return cmp.Or(cmp.Compare(p.Block, q.Block), cmp.Compare(p.N, q.N)) }

// Before is the Pos after all changes of the first height blocks, and before those of later ones.
func Before(height uint64) Pos { return Pos{Block: height} }

// Change is one change of a certificate's status, or of many (a rule), at the moment it takes effect: by a transaction of block Pos.Block.
// That a certificate is issued is none, unless others, or a rule, had revoked it before. That one becomes known which was on hold or revoked
// by its serial number only is a change, though Before and After are the same then.
type Change struct {
	Pos    Pos
	CAID   wire.CAID
	Serial wire.Serial // nil: a rule (Rule != 0) or the trust list entry of the CA itself (Rule == 0)
	Rule   uint64
	// Before and After are the status of the certificate; zero for Serial == nil. Before is zero for a certificate that is issued revoked.
	Before, After status.Status
	SerialOnly    bool         // after it the ledger knows no more than the serial number
	NotAfter      wire.Millis  // and this of its certificate; 0: not known, or not SerialOnly
	CAState       wire.CAState // after a change of the trust list entry, else 0
	At            wire.Millis  // of the transaction

	was *changedCert // what Before was made of, kept while the CA has rules, and of what was known by its serial number only
}

// Changes returns up to limit changes after a position, of all CAs, the oldest first.
func (ix *Index) Changes(after Pos, limit int) (changes []Change, err error) {
	err = ix.read(func(_ *View, r pebble.Reader) error {
		changes, err = changesIn(r, after, limit)
		return err
	})
	return changes, err
}

// LastChange returns where the newest change of a CA or one of its certificates stands, the zero Pos if there is none.
func (ix *Index) LastChange(id wire.CAID) (pos Pos, err error) {
	err = ix.read(func(_ *View, r pebble.Reader) error {
		key := key32(lastChangeTag, id)
		raw, err := getSealed(r, key)
		if err != nil || raw == nil {
			return err
		}
		pos, err = posOf(raw)
		return err
	})
	return pos, err
}

// EachChanged calls fn for every certificate of a CA with a record that is on hold or revoked by it, by others or by a rule, in the order
// of serial numbers as octet strings, until fn fails. All of it is from one moment. The record is fn's own. Without rules about the CA it
// reads only those certificates; with one, all of the CA's.
func (ix *Index) EachChanged(id wire.CAID, fn func(wire.Serial, status.Status, *wire.CertRecord) error) error {
	return ix.read(func(v *View, r pebble.Reader) error {
		if ca := v.CA(id); ca != nil {
			return eachChanged(r, ca, ca.Rules, nil, fn)
		}
		return nil
	})
}

// EachChangedAt is EachChanged as of an earlier height, that is after so many blocks: statuses are what they were then. Records are today's
// (of their fields, NotAfter, SPKIHash and the log entries are not about status), but those of serial numbers are what they were until their
// certificates became known. Its memory grows with the changes since then. Errors: a height that is not reached yet.
func (ix *Index) EachChangedAt(id wire.CAID, height uint64, fn func(wire.Serial, status.Status, *wire.CertRecord) error) error {
	return ix.read(func(v *View, r pebble.Reader) error {
		if height > v.Height {
			return fmt.Errorf("height %d: must be one that is reached: the index has applied %d blocks", height, v.Height)
		}
		ca := v.CA(id)
		if ca == nil {
			return nil
		}
		u := undo{rules: ca.Rules, certs: map[string]past{}}
		if err := u.collect(r, id, height); err != nil {
			return err
		}
		return eachChanged(r, ca, u.rules, u.certs, fn)
	})
}

// undo says what was otherwise at an earlier height.
type undo struct {
	rules []wire.Rule     // those there were
	certs map[string]past // by serial: certificates that have changed since
}

// past is what a certificate was at an earlier height.
type past struct {
	st  status.Status    // zero: not issued then
	rec *wire.CertRecord // nil: as today, as far as it matters
}

func (u *undo) collect(r pebble.Reader, id wire.CAID, height uint64) error {
	const batch = 1000
	var first []Change // of each certificate
	for after := Before(height); ; {
		changes, err := changesIn(r, after, batch)
		if err != nil || len(changes) == 0 {
			if err == nil {
				u.evaluate(first)
			}
			return err
		}
		for _, c := range changes {
			after = c.Pos
			if c.CAID != id {
				continue
			}
			if c.Rule != 0 {
				u.rules = u.rules[:min(uint64(len(u.rules)), c.Rule-1)]
			}
			if _, seen := u.certs[string(c.Serial)]; c.Serial != nil && !seen {
				u.certs[string(c.Serial)], first = past{}, append(first, c)
			}
		}
	}
}

// evaluate: the status before a certificate's first change, without the rules that came between.
func (u *undo) evaluate(first []Change) {
	for _, c := range first {
		p := past{st: c.Before}
		if c.was != nil {
			p.st = status.Evaluate(&c.was.Rec, c.was.Revs, u.rules)
			if c.was.Rec.SerialOnly() {
				p.rec = &c.was.Rec
			}
		}
		u.certs[string(c.Serial)] = p
	}
}

// eachChanged: at overrides what certificates are.
func eachChanged(r pebble.Reader, ca *CA, rules []wire.Rule, at map[string]past, fn func(wire.Serial, status.Status, *wire.CertRecord) error) error {
	tell := func(serial wire.Serial, st status.Status, rec *wire.CertRecord) error {
		if !st.Bad() {
			return nil
		}
		return fn(serial, st, rec)
	}
	rest := slices.Sorted(maps.Keys(at))
	// Certificates that are not among those stored as changed, but have changed since, come where they belong.
	upTo := func(serial wire.Serial) error {
		for ; len(rest) > 0 && (serial == nil || rest[0] < string(serial)); rest = rest[1:] {
			rec, err := record(r, ca.ID, wire.Serial(rest[0]))
			if err == nil && rec != nil {
				p := at[rest[0]]
				err = tell(wire.Serial(rest[0]), p.st, cmp.Or(p.rec, rec))
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	tag, read := byte(changedTag), changedFrom
	if len(rules) > 0 { // any certificate may be one
		tag, read = certTag, func(r pebble.Reader, key, val []byte) (*changedCert, error) { return certFrom(r, ca, key, val) }
	}
	if err := each(r, key32(tag, ca.ID), func(key, val []byte) error {
		c, err := read(r, key, val)
		if err != nil {
			return err
		}
		serial := wire.Serial(key[1+sha256.Size:])
		if err := upTo(serial); err != nil {
			return err
		}
		p, changed := at[string(serial)]
		if changed {
			rest = rest[1:]
		} else {
			p.st = status.Evaluate(&c.Rec, c.Revs, rules)
		}
		return tell(serial, p.st, cmp.Or(p.rec, &c.Rec))
	}); err != nil {
		return err
	}
	return upTo(nil)
}

func changedFrom(_ pebble.Reader, key, val []byte) (*changedCert, error) {
	raw, err := unseal(key, val)
	if err != nil {
		return nil, err
	}
	c, err := decodeChanged(raw)
	if err != nil {
		return nil, damaged(key, err)
	}
	return c, nil
}

func certFrom(r pebble.Reader, ca *CA, key, val []byte) (*changedCert, error) {
	c := new(changedCert)
	err := wire.Decode(val, &c.Rec)
	if err == nil && ca.revokedByOthers {
		c.Revs, err = revocations(r, ca.ID, wire.Serial(key[1+sha256.Size:]), c.Rec.SPKIHash)
	}
	return c, err
}

var errEnough = errors.New("enough")

func changesIn(r pebble.Reader, after Pos, limit int) (changes []Change, err error) {
	if after.N == math.MaxUint32 {
		after = Pos{Block: after.Block + 1}
	}
	before := after
	err = eachIn(r, changeKey(Pos{after.Block, after.N + 1}), []byte{changeTag + 1}, func(key, val []byte) error {
		if len(changes) >= limit {
			return errEnough
		}
		c, err := changeFrom(key, val)
		if err != nil {
			return err
		}
		// Numbers have no gaps, so one that is missing shows.
		want := uint32(1)
		if c.Pos.Block == before.Block {
			want = before.N + 1
		}
		if c.Pos.N != want {
			return damaged(key, fmt.Errorf("change %d of block %d is missing", want, c.Pos.Block))
		}
		before, changes = c.Pos, append(changes, c)
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, err
	}
	return changes, nil
}

// storedChange is a Change in the store.
type storedChange struct {
	CAID    wire.CAID    `cbor:"0,keyasint"`
	Serial  wire.Serial  `cbor:"1,keyasint,omitempty"`
	Rule    uint64       `cbor:"2,keyasint,omitempty"`
	Before  storedStatus `cbor:"3,keyasint"`
	After   storedStatus `cbor:"4,keyasint"`
	CAState wire.CAState `cbor:"5,keyasint,omitempty"`
	At      wire.Millis  `cbor:"6,keyasint"`
	Was     []byte       `cbor:"7,keyasint,omitempty"` // see changedCert

	SerialOnly bool        `cbor:"8,keyasint,omitempty"`
	NotAfter   wire.Millis `cbor:"9,keyasint,omitempty"`
}

type storedStatus struct {
	_          struct{} `cbor:",toarray"`
	State      wire.CertState
	Reason     wire.Reason
	Time       wire.Millis
	Asserted   wire.Millis
	Invalidity wire.Millis
	Change     uint64
	Antedated  bool
}

func pack(s status.Status) storedStatus {
	return storedStatus{State: s.State, Reason: s.Reason, Time: s.Time, Asserted: s.Asserted, Invalidity: s.Invalidity, Change: s.Change, Antedated: s.Antedated}
}

func (s storedStatus) unpack() status.Status {
	return status.Status{State: s.State, Reason: s.Reason, Time: s.Time, Asserted: s.Asserted, Invalidity: s.Invalidity, Change: s.Change, Antedated: s.Antedated}
}

func changeFrom(key, val []byte) (c Change, err error) {
	raw, err := unseal(key, val)
	if err != nil {
		return c, err
	}
	var s storedChange
	if err := cbor.Unmarshal(raw, &s); err != nil {
		return c, damaged(key, err)
	}
	c = Change{
		CAID: s.CAID, Serial: s.Serial, Rule: s.Rule, Before: s.Before.unpack(), After: s.After.unpack(), CAState: s.CAState, At: s.At,
		SerialOnly: s.SerialOnly, NotAfter: s.NotAfter,
	}
	if s.Was != nil {
		if c.was, err = decodeChanged(s.Was); err != nil {
			return c, damaged(key, err)
		}
	}
	c.Pos, err = posOf(key[1:])
	return c, err
}

func (c *Change) encode() ([]byte, error) {
	s := storedChange{
		CAID: c.CAID, Serial: c.Serial, Rule: c.Rule, Before: pack(c.Before), After: pack(c.After), CAState: c.CAState, At: c.At,
		SerialOnly: c.SerialOnly, NotAfter: c.NotAfter,
	}
	if c.was != nil {
		s.Was = c.was.encode()
	}
	return cbor.Marshal(s)
}

func appendPos(b []byte, p Pos) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(b, p.Block), p.N)
}

func posOf(b []byte) (Pos, error) {
	if len(b) != posLen {
		return Pos{}, fmt.Errorf("position %x is damaged", b)
	}
	return Pos{binary.BigEndian.Uint64(b), binary.BigEndian.Uint32(b[8:])}, nil
}

// No hash covers what these families hold, so each value ends with one of its own, over its key too.
const sealLen = 8

func seal(key, val []byte) []byte {
	sum := sealOf(key, val)
	return append(val[:len(val):len(val)], sum[:]...)
}

func sealOf(key, val []byte) [sealLen]byte {
	var room [512]byte // enough as a rule
	sum := sha256.Sum256(append(append(room[:0], key...), val...))
	return [sealLen]byte(sum[:])
}

func unseal(key, val []byte) ([]byte, error) {
	n := len(val) - sealLen
	if n < 0 || sealOf(key, val[:n]) != [sealLen]byte(val[n:]) {
		return nil, damaged(key, errors.New("the value is not the one that was written"))
	}
	return val[:n], nil
}

func getSealed(r pebble.Reader, key []byte) ([]byte, error) {
	val, err := get(r, key)
	if err != nil || val == nil {
		return nil, err
	}
	return unseal(key, val)
}

func damaged(key []byte, err error) error {
	return fmt.Errorf("key %x: the stored index is damaged: %w", key, err)
}
