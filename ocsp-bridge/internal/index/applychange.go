package index

import (
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/status"
)

// touch is something whose status the transaction at hand may change.
type touch struct {
	id      wire.CAID
	serial  wire.Serial // nil: a rule or the trust list entry
	rule    uint64
	caState wire.CAState

	rec    *wire.CertRecord // newest, nil: none
	before status.Status    // zero: no record
	was    *changedCert     // what before was made of, nil: no record
	stored bool             // is among the changed certificates
}

// touchCA notes a decision about a CA that is no rule, or a rule.
func (a *applier) touchCA(id wire.CAID, rule uint64) {
	t := &touch{id: id, rule: rule}
	if rule == 0 {
		t.caState = a.view.cas[id].Record.State
	}
	a.touched = append(a.touched, t)
}

// touchCert notes that a certificate's record, which was old (nil: none), becomes rec, or that others revoke the certificate (rec is old then).
// It must be called before the change is in the batch. The record's CA is on the trust list.
func (a *applier) touchCert(id wire.CAID, serial wire.Serial, old, rec *wire.CertRecord) error {
	name := certName{id, string(serial)}
	if t := a.touchedCerts[name]; t != nil {
		t.rec = rec
		return nil
	}
	t := &touch{id: id, serial: serial, rec: rec}
	if old != nil {
		revs, err := a.revokedByOthers(id, serial, old)
		if err != nil {
			return err
		}
		t.was = &changedCert{Rec: *old, Revs: revs}
		t.before = status.Evaluate(old, revs, a.view.cas[id].Rules)
		t.stored = status.Evaluate(old, revs, nil).Bad()
	}
	if a.touchedCerts == nil {
		a.touchedCerts = map[certName]*touch{}
	}
	a.touched, a.touchedCerts[name] = append(a.touched, t), t
	return nil
}

// touchRevoked is touchCert for a revocation by others, which says nothing about the certificate on record if it is of another key.
func (a *applier) touchRevoked(id wire.CAID, serial wire.Serial, rev *wire.Revocation) error {
	rec, err := record(a.batch, id, serial)
	if err != nil || rec == nil || !status.Applies(rev, rec.SPKIHash) { // without a record it waits for the certificate to be issued
		return err
	}
	return a.touchCert(id, serial, rec, rec)
}

func (a *applier) revokedByOthers(id wire.CAID, serial wire.Serial, rec *wire.CertRecord) ([]wire.Revocation, error) {
	if !a.view.cas[id].revokedByOthers {
		return nil, nil
	}
	return revocations(a.batch, id, serial, rec.SPKIHash)
}

// settle stores what the transaction has changed, once all of its writes are in the batch.
func (a *applier) settle() error {
	for _, t := range a.touched {
		c := Change{CAID: t.id, Serial: t.serial, Rule: t.rule, CAState: t.caState, Before: t.before}
		if t.serial != nil {
			var err error
			if c.After, err = a.settleCert(t); err != nil {
				return err
			}
			if !t.tells(&c) {
				continue
			}
			if len(a.view.cas[t.id].Rules) > 0 || t.was != nil && t.was.Rec.SerialOnly() {
				c.was = t.was
			}
			if t.rec.SerialOnly() {
				c.SerialOnly, c.NotAfter = true, t.rec.NotAfter
			}
		}
		if err := a.addChange(&c); err != nil {
			return err
		}
	}
	return nil
}

// tells reports whether c is a change. That a certificate is issued which nobody has put on hold or revoked is none, be it that its serial
// number had been imported. That the certificate of one becomes known which is on hold or revoked is one, though its status is the same:
// which CRLs list it depends on it.
func (t *touch) tells(c *Change) bool {
	switch {
	case !c.Before.Bad() && !c.After.Bad():
		return false
	case c.Before != c.After || t.was == nil:
		return true
	}
	return t.was.Rec.SerialOnly() && (!t.rec.SerialOnly() || t.rec.NotAfter != t.was.Rec.NotAfter)
}

// settleCert keeps the changed certificates, and returns the status.
func (a *applier) settleCert(t *touch) (status.Status, error) {
	revs, err := a.revokedByOthers(t.id, t.serial, t.rec)
	if err != nil {
		return status.Status{}, err
	}
	key := certKey(changedTag, t.id, t.serial)
	if status.Evaluate(t.rec, revs, nil).Bad() {
		c := changedCert{Rec: *t.rec, Revs: revs}
		if err := a.set(key, seal(key, c.encode())); err != nil {
			return status.Status{}, err
		}
	} else if t.stored {
		if err := a.batch.Delete(key, nil); err != nil {
			return status.Status{}, err
		}
	}
	return status.Evaluate(t.rec, revs, a.view.cas[t.id].Rules), nil
}

func (a *applier) addChange(c *Change) error {
	c.Pos, c.At = Pos{a.block.Number, uint32(len(a.changes)) + 1}, wire.MillisOf(a.tx.Time)
	raw, err := c.encode()
	if err != nil {
		return err
	}
	key := changeKey(c.Pos)
	if err := a.set(key, seal(key, raw)); err != nil {
		return err
	}
	a.changes, a.view.Changed = append(a.changes, *c), c.Pos
	last := key32(lastChangeTag, c.CAID)
	return a.set(last, seal(last, appendPos(nil, c.Pos)))
}
