package crls

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/certanchor/certanchor/chaincode"
	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/crl"
	"github.com/certanchor/certanchor/internal/status"
	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/index"
)

const org = "Org1MSP"

// world is a ledger of one organisation that runs the real contract, cut into blocks as the test likes.
type world struct {
	t      testing.TB
	ledger *cctest.Ledger
	cas    []*cctest.CA
	certs  []cert
	blocks []*network.Block

	endorsed []*cctest.Envelope // for the next block
	txs      []network.Tx
}

type cert struct {
	ca     *cctest.CA
	serial wire.Serial
	der    []byte
	urls   []string
}

// urls of shards, and none.
var shards = [][]string{nil, {"http://crl.example/a.crl"}, {"http://crl.example/b.crl"}, {"http://crl.example/a.crl", "http://crl.example/b.crl"}}

func newWorld(t testing.TB, cas int) *world {
	w := &world{t: t, ledger: cctest.NewLedger(t, chaincode.Config{MSPs: []string{org}, TickInterval: 15 * time.Second})}
	w.submit(cctest.Admin(org), wire.FnInit, w.ledger.InitArg())
	w.commit()
	for range cas {
		ca := cctest.NewCA(t)
		w.cas = append(w.cas, ca)
		w.submit(cctest.Admin(org), wire.FnRegisterCA, ca.RegisterArg(org))
		w.commit()
	}
	return w
}

// submit endorses a transaction for the next block. What the contract refuses is left out.
func (w *world) submit(by chaincode.Caller, function string, arg []byte) bool {
	w.ledger.Now = w.ledger.Now.Add(337 * time.Millisecond)
	e, refusal := w.ledger.Endorse(w.t, by, function, arg)
	if refusal != nil {
		return false
	}
	tx := network.Tx{ID: fmt.Sprintf("tx%d-%d", len(w.blocks), len(w.txs)), Time: w.ledger.Now, MSPID: org, Function: function, Arg: arg, Result: e.Result}
	for _, write := range e.Writes {
		tx.Writes = append(tx.Writes, network.Write{Key: write.Key, Value: write.Value})
	}
	w.endorsed, w.txs = append(w.endorsed, e), append(w.txs, tx)
	return true
}

func (w *world) commit() {
	if len(w.endorsed) == 0 {
		return
	}
	b := &network.Block{Number: uint64(len(w.blocks)), Txs: w.txs}
	for i, ok := range w.ledger.Commit(w.t, w.endorsed...) {
		b.Txs[i].Valid = ok
	}
	if len(w.blocks) > 0 {
		b.PrevHash = w.blocks[len(w.blocks)-1].Hash
	}
	h := sha256.Sum256(binary.BigEndian.AppendUint64(slices.Clone(b.PrevHash), b.Number))
	b.Hash, w.blocks, w.endorsed, w.txs = h[:], append(w.blocks, b), nil, nil
}

func (w *world) issue(ca *cctest.CA, urls []string) *cert {
	der, parsed := ca.Issue(w.t, func(c *x509.Certificate) { c.CRLDistributionPoints = urls })
	w.certs = append(w.certs, cert{ca: ca, serial: cctest.Serial(w.t, parsed), der: der, urls: urls})
	w.submit(cctest.Operator(org), wire.FnIssue, ca.IssueArg(der))
	return &w.certs[len(w.certs)-1]
}

// set changes a status in a block of its own.
func (w *world) set(c *cert, op wire.StatusOp, reason wire.Reason) {
	w.t.Helper()
	w.commit()
	if !w.submit(cctest.Operator(org), wire.FnSetStatus, c.ca.StatusArg(wire.StatusChange{Serial: c.serial, Op: op, Reason: reason})) {
		w.t.Fatal("the contract refuses a change of status")
	}
	w.commit()
}

// tick lets time pass: 8 seconds.
func (w *world) tick() {
	w.ledger.Now = w.ledger.Now.Add(8 * time.Second)
	w.submit(cctest.Auditor(org), wire.FnTick, cctest.TickArg())
}

