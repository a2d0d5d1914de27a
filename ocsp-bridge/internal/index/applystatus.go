package index

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/network"
)

// applyCA replicates a trust list entry. Each write is one decision.
func (a *applier) applyCA(w network.Write) error {
	id, err := wire.ParseCAID(strings.TrimPrefix(w.Key, wire.CAPrefix))
	if err != nil {
		return a.diverges("key", w.Key, "%v", err)
	}
	old := &wire.CARecord{}
	if ca := a.view.cas[id]; ca != nil {
		old = ca.Record
	}
	a.view.own()
	if err := a.view.addCA(id, w.Value); err != nil {
		return a.unreadable(w, err)
	}
	a.cas[id] = true
	rec := a.view.cas[id].Record
	if rec.Change != old.Change+1 {
		return a.diverges(w.Key+" change", fmt.Sprint(rec.Change), "it was %d before", old.Change)
	}
	if rec.Rules == old.Rules {
		a.touchCA(id, 0)
		a.expect(w.Key, &wire.StatusLeaf{
			V: wire.Version, Kind: wire.LeafCA, CAID: id, Change: rec.Change, State: uint(rec.State), Time: rec.StateTime,
		})
	} else if rec.State != old.State || rec.StateTime != old.StateTime { // a rule brings a leaf of its own, which does not tell
		return a.diverges(w.Key+" state", fmt.Sprint(rec.State), "it was %d before, and a rule does not change it", old.State)
	}
	return a.set(key32(caTag, id), w.Value)
}

// applyRule replicates a rule. Rules never change.
func (a *applier) applyRule(w network.Write) error {
	id, n, err := wire.ParseRuleKey(w.Key)
	if err != nil {
		return a.diverges("key", w.Key, "%v", err)
	}
	a.view.own()
	if err := a.view.addRule(id, n, w.Value); err != nil {
		return a.diverges(w.Key, "refused", "%v", err)
	}
	a.cas[id] = true
	a.touchCA(id, n)
	rule := a.view.cas[id].Rules[n-1]
	a.expect(w.Key, &wire.StatusLeaf{
		V: wire.Version, Kind: wire.LeafRule, CAID: id, Change: n, State: uint(wire.CertRevoked), Reason: rule.Reason,
		Time: rule.Time, Invalidity: rule.Invalidity, From: rule.From, To: rule.To,
	})
	return a.set(ruleKey(ruleTag, id, n), w.Value)
}

// applyCert replicates a certificate's record. A record counts only with its leaf in the log.
func (a *applier) applyCert(w network.Write) error {
	id, serial, err := wire.ParseCertKey(w.Key)
	if err != nil {
		return a.diverges("key", w.Key, "%v", err)
	}
	if a.view.cas[id] == nil {
		return a.diverges("key", w.Key, "its CA is not on the trust list")
	}
	var rec wire.CertRecord
	if err := wire.Decode(w.Value, &rec); err != nil {
		return a.unreadable(w, err)
	}
	old, err := record(a.batch, id, serial)
	if err != nil {
		return err
	}
	if err := a.touchCert(id, serial, old, &rec); err != nil {
		return err
	}
	isNew := old == nil
	if isNew {
		old = &wire.CertRecord{V: wire.Version, State: wire.CertValid, StatusTime: rec.StatusTime, SPKIHash: rec.SPKIHash, NotAfter: rec.NotAfter}
	}
	if err := a.checkImported(w.Key, &rec, old, isNew); err != nil {
		return err
	}
	if err := a.checkEntries(w.Key, id, serial, &rec, old); err != nil {
		return err
	}
	if err := a.checkSuccession(w.Key, &rec, old); err != nil {
		return err
	}
	if rec.Change != old.Change {
		a.expect(w.Key, rec.Leaf(id, serial))
	}
	return a.set(certKey(certTag, id, serial), w.Value)
}

// checkEntries: a record names leaves of its own certificate, and never another than it has named.
func (a *applier) checkEntries(name string, id wire.CAID, serial wire.Serial, rec, old *wire.CertRecord) error {
	if rec.SerialOnly() {
		return a.checkBare(name, rec, old)
	}
	// What was known by its serial number only has its certificate now, which is compared below.
	if !old.SerialOnly() && (!bytes.Equal(rec.SPKIHash, old.SPKIHash) || rec.NotAfter != old.NotAfter) {
		return a.diverges(name, fmt.Sprintf("key %x, notAfter %d", rec.SPKIHash, rec.NotAfter), "it had key %x, notAfter %d", old.SPKIHash, old.NotAfter)
	}
	for _, e := range []struct {
		kind     merklelog.Kind
		now, was *wire.LogEntry
	}{{merklelog.X509, rec.Final, old.Final}, {merklelog.Precert, rec.Pre, old.Pre}} {
		if e.was != nil && !reflect.DeepEqual(e.now, e.was) {
			return a.diverges(name, "of another leaf", "it named leaf %d", e.was.Index)
		}
		if e.now == nil || e.was != nil { // what was named before was compared then
			continue
		}
		leaf, err := a.checkLeaf(id, e.now, e.kind, serial)
		if err != nil {
			return err
		}
		if !bytes.Equal(leaf.spkiHash[:], rec.SPKIHash) || leaf.notAfter != rec.NotAfter {
			return a.diverges(name, fmt.Sprintf("key %x, notAfter %d", rec.SPKIHash, rec.NotAfter), "its leaf's certificate has key %x, notAfter %d", leaf.spkiHash, leaf.notAfter)
		}
		delete(a.unclaimed, place{logID(id), e.now.Index})
	}
	return nil
}

