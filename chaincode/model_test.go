package chaincode_test

import (
	"slices"

	"github.com/certanchor/certanchor/chaincode"
	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
)

// model is the contract as one would explain it: lists and plain loops, one transaction at a time, no keys, no versions. It
// knows what is wrong with a certificate because the test that made it says so.
type model struct {
	msps  []string
	ticks []int64 // epochs
	votes []modelVote
	cas   []*modelCA
}

type modelVote struct{ arg, msp string }

type modelCA struct {
	id       wire.CAID
	arg      string // the bytes it was registered with
	operator string
	time     wire.Millis // of its registration, then of its log's newest entry
	log      []*modelCert
	leaves   int // status leaves about it and its certificates
}

type modelCert struct {
	cert       *testCert
	time       wire.Millis
	state      wire.CertState
	reason     wire.Reason
	since      wire.Millis
	invalidity wire.Millis
	change     uint64
}

// testCert is a certificate and what is wrong with it.
type testCert struct {
	der     []byte
	serial  wire.Serial
	wrong   bool        // of another CA
	expires wire.Millis // 0: not during the test
}

// request is one transaction before it is encoded.
type request struct {
	function string
	by       chaincode.Caller
	now      wire.Millis

	ca       *cctest.CA          // RegisterCA, Issue, SetStatus
	operator string              // RegisterCA
	certs    []*testCert         // Issue
	changes  []wire.StatusChange // SetStatus
}

func (r *request) arg() []byte {
	switch r.function {
	case wire.FnRegisterCA:
		return r.ca.RegisterArg(r.operator)
	case wire.FnIssue:
		var ders [][]byte
		for _, c := range r.certs {
			ders = append(ders, c.der)
		}
		return r.ca.IssueArg(ders...)
	case wire.FnSetStatus:
		return r.ca.StatusArg(r.changes...)
	}
	return cctest.TickArg()
}

// execute returns the answer to a request and how the model changes if it takes effect; ok is false for a refusal.
func (m *model) execute(r *request) (answer []byte, effect func(), ok bool) {
	epoch := int64(r.now) / interval.Milliseconds()
	roles := map[string]string{
		wire.FnRegisterCA: wire.RoleAdministrator, wire.FnIssue: wire.RoleOperator, wire.FnSetStatus: wire.RoleOperator, wire.FnTick: r.by.Role,
	}
	if !slices.Contains(m.msps, r.by.MSPID) || r.by.Role == "" || r.by.Role != roles[r.function] {
		return nil, nil, false
	}
	if r.function == wire.FnTick {
		return m.tick(r, epoch)
	}
	for _, tick := range m.ticks {
		if tick >= epoch+2 {
			return nil, nil, false
		}
	}
	switch r.function {
	case wire.FnRegisterCA:
		return m.registerCA(r)
	case wire.FnIssue:
		return m.issue(r)
	default:
		return m.setStatus(r)
	}
}

func (m *model) tick(r *request, epoch int64) ([]byte, func(), bool) {
	for _, tick := range m.ticks {
		if tick >= epoch {
			return nil, nil, false
		}
	}
	answer := wire.Encode(&wire.TickResult{V: wire.Version, Epoch: epoch, Time: r.now})
	return answer, func() { m.ticks = append(m.ticks, epoch) }, true
}

func (m *model) find(id wire.CAID) *modelCA {
	for _, ca := range m.cas {
		if ca.id == id {
			return ca
		}
	}
	return nil
}

func (m *model) registerCA(r *request) ([]byte, func(), bool) {
	result := &wire.RegisterCAResult{V: wire.Version, CAID: r.ca.ID, Needed: len(m.msps)/2 + 1}
	arg := string(r.arg())
	if ca := m.find(r.ca.ID); ca != nil {
		result.Registered = true
		return wire.Encode(result), func() {}, ca.arg == arg
	}
	for _, v := range append(slices.Clone(m.votes), modelVote{arg, r.by.MSPID}) {
		if v.arg == arg && !slices.Contains(result.Votes, v.msp) {
			result.Votes = append(result.Votes, v.msp)
		}
	}
	slices.Sort(result.Votes)
	if len(result.Votes) < result.Needed {
		return wire.Encode(result), func() { m.votes = append(m.votes, modelVote{arg, r.by.MSPID}) }, true
	}
	result.Registered, result.Votes = true, nil
	return wire.Encode(result), func() {
		m.cas = append(m.cas, &modelCA{id: r.ca.ID, arg: arg, operator: r.operator, time: r.now, leaves: 1})
	}, true
}

func (m *model) issue(r *request) ([]byte, func(), bool) {
	ca := m.find(r.ca.ID)
	if ca == nil || ca.operator != r.by.MSPID {
		return nil, nil, false
	}
	result := &wire.IssueResult{V: wire.Version}
	log := slices.Clone(ca.log)
	now := max(r.now, ca.time)
	for i, c := range r.certs {
		for _, other := range r.certs[:i] {
			if slices.Equal(other.serial, c.serial) {
				return nil, nil, false
			}
		}
		index := slices.IndexFunc(log, func(o *modelCert) bool { return slices.Equal(o.cert.serial, c.serial) })
		if index >= 0 && log[index].cert != c {
			return nil, nil, false
		}
		if index < 0 {
			if c.wrong || c.expires != 0 && c.expires < now {
				return nil, nil, false
			}
			index = len(log)
			log = append(log, &modelCert{cert: c, time: now, state: wire.CertValid, since: now})
		}
		hash := referenceLeafHash(uint64(index), log[index].time, c.der)
		result.Entries = append(result.Entries, wire.LogEntry{Index: uint64(index), Time: log[index].time, LeafHash: hash})
	}
	return wire.Encode(result), func() {
		if len(log) > len(ca.log) {
			ca.log, ca.time = log, now
		}
	}, true
}

func (m *model) setStatus(r *request) ([]byte, func(), bool) {
	ca := m.find(r.ca.ID)
	if ca == nil || ca.operator != r.by.MSPID {
		return nil, nil, false
	}
	result := &wire.SetStatusResult{V: wire.Version}
	var effects []func()
	for i, c := range r.changes {
		for _, other := range r.changes[:i] {
			if slices.Equal(other.Serial, c.Serial) {
				return nil, nil, false
			}
		}
		index := slices.IndexFunc(ca.log, func(o *modelCert) bool { return slices.Equal(o.cert.serial, c.Serial) })
		if index < 0 {
			return nil, nil, false
		}
		after := *ca.log[index]
		changed, ok := after.apply(c, max(r.now, after.since))
		if !ok {
			return nil, nil, false
		}
		if changed {
			after.change++
			effects = append(effects, func() { *ca.log[index] = after; ca.leaves++ })
		}
		result.Results = append(result.Results, wire.StatusResult{State: after.state, Reason: after.reason, Time: after.since, Change: after.change, Changed: changed})
	}
	return wire.Encode(result), func() {
		for _, effect := range effects {
			effect()
		}
	}, true
}

func (c *modelCert) apply(ch wire.StatusChange, now wire.Millis) (changed, ok bool) {
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
	}
	switch ch.Op {
	case wire.OpHold:
		c.state, c.reason, c.since = wire.CertHeld, wire.CertificateHold, now
	case wire.OpRelease:
		c.state, c.reason, c.since = wire.CertValid, wire.Unspecified, now
	case wire.OpRevoke:
		c.state, c.reason, c.invalidity = wire.CertRevoked, ch.Reason, ch.Invalidity
		if was == wire.CertValid {
			c.since = now
		}
	}
	return true, true
}
