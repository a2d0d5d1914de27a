package crls

import (
	"bytes"
	"slices"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/crl"
	"github.com/certanchor/certanchor/internal/status"
)

// whole is everything of one CA that was on hold or revoked at a height, kept so that a complete CRL costs what has changed since the one
// before. It takes some 100 octets for each.
type whole struct {
	height uint64
	listed []listed // sorted by serial; replaced, never changed
}

// listed is an entry, with what decides which CRLs list it.
type listed struct {
	crl.Entry
	notAfter wire.Millis // 0: not known
	at       uint64      // in the CA's log, or noIndex
}

// wholeAt returns what was on hold or revoked at a height. One below that of the newest kept, and any if fresh, is read from the ledger from the
// beginning.
func (m *Maker) wholeAt(id wire.CAID, height uint64, fresh bool) (all []listed, err error) {
	m.wholeMu.Lock()
	defer m.wholeMu.Unlock()
	w := m.wholes[id]
	newest := w == nil || w.height <= height
	if fresh || !newest {
		all, err = m.readWhole(id, height)
	} else {
		all, err = m.extended(id, w, height)
	}
	if err == nil && newest {
		m.wholes[id] = &whole{height, all}
	}
	return all, err
}

func (m *Maker) readWhole(id wire.CAID, height uint64) (all []listed, err error) {
	err = m.ledger.EachChangedAt(id, height, func(serial wire.Serial, st status.Status, rec *wire.CertRecord) error {
		all = append(all, listed{entryOf(serial, st), rec.NotAfter, logIndex(rec)})
		return nil
	})
	return all, err
}

// extended is w brought up to a height. A rule since then may be about any certificate.
func (m *Maker) extended(id wire.CAID, w *whole, height uint64) ([]listed, error) {
	if w == nil {
		return m.readWhole(id, height)
	}
	f := newFold(id, w.height)
	if err := f.extend(m.ledger, height); err != nil {
		return nil, err
	}
	switch {
	case len(f.rules) > 0:
		return m.readWhole(id, height)
	case len(f.certs) == 0:
		return w.listed, nil
	}
	changed := make([]listed, 0, len(f.certs))
	for serial, t := range f.certs {
		changed = append(changed, listed{entryOf(wire.Serial(serial), t.now), t.notAfter, t.at})
	}
	slices.SortFunc(changed, func(a, b listed) int { return bytes.Compare(a.Serial, b.Serial) })
	all := make([]listed, 0, len(w.listed)+len(changed))
	rest := w.listed
	for _, l := range changed {
		n, found := slices.BinarySearchFunc(rest, l, func(a, b listed) int { return bytes.Compare(a.Serial, b.Serial) })
		all = append(all, rest[:n]...)
		if found {
			n++
		}
		rest = rest[n:]
		if f.certs[string(l.Serial)].now.Bad() {
			all = append(all, l)
		}
	}
	return append(all, rest...), nil
}