// checkSuccession: changes are counted one by one, none is dated before the one before it, and a final revocation is never
// undone, keeps its date, and changes its reason to keyCompromise at most.
func (a *applier) checkSuccession(name string, rec, old *wire.CertRecord) error {
	same := rec.State == old.State && rec.Reason == old.Reason && rec.StatusTime == old.StatusTime && rec.Invalidity == old.Invalidity && rec.Asserted == old.Asserted && rec.Antedated == old.Antedated
	switch {
	case rec.Change == old.Change && same:
		return nil
	case rec.Change == old.Change:
		return a.diverges(name, fmt.Sprintf("state %d since %d, change %d", rec.State, rec.StatusTime, rec.Change),
			"it was %d since %d, and every change of status is counted", old.State, old.StatusTime)
	case rec.Change != old.Change+1:
		return a.diverges(name+" change", fmt.Sprint(rec.Change), "it was %d before", old.Change)
	case rec.StatusTime < old.StatusTime:
		return a.diverges(name+" time", fmt.Sprint(rec.StatusTime), "the change before was at %d", old.StatusTime)
	}
	if old.State != wire.CertRevoked {
		return nil
	}
	if rec.State != wire.CertRevoked || rec.StatusTime != old.StatusTime || rec.Asserted != old.Asserted || rec.Antedated != old.Antedated {
		return a.diverges(name, fmt.Sprintf("state %d since %d (asserted %d)", rec.State, rec.StatusTime, rec.Asserted),
			"it was revoked at %d (asserted %d), which is final", old.StatusTime, old.Asserted)
	}
	return a.checkReason(name, rec.Reason, old.Reason)
}

// checkReason: of a final revocation.
func (a *applier) checkReason(name string, now, was wire.Reason) error {
	if now != was && now != wire.KeyCompromise {
		return a.diverges(name+" reason", now.String(), "it was %s, which may only become keyCompromise", was)
	}
	return nil
}

// applyRevocation replicates a revocation by others. The first one of a source stays, and its date.
func (a *applier) applyRevocation(w network.Write) error {
	id, serial, source, err := wire.ParseRevokeKey(w.Key)
	if err != nil {
		return a.diverges("key", w.Key, "%v", err)
	}
	var rev wire.Revocation
	if err := wire.Decode(w.Value, &rev); err != nil {
		return a.unreadable(w, err)
	}
	if want := sourceOf(&rev); source != want {
		return a.diverges(w.Key, "by the source "+want, "must be by its key's")
	}
	ca := a.view.cas[id]
	if ca == nil {
		return a.diverges("key", w.Key, "its CA is not on the trust list")
	}
	if err := a.touchRevoked(id, serial, &rev); err != nil {
		return err
	}
	old, err := revocation(a.batch, id, serial, rev.Source, rev.SPKIHash)
	if err != nil {
		return err
	}
	if old == nil {
		old = &wire.Revocation{}
	} else if err := a.checkReason(w.Key, rev.Reason, old.Reason); err != nil {
		return err
	} else if rev.Time != old.Time {
		return a.diverges(w.Key+" time", fmt.Sprint(rev.Time), "it was revoked at %d, which is final", old.Time)
	}
	if rev.Change != old.Change+1 {
		return a.diverges(w.Key+" change", fmt.Sprint(rev.Change), "it was %d before", old.Change)
	}
	if !ca.revokedByOthers {
		a.view.own()
		changed := *ca
		changed.revokedByOthers = true
		a.view.cas[id] = &changed
	}
	a.expect(w.Key, &wire.StatusLeaf{
		V: wire.Version, Kind: wire.LeafRevocation, CAID: id, Serial: serial, Change: rev.Change, State: uint(wire.CertRevoked),
		Reason: rev.Reason, Time: rev.Time, Invalidity: rev.Invalidity, Source: rev.Source, SPKIHash: rev.SPKIHash,
	})
	return a.set(revokedKey(id, serial, rev.Source, rev.SPKIHash), w.Value)
}

// sourceOf is the last part of a revocation's key.
func sourceOf(r *wire.Revocation) string {
	switch {
	case r.Source == wire.SourceQuorum && len(r.SPKIHash) == 0:
		return wire.QuorumSource()
	case r.Source == wire.SourceHolder && len(r.SPKIHash) == 32:
		return wire.HolderSource([32]byte(r.SPKIHash))
	}
	return "unknown"
}