// step does something that somebody could do.
func (w *world) step(r *rapid.T) {
	pick := func(n int, what string) int { return rapid.IntRange(0, n-1).Draw(r, what) }
	ca := w.cas[pick(len(w.cas), "ca")]
	if len(w.certs) == 0 {
		w.issue(ca, shards[pick(len(shards), "shard")])
		return
	}
	c := &w.certs[pick(len(w.certs), "cert")]
	now := wire.MillisOf(w.ledger.Now)
	switch rapid.SampledFrom([]string{"issue", "status", "status", "status", "status", "holder", "quorum", "rule", "import", "import", "tick", "commit", "commit", "commit"}).Draw(r, "step") {
	case "issue":
		w.issue(ca, shards[pick(len(shards), "shard")])
	case "status":
		ops := []wire.StatusChange{
			{Op: wire.OpHold, Reason: wire.CertificateHold}, {Op: wire.OpHold, Reason: wire.CertificateHold}, {Op: wire.OpRelease}, {Op: wire.OpRelease},
			{Op: wire.OpRevoke, Reason: wire.Superseded, Invalidity: 1_700_000_000_123}, {Op: wire.OpRevoke, Reason: wire.KeyCompromise}, {Op: wire.OpRevoke},
		}
		op := ops[pick(len(ops), "op")]
		op.Serial = c.serial
		w.submit(cctest.Operator(org), wire.FnSetStatus, c.ca.StatusArg(op))
	case "holder":
		reason := []wire.Reason{wire.Unspecified, wire.KeyCompromise}[pick(2, "reason")]
		w.submit(cctest.Auditor(org), wire.FnRevoke, c.ca.RevokeArg(w.t, cctest.Channel, c.der, reason, w.ledger.Now))
	case "quorum":
		w.submit(cctest.Admin(org), wire.FnDecide, c.ca.QuorumArg(c.serial, wire.PrivilegeWithdrawn))
	case "rule":
		var rec wire.CARecord
		cctest.Decode(w.t, w.ledger.Store.Value(wire.CAKey(ca.ID)), &rec)
		from := now - wire.Millis(500*(1+pick(20, "from")))
		w.submit(cctest.Admin(org), wire.FnDecide, ca.RuleArg(rec.Change, from, from+wire.Millis(500*(1+pick(6, "length"))), wire.CACompromise))
	case "import":
		w.importOne(r, ca, c)
	case "tick":
		w.tick()
	case "commit":
		w.commit()
	}
}

// importOne imports c or a new certificate, or its serial number.
func (w *world) importOne(r *rapid.T, ca *cctest.CA, c *cert) {
	pick := func(n int, what string) int { return rapid.IntRange(0, n-1).Draw(r, what) }
	if pick(2, "new") == 0 {
		urls := shards[pick(len(shards), "shard")]
		der, parsed := ca.Issue(w.t, func(c *x509.Certificate) {
			c.CRLDistributionPoints = urls
			c.NotAfter = w.ledger.Now.Add(time.Duration(pick(2, "expired")-1) * 100 * time.Hour) // or about now
		})
		w.certs = append(w.certs, cert{ca: ca, serial: cctest.Serial(w.t, parsed), der: der, urls: urls})
		c = &w.certs[len(w.certs)-1]
	}
	now := wire.MillisOf(w.ledger.Now)
	item := []wire.ImportItem{
		{State: wire.CertValid}, {State: wire.CertHeld, Reason: wire.CertificateHold, Revoked: now - 5000}, {State: wire.CertRevoked, Reason: wire.Superseded, Revoked: now - 3_600_123},
	}[pick(3, "state")]
	if pick(2, "with certificate") == 1 {
		item.HasCert = true
		w.submit(cctest.Operator(org), wire.FnImport, c.ca.ImportArg([]wire.ImportItem{item}, c.der))
		return
	}
	item.Serial, item.NotAfter = c.serial, wire.Millis(pick(2, "not after"))*(now-wire.Millis(100*time.Hour/time.Millisecond))
	w.submit(cctest.Operator(org), wire.FnImport, c.ca.ImportArg([]wire.ImportItem{item}))
}

// index returns an index of the first blocks.
func (w *world) index(blocks int) *index.Index {
	w.t.Helper()
	dir := w.t.TempDir()
	if r, ok := w.t.(*testing.T); ok { // a directory for each of rapid's runs
		dir = r.TempDir()
	}
	ix, err := index.Open(index.Options{Dir: dir, Channel: cctest.Channel, Now: func() time.Time { return w.ledger.Now }, Log: quiet()})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = ix.Close() })
	w.apply(ix, blocks)
	return ix
}

