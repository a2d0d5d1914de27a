package chaincode_test

import (
	"crypto/x509"
	"slices"
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
		add := func(by *cctest.CA, c testCert, tweaks ...func(*x509.Certificate)) *testCert {
			der, cert := by.Issue(t, tweaks...)
			c.der, c.serial = der, cctest.Serial(t, cert)
			u.certs[ca.ID] = append(u.certs[ca.ID], &c)
			return &c
		}
		// addPair adds a precertificate and three certificates for it: only one can be recorded, and after the precertificate not
		// the one without SCT list.
		addPair := func(tweaks ...func(*x509.Certificate)) {
			der, cert, final := ca.Precert(t, tweaks...)
			finals := [3]*testCert{}
			for n, list := range [][]byte{nil, cctest.SCTList(), cctest.SCTList()} {
				finalDER, finalCert := final(list)
				finals[n] = &testCert{der: finalDER, serial: cctest.Serial(t, finalCert), scts: list != nil}
			}
			pre := &testCert{der: der, serial: cctest.Serial(t, cert), tbs: tbsOf(t, finals[0].der)}
			u.certs[ca.ID] = append(u.certs[ca.ID], pre)
			for _, f := range finals {
				f.of = pre
				u.certs[ca.ID] = append(u.certs[ca.ID], f)
			}
		}
		first := add(ca, testCert{})
		addPair()
		for range 3 {
			add(ca, testCert{})
		}
		same := func(c *x509.Certificate) { c.SerialNumber = first.serial.Int() }
		add(ca, testCert{}, same)
		addPair(same)
		addPair()
		last := u.certs[ca.ID][len(u.certs[ca.ID])-1].serial.Int()
		add(ca, testCert{}, func(c *x509.Certificate) { c.SerialNumber = last }) // of no precertificate
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
	told    map[string]status.Status // of what is revoked, by whomever
	good    map[string]bool          // what has ever been told to be valid
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
			universe: u, rt: rt, l: cctest.NewLedger(t, cfg), m: &model{msps: cfg.MSPs}, now: cctest.T0,
			revoked: make(map[string]*wire.CertRecord), told: make(map[string]status.Status), good: make(map[string]bool),
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
			"integrate":   func(*rapid.T) { w.endorse(w.drawIntegrate()) },
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
