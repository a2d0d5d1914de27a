package chaincode_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"slices"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/status"
)

// tell hands a leaf to the status log.
func (m *model) tell(leaf wire.StatusLeaf) {
	leaf.V = wire.Version
	hash := leaf.Hash()
	m.pending = append(m.pending, hash[:])
}

func (m *model) tellCA(ca *modelCA) {
	m.tell(wire.StatusLeaf{Kind: wire.LeafCA, CAID: ca.id, Change: ca.change, State: uint(ca.state), Time: ca.since})
}

func (m *model) tellCert(ca *modelCA, c *modelCert) {
	leaf := wire.StatusLeaf{
		Kind: wire.LeafCert, CAID: ca.id, Serial: wire.Serial(c.serial), Change: c.change,
		State: uint(c.state), Reason: c.reason, Time: c.since, Invalidity: c.invalidity, Imported: c.imported,
	}
	if c.state != wire.CertValid {
		leaf.Asserted, leaf.Antedated = c.asserted, c.antedated
	}
	m.tell(leaf)
}

func (m *model) setStatus(r *request) ([]byte, func(), bool) {
	ca := m.find(r.ca.ID)
	if ca == nil || ca.operator != r.by.MSPID {
		return nil, nil, false
	}
	result := &wire.SetStatusResult{V: wire.Version}
	var effects []func()
	for i, c := range r.changes {
		if slices.ContainsFunc(r.changes[:i], func(o wire.StatusChange) bool { return slices.Equal(o.Serial, c.Serial) }) {
			return nil, nil, false
		}
		cert := ca.find(c.Serial)
		if cert == nil {
			return nil, nil, false
		}
		after := *cert
		after.flaps = slices.Clone(cert.flaps)
		others := ca.others(cert)
		changed, ok := after.apply(c, max(r.now, after.since), ca.state, others)
		if !ok {
			return nil, nil, false
		}
		if changed {
			after.change++
			effects = append(effects, func() {
				*cert = after
				m.tellCert(ca, cert)
			})
		}
		result.Results = append(result.Results, wire.StatusResult{State: after.state, Reason: after.reason, Time: after.since, Change: after.change, Changed: changed})
	}
	return wire.Encode(result), func() {
		for _, effect := range effects {
			effect()
		}
	}, true
}

func (c *modelCert) apply(ch wire.StatusChange, now wire.Millis, ca wire.CAState, others []wire.Revocation) (changed, ok bool) {
	was := c.state
	switch {
	case was == wire.CertRevoked && ch.Op != wire.OpRevoke:
		return false, false
	case was == wire.CertRevoked && ch.Reason == wire.KeyCompromise && c.reason != wire.KeyCompromise:
		c.reason = wire.KeyCompromise
		if ch.Invalidity != 0 {
			c.invalidity = ch.Invalidity
		}
		return true, true
	case was == wire.CertRevoked, was == wire.CertHeld && ch.Op == wire.OpHold:
		return false, true
	case was == wire.CertValid && ch.Op == wire.OpRelease:
		return false, c.change > 0
	case ch.Op == wire.OpRelease && (ca != wire.CAActive || len(others) > 0):
		return false, false
	case ch.Op != wire.OpRevoke && !c.flap(now):
		return false, false
	}
	switch ch.Op {
	case wire.OpHold:
		c.state, c.reason, c.since, c.asserted, c.antedated = wire.CertHeld, wire.CertificateHold, now, 0, false
	case wire.OpRelease:
		c.state, c.reason, c.since = wire.CertValid, wire.Unspecified, now
	case wire.OpRevoke:
		if first := firstOf(others); was == wire.CertHeld && first != nil && ch.Reason != wire.KeyCompromise && ch.Reason != first.Reason {
			ch.Reason, ch.Invalidity = first.Reason, 0
		}
		c.state, c.reason, c.invalidity = wire.CertRevoked, ch.Reason, ch.Invalidity
		if was == wire.CertValid {
			c.since, c.asserted, c.antedated = now, 0, false
		}
	}
	return true, true
}

// flap reports whether the certificate may go on hold or off once more, and counts it.
func (c *modelCert) flap(now wire.Millis) bool {
	if len(c.flaps) > 0 && now >= c.flaps[0]+60_000 {
		c.flaps = nil
	}
	c.flaps = append(c.flaps, now)
	return len(c.flaps) <= 10
}

// others are the revocations of c by anybody but the operator.
func (ca *modelCA) others(c *modelCert) []wire.Revocation {
	var all []wire.Revocation
	for _, r := range ca.revocations {
		if r.serial == c.serial && !(r.Source == wire.SourceHolder && c.bare()) {
			all = append(all, r.Revocation)
		}
	}
	for _, rule := range ca.rules {
		if slices.ContainsFunc(c.places, func(e wire.LogEntry) bool { return rule.From <= e.Time && e.Time < rule.To }) {
			all = append(all, wire.Revocation{Reason: rule.Reason, Time: rule.Time, Invalidity: rule.Invalidity, Change: 1})
		}
	}
	return all
}

// firstOf is the one whose reason counts, nil if there is none.
func firstOf(all []wire.Revocation) *wire.Revocation {
	var first *wire.Revocation
	for i := range all {
		r := &all[i]
		compromised := r.Reason == wire.KeyCompromise
		switch {
		case first == nil, compromised && first.Reason != wire.KeyCompromise:
			first = r
		case compromised != (first.Reason == wire.KeyCompromise):
		case r.Time < first.Time, r.Time == first.Time && r.Reason < first.Reason:
			first = r
		}
	}
	return first
}

