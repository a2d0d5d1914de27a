package index

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/certanchor/certanchor/chaincode"
	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/rapidtest"
	"github.com/certanchor/certanchor/internal/status"
	"github.com/certanchor/certanchor/network"
)

// live is a ledger that runs the real contract and cuts what it commits into blocks, invalid transactions included.
type live struct {
	t      *testing.T
	r      *rapid.T
	ledger *cctest.Ledger
	cas    []*cctest.CA
	certs  []liveCert
	blocks []*network.Block

	open []*cctest.Envelope // endorsed, for the next block
	txs  []network.Tx
}

type liveCert struct {
	ca     *cctest.CA
	der    []byte
	serial wire.Serial
	final  func([]byte) ([]byte, []byte) // of a precertificate
}

var liveMSPs = []string{"Org1MSP", "Org2MSP", "Org3MSP"}

func newLive(t *testing.T, r *rapid.T) *live {
	l := &live{t: t, r: r, ledger: cctest.NewLedger(t, chaincode.Config{MSPs: liveMSPs, TickInterval: 15 * time.Second})}
	l.submit(cctest.Admin(liveMSPs[0]), wire.FnInit, l.ledger.InitArg())
	l.commit()
	for i := range 2 {
		ca := cctest.NewCA(t)
		l.cas = append(l.cas, ca)
		for _, msp := range liveMSPs[:2] {
			l.submit(cctest.Admin(msp), wire.FnRegisterCA, ca.RegisterArg(liveMSPs[i]))
			l.commit()
		}
	}
	return l
}

// submit endorses a transaction for the next block. What the contract refuses is left out.
func (l *live) submit(by chaincode.Caller, function string, arg []byte) {
	l.ledger.Now = l.ledger.Now.Add(137 * time.Millisecond)
	e, refusal := l.ledger.Endorse(l.t, by, function, arg)
	if refusal != nil {
		return
	}
	tx := network.Tx{ID: fmt.Sprintf("tx%d-%d", len(l.blocks), len(l.txs)), Time: l.ledger.Now, MSPID: by.MSPID, Function: function, Arg: arg, Result: e.Result}
	for _, w := range e.Writes {
		tx.Writes = append(tx.Writes, network.Write{Key: w.Key, Value: w.Value})
	}
	l.open, l.txs = append(l.open, e), append(l.txs, tx)
}

// commit cuts a block.
func (l *live) commit() {
	if len(l.open) == 0 {
		return
	}
	b := &network.Block{Number: uint64(len(l.blocks)), Txs: l.txs}
	for i, ok := range l.ledger.Commit(l.t, l.open...) {
		b.Txs[i].Valid = ok
	}
	if len(l.blocks) > 0 {
		b.PrevHash = l.blocks[len(l.blocks)-1].Hash
	}
	h := sha256.Sum256(binary.BigEndian.AppendUint64(slices.Clone(b.PrevHash), b.Number))
	b.Hash = h[:]
	l.blocks = append(l.blocks, b)
	l.open, l.txs = nil, nil
}

func (l *live) operator(ca *cctest.CA) chaincode.Caller {
	return cctest.Operator(liveMSPs[slices.Index(l.cas, ca)])
}

func (l *live) pick(n int, what string) int { return rapid.IntRange(0, n-1).Draw(l.r, what) }

