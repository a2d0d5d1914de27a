package ca

import (
	"testing"
	"time"

	"github.com/certanchor/certanchor/internal/crl"
)

// TestCompleteCRLFollowsAChange: certificates of the default profiles name it and no other, so their revocation must not wait for an interval.
func TestCompleteCRLFollowsAChange(t *testing.T) {
	cw := newCRLWorld(t, 2, nil) // complete CRLs are due every hour
	serial := cw.issue()
	waitFor(t, "a complete CRL", func() bool { return cw.bridges[1].crlAt("full.crl") != nil })
	first := cw.bridges[1].crlAt("full.crl").Number
	cw.revoke(serial, "certificateHold")
	cw.everywhere("full.crl", serial)
	revokeBehind(t, cw, cw.issue()) // by others
	waitFor(t, "both", func() bool { return len(cw.bridges[1].crlAt("full.crl").Entries) == 2 })
	if base := cw.bridges[1].crlAt("delta.crl").Base; base != first {
		t.Errorf("the delta is against %d: who has the first complete CRL, %d, cannot use it", base, first)
	}
	for _, b := range cw.bridges {
		b.noNumberTwice()
	}
}

// TestALargeCompleteCRLWaitsForItsInterval: a change does not send megabytes to everybody.
func TestALargeCompleteCRLWaitsForItsInterval(t *testing.T) {
	m := &crlMaker{set: CRLSettings{FullEvery: time.Hour}, server: &Server{now: time.Now}}
	for entries, early := range map[int]bool{0: true, smallComplete - 1: true, smallComplete: false} {
		l := &crlList{newest: map[crlKind]*signedCRL{kindComplete: {entries: entries, thisUpdate: time.Now()}}}
		m.lists, m.own = []*crlList{l}, map[string]uint64{}
		m.changeSeen(l, []crl.Entry{{Serial: []byte{1}, Time: 1}})
		if l.dirty != early {
			t.Errorf("%d entries and one more: due at once: %v", entries, l.dirty)
		}
	}
}

// TestManyCompleteCRLsAreFewBases: one stands for those made soon after it, until the last of them has run out.
func TestManyCompleteCRLsAreFewBases(t *testing.T) {
	begin := time.Now()
	now := begin
	m := &crlMaker{set: CRLSettings{FullEvery: time.Hour}, server: &Server{now: func() time.Time { return now }}}
	l := &crlList{numbers: &crlNumbers{}}
	for i := range 3 * 60 { // one a minute for three hours
		now = begin.Add(time.Duration(i) * time.Minute)
		m.addBase(l, crlBase{uint64(i + 1), now.Add(24 * time.Hour), now})
	}
	if n := len(l.numbers.Bases); n != 6 {
		t.Errorf("%d bases", n)
	}
	now = begin.Add(24*time.Hour + 29*time.Minute - time.Second)
	if got := m.base(l); got != 1 {
		t.Errorf("a delta is against %d while the thirtieth complete CRL is valid", got)
	}
	if now = begin.Add(24*time.Hour + 29*time.Minute); m.base(l) != 31 {
		t.Errorf("a delta is against %d once the thirtieth has run out", m.base(l))
	}
}
