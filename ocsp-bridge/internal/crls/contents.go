package crls

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/crl"
	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/status"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/index"
)

// Ledger is what is needed of *index.Index.
type Ledger interface {
	View() *index.View
	Changes(after index.Pos, limit int) ([]index.Change, error)
	LastChange(id wire.CAID) (index.Pos, error)
	EachChangedAt(id wire.CAID, height uint64, fn func(wire.Serial, status.Status, *wire.CertRecord) error) error
	Record(id wire.CAID, s wire.Serial) (*wire.CertRecord, error)
	Issuance(id wire.CAID) (merklelog.Log, bool)
}

// Maker computes the contents of CRLs. It is safe for concurrent use.
type Maker struct {
	ledger Ledger
	scopes scopes

	mu    sync.Mutex
	folds []*fold // of recent bases, the newest use last; guarded by mu, as is what is in them

	wholeMu sync.Mutex
	wholes  map[wire.CAID]*whole // guarded by wholeMu
}

// NewMaker returns a Maker.
func NewMaker(l Ledger) *Maker {
	return &Maker{ledger: l, scopes: scopes{ledger: l}, wholes: map[wire.CAID]*whole{}}
}

// Request says which CRL's contents are wanted. The fields are those of crl.Contents.
type Request struct {
	CAID       wire.CAID
	Scope      string
	Base       uint64
	Number     uint64 // at most the height of the index
	ThisUpdate time.Time
	Fresh      bool // read everything from the ledger again: what is remembered from before does not count
}

// Newest completes a Request by the height and the time of the newest view.
func (m *Maker) Newest(id wire.CAID, scope string, base uint64) Request {
	v := m.ledger.View()
	return Request{CAID: id, Scope: scope, Base: base, Number: v.Height, ThisUpdate: crl.At(v.Time)}
}

// Contents computes what a CRL must say. The first complete one of a CA takes time in proportion to the certificates that are on hold or
// revoked, and is remembered: the next one takes little more than what has changed since. So does a delta, for its base. After a rule
// all certificates of the CA are looked at. Errors: a CA that is not on the trust list, a height that is not reached, what crl.Contents.Check refuses, and those
// of the ledger.
func (m *Maker) Contents(r Request) (*crl.Contents, error) {
	if m.ledger.View().CA(r.CAID) == nil {
		return nil, wire.Errorf(wire.NotFound, "ca_id", r.CAID.String(), "must be a registered CA")
	}
	if v := m.ledger.View(); r.Number > v.Height {
		return nil, wire.Errorf(wire.FailedPrecondition, "number", strconv.FormatUint(r.Number, 10), "must be reached: this bridge has applied %d blocks", v.Height)
	}
	c := &crl.Contents{CAID: r.CAID, Scope: r.Scope, Number: r.Number, Base: r.Base, ThisUpdate: r.ThisUpdate}
	if err := c.Check(); err != nil {
		return nil, err
	}
	var err error
	if r.Base == 0 {
		err = m.complete(c, r.Fresh)
	} else {
		err = m.delta(c, r.Fresh)
	}
	if err == nil {
		err = c.Check()
	}
	if err != nil {
		return nil, fmt.Errorf("contents of the CRL of %s: %w", r.CAID, err)
	}
	return c, nil
}

func (m *Maker) complete(c *crl.Contents, fresh bool) error {
	all, err := m.wholeAt(c.CAID, c.Number, fresh)
	if err != nil {
		return err
	}
	c.Entries = make([]crl.Entry, 0, len(all))
	for i := range all {
		in, err := m.inCRL(c, all[i].notAfter, all[i].at)
		if err != nil {
			return err
		}
		if in {
			c.Entries = append(c.Entries, all[i].Entry)
		}
	}
	return nil
}

// inCRL: a certificate is in the CRL's scope, and not expired for so long that CRLs have dropped it. at is its place in the CA's log.
func (m *Maker) inCRL(c *crl.Contents, notAfter wire.Millis, at uint64) (bool, error) {
	// An end that nobody knows may be still to come.
	if notAfter != 0 && !crl.Lists(notAfter, c.ThisUpdate) {
		return false, nil
	}
	return m.scopes.has(c.CAID, at, c.Scope)
}

// entryOf is the entry of a certificate that is on hold or revoked.
func entryOf(serial wire.Serial, st status.Status) crl.Entry {
	e := crl.Entry{Serial: serial, Time: crl.SecondsOf(st.Since()), Reason: st.Reason, Invalidity: max(crl.SecondsOf(st.Invalidity), 0)}
	if st.State == wire.CertHeld {
		e.Reason, e.Invalidity = wire.CertificateHold, 0
	}
	return e
}

