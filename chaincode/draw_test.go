package chaincode_test

import (
	"crypto/x509"

	"pgregory.net/rapid"

	"github.com/certanchor/certanchor/chaincode"
	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
)

// What the clients of TestInterleavings submit.

var drawnFunctions = []string{
	wire.FnRegisterCA, wire.FnIssue, wire.FnIssue, wire.FnIssue, wire.FnSetStatus, wire.FnSetStatus, wire.FnSetStatus,
	wire.FnImport, wire.FnImport, wire.FnImport,
	wire.FnRevoke, wire.FnRevoke, wire.FnDecide, wire.FnDecide, wire.FnDecide,
}

func (w *world) drawRequest() *request {
	t := w.rt
	i := rapid.IntRange(0, 1).Draw(t, "CA")
	r := &request{
		function: rapid.SampledFrom(drawnFunctions).Draw(t, "function"),
		ca:       w.cas[i],
		by:       chaincode.Caller{MSPID: w.l.Config.MSPs[i], Role: wire.RoleOperator},
	}
	switch r.function {
	case wire.FnRegisterCA, wire.FnDecide:
		r.by.Role = wire.RoleAdministrator
		r.by.MSPID = rapid.SampledFrom(w.l.Config.MSPs).Draw(t, "voter")
	case wire.FnRevoke:
		r.by.MSPID = rapid.SampledFrom(w.l.Config.MSPs).Draw(t, "bridge")
	}
	if rapid.IntRange(0, 9).Draw(t, "someone else") == 0 {
		r.by.MSPID = rapid.SampledFrom([]string{"Org1MSP", "Org2MSP", "Org9MSP", ""}).Draw(t, "organisation")
		r.by.Role = rapid.SampledFrom([]string{wire.RoleOperator, wire.RoleAuditor, wire.RoleAdministrator, ""}).Draw(t, "role")
	}
	certs := w.certs[r.ca.ID]
	for range rapid.IntRange(1, 3).Draw(t, "batch") {
		i := rapid.IntRange(0, len(certs)-1).Draw(t, "certificate")
		if r.function != wire.FnIssue && rapid.IntRange(0, 4).Draw(t, "a known one") > 0 {
			i %= 2
		}
		r.certs = append(r.certs, certs[i])
		if r.function == wire.FnImport {
			r.imports = append(r.imports, w.drawImport(certs[i]))
		}
		r.changes = append(r.changes, w.drawChange(certs[i].serial))
	}
	switch r.function {
	case wire.FnRegisterCA:
		r.operator = rapid.SampledFrom(w.l.Config.MSPs[:2]).Draw(t, "operator")
	case wire.FnRevoke:
		w.drawIntent(r)
	case wire.FnDecide:
		r.decision = w.drawDecision(r)
	}
	return r
}

func (w *world) drawReason() wire.Reason {
	return rapid.SampledFrom([]wire.Reason{wire.Unspecified, wire.KeyCompromise, wire.Superseded}).Draw(w.rt, "reason")
}

func (w *world) drawChange(serial wire.Serial) wire.StatusChange {
	c := wire.StatusChange{Serial: serial, Op: wire.StatusOp(rapid.IntRange(1, 3).Draw(w.rt, "op"))}
	switch c.Op {
	case wire.OpRevoke:
		c.Reason = w.drawReason()
		c.Invalidity = wire.Millis(rapid.IntRange(0, 1).Draw(w.rt, "invalidity"))
	case wire.OpHold:
		c.Reason = wire.CertificateHold
	}
	return c
}

// drawIntent signs once: a client that submits again submits the same bytes.
func (w *world) drawIntent(r *request) {
	cert, err := x509.ParseCertificate(r.certs[0].der)
	if err != nil {
		w.rt.Fatal(err)
	}
	r.intent = r.ca.Intent(w.rt, cctest.Channel, cert, w.drawReason(), w.now)
	r.intent.Invalidity = wire.Millis(rapid.IntRange(0, 1).Draw(w.rt, "invalidity"))
	r.intent.Expires = wire.MillisOf(w.now) + wire.Millis(rapid.IntRange(5_000, 30_000).Draw(w.rt, "lasts"))
	r.raw = cctest.SignIntent(w.rt, cctest.LeafKey(), r.certs[0].der, r.intent)
}

// drawDecision draws from few decisions, so that votes meet.
func (w *world) drawDecision(r *request) *wire.DecideArg {
	a := &wire.DecideArg{
		V: wire.Version, CAID: r.ca.ID, Kind: wire.DecisionKind(rapid.IntRange(1, 4).Draw(w.rt, "kind")),
	}
	if a.Kind == wire.DecideRevoke {
		a.Serial, a.Reason = r.certs[0].serial, w.drawReason()
		return a
	}
	a.Change = 1
	if ca := w.m.find(r.ca.ID); ca != nil {
		a.Change = ca.change - uint64(rapid.SampledFrom([]int{0, 0, 0, 1}).Draw(w.rt, "as seen before"))
	}
	if a.Kind == wire.DecideRule {
		a.Reason = w.drawReason()
		a.To = wire.MillisOf(cctest.T0) + 10_000*wire.Millis(rapid.IntRange(0, 2).Draw(w.rt, "to"))
		a.From = a.To - 5_000
	}
	return a
}

// drawIntegrate takes some of what is pending now; by the time it is ordered that may be old.
func (w *world) drawIntegrate() *request {
	pending := w.l.Pending(w.rt)
	r := &request{
		function: wire.FnIntegrate, by: chaincode.Caller{MSPID: rapid.SampledFrom(w.l.Config.MSPs).Draw(w.rt, "bridge"), Role: wire.RoleAuditor},
		size: w.l.StatusSize(w.rt),
	}
	if rapid.IntRange(0, 9).Draw(w.rt, "behind") == 0 && r.size > 0 {
		r.size--
	}
	if len(pending) > 0 {
		r.leaves = rapid.Permutation(pending).Draw(w.rt, "leaves")[:rapid.IntRange(1, len(pending)).Draw(w.rt, "leaves")]
	}
	if rapid.IntRange(0, 9).Draw(w.rt, "one that is not") == 0 {
		r.leaves = append(r.leaves, make([]byte, 32))
	}
	r.raw = cctest.IntegrateArg(r.size, r.leaves...)
	return r
}
