package chaincode_test

import (
	"crypto/x509"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/certanchor/certanchor/chaincode"
	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/status"
)

// universe is what the transactions of TestInterleavings are about, made once: few enough that they collide.
type universe struct {
	cas   []*cctest.CA
	certs map[wire.CAID][]*testCert
}

func newUniverse(t *testing.T) *universe {
	u := &universe{cas: []*cctest.CA{cctest.NewCA(t), cctest.NewCA(t)}, certs: make(map[wire.CAID][]*testCert)}
	for i, ca := range u.cas {
		add := func(by *cctest.CA, c testCert, tweaks ...func(*x509.Certificate)) {
			der, cert := by.Issue(t, tweaks...)
			c.der, c.serial = der, cctest.Serial(t, cert)
			u.certs[ca.ID] = append(u.certs[ca.ID], &c)
		}
		for range 6 {
			add(ca, testCert{})
		}
		first := u.certs[ca.ID][0].serial.Int()
		add(ca, testCert{}, func(c *x509.Certificate) { c.SerialNumber = first })
		add(u.cas[1-i], testCert{wrong: true})
		soon := cctest.T0.Add(40 * time.Second)
		add(ca, testCert{expires: wire.MillisOf(soon)}, func(c *x509.Certificate) { c.NotAfter = soon })
	}
	return u
}

// world is one run: the ledger, the model, and transactions that are endorsed and not yet in a block.
type world struct {
	*universe
	rt      *rapid.T
	l       *cctest.Ledger
	m       *model
	now     time.Time
	flight  []*flying
	lost    []*request // failed the version check; their clients submit them again
	revoked map[string]*wire.CertRecord
}

type flying struct {
	request  *request
	envelope *cctest.Envelope
}

// Whatever several organisations submit at once, in whatever order it is ordered, retried after losing the version check or
// although it had won: the ledger is as if each valid transaction had been executed alone, in block order, by the model.
func TestInterleavings(t *testing.T) {
	u := newUniverse(t)
	rapid.Check(t, func(rt *rapid.T) {
		cfg := chaincode.Config{MSPs: []string{"Org1MSP", "Org2MSP", "Org3MSP"}, TickInterval: interval}
		w := &world{
			universe: u, rt: rt, l: cctest.NewLedger(t, cfg), m: &model{msps: cfg.MSPs}, now: cctest.T0, revoked: make(map[string]*wire.CertRecord),
		}
		w.l.Found(t)
		if rapid.IntRange(0, 3).Draw(rt, "from the beginning") > 0 {
			w.begin()
		}
		rt.Repeat(map[string]func(*rapid.T){
			"": func(*rapid.T) { w.check() },
			"time passes": func(rt *rapid.T) {
				w.now = w.now.Add(time.Duration(rapid.IntRange(0, 20_000).Draw(rt, "ms")) * time.Millisecond)
			},
			"endorse":     func(*rapid.T) { w.endorse(w.drawRequest()) },
			"endorse two": func(*rapid.T) { w.endorse(w.drawRequest()); w.endorse(w.drawRequest()) },
			"tick":        func(*rapid.T) { w.endorse(&request{function: wire.FnTick, by: cctest.Auditor("Org3MSP")}) },
			"cut a block": func(*rapid.T) { w.commit(rapid.IntRange(1, 6).Draw(rt, "size")) },
			"retry":       func(*rapid.T) { w.retry() },
		})
		for len(w.flight) > 0 || len(w.lost) > 0 { // every client gets its answer in the end
			w.commit(len(w.flight))
			w.retry()
		}
		w.check()
	})
}

// begin registers both CAs and records two certificates of each, so that runs reach further.
func (w *world) begin() {
	for i, ca := range w.cas {
		for _, msp := range w.l.Config.MSPs[:2] {
			w.endorse(&request{function: wire.FnRegisterCA, by: cctest.Admin(msp), ca: ca, operator: w.l.Config.MSPs[i]})
			w.commit(1)
		}
		w.endorse(&request{function: wire.FnIssue, by: cctest.Operator(w.l.Config.MSPs[i]), ca: ca, certs: w.certs[ca.ID][:2]})
		w.commit(1)
	}
}

