package client

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// statusBatch evaluates leaves of the status log, the first of which has the index first.
func (m *Monitor) statusBatch(origin string, first uint64, leaves [][]byte) *batch {
	b := &batch{}
	for i, raw := range leaves {
		index := first + uint64(i)
		var leaf wire.StatusLeaf
		if err := wire.Decode(raw, &leaf); err != nil {
			b.events = append(b.events, m.unreadable(origin, index, raw, err.Error()))
			continue
		}
		switch leaf.Kind {
		case wire.LeafCert, wire.LeafRevocation:
			if cert := m.state.Certs[trackKey(leaf.CAID, leaf.Serial)]; cert != nil {
				b.events = append(b.events, statusEvent(origin, index, &leaf, cert))
			} else {
				b.early = append(b.early, earlyLeaf{Index: index, Leaf: slices.Clone(raw), leaf: leaf})
			}
		case wire.LeafRule:
			b.early = append(b.early, earlyLeaf{Index: index, Leaf: slices.Clone(raw), leaf: leaf})
			m.caEvent(b, origin, index, &leaf)
		case wire.LeafCA:
			if leaf.Change == 1 {
				b.announced = append(b.announced, leaf.CAID.String())
			} else {
				m.caEvent(b, origin, index, &leaf)
			}
		default:
			b.events = append(b.events, m.unreadable(origin, index, raw, fmt.Sprintf("kind %d is not known", leaf.Kind)))
		}
	}
	return b
}

// unreadable reports a change that may be about anything, and so about what is looked for.
func (m *Monitor) unreadable(origin string, index uint64, leaf []byte, why string) Event {
	return Event{
		ID: eventID(origin, index), Kind: EventUnparsable, Time: m.cfg.Now().UTC(), Log: origin, Index: index,
		Detail: fmt.Sprintf("a change of status that this program cannot read: %s: %x", why, leaf),
	}
}

// issuanceBatch evaluates findings in the order of their log.
func (m *Monitor) issuanceBatch(findings []finding) *batch {
	b := &batch{reported: map[uint64]bool{}}
	status := m.origin(statusLog)
	for _, f := range findings {
		b.events = append(b.events, f.event)
		if f.cert == nil {
			continue
		}
		b.certs = append(b.certs, f)
		for i := range m.state.Early {
			e := &m.state.Early[i]
			switch {
			case e.leaf.Kind == wire.LeafRule:
				if e.leaf.CAID == f.caID && covers(&e.leaf, f.cert) {
					ev := ruleEvent(status, e.Index, &e.leaf, f.cert.Names, 1)
					ev.ID += "/" + f.event.ID
					ev.Serial = f.event.Serial
					b.events = append(b.events, ev)
				}
			case e.leaf.CAID == f.caID && bytes.Equal(e.leaf.Serial, f.serial) && !b.reported[e.Index]:
				b.reported[e.Index] = true
				b.events = append(b.events, statusEvent(status, e.Index, &e.leaf, f.cert))
			}
		}
	}
	return b
}

func statusEvent(origin string, index uint64, leaf *wire.StatusLeaf, cert *tracked) Event {
	ev := leafEvent(origin, index, leaf)
	ev.Kind, ev.Serial, ev.Names = EventStatus, leaf.Serial.String(), cert.Names
	ev.By = "ca"
	switch {
	case leaf.Kind == wire.LeafCert && leaf.State == uint(wire.CertValid):
		ev.Change = ChangeReleased
	case leaf.Kind == wire.LeafCert && leaf.State == uint(wire.CertHeld):
		ev.Change = ChangeHeld
	default:
		ev.Change = ChangeRevoked
	}
	if leaf.Kind == wire.LeafRevocation {
		switch leaf.Source {
		case wire.SourceHolder:
			ev.By = "holder"
			if hex.EncodeToString(leaf.SPKIHash) != cert.SPKI {
				ev.Detail = "signed by another key than the certificate's: it has no effect"
			}
		case wire.SourceQuorum:
			ev.By = "quorum"
		default:
			ev.By = fmt.Sprintf("source %d", leaf.Source)
		}
	}
	if ev.Change != ChangeReleased {
		ev.Reason = leaf.Reason.String()
	}
	return ev
}

// caEvent adds what is to be said about a CA, if it has certificates that match.
func (m *Monitor) caEvent(b *batch, origin string, index uint64, leaf *wire.StatusLeaf) {
	certs := m.state.ofCA(leaf.CAID)
	if len(certs) == 0 {
		return
	}
	var names []string
	n := 0
	for _, c := range certs {
		if leaf.Kind == wire.LeafRule && !covers(leaf, c) {
			continue
		}
		n++
		names = append(names, c.Names...)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if leaf.Kind == wire.LeafRule {
		b.events = append(b.events, ruleEvent(origin, index, leaf, names, n))
		return
	}
	ev := leafEvent(origin, index, leaf)
	ev.Kind, ev.Names, ev.Covers, ev.Change = EventCA, names, n, ChangeResumed
	if leaf.State == uint(wire.CASuspended) {
		ev.Change = ChangeSuspended
	}
	b.events = append(b.events, ev)
}

func ruleEvent(origin string, index uint64, leaf *wire.StatusLeaf, names []string, n int) Event {
	ev := leafEvent(origin, index, leaf)
	ev.Kind, ev.Names, ev.Covers = EventCA, names, n
	ev.Change, ev.Reason, ev.By = ChangeRevoked, leaf.Reason.String(), fmt.Sprintf("rule %d", leaf.Change)
	ev.From, ev.To = leaf.From.Time(), leaf.To.Time()
	return ev
}

func leafEvent(origin string, index uint64, leaf *wire.StatusLeaf) Event {
	ev := Event{ID: eventID(origin, index), Time: leaf.Time.Time(), Log: origin, Index: index, CAID: leaf.CAID.String()}
	if leaf.Asserted != 0 {
		ev.Asserted = leaf.Asserted.Time()
	}
	if leaf.Invalidity != 0 {
		ev.Invalidity = leaf.Invalidity.Time()
	}
	return ev
}

// covers reports whether a rule revokes a certificate: one of its timestamps is in [From, To).
func covers(rule *wire.StatusLeaf, c *tracked) bool {
	return slices.ContainsFunc(c.Times, func(t wire.Millis) bool { return t >= rule.From && t < rule.To })
}
