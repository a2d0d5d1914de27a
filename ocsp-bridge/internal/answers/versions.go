package answers

import (
	"hash/maphash"
	"slices"
	"sync/atomic"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// slots is how many counters there are. Two certificates that share one cost each other a signature, never a wrong answer.
const slots = 1 << 18

// Slot is where the changes of one certificate, or of one CA, are counted.
type Slot uint32

// Versions counts changes. Begin and End are called by one goroutine; everything else is safe for concurrent use and does not block.
type Versions struct {
	seed    maphash.Seed
	opened  int64 // Unix seconds: changes from before are not known
	count   [slots]atomic.Uint64
	changed [slots]atomic.Int64 // Unix seconds; see ChangedSince
	open    []Slot              // between Begin and End; owned by their goroutine
	settled atomic.Pointer[chan struct{}]
}

// NewVersions returns counters that know of no change after opened.
func NewVersions(opened time.Time) *Versions {
	v := &Versions{seed: maphash.MakeSeed(), opened: opened.Unix()}
	none := make(chan struct{})
	close(none)
	v.settled.Store(&none)
	return v
}

// Cert returns the slot of a certificate.
func (v *Versions) Cert(id wire.CAID, s wire.Serial) Slot {
	var buf [len(id) + wire.MaxSerial]byte
	n := copy(buf[:], id[:])
	n += copy(buf[n:], s)
	return Slot(maphash.Bytes(v.seed, buf[:n]) % slots)
}

// CA returns the slot of what concerns all certificates of a CA: its trust list entry and the rules about it.
func (v *Versions) CA(id wire.CAID) Slot { return v.Cert(id, nil) }

// Begin notes that what the slots stand for is about to change: from now until End no answer about them is kept, and none that was
// kept is given. It is called before any reader can see the change. at is no earlier than the thisUpdate of any answer given so far.
func (v *Versions) Begin(touched []Slot, at time.Time) {
	slices.Sort(touched)
	v.open = slices.Compact(touched)
	settled := make(chan struct{})
	v.settled.Store(&settled)
	for _, s := range v.open {
		if t := at.Unix(); t > v.changed[s].Load() {
			v.changed[s].Store(t)
		}
		v.count[s].Add(1) // odd
	}
}

// End notes that every reader from now on sees what Begin announced.
func (v *Versions) End() {
	for _, s := range v.open {
		v.count[s].Add(1) // even
	}
	v.open = nil
	close(*v.settled.Load())
}

// Settled returns a channel that is closed when no change is under way, or once the one that is has ended.
func (v *Versions) Settled() <-chan struct{} { return *v.settled.Load() }

// Stamp is what an answer depends on, as it was when Read was called: a certificate, its CA and the certificate of who signs.
type Stamp struct {
	slots [3]Slot
	seen  [3]uint64
}

// Read is called before anything is read that the answer will say.
func (v *Versions) Read(cert, ca, signer Slot) Stamp {
	s := Stamp{slots: [3]Slot{cert, ca, signer}}
	for i, slot := range s.slots {
		s.seen[i] = v.count[slot].Load()
	}
	return s
}

// Current tells whether nothing has changed since the stamp was read, and nothing was changing then.
func (v *Versions) Current(s *Stamp) bool {
	for i, slot := range s.slots {
		if n := s.seen[i]; n&1 != 0 || v.count[slot].Load() != n {
			return false
		}
	}
	return true
}

// ChangedSince tells whether the certificate or its CA may have changed in the second of t or later. An answer whose thisUpdate is in
// a second without a change is the only one there ever was with that date.
func (v *Versions) ChangedSince(s *Stamp, t time.Time) bool {
	at := v.opened
	for _, slot := range s.slots[:2] {
		at = max(at, v.changed[slot].Load())
	}
	return t.Unix() <= at
}