// delta lists every certificate with a change since the base. RFC 5280 section 5.2.4: one that is valid and was on hold at the base, or at any
// height since, is listed as removed, whether or not a CRL of that height exists. What was neither, and is valid, is not listed.
func (m *Maker) delta(c *crl.Contents, fresh bool) error {
	var f *fold
	var err error
	if fresh { // as long as it takes, it holds up no other
		f = newFold(c.CAID, c.Base)
		err = f.extend(m.ledger, c.Number)
	} else {
		m.mu.Lock()
		defer m.mu.Unlock()
		f, err = m.foldTo(c.CAID, c.Base, c.Number)
	}
	if err != nil {
		return err
	}
	add := func(serial wire.Serial, st status.Status, held bool, notAfter wire.Millis, at uint64) error {
		if !st.Bad() && !held {
			return nil
		}
		in, err := m.inCRL(c, notAfter, at)
		switch {
		case err != nil || !in:
		case !st.Bad():
			c.Entries = append(c.Entries, crl.Entry{Serial: serial, Time: crl.SecondsOf(st.Time), Remove: true})
		default:
			c.Entries = append(c.Entries, entryOf(serial, st))
		}
		return err
	}
	revoked := map[string]bool{}
	if len(f.rules) > 0 {
		rules := m.ledger.View().CA(c.CAID).Rules
		if err := m.ledger.EachChangedAt(c.CAID, c.Number, func(serial wire.Serial, st status.Status, rec *wire.CertRecord) error {
			if f.certs[string(serial)] == nil && !f.covered(rules, rec) {
				return nil
			}
			revoked[string(serial)] = true
			return add(serial, st, false, rec.NotAfter, logIndex(rec))
		}); err != nil {
			return err
		}
	}
	for serial, t := range f.certs {
		if revoked[serial] { // a rule since its newest change may have changed it again
			continue
		}
		if err := add(wire.Serial(serial), t.now, t.held, t.notAfter, t.at); err != nil {
			return err
		}
	}
	crl.Sort(c.Entries)
	return nil
}

// fold is the changes of one CA from a base up to a height, certificate by certificate.
type fold struct {
	id           wire.CAID
	base, height uint64
	next         index.Pos // after it changes are to be folded
	certs        map[string]*touched
	rules        []uint64
}

func newFold(id wire.CAID, base uint64) *fold {
	return &fold{id: id, base: base, height: base, next: index.Before(base), certs: map[string]*touched{}}
}

// touched is a certificate that has changed since the base.
type touched struct {
	now   status.Status // by its newest change
	block uint64        // of that
	held  bool          // was on hold at the base, or after some block since

	notAfter wire.Millis      // as its newest change knows it
	at       uint64           // in the CA's log, likewise
	rec      *wire.CertRecord // nil: it was not needed yet
}

// How much is remembered.
const (
	keptFolds   = 16      // bases
	keptTouched = 1 << 20 // certificates of all of them, some hundred octets each
)

// foldTo requires mu. The changes up to a height below one that was asked for before are folded anew, and not kept.
func (m *Maker) foldTo(id wire.CAID, base, height uint64) (*fold, error) {
	f := newFold(id, base)
	at := slices.IndexFunc(m.folds, func(f *fold) bool { return f.id == id && f.base == base })
	keep := at < 0
	if at >= 0 && m.folds[at].height <= height {
		f, keep = m.folds[at], true
		m.folds = slices.Delete(m.folds, at, at+1)
	}
	if err := f.extend(m.ledger, height); err != nil {
		return nil, err // what is half done is forgotten
	}
	if keep {
		m.folds = append(m.folds, f)
		m.dropFolds(keptFolds, keptTouched)
	}
	return f, nil
}

// dropFolds requires mu. It forgets the bases that were used least lately until no more are left than may be remembered.
func (m *Maker) dropFolds(bases, certs int) {
	total := 0
	for _, f := range m.folds {
		total += len(f.certs)
	}
	for len(m.folds) > bases || len(m.folds) > 0 && total > certs {
		total -= len(m.folds[0].certs)
		m.folds = slices.Delete(m.folds, 0, 1)
	}
}

func (f *fold) extend(l Ledger, height uint64) error {
	const page = 1000
	for f.height < height {
		changes, err := l.Changes(f.next, page)
		if err != nil {
			return err
		}
		for i := range changes {
			if changes[i].Pos.Block >= height {
				f.height = height
				break
			}
			if err := f.add(l, &changes[i]); err != nil {
				return err
			}
			f.next = changes[i].Pos
		}
		if len(changes) < page {
			f.height = height
		}
	}
	// Nothing more can come before height.
	if before := index.Before(height); f.next.Compare(before) < 0 {
		f.next = before
	}
	return nil
}

func (f *fold) add(l Ledger, c *index.Change) error {
	switch {
	case c.CAID != f.id:
		return nil
	case c.Rule != 0:
		f.rules = append(f.rules, c.Rule)
		return nil
	case c.Serial == nil:
		return nil
	}
	t := f.certs[string(c.Serial)]
	if t == nil {
		t = &touched{block: math.MaxUint64}
		f.certs[string(c.Serial)] = t
	}
	t.notAfter, t.at = c.NotAfter, noIndex
	if !c.SerialOnly {
		if t.rec == nil {
			var err error
			if t.rec, err = l.Record(c.CAID, c.Serial); err != nil {
				return err
			}
			if t.rec == nil || t.rec.SerialOnly() {
				return fmt.Errorf("certificate %s has changed and has no record: the stored index is damaged", c.Serial)
			}
		}
		t.notAfter, t.at = t.rec.NotAfter, logIndex(t.rec)
	}
	// A hold that begins and ends within a block was at no height.
	if c.Before.State == wire.CertHeld && t.block != c.Pos.Block {
		t.held = true
	}
	t.now, t.block = c.After, c.Pos.Block
	return nil
}

// covered: a rule since the base is about the certificate.
func (f *fold) covered(rules []wire.Rule, rec *wire.CertRecord) bool {
	for _, n := range f.rules {
		if n == 0 || n > uint64(len(rules)) {
			continue
		}
		if r := &rules[n-1]; status.Covers(r, rec.Pre) || status.Covers(r, rec.Final) {
			return true
		}
	}
	return false
}