// evaluate is status.Evaluate as its comment has it.
func (ca *modelCA) evaluate(c *modelCert) status.Status {
	s := status.Status{State: c.state, Reason: c.reason, Time: c.since, Invalidity: c.invalidity, Change: c.change}
	all := ca.others(c)
	for _, r := range all {
		s.Change += r.Change
	}
	if c.state == wire.CertRevoked {
		all = append(all, wire.Revocation{Reason: c.reason, Time: c.since, Invalidity: c.invalidity})
	}
	if c.state != wire.CertValid {
		s.Asserted, s.Antedated = c.asserted, c.antedated
	}
	first := firstOf(all)
	if first == nil {
		if c.bare() && c.state == wire.CertValid {
			s.State = status.Unknown
		}
		return s
	}
	s.Reason, s.Invalidity = first.Reason, 0
	if s.State == wire.CertValid {
		s.Time = first.Time
	}
	s.State = wire.CertRevoked
	for _, r := range all {
		s.Time = min(s.Time, r.Time)
		if r.Reason == s.Reason && r.Invalidity != 0 && (s.Invalidity == 0 || r.Invalidity < s.Invalidity) {
			s.Invalidity = r.Invalidity
		}
	}
	return s
}

func (m *model) revoke(r *request) ([]byte, func(), bool) {
	ca, i := m.find(r.ca.ID), r.intent
	if ca == nil || r.certs[0].wrong || r.now > i.Expires || i.Expires > r.now+86_400_000 || i.Invalidity > r.now {
		return nil, nil, false
	}
	cert, err := x509.ParseCertificate(r.certs[0].der)
	if err != nil {
		return nil, nil, false
	}
	spki := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	after, changed, effect := m.addRevocation(ca, r.certs[0].serial, wire.Revocation{
		V: wire.Version, Source: wire.SourceHolder, SPKIHash: spki[:], Reason: i.Reason, Time: r.now, Invalidity: i.Invalidity, Change: 1,
	})
	return wire.Encode(&wire.RevokeResult{V: wire.Version, Reason: after.Reason, Time: after.Time, Change: after.Change, Changed: changed}), effect, true
}

// addRevocation returns what stands after r, which is the first of its source only once.
func (m *model) addRevocation(ca *modelCA, serial wire.Serial, r wire.Revocation) (after wire.Revocation, changed bool, effect func()) {
	for i := range ca.revocations {
		old := &ca.revocations[i].Revocation
		if ca.revocations[i].serial != string(serial) || old.Source != r.Source || !bytes.Equal(old.SPKIHash, r.SPKIHash) {
			continue
		}
		if r.Reason != wire.KeyCompromise || old.Reason == wire.KeyCompromise {
			return *old, false, func() {}
		}
		r.Time, r.Change = old.Time, 2
		if r.Invalidity == 0 {
			r.Invalidity = old.Invalidity
		}
		return r, true, func() { *old = r; m.tellRevocation(ca, serial, r) }
	}
	return r, true, func() {
		ca.revocations = append(ca.revocations, modelRevocation{string(serial), r})
		m.tellRevocation(ca, serial, r)
	}
}

func (m *model) tellRevocation(ca *modelCA, serial wire.Serial, r wire.Revocation) {
	m.tell(wire.StatusLeaf{
		Kind: wire.LeafRevocation, CAID: ca.id, Serial: serial, Change: r.Change, State: uint(wire.CertRevoked), Reason: r.Reason,
		Time: r.Time, Invalidity: r.Invalidity, Source: r.Source, SPKIHash: r.SPKIHash,
	})
}

func (m *model) integrate(r *request) ([]byte, func(), bool) {
	if r.size != uint64(len(m.status)) || m.statusMSP == r.by.MSPID && r.now < m.statusTime+500 {
		return nil, nil, false
	}
	pending, log := slices.Clone(m.pending), slices.Clone(m.status)
	for _, leaf := range r.leaves {
		i := slices.IndexFunc(pending, func(p []byte) bool { return bytes.Equal(p, leaf) })
		if i < 0 {
			return nil, nil, false
		}
		pending, log = slices.Delete(pending, i, i+1), append(log, leaf)
	}
	answer := wire.Encode(&wire.IntegrateResult{V: wire.Version, Size: uint64(len(log)), Root: referenceRoot(log)})
	return answer, func() {
		m.pending, m.status = pending, log
		m.statusTime, m.statusMSP = max(m.statusTime, r.now), r.by.MSPID
	}, len(r.leaves) > 0
}

// checkStatusLog compares the status log and what is still to come with the model's.
func (m *model) checkStatusLog(t cctest.TB, l *cctest.Ledger) {
	t.Helper()
	want := slices.SortedFunc(slices.Values(m.pending), bytes.Compare)
	if got := l.Pending(t); !slices.EqualFunc(got, want, bytes.Equal) {
		t.Fatalf("%d changes are pending, want %d", len(got), len(want))
	}
	if len(m.status) == 0 {
		if l.Store.Value(wire.StatusHeadKey) != nil {
			t.Fatal("there is a status head")
		}
		return
	}
	head := record[wire.StatusHead](t, l, wire.StatusHeadKey)
	if head.Size != uint64(len(m.status)) || !bytes.Equal(head.Root, tlogRoot(t, m.status)) || head.Time != m.statusTime || head.MSP != m.statusMSP {
		t.Fatalf("status head is %+v, want %d leaves, root %x, time %d by %s", head, len(m.status), tlogRoot(t, m.status), m.statusTime, m.statusMSP)
	}
}
