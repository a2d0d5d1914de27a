package mirror

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caimport"
	"github.com/certanchor/certanchor/network"
)

// Poll reads the CRL once and does what follows from it. Errors: *RefusedError for a CRL that must not be believed; of the server; of the
// ledger. After an error what could be done is done, and the next Poll does the rest.
func (m *Mirror) Poll(ctx context.Context) error {
	last, err := m.state.applied()
	if err != nil {
		return fmt.Errorf("%s: %w; delete it, and every entry of the next CRL is imported again", filepath.Join(m.cfg.Dir, crlFile), err)
	}
	if last == nil { // what the server said before was about a CRL that is not here
		m.state.ETag, m.state.LastModified = "", ""
	}
	got, err := m.fetch(ctx)
	if err != nil {
		return err
	}
	if got.data == nil && last == nil {
		return fmt.Errorf("%s: answers that the CRL has not changed, but there is none here yet", m.cfg.CRL)
	}
	if got.data == nil {
		return m.unchanged(ctx, last)
	}
	list, same, err := m.accept(got.data, last)
	if err != nil {
		m.report.Refused++
		return err
	}
	if same {
		m.state.ETag, m.state.LastModified = got.etag, got.lastModified
		return m.unchanged(ctx, last)
	}
	if err := m.apply(ctx, list, last); err != nil {
		return err
	}
	// Only now: whoever is killed before does it all again.
	if err := caimport.ReplaceFile(filepath.Join(m.cfg.Dir, crlFile), got.data); err != nil {
		return err
	}
	m.state.ETag, m.state.LastModified = got.etag, got.lastModified
	m.state.Number, m.state.ThisUpdate, m.state.NextUpdate = list.Number, list.ThisUpdate, list.NextUpdate
	return m.state.save()
}

// unchanged: the CRL is the last one, which may have passed its time, and of which something may have to be tried again.
func (m *Mirror) unchanged(ctx context.Context, last *caimport.List) error {
	m.report.Unchanged++
	if now := m.cfg.Now(); !last.NextUpdate.IsZero() && last.NextUpdate.Before(now.Add(-skew)) {
		return refused("nextUpdate", stamp(last.NextUpdate), "must not have passed: the CA is late with its next CRL; it is %s here", stamp(now))
	}
	if len(m.state.Retry) == 0 && !m.releaseLeft {
		return m.state.save()
	}
	if err := m.apply(ctx, last, last); err != nil {
		return err
	}
	return m.state.save()
}

// apply brings the ledger from what last said to what list says.
func (m *Mirror) apply(ctx context.Context, list, last *caimport.List) error {
	now, err := m.entries(list)
	if err != nil {
		return err
	}
	before, err := m.entries(last)
	if err != nil {
		return err
	}
	if m.cfg.OCSP != "" {
		m.listed.replace(now)
	}
	var news []string
	for serial, st := range now {
		if st.State != 0 && (before[serial] != st || m.state.Retry[hex.EncodeToString([]byte(serial))]) {
			news = append(news, serial)
		}
		if st.State == wire.CertHeld {
			m.state.Holds[hex.EncodeToString([]byte(serial))] = hold{Asserted: st.Revoked}
		}
	}
	for s := range m.state.Retry {
		if serial, err := wire.ParseSerial(s); err != nil || now[string(serial)].State == 0 {
			delete(m.state.Retry, s) // the CA does not say so any more
		}
	}
	// Before the ledger knows of a hold, this must know that it is the one to release it.
	if err := m.state.save(); err != nil {
		return err
	}
	// Revocations first: while the CA is suspended the ledger takes nothing else.
	slices.SortFunc(news, func(a, b string) int {
		return cmp.Or(cmp.Compare(now[b].State, now[a].State), cmp.Compare(a, b))
	})
	for len(news) > 0 {
		n := 1
		for n < min(len(news), wire.MaxBatch) && now[news[n]].State == now[news[0]].State {
			n++
		}
		batch := make([]*caimport.Item, n)
		for i, serial := range news[:n] {
			batch[i] = itemOf(m.cfg.CRL, wire.Serial(serial), now[serial])
		}
		if err := m.importItems(ctx, batch); err != nil {
			return err
		}
		news = news[n:]
	}
	return m.release(ctx, list, now)
}

func itemOf(where string, serial wire.Serial, st caimport.Status) *caimport.Item {
	return &caimport.Item{Where: where, Serial: serial, Import: wire.ImportItem{
		Serial: serial, State: st.State, Reason: st.Reason, Revoked: st.Revoked, Invalidity: st.Invalidity,
	}}
}

