package chaincode_test

import (
	"strings"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// check holds the ledger against the model and against what must never happen, whatever the model thinks.
func (w *world) check() {
	counts := make(map[string]int)
	for _, key := range w.l.Store.Keys() {
		family, _, _ := strings.Cut(key, "/")
		counts[family]++
		if family == "cert" {
			w.checkFinality(key)
		}
	}
	w.m.checkStatusLog(w.rt, w.l)
	for _, ca := range w.m.cas {
		w.checkCA(ca)
		counts["cert"] -= len(ca.certs)
		counts["revoke"] -= len(ca.revocations)
		counts["rule"] -= len(ca.rules)
	}
	if counts["cert"] != 0 || counts["revoke"] != 0 || counts["rule"] != 0 {
		w.rt.Fatalf("keys more than the model has: %v", counts)
	}
}

// checkFinality: a revoked certificate stays revoked. Its record keeps the date, and its reason changes to keyCompromise only. What
// is told, others' revocations included, may get an earlier date, from a transaction that claims an earlier time than one before
// it, but never a later one.
func (w *world) checkFinality(key string) {
	rec := record[wire.CertRecord](w.rt, w.l, key)
	was := w.revoked[key]
	if was != nil && (rec.State != wire.CertRevoked || rec.StatusTime != was.StatusTime || rec.Asserted != was.Asserted || rec.Antedated != was.Antedated || rec.Change < was.Change ||
		rec.Reason != was.Reason && rec.Reason != wire.KeyCompromise || was.Final != nil && rec.Final.Index != was.Final.Index) {
		w.rt.Fatalf("revoked as %+v became %+v", was, rec)
	}
	if rec.State == wire.CertRevoked {
		w.revoked[key] = rec
	}
	id, serial, err := wire.ParseCertKey(key)
	if err != nil {
		w.rt.Fatal(err)
	}
	told, now := w.told[key], evaluate(w.rt, w.l, id, serial)
	if told.State == wire.CertRevoked && (now.State != wire.CertRevoked || now.Time > told.Time || now.Since() > told.Since() ||
		told.Reason == wire.KeyCompromise && now.Reason != wire.KeyCompromise) {
		w.rt.Fatalf("told as %+v became %+v", told, now)
	}
	if now.State == wire.CertRevoked {
		w.told[key] = now
	}
	// Whatever is imported: what was good is bad from when the ledger says so.
	if now.Bad() && w.good[key] && now.Since() != now.Time {
		w.rt.Fatalf("was good, and became %+v, told since %d", now, now.Since())
	}
	w.good[key] = w.good[key] || now.State == wire.CertValid
}

// checkCA: every certificate is on the ledger once, at its index, with the model's status.
func (w *world) checkCA(ca *modelCA) {
	entry := record[wire.CARecord](w.rt, w.l, wire.CAKey(ca.id))
	if entry.State != ca.state || entry.StateTime != ca.since || entry.SuspendedBy != ca.suspendedBy || entry.Change != ca.change ||
		entry.Settled != ca.settled || entry.Rules != uint64(len(ca.rules)) {
		w.rt.Fatalf("trust list entry is %+v, want %+v", entry, ca)
	}
	for _, c := range ca.certs {
		w.checkCert(ca, c)
	}
	head := record[wire.LogHead](w.rt, w.l, wire.LogHeadKey(ca.id))
	if head.Size != uint64(len(ca.log)) || string(head.Root) != string(referenceRoot(ca.log)) || string(head.Root) != string(tlogRoot(w.rt, ca.log)) {
		w.rt.Fatalf("log head is %d %x, want %d %x", head.Size, head.Root, len(ca.log), referenceRoot(ca.log))
	}
}

func (w *world) checkCert(ca *modelCA, c *modelCert) {
	rec := record[wire.CertRecord](w.rt, w.l, wire.CertKey(ca.id, wire.Serial(c.serial)))
	places := c.places
	for _, e := range []struct {
		cert  *testCert
		entry *wire.LogEntry
	}{{c.pre, rec.Pre}, {c.final, rec.Final}} {
		if (e.cert == nil) != (e.entry == nil) {
			w.rt.Fatalf("record is %+v, want %+v", rec, c)
		}
		if e.cert == nil {
			continue
		}
		if e.entry.Index != places[0].Index || e.entry.Time != places[0].Time || string(e.entry.LeafHash) != string(ca.log[e.entry.Index]) {
			w.rt.Fatalf("entry is %+v, want %+v", e.entry, places[0])
		}
		places = places[1:]
	}
	if rec.Imported != c.imported || rec.Asserted != c.asserted || rec.Antedated != (c.antedated && c.state != wire.CertValid) || c.bare() != (len(rec.SPKIHash) == 0) || c.bare() && rec.NotAfter != c.notAfter {
		w.rt.Fatalf("record is %+v, want %+v", rec, c)
	}
	if got, want := evaluate(w.rt, w.l, ca.id, wire.Serial(c.serial)), ca.evaluate(c); got != want {
		w.rt.Fatalf("status is %+v, want %+v", got, want)
	}
}