// step does something that somebody could do.
func (l *live) step() {
	ca := l.cas[l.pick(len(l.cas), "ca")]
	now := wire.MillisOf(l.ledger.Now)
	if len(l.certs) == 0 {
		l.issue(ca)
		return
	}
	cert := &l.certs[l.pick(len(l.certs), "cert")]
	change := l.change(ca)
	switch rapid.SampledFrom([]string{
		"issue", "final", "import", "import", "status", "status", "status", "holder", "quorum", "rule", "suspend", "resume", "integrate", "integrate", "tick", "tick", "commit", "commit",
	}).Draw(l.r, "step") {
	case "issue":
		l.issue(ca)
	case "final":
		if cert.final != nil {
			der, _ := cert.final(cctest.SCTList())
			l.submit(l.operator(cert.ca), wire.FnIssue, cert.ca.IssueArg(der))
		}
	case "import":
		l.importSome(ca)
	case "status":
		ops := []wire.StatusChange{
			{Op: wire.OpHold, Reason: wire.CertificateHold}, {Op: wire.OpRelease}, {Op: wire.OpRevoke, Reason: wire.Superseded, Invalidity: 1},
			{Op: wire.OpRevoke, Reason: wire.KeyCompromise},
		}
		c := ops[l.pick(len(ops), "op")]
		c.Serial = cert.serial
		l.submit(l.operator(cert.ca), wire.FnSetStatus, cert.ca.StatusArg(c))
	case "holder":
		reason := []wire.Reason{wire.Unspecified, wire.KeyCompromise}[l.pick(2, "reason")]
		l.submit(cctest.Auditor(liveMSPs[2]), wire.FnRevoke, cert.ca.RevokeArg(l.t, cctest.Channel, cert.der, reason, l.ledger.Now))
	case "quorum":
		l.decide(cert.ca.QuorumArg(cert.serial, wire.PrivilegeWithdrawn))
	case "rule":
		l.decide(ca.RuleArg(change, now-wire.Millis(1000*(1+l.pick(20, "from"))), now-wire.Millis(500*l.pick(20, "to")), wire.CACompromise))
	case "suspend":
		l.decide(ca.SuspendArg(change))
	case "resume":
		l.decide(ca.ResumeArg(change))
	case "integrate":
		l.integrate()
	case "tick":
		l.ledger.Now = l.ledger.Now.Add(7 * time.Second)
		l.submit(cctest.Auditor(liveMSPs[l.pick(3, "ticker")]), wire.FnTick, cctest.TickArg())
	case "commit":
		l.commit()
	}
}

func (l *live) issue(ca *cctest.CA) {
	var ders [][]byte
	for range 1 + l.pick(3, "certificates") {
		c := liveCert{ca: ca}
		if l.pick(2, "pre") == 1 {
			der, cert, final := ca.Precert(l.t)
			c.der, c.serial = der, cctest.Serial(l.t, cert)
			c.final = func(scts []byte) ([]byte, []byte) { der, cert := final(scts); return der, cert.Raw }
		} else {
			der, cert := ca.Issue(l.t)
			c.der, c.serial = der, cctest.Serial(l.t, cert)
		}
		l.certs, ders = append(l.certs, c), append(ders, c.der)
	}
	l.submit(l.operator(ca), wire.FnIssue, ca.IssueArg(ders...))
}

// importSome imports some certificates of a CA, known and new ones, with or without them.
func (l *live) importSome(ca *cctest.CA) {
	var items []wire.ImportItem
	var ders [][]byte
	now := wire.MillisOf(l.ledger.Now)
	for range 1 + l.pick(3, "items") {
		c := l.certs[l.pick(len(l.certs), "known")]
		if c.ca != ca || l.pick(3, "again") == 0 || slices.ContainsFunc(items, func(i wire.ImportItem) bool { return bytes.Equal(i.Serial, c.serial) }) ||
			slices.ContainsFunc(ders, func(der []byte) bool { return bytes.Equal(der, c.der) }) {
			der, cert := ca.Issue(l.t)
			c = liveCert{ca: ca, der: der, serial: cctest.Serial(l.t, cert)}
			l.certs = append(l.certs, c)
		}
		item := wire.ImportItem{State: wire.CertState(1 + l.pick(3, "state"))}
		switch item.State {
		case wire.CertHeld:
			item.Reason, item.Revoked = wire.CertificateHold, now-wire.Millis(l.pick(30, "held"))*1000
		case wire.CertRevoked:
			item.Reason, item.Revoked = wire.Superseded, now-wire.Millis(l.pick(30, "revoked"))*1000
		}
		if item.HasCert = c.final == nil && l.pick(2, "with certificate") == 1; item.HasCert {
			ders = append(ders, c.der)
		} else {
			item.Serial, item.NotAfter = c.serial, wire.Millis(l.pick(2, "not after"))*wire.MillisOf(cctest.LeafNotAfter)
		}
		items = append(items, item)
	}
	l.submit(l.operator(ca), wire.FnImport, ca.ImportArg(items, ders...))
}