// importItems imports what the CA says. What the ledger refuses is kept for the next time: it may be a matter of time, or of the CA's state.
func (m *Mirror) importItems(ctx context.Context, items []*caimport.Item) error {
	refused := map[string]bool{}
	m.submitter.OnRefused = func(b *caimport.Bad) {
		m.cfg.Log.Warn("the ledger refuses what the CA says; it is tried again", "error", b)
		refused[b.Serial().String()] = true
	}
	batch := &caimport.Batch{}
	for _, it := range items {
		batch.Add(it)
	}
	out, err := m.submitter.Submit(ctx, batch)
	m.report.Imported += out.Items
	m.report.Changed += out.Changed
	if err != nil {
		return err
	}
	for _, it := range items {
		s := it.Serial.String()
		if refused[s] {
			m.state.Retry[s] = true
			continue
		}
		delete(m.state.Retry, s)
	}
	if out.Changed > 0 {
		m.cfg.Log.Info("status was imported", "entries", len(items), "changed", out.Changed, "first", items[0].Serial.String(), "block", out.Block)
	}
	return nil
}

// release takes off hold what the CA has published to be on hold and does not list any more. A record that is on hold for another reason
// is left alone: its date is another one.
func (m *Mirror) release(ctx context.Context, list *caimport.List, now map[string]caimport.Status) error {
	var gone []wire.Serial
	for s, h := range m.state.Holds {
		serial, err := wire.ParseSerial(s)
		if err != nil {
			return fmt.Errorf("%s: holds: %w", filepath.Join(m.cfg.Dir, stateFile), err)
		}
		st, isListed := now[string(serial)]
		switch {
		case isListed && st.State != wire.CertHeld && st.State != 0:
			delete(m.state.Holds, s) // it is revoked for good
		case !isListed && (h.Learned.IsZero() || list.ThisUpdate.After(h.Learned)):
			gone = append(gone, serial)
		}
	}
	slices.SortFunc(gone, func(a, b wire.Serial) int { return a.Int().Cmp(b.Int()) })
	m.releaseLeft = false
	for part := range slices.Chunk(gone, wire.MaxBatch) {
		if err := m.releaseSome(ctx, part); err != nil {
			return err
		}
	}
	return nil
}

func (m *Mirror) releaseSome(ctx context.Context, serials []wire.Serial) error {
	records, err := m.records(ctx, serials)
	if err != nil {
		return err
	}
	for i, serial := range serials {
		s, rec := serial.String(), records[i]
		if rec == nil || rec.State != wire.CertHeld || rec.Asserted != m.state.Holds[s].Asserted {
			if rec != nil && rec.State == wire.CertHeld {
				m.cfg.Log.Info("the CA lists a certificate no longer, but somebody else has put it on hold since: it stays so", "serial", s)
			}
			delete(m.state.Holds, s)
			continue
		}
		err := m.releaseOne(ctx, serial)
		switch {
		case err == nil:
			m.report.Released++
			m.cfg.Log.Info("hold was released", "serial", s)
			delete(m.state.Holds, s)
			delete(m.state.Retry, s)
		case network.IsRejected(err):
			m.releaseLeft = true
			m.cfg.Log.Warn("the ledger refuses to release a hold; it is tried again", "serial", s, "error", err)
		default:
			m.releaseLeft = true
			return err
		}
	}
	return nil
}

// releaseOne repeats itself while the outcome is open: a release of what is released changes nothing.
func (m *Mirror) releaseOne(ctx context.Context, serial wire.Serial) error {
	arg := wire.Encode(&wire.SetStatusArg{V: wire.Version, CAID: m.cfg.CA.ID, Changes: []wire.StatusChange{{Serial: serial, Op: wire.OpRelease}}})
	for began := time.Now(); ; {
		_, err := m.cfg.Ledger.Submit(ctx, wire.FnSetStatus, arg)
		if err == nil || network.IsRejected(err) || ctx.Err() != nil || time.Since(began) > m.cfg.Patience {
			return err
		}
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}

// records reads the ledger's; nil for one that is not there.
func (m *Mirror) records(ctx context.Context, serials []wire.Serial) ([]*wire.CertRecord, error) {
	keys := make([]string, len(serials))
	for i, s := range serials {
		keys[i] = wire.CertKey(m.cfg.CA.ID, s)
	}
	values, err := caimport.ReadKeys(ctx, m.cfg.Ledger, keys)
	if err != nil {
		return nil, err
	}
	records := make([]*wire.CertRecord, len(serials))
	for i, v := range values {
		if v == nil {
			continue
		}
		records[i] = new(wire.CertRecord)
		if err := wire.Decode(v, records[i]); err != nil {
			return nil, errors.Join(fmt.Errorf("record %s", keys[i]), err)
		}
	}
	return records, nil
}
