package caimport

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// serialKey is a serial number with its length before it, so that it needs no memory of its own.
type serialKey [1 + 20]byte

func keyOf(s wire.Serial) (k serialKey) {
	k[0] = byte(len(s))
	copy(k[1:], s)
	return k
}

func (k serialKey) serial() wire.Serial { return bytes.Clone(k[1 : 1+k[0]]) }

// row is what the sources together say of one serial number. There may be millions: its fields are as small as they can be.
type row struct {
	digest     uint64 // of the certificate; 0: none was found
	revoked    wire.Millis
	invalidity wire.Millis
	notAfter   wire.Millis
	place      uint32 // line, offset or entry in the source that was first
	source     uint16 // which one that was
	state      uint8  // wire.CertState; 0: no source says
	reason     uint8
	flags      uint8
}

const (
	flagExpired   = 1 << iota // a source calls it expired
	flagSubmitted             // its certificate has been handed on in this reading
	flagPoison                // there is a precertificate
	flagDoubt                 // a source's word about it cannot be read: it is not imported
	flagFault                 // a certificate with its number is there, and cannot be imported
)

func (r *row) status() Status {
	return Status{State: wire.CertState(r.state), Reason: wire.Reason(r.reason), Revoked: r.revoked, Invalidity: r.invalidity}
}

// table joins what sources say, by serial number.
type table struct {
	rows map[serialKey]*row
	slab []row // where new rows come from: a million small allocations would cost more than the rows
}

func newTable() *table { return &table{rows: map[serialKey]*row{}} }

const slabRows = 4096

func (t *table) of(s wire.Serial, source int, w Where) *row {
	k := keyOf(s)
	r := t.rows[k]
	if r == nil {
		if len(t.slab) == 0 {
			t.slab = make([]row, slabRows)
		}
		r, t.slab = &t.slab[0], t.slab[1:]
		r.source = uint16(min(source, 1<<16-1))
		r.place = uint32(max(w.Line, w.Entry))
		t.rows[k] = r
	}
	return r
}

// merge takes another source's word into r. Of two words the worse one counts: revoked, then on hold, then valid; of two revocations
// the earlier date, and the reason that says more. Only a delta CRL, which is newer than what it follows, takes a hold back.
func (r *row) merge(st Status) {
	switch {
	case st.Removed:
		if wire.CertState(r.state) == wire.CertHeld {
			r.state, r.reason, r.revoked, r.invalidity = uint8(wire.CertValid), 0, 0, 0
		}
	case st.State > wire.CertState(r.state):
		r.state, r.reason, r.revoked, r.invalidity = uint8(st.State), uint8(st.Reason), st.Revoked, st.Invalidity
	case st.State == wire.CertState(r.state) && st.State > wire.CertValid:
		r.revoked = min(r.revoked, st.Revoked)
		if r.invalidity == 0 || st.Invalidity != 0 && st.Invalidity < r.invalidity {
			r.invalidity = st.Invalidity
		}
		if wire.Reason(r.reason) == wire.Unspecified || st.Reason == wire.KeyCompromise {
			r.reason = uint8(st.Reason)
		}
	}
}

// short is the part of a digest that a row keeps; never 0.
func short(digest [32]byte) uint64 { return binary.BigEndian.Uint64(digest[:8]) | 1 }

// sorted returns the serial numbers for which keep, in order.
func (t *table) sorted(keep func(*row) bool) []serialKey {
	var keys []serialKey
	for k, r := range t.rows {
		if keep(r) {
			keys = append(keys, k)
		}
	}
	sortKeys(keys)
	return keys
}

// sortKeys sorts by length, then by value, which is numerical order.
func sortKeys(keys []serialKey) {
	slices.SortFunc(keys, func(a, b serialKey) int { return bytes.Compare(a[:], b[:]) })
}