// apply brings an index up to a height.
func (w *world) apply(ix *index.Index, height int) {
	w.t.Helper()
	for _, b := range w.blocks[ix.View().Height:height] {
		if err := ix.Apply(b); err != nil {
			w.t.Fatal(err)
		}
	}
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// reference knows the status of every certificate at every height, by evaluating all records after each block.
type reference struct {
	t     testing.TB
	recs  map[string]*wire.CertRecord
	revs  map[string][]wire.Revocation
	rules map[wire.CAID][]wire.Rule
	at    []map[string]status.Status   // by height, then wire.CertKey
	bare  []map[string]wire.CertRecord // likewise, of serial numbers without certificates
}

func (w *world) reference() *reference {
	ref := &reference{t: w.t, recs: map[string]*wire.CertRecord{}, revs: map[string][]wire.Revocation{}, rules: map[wire.CAID][]wire.Rule{}}
	ref.at, ref.bare = append(ref.at, nil), append(ref.bare, nil)
	for _, b := range w.blocks {
		for i := range b.Txs {
			if b.Txs[i].Valid {
				for _, write := range b.Txs[i].Writes {
					if err := ref.write(write); err != nil {
						w.t.Fatal(err)
					}
				}
			}
		}
		now, bare := map[string]status.Status{}, map[string]wire.CertRecord{}
		for k, rec := range ref.recs {
			id, _, err := wire.ParseCertKey(k)
			if err != nil {
				w.t.Fatal(err)
			}
			now[k] = status.Evaluate(rec, ref.revs[k], ref.rules[id])
			if rec.SerialOnly() {
				bare[k] = *rec
			}
		}
		ref.at, ref.bare = append(ref.at, now), append(ref.bare, bare)
	}
	return ref
}

func (ref *reference) write(w network.Write) error {
	switch {
	case strings.HasPrefix(w.Key, wire.CertPrefix):
		ref.recs[w.Key] = new(wire.CertRecord)
		return wire.Decode(w.Value, ref.recs[w.Key])
	case strings.HasPrefix(w.Key, wire.RevokePrefix):
		id, serial, _, err := wire.ParseRevokeKey(w.Key)
		if err != nil {
			return err
		}
		var rev wire.Revocation
		k := wire.CertKey(id, serial)
		ref.revs[k] = slices.DeleteFunc(ref.revs[k], func(r wire.Revocation) bool {
			return r.Source == rev.Source && slices.Equal(r.SPKIHash, rev.SPKIHash)
		})
		if err := wire.Decode(w.Value, &rev); err != nil {
			return err
		}
		ref.revs[k] = slices.DeleteFunc(ref.revs[k], func(r wire.Revocation) bool {
			return r.Source == rev.Source && slices.Equal(r.SPKIHash, rev.SPKIHash)
		})
		ref.revs[k] = append(ref.revs[k], rev)
	case strings.HasPrefix(w.Key, wire.RulePrefix):
		id, _, err := wire.ParseRuleKey(w.Key)
		if err != nil {
			return err
		}
		var rule wire.Rule
		if err := wire.Decode(w.Value, &rule); err != nil {
			return err
		}
		ref.rules[id] = append(ref.rules[id], rule)
	}
	return nil
}

// contents is what a CRL must say, by the definitions of docs/crl.md.
func (ref *reference) contents(w *world, r Request) *crl.Contents {
	c := &crl.Contents{CAID: r.CAID, Scope: r.Scope, Number: r.Number, Base: r.Base, ThisUpdate: r.ThisUpdate}
	for _, cert := range w.certs {
		k := wire.CertKey(r.CAID, cert.serial)
		st, issued := ref.at[r.Number][k]
		if cert.ca.ID != r.CAID || !issued || r.Scope != "" && !slices.Contains(cert.urls, r.Scope) {
			continue
		}
		bare, isBare := ref.bare[r.Number][k]
		notAfter := ref.recs[k].NotAfter
		if isBare {
			notAfter = bare.NotAfter
		}
		if isBare && r.Scope != "" || notAfter != 0 && !crl.Lists(notAfter, r.ThisUpdate) {
			continue
		}
		e := crl.Entry{Serial: cert.serial, Time: crl.Seconds(st.Time / 1000)}
		if st.Bad() {
			e.Time, e.Reason, e.Invalidity = crl.Seconds(st.Since()/1000), st.Reason, crl.Seconds(st.Invalidity/1000)
		}
		if r.Base == 0 {
			if st.Bad() {
				c.Entries = append(c.Entries, e)
			}
			continue
		}
		changed, held := false, ref.at[r.Base][k].State == wire.CertHeld
		for h := r.Base + 1; h <= r.Number; h++ {
			was, is := ref.at[h-1][k], ref.at[h][k]
			wasBare, before := ref.bare[h-1][k]
			isBare, after := ref.bare[h][k]
			changed = changed || was != is || is.Bad() && (before != after || wasBare.NotAfter != isBare.NotAfter)
			held = held || is.State == wire.CertHeld
		}
		if e.Remove = !st.Bad(); changed && (!e.Remove || held) {
			c.Entries = append(c.Entries, e)
		}
	}
	crl.Sort(c.Entries)
	return c
}
