package ocspbridge

import (
	"strings"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/answers"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/index"
)

// touched returns what a block may change: the certificates whose records or revocations it writes, and the CAs whose trust list entries or rules. More
// than what does change is no harm. A key that is none is left to the index, which refuses the block.
func (b *Bridge) touched(block *network.Block) []answers.Slot {
	var slots []answers.Slot
	for i := range block.Txs {
		if !block.Txs[i].Valid {
			continue
		}
		for _, w := range block.Txs[i].Writes {
			switch {
			case strings.HasPrefix(w.Key, wire.CertPrefix):
				if id, serial, err := wire.ParseCertKey(w.Key); err == nil {
					slots = append(slots, b.versions.Cert(id, serial))
				}
			case strings.HasPrefix(w.Key, wire.RevokePrefix):
				if id, serial, _, err := wire.ParseRevokeKey(w.Key); err == nil {
					slots = append(slots, b.versions.Cert(id, serial))
				}
			case strings.HasPrefix(w.Key, wire.RulePrefix):
				if id, _, err := wire.ParseRuleKey(w.Key); err == nil {
					slots = append(slots, b.versions.CA(id))
				}
			case strings.HasPrefix(w.Key, wire.CAPrefix):
				if id, err := wire.ParseCAID(strings.TrimPrefix(w.Key, wire.CAPrefix)); err == nil {
					slots = append(slots, b.versions.CA(id))
				}
			}
		}
	}
	return slots
}

// published is called by the index when a block's changes can be read.
func (b *Bridge) published(height uint64, changes []index.Change) {
	if !b.isLive(height) {
		return
	}
	for i := range changes {
		if c := &changes[i]; c.Serial != nil && c.After.Bad() {
			b.meters.ocsp.Visible(max(b.cfg.Now().Sub(c.At.Time()), 0))
		}
	}
}

// isLive tells whether the newest block of this height is news, and not one that was there when the stream began.
func (b *Bridge) isLive(height uint64) bool {
	required := b.required.Load()
	return required != unknownHeight && height > uint64(required)
}

// apartWarning is how far the ledger's clocks and the local one may be apart before the log says so.
const apartWarning = 5 * time.Second

// noteClock compares a block's time with the local clock.
func (b *Bridge) noteClock(block *network.Block) {
	if !b.isLive(block.Number + 1) {
		return
	}
	var newest time.Time
	for i := range block.Txs {
		if tx := &block.Txs[i]; tx.Valid && tx.Time.After(newest) {
			newest = tx.Time
		}
	}
	if newest.IsZero() {
		return
	}
	apart := newest.Sub(b.cfg.Now())
	before := b.offset.Swap(&apart)
	if apart.Abs() > apartWarning && (before == nil || before.Abs() <= apartWarning) {
		b.log.Warn("the local clock and the ledger's are apart: look at the clocks of this machine and of who submits",
			"ledger_is_ahead_by", apart.Truncate(time.Millisecond), "block", block.Number)
	}
}

// checkClock compares the local clock with the newest time that the index has, when a stream begins: a ledger cannot be ahead of a clock that is right
// by more than its organisations' clocks are. The other way round an old ledger and a fast clock look alike, until a block arrives (noteClock).
func (b *Bridge) checkClock() {
	v := b.index.View()
	if v.Time == 0 {
		return
	}
	ahead := v.Time.Time().Sub(b.cfg.Now())
	if ahead > 0 {
		b.offset.CompareAndSwap(nil, &ahead)
	}
	switch tolerance := b.cfg.Settings.ClockTolerance; {
	case ahead > tolerance:
		b.log.Error("the local clock is behind the ledger's by more than clock_tolerance: nothing is answered until it is set right",
			"ledger_is_ahead_by", ahead.Truncate(time.Millisecond), "clock_tolerance", tolerance)
	case ahead > apartWarning:
		b.log.Warn("the local clock is behind the ledger's", "ledger_is_ahead_by", ahead.Truncate(time.Millisecond), "clock_tolerance", tolerance)
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
