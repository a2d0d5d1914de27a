package chaincode_test

import (
	"slices"

	"pgregory.net/rapid"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// modelImport is an item of an Import, of a certificate that it may have or not.
type modelImport struct {
	wire.ImportItem
	cert *testCert
}

// bare: the ledger has the serial number only.
func (c *modelCert) bare() bool { return len(c.places) == 0 }

func (m *model) importCerts(r *request) ([]byte, func(), bool) {
	ca := m.find(r.ca.ID)
	if ca == nil || ca.operator != r.by.MSPID {
		return nil, nil, false
	}
	now := r.now
	if slices.ContainsFunc(r.imports, func(i modelImport) bool { return i.HasCert }) {
		now = max(now, ca.time)
	}
	result := &wire.ImportResult{V: wire.Version}
	log := slices.Clone(ca.log)
	var effects []func()
	for i, item := range r.imports {
		if slices.ContainsFunc(r.imports[:i], func(o modelImport) bool { return slices.Equal(o.cert.serial, item.cert.serial) }) || item.Revoked > r.now {
			return nil, nil, false
		}
		known := ca.find(item.cert.serial)
		after := modelCert{serial: string(item.cert.serial), state: wire.CertValid, since: now, imported: true, notAfter: item.NotAfter}
		if known != nil {
			after = *known
			after.flaps, after.places = slices.Clone(known.flaps), slices.Clone(known.places)
		}
		fresh, changed := known == nil || item.HasCert && known.bare(), known == nil
		if fresh && ca.state != wire.CAActive && item.State != wire.CertRevoked && after.state != wire.CertRevoked {
			return nil, nil, false
		}
		switch {
		case item.HasCert:
			recorded, ok := false, item.cert.tbs == nil
			if !fresh && ok {
				_, recorded, ok = known.place(item.cert)
			} else if item.cert.wrong {
				ok = false
			}
			if !ok {
				return nil, nil, false
			}
			if !recorded {
				place := wire.LogEntry{Index: uint64(len(log)), Time: now, LeafHash: item.cert.leafHash(ca.id, uint64(len(log)), now)}
				log = append(log, place.LeafHash)
				after.add(item.cert, place)
				changed = true
			}
		case after.bare() && after.notAfter == 0 && item.NotAfter != 0:
			after.notAfter, changed = item.NotAfter, true
		}
		said, ok := after.merge(item.ImportItem, max(r.now, after.since), ca, known == nil || known.bare() && known.change == 0)
		if !ok {
			return nil, nil, false
		}
		if said {
			after.change++
		}
		if changed || said {
			effects = append(effects, func() {
				if known == nil {
					known = new(modelCert)
					ca.certs = append(ca.certs, known)
				}
				*known = after
				if said {
					m.tellCert(ca, known)
				}
			})
		}
		entry := wire.ImportEntry{Changed: changed || said}
		if n := len(after.places); n > 0 {
			entry.Log = &after.places[n-1] // the certificate's, which comes after its precertificate's
		}
		result.Entries = append(result.Entries, entry)
	}
	return wire.Encode(result), func() {
		for _, effect := range effects {
			effect()
		}
		if len(log) > len(ca.log) {
			ca.log, ca.time = log, now
		}
	}, true
}

// merge makes the status what the CA says, if that is worse. fresh: the ledger has told none before.
func (c *modelCert) merge(item wire.ImportItem, now wire.Millis, ca *modelCA, fresh bool) (changed, ok bool) {
	was, asserted := c.state, c.asserted
	switch {
	case item.State == wire.CertHeld && was == wire.CertValid && item.Revoked > asserted:
		changed, ok = c.apply(wire.StatusChange{Op: wire.OpHold}, now, ca.state, nil)
	case item.State == wire.CertRevoked:
		changed, ok = c.apply(wire.StatusChange{Op: wire.OpRevoke, Reason: item.Reason, Invalidity: item.Invalidity}, now, ca.state, ca.others(c))
	default:
		return false, true
	}
	if changed && was == wire.CertValid {
		c.asserted, c.antedated = item.Revoked, fresh
	}
	return changed, ok
}

func (r *request) importArg() []byte {
	var items []wire.ImportItem
	var ders [][]byte
	for _, i := range r.imports {
		if i.HasCert {
			ders = append(ders, i.cert.der)
		}
		items = append(items, i.ImportItem)
	}
	return r.ca.ImportArg(items, ders...)
}

// drawImport draws from few dates, so that the same is said again, and something else of the same certificate.
func (w *world) drawImport(cert *testCert) modelImport {
	item := modelImport{cert: cert, ImportItem: wire.ImportItem{State: wire.CertState(rapid.IntRange(1, 3).Draw(w.rt, "imported as"))}}
	switch item.State {
	case wire.CertHeld:
		item.Reason = wire.CertificateHold
	case wire.CertRevoked:
		item.Reason = w.drawReason()
		item.Invalidity = wire.Millis(rapid.IntRange(0, 1).Draw(w.rt, "invalidity"))
	}
	if item.State != wire.CertValid {
		item.Revoked = 1000 * wire.Millis(rapid.IntRange(1, 3).Draw(w.rt, "asserted"))
		if rapid.IntRange(0, 9).Draw(w.rt, "now") == 0 {
			item.Revoked = wire.MillisOf(w.now)
		}
	}
	if item.HasCert = rapid.Bool().Draw(w.rt, "with certificate"); !item.HasCert {
		item.Serial = cert.serial
		item.NotAfter = 1000 * wire.Millis(rapid.IntRange(0, 1).Draw(w.rt, "notAfter"))
	}
	return item
}