// endorse executes a request and compares the outcome with what the model says now.
func (w *world) endorse(r *request) {
	w.l.Now = w.now.Add(time.Duration(rapid.IntRange(-8000, 2000).Draw(w.rt, "client's clock")) * time.Millisecond)
	r.now = wire.MillisOf(w.l.Now)
	envelope, refusal := w.l.Endorse(w.rt, r.by, r.function, r.arg())
	answer, _, ok := w.m.execute(r)
	if ok != (refusal == nil) {
		w.rt.Fatalf("%s by %v: the contract says %v, the model ok=%t", r.function, r.by, refusal, ok)
	}
	if !ok {
		return
	}
	if string(answer) != string(envelope.Result) {
		w.rt.Fatalf("%s by %v answers\n%x, the model\n%x", r.function, r.by, envelope.Result, answer)
	}
	w.flight = append(w.flight, &flying{r, envelope})
}

// commit puts up to n endorsed transactions into a block, in any order.
func (w *world) commit(n int) {
	var block []*flying
	var envelopes []*cctest.Envelope
	for range min(n, len(w.flight)) {
		i := rapid.IntRange(0, len(w.flight)-1).Draw(w.rt, "next in block")
		block, envelopes = append(block, w.flight[i]), append(envelopes, w.flight[i].envelope)
		w.flight = slices.Delete(w.flight, i, i+1)
	}
	for i, valid := range w.l.Commit(w.rt, envelopes...) {
		f := block[i]
		if !valid {
			w.lost = append(w.lost, f.request)
			continue
		}
		answer, effect, ok := w.m.execute(f.request)
		if !ok || string(answer) != string(f.envelope.Result) {
			w.rt.Fatalf("%s by %v was committed with\n%x; executed alone it is ok=%t,\n%x", f.request.function, f.request.by, f.envelope.Result, ok, answer)
		}
		effect()
		if rapid.IntRange(0, 9).Draw(w.rt, "answer lost") == 0 {
			w.lost = append(w.lost, f.request) // the client does not know that it won
		}
	}
}

// retry endorses everything that was lost once more, with the same bytes.
func (w *world) retry() {
	lost := w.lost
	w.lost = nil
	for _, r := range lost {
		again := *r
		w.endorse(&again)
	}
}

func (w *world) drawRequest() *request {
	t := w.rt
	i := rapid.IntRange(0, 1).Draw(t, "CA")
	r := &request{
		function: rapid.SampledFrom([]string{wire.FnRegisterCA, wire.FnIssue, wire.FnIssue, wire.FnSetStatus, wire.FnSetStatus}).Draw(t, "function"),
		ca:       w.cas[i],
		by:       chaincode.Caller{MSPID: w.l.Config.MSPs[i], Role: wire.RoleOperator},
	}
	if r.function == wire.FnRegisterCA {
		r.by.Role = wire.RoleAdministrator
		r.by.MSPID = rapid.SampledFrom(w.l.Config.MSPs).Draw(t, "voter")
		r.operator = rapid.SampledFrom(w.l.Config.MSPs[:2]).Draw(t, "operator")
	}
	if rapid.IntRange(0, 9).Draw(t, "someone else") == 0 {
		r.by.MSPID = rapid.SampledFrom([]string{"Org1MSP", "Org2MSP", "Org9MSP", ""}).Draw(t, "organisation")
		r.by.Role = rapid.SampledFrom([]string{wire.RoleOperator, wire.RoleAuditor, wire.RoleAdministrator, ""}).Draw(t, "role")
	}
	certs := w.certs[r.ca.ID]
	for range rapid.IntRange(1, 3).Draw(t, "batch") {
		i := rapid.IntRange(0, len(certs)-1).Draw(t, "certificate")
		if r.function == wire.FnSetStatus && rapid.IntRange(0, 4).Draw(t, "a known one") > 0 {
			i %= 2
		}
		r.certs = append(r.certs, certs[i])
		r.changes = append(r.changes, w.drawChange(certs[i].serial))
	}
	return r
}