func (l *live) change(ca *cctest.CA) uint64 {
	var rec wire.CARecord
	cctest.Decode(l.t, l.ledger.Store.Value(wire.CAKey(ca.ID)), &rec)
	return rec.Change
}

// decide has two administrators vote, in two blocks.
func (l *live) decide(arg []byte) {
	for _, msp := range liveMSPs[:2] {
		l.submit(cctest.Admin(msp), wire.FnDecide, arg)
		l.commit()
	}
}

// integrate takes some of what is pending, in any order.
func (l *live) integrate() {
	pending := l.ledger.Pending(l.t)
	if len(pending) == 0 {
		return
	}
	some := rapid.Permutation(pending).Draw(l.r, "order")[:1+l.pick(len(pending), "how many")]
	l.submit(cctest.Operator(liveMSPs[l.pick(3, "integrator")]), wire.FnIntegrate, cctest.IntegrateArg(l.ledger.StatusSize(l.t), some...))
}

// compare checks the index against the contract's state.
func (l *live) compare(ix *Index) {
	l.t.Helper()
	revs := map[string][]wire.Revocation{}
	rules := map[wire.CAID][]wire.Rule{}
	for _, key := range l.ledger.Store.Keys() {
		value := l.ledger.Store.Value(key)
		switch {
		case strings.HasPrefix(key, wire.RevokePrefix):
			id, serial, _, err := wire.ParseRevokeKey(key)
			var rev wire.Revocation
			if err == nil {
				err = wire.Decode(value, &rev)
			}
			if err != nil {
				l.t.Fatal(err)
			}
			revs[wire.CertKey(id, serial)] = append(revs[wire.CertKey(id, serial)], rev)
		case strings.HasPrefix(key, wire.RulePrefix):
			id, _, err := wire.ParseRuleKey(key)
			var rule wire.Rule
			if err == nil {
				err = wire.Decode(value, &rule)
			}
			if err != nil {
				l.t.Fatal(err)
			}
			rules[id] = append(rules[id], rule)
		}
	}
	for _, c := range l.certs {
		key := wire.CertKey(c.ca.ID, c.serial)
		raw := l.ledger.Store.Value(key)
		st, rec, err := ix.Status(c.ca.ID, c.serial)
		if err != nil || (rec == nil) != (raw == nil) {
			l.t.Fatalf("%s: record is %v, %v, on the ledger it is %x", key, rec, err, raw)
		}
		if raw == nil {
			continue
		}
		var want wire.CertRecord
		cctest.Decode(l.t, raw, &want)
		if evaluated := status.Evaluate(&want, revs[key], rules[c.ca.ID]); st != evaluated {
			l.t.Fatalf("%s: status is %+v, want %+v", key, st, evaluated)
		}
	}
}

// TestIndexAgreesWithTheContract has the contract do whatever it lets anybody do, in blocks with losers, and compares the index with the
// contract's state and with the reference, before and after a restart.
func TestIndexAgreesWithTheContract(t *testing.T) {
	rapidtest.Check(t, 4, func(r *rapid.T) {
		l := newLive(t, r)
		for range rapid.IntRange(10, 60).Draw(r, "steps") {
			l.step()
		}
		l.commit()
		dir := t.TempDir()
		ix := open(t, dir)
		apply(t, ix, l.blocks...)
		want := referenceOf(t, l.blocks)
		want.compare(ix)
		l.compare(ix)
		if err := ix.Close(); err != nil {
			r.Fatal(err)
		}
		ix = open(t, dir)
		want.compare(ix)
		l.compare(ix)
		if err := ix.Close(); err != nil {
			r.Fatal(err)
		}
	})
}
