package chaincode_test

import (
	"slices"

	"github.com/certanchor/certanchor/chaincode"
	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
)

// model is the contract as one would explain it: lists and plain loops, one transaction at a time, no keys, no versions. It
// knows what is wrong with a certificate because the test that made it says so. Reading order: this file, then model_status_test.go
// and model_decide_test.go.
type model struct {
	msps    []string
	ticks   []int64 // epochs
	votes   []modelVote
	decided []string // arguments of Decide that a majority has submitted
	alone   []string // arguments of Decide that one organisation has carried out
	cas     []*modelCA

	pending    [][]byte // leaf hashes, in any order
	status     [][]byte // leaf hashes of the status log
	statusTime wire.Millis
	statusMSP  string
}

type modelVote struct{ arg, msp string }

type modelCA struct {
	id       wire.CAID
	arg      string // the bytes it was registered with
	operator string
	time     wire.Millis // of its registration, then of its log's newest entry
	log      [][]byte    // leaf hashes
	certs    []*modelCert

	state           wire.CAState
	since           wire.Millis
	suspendedBy     string
	change, settled uint64
	rules           []wire.Rule
	revocations     []modelRevocation
}

// modelRevocation is what somebody else than the operator has done.
type modelRevocation struct {
	serial string
	wire.Revocation
}

type modelCert struct {
	serial     string
	pre, final *testCert
	places     []wire.LogEntry // of pre and final, whichever there are
	state      wire.CertState
	reason     wire.Reason
	since      wire.Millis
	invalidity wire.Millis
	change     uint64
	flaps      []wire.Millis // since the minute began
	imported   bool
	asserted   wire.Millis // by an import; 0: no date
	antedated  bool        // and it counts
	notAfter   wire.Millis // while bare: if known
}

// testCert is a certificate or precertificate and what is wrong with it.
type testCert struct {
	der     []byte
	serial  wire.Serial
	tbs     []byte      // of a precertificate: its certificate's
	of      *testCert   // the precertificate that it completes
	scts    bool        // has an SCT list
	wrong   bool        // of another CA
	expires wire.Millis // 0: not during the test
}

// request is one transaction before it is encoded.
type request struct {
	function string
	by       chaincode.Caller
	now      wire.Millis

	ca       *cctest.CA          // but for Tick and Integrate
	operator string              // RegisterCA
	certs    []*testCert         // Issue; the first, for Revoke
	imports  []modelImport       // Import
	changes  []wire.StatusChange // SetStatus
	intent   *wire.RevokeIntent  // Revoke
	decision *wire.DecideArg     // Decide
	raw      []byte              // Revoke, Integrate: encoded once
	size     uint64              // Integrate
	leaves   [][]byte            // Integrate
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
	case wire.FnImport:
		return r.importArg()
	case wire.FnSetStatus:
		return r.ca.StatusArg(r.changes...)
	case wire.FnDecide:
		return cctest.DecideArg(*r.decision)
	case wire.FnTick:
		return cctest.TickArg()
	}
	return r.raw
}

// execute returns the answer to a request and how the model changes if it takes effect; ok is false for a refusal.
func (m *model) execute(r *request) (answer []byte, effect func(), ok bool) {
	epoch := int64(r.now) / interval.Milliseconds()
	role := map[string]string{
		wire.FnRegisterCA: wire.RoleAdministrator, wire.FnDecide: wire.RoleAdministrator, wire.FnIssue: wire.RoleOperator, wire.FnSetStatus: wire.RoleOperator,
		wire.FnImport: wire.RoleOperator,
	}[r.function]
	if !slices.Contains(m.msps, r.by.MSPID) || r.by.Role == "" || role != "" && r.by.Role != role {
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
	case wire.FnImport:
		return m.importCerts(r)
	case wire.FnRevoke:
		return m.revoke(r)
	case wire.FnDecide:
		return m.decide(r)
	case wire.FnIntegrate:
		return m.integrate(r)
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

func (ca *modelCA) find(serial wire.Serial) *modelCert {
	for _, c := range ca.certs {
		if c.serial == string(serial) {
			return c
		}
	}
	return nil
}

// voters are who has submitted arg, sorted, with one more.
func (m *model) voters(arg, msp string) []string {
	var voters []string
	for _, v := range append(slices.Clone(m.votes), modelVote{arg, msp}) {
		if v.arg == arg && !slices.Contains(voters, v.msp) {
			voters = append(voters, v.msp)
		}
	}
	slices.Sort(voters)
	return voters
}

func (m *model) registerCA(r *request) ([]byte, func(), bool) {
	result := &wire.RegisterCAResult{V: wire.Version, CAID: r.ca.ID, Needed: len(m.msps)/2 + 1}
	arg := string(r.arg())
	if ca := m.find(r.ca.ID); ca != nil {
		result.Registered = true
		return wire.Encode(result), func() {}, ca.arg == arg
	}
	result.Votes = m.voters(arg, r.by.MSPID)
	if len(result.Votes) < result.Needed {
		return wire.Encode(result), func() { m.votes = append(m.votes, modelVote{arg, r.by.MSPID}) }, true
	}
	result.Registered, result.Votes = true, nil
	return wire.Encode(result), func() {
		ca := &modelCA{id: r.ca.ID, arg: arg, operator: r.operator, time: r.now, state: wire.CAActive, since: r.now, change: 1, settled: 1}
		m.cas = append(m.cas, ca)
		m.tellCA(ca)
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
	var effects []func()
	for i, c := range r.certs {
		if slices.ContainsFunc(r.certs[:i], func(o *testCert) bool { return slices.Equal(o.serial, c.serial) }) {
			return nil, nil, false
		}
		known := ca.find(c.serial)
		place, recorded, ok := known.place(c)
		if !ok || (known == nil || known.bare()) && (c.wrong || c.expires != 0 && c.expires < now || ca.state != wire.CAActive) {
			return nil, nil, false
		}
		if !recorded {
			place = wire.LogEntry{Index: uint64(len(log)), Time: now, LeafHash: c.leafHash(ca.id, uint64(len(log)), now)}
			log = append(log, place.LeafHash)
			effects = append(effects, func() {
				if known == nil {
					known = &modelCert{serial: string(c.serial), state: wire.CertValid, since: now}
					ca.certs = append(ca.certs, known)
				}
				known.add(c, place)
			})
		}
		result.Entries = append(result.Entries, place)
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

func (c *testCert) leafHash(id wire.CAID, index uint64, t wire.Millis) []byte {
	if c.tbs != nil {
		return referencePrecertHash(index, t, id, c.tbs)
	}
	return referenceLeafHash(index, t, c.der)
}

// place tells where cert stands, whether it does, and whether it may.
func (c *modelCert) place(cert *testCert) (at wire.LogEntry, recorded, ok bool) {
	switch {
	case c == nil, c.bare():
		return at, false, true
	case c.pre == cert:
		return c.places[0], true, true
	case c.final == cert:
		return c.places[len(c.places)-1], true, true
	}
	return at, false, c.final == nil && cert.tbs == nil && cert.of == c.pre && cert.scts
}

func (c *modelCert) add(cert *testCert, place wire.LogEntry) {
	c.places = append(c.places, place)
	if cert.tbs != nil {
		c.pre = cert
	} else {
		c.final = cert
	}
}