func (w *world) drawChange(serial wire.Serial) wire.StatusChange {
	c := wire.StatusChange{Serial: serial, Op: wire.StatusOp(rapid.IntRange(1, 3).Draw(w.rt, "op"))}
	switch c.Op {
	case wire.OpRevoke:
		c.Reason = rapid.SampledFrom([]wire.Reason{wire.Unspecified, wire.KeyCompromise, wire.Superseded}).Draw(w.rt, "reason")
		c.Invalidity = rapid.SampledFrom([]wire.Millis{0, 1, wire.MillisOf(cctest.CANotBefore)}).Draw(w.rt, "invalidity")
	case wire.OpHold:
		c.Reason = wire.CertificateHold
	}
	return c
}

// check holds the ledger against the model and against what must never happen, whatever the model thinks.
func (w *world) check() {
	var certs, leaves int
	for _, key := range w.l.Store.Keys() {
		switch {
		case strings.HasPrefix(key, wire.CertPrefix):
			certs++
			w.checkFinality(key)
		case strings.HasPrefix(key, wire.PendingPrefix):
			leaves++
		}
	}
	for _, ca := range w.m.cas {
		w.checkCA(ca)
		certs -= len(ca.log)
		leaves -= ca.leaves
	}
	if certs != 0 || leaves != 0 {
		w.rt.Fatalf("%d records and %d status leaves more than the model has", certs, leaves)
	}
}

// checkFinality: a revoked certificate stays revoked since the same moment, and its reason changes to keyCompromise only.
func (w *world) checkFinality(key string) {
	rec := record[wire.CertRecord](w.rt, w.l, key)
	was := w.revoked[key]
	if was != nil && (rec.State != wire.CertRevoked || rec.StatusTime != was.StatusTime || rec.Change < was.Change ||
		rec.Reason != was.Reason && rec.Reason != wire.KeyCompromise || rec.Final.Index != was.Final.Index) {
		w.rt.Fatalf("revoked as %+v became %+v", was, rec)
	}
	if rec.State == wire.CertRevoked {
		w.revoked[key] = rec
	}
}

// checkCA: every certificate is on the ledger once, at its index, with the model's status and a status leaf that says so.
func (w *world) checkCA(ca *modelCA) {
	entry := record[wire.CARecord](w.rt, w.l, wire.CAKey(ca.id))
	var hashes [][]byte
	for i, c := range ca.log {
		rec := record[wire.CertRecord](w.rt, w.l, wire.CertKey(ca.id, c.cert.serial))
		hash := referenceLeafHash(uint64(i), c.time, c.cert.der)
		if rec.Final.Index != uint64(i) || rec.Final.Time != c.time || string(rec.Final.LeafHash) != string(hash) {
			w.rt.Fatalf("entry %d is %+v", i, rec.Final)
		}
		want := status.Status{State: c.state, Reason: c.reason, Time: c.since, Invalidity: c.invalidity, Change: c.change}
		if got := status.Evaluate(entry, rec); got != want {
			w.rt.Fatalf("entry %d has status %+v, want %+v", i, got, want)
		}
		if c.change > 0 {
			leaf := &wire.StatusLeaf{
				V: wire.Version, Kind: wire.LeafCert, CAID: ca.id, Serial: c.cert.serial, Change: c.change,
				State: uint(c.state), Reason: c.reason, Time: c.since, Invalidity: c.invalidity,
			}
			if w.l.Store.Value(wire.PendingKey(leaf.Hash())) == nil {
				w.rt.Fatalf("no status leaf says %+v", leaf)
			}
		}
		hashes = append(hashes, hash)
	}
	head := record[wire.LogHead](w.rt, w.l, wire.LogHeadKey(ca.id))
	if head.Size != uint64(len(hashes)) || string(head.Root) != string(referenceRoot(hashes)) || string(head.Root) != string(tlogRoot(w.rt, hashes)) {
		w.rt.Fatalf("log head is %d %x, want %d %x", head.Size, head.Root, len(hashes), referenceRoot(hashes))
	}
}
