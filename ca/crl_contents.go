package ca

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/crl"
)

// contents asks the bridge, and checks what must be so whatever it says.
func (m *crlMaker) contents(ctx context.Context, l *crlList, kind crlKind, need uint64, may *permission) (*crl.Contents, error) {
	base := uint64(0)
	if kind == kindDelta {
		base = m.base(l)
		if err := m.await(ctx, l, base, need); err != nil {
			return nil, err
		}
	}
	c, err := m.source.contents(ctx, m.server.issuer.id, l.scope, base)
	if err != nil {
		return nil, err
	}
	now, age := m.server.now(), m.server.now().Sub(c.ThisUpdate)
	text := c.ThisUpdate.Format(time.RFC3339)
	switch {
	case age > may.staleness:
		return nil, invalid("this_update", text, "must be at most %v before %s: the bridge's view of the ledger, or the ledger, stands still", may.staleness, now.UTC().Format(time.RFC3339))
	case -age > m.set.ClockTolerance:
		return nil, invalid("this_update", text, "must be at most %v after %s: this machine's clock is slow, or the ledger's fast", m.set.ClockTolerance, now.UTC().Format(time.RFC3339))
	case kind == kindDelta && need > c.Number:
		return nil, invalid("number", strconv.FormatUint(c.Number, 10), "must be at least %d, the height with a revocation that is committed", need)
	}
	for _, old := range l.newest {
		if c.Number > old.number && c.ThisUpdate.Before(old.thisUpdate) {
			return nil, invalid("this_update", text, "must not be before that of the CRL number %d, %s", old.number, old.thisUpdate.Format(time.RFC3339))
		}
	}
	return c, m.checkOwn(c)
}

// base is the number of the complete CRL that the next delta is against: the oldest that has not run out, so that whoever has one that is valid
// can use the delta (RFC 5280 section 5.2.4 wants a complete CRL of that number or a greater one); unless the delta becomes large by it.
func (m *crlMaker) base(l *crlList) uint64 {
	for _, b := range l.numbers.Bases {
		if !l.large && m.server.now().Before(b.NextUpdate) {
			return b.Number
		}
	}
	return l.newest[kindComplete].number
}

// addBase makes a complete CRL one that deltas may be against, or has one from not long before stand for it: a delta against that one does for
// both, and changes may bring many. It is on disk with the next number; until then the CRL itself is there to tell.
func (m *crlMaker) addBase(l *crlList, b crlBase) {
	if l.scope != "" || slices.ContainsFunc(l.numbers.Bases, func(o crlBase) bool { return o.Number == b.Number }) {
		return
	}
	numbers := *l.numbers
	numbers.Bases = slices.DeleteFunc(slices.Clone(numbers.Bases), func(o crlBase) bool { return l.large || !m.server.now().Before(o.NextUpdate) })
	if last := len(numbers.Bases) - 1; last >= 0 && b.ThisUpdate.Sub(numbers.Bases[last].ThisUpdate) < m.set.FullEvery/2 {
		numbers.Bases[last].NextUpdate = latest(numbers.Bases[last].NextUpdate, b.NextUpdate)
	} else {
		numbers.Bases = append(numbers.Bases, b)
	}
	l.numbers = &numbers
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// await returns when the bridge is high enough for a delta: above its base, and above a revocation that is known here.
func (m *crlMaker) await(ctx context.Context, l *crlList, base, need uint64) error {
	if l.covered >= need && l.covered > base {
		return nil
	}
	long := appliedWait
	if need <= base+1 {
		long = growWait
	}
	wait, cancel := context.WithTimeout(ctx, long)
	defer cancel()
	block := max(need, base+1) - 1
	err := m.source.bridge.WaitApplied(wait, block)
	if err != nil && need <= base+1 {
		return errNotYet
	}
	if err != nil {
		return fmt.Errorf("the bridge has not applied block %d: %w", block, err)
	}
	return nil
}

// checkOwn refuses contents without a revocation that this process has made itself: a bridge that leaves out what its own CA did lies, or
// is broken.
func (m *crlMaker) checkOwn(c *crl.Contents) error {
	if c.Scope != "" {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for serial, block := range m.own {
		if block >= c.Number || block < c.Base {
			continue
		}
		if _, found := slices.BinarySearchFunc(c.Entries, serial, func(e crl.Entry, s string) int { return bytes.Compare(e.Serial, []byte(s)) }); !found && m.unexpired(serial, c.ThisUpdate) {
			return invalid("entries", wire.Serial(serial).String(), "must be listed: it was revoked in block %d; the bridge lies, or its index is damaged", block)
		}
	}
	return nil
}

// unexpired tells whether a certificate in the journal belongs on a CRL once it is revoked.
func (m *crlMaker) unexpired(serial string, thisUpdate time.Time) bool {
	e := m.server.book.findSerial(wire.Serial(serial))
	if e == nil {
		return false
	}
	r, err := m.server.journal.read(e.pos)
	if err != nil {
		return false
	}
	cert, err := x509.ParseCertificate(r.Cert)
	return err == nil && crl.Lists(wire.MillisOf(cert.NotAfter), thisUpdate)
}

// markShards finds the shards that certificates with new or changed entries are in.
func (m *crlMaker) markShards(before, now []crl.Entry) {
	if len(m.lists) == 1 {
		return
	}
	for i := range now {
		at, found := slices.BinarySearchFunc(before, now[i], func(a, b crl.Entry) int { return bytes.Compare(a.Serial, b.Serial) })
		if found && sameEntry(before[at], now[i]) {
			continue
		}
		for _, u := range m.pointsOf(now[i].Serial) {
			for _, l := range m.lists[1:] {
				l.dirty = l.dirty || l.scope == u
			}
		}
	}
}

// pointsOf returns the URLs in the CRL distribution points of a certificate that this CA has signed itself: no other names its shards.
func (m *crlMaker) pointsOf(serial wire.Serial) []string {
	e := m.server.book.findSerial(serial)
	if e == nil {
		return nil
	}
	r, err := m.server.journal.read(e.pos)
	var urls []string
	if err == nil {
		urls, err = crl.Points(r.Cert)
	}
	if err != nil {
		m.log.Error("a certificate's shard is not known, it is on the CRL at the next interval", "serial", serial.String(), "error", err)
	}
	return urls
}
