package session_test

import (
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/audit/served"
)

// imports brings a history onto the ledger: a revoked certificate, revoked and valid serial numbers, and the certificate of one that was held.
func (w *world) imports() (revoked, valid wire.Serial) {
	w.t.Helper()
	asserted := wire.MillisOf(w.clock.Now().Add(-100 * time.Hour))
	der, _ := w.ca.Issue(w.t)
	later, cert := w.ca.Issue(w.t)
	revoked, valid = wire.Serial{0x51}, wire.Serial{0x52}
	w.submit(wire.FnImport, w.ca.ImportArg([]wire.ImportItem{
		{HasCert: true, State: wire.CertRevoked, Reason: wire.Superseded, Revoked: asserted},
		{Serial: revoked, State: wire.CertRevoked, Reason: wire.KeyCompromise, Revoked: asserted},
		{Serial: valid, State: wire.CertValid},
		{Serial: cctest.Serial(w.t, cert), State: wire.CertHeld, Reason: wire.CertificateHold, Revoked: asserted},
	}, der))
	w.submit(wire.FnIssue, w.ca.IssueArg(later))
	w.integrate()
	w.applied(w.tick())
	return revoked, valid
}

func TestAnImportedHistoryAgrees(t *testing.T) {
	w := newWorld(t)
	w.imports()
	o := w.options(t.TempDir())
	o.Sample = 0
	r := w.audit(o)
	agrees(t, r)
	if r.Certificates != 268 || r.Good != 260 || r.Held != 2 || r.Revoked != 5 || r.Imported != 4 || r.SerialOnly != 2 {
		t.Errorf("%+v", r.Report)
	}
	// Asked about: the revoked serial number too, not only certificates; none of bundles about serial numbers.
	if b := r.Bridges[0]; b.OCSP != 262+3 || b.Proofs != 263+2 {
		t.Errorf("%+v", b)
	}
}

func TestGoodOfASerialNumberIsFound(t *testing.T) {
	w := newWorld(t)
	revoked, valid := w.imports()
	for serial, says := range map[string]string{string(revoked): "asserted by the CA; on the ledger since", string(valid): "unknown"} {
		lie := w.liar(wire.Serial(serial).Int())
		o := w.options(t.TempDir())
		o.Sample, o.Bridges = 0, append(o.Bridges, lie.URL)
		r := w.audit(o)
		finds(t, r, served.KindStatus, lie.URL+"/ocsp", wire.Serial(serial).String(), "found good, as of", says)
		if len(r.Differences) != 1 {
			t.Errorf("%v", r.Differences)
		}
	}
}
