package audit

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/status"
)

// Certificate is what the ledger has about one certificate.
type Certificate struct {
	CAID    wire.CAID
	Serial  wire.Serial
	Record  wire.CertRecord
	Status  status.Status
	Changed wire.Millis // the ledger's time when anything about its status changed; 0: never since it was issued
}

// Plain reports whether nothing was ever said about the certificate since it was issued.
func (c *Certificate) Plain() bool { return c.Status.State == wire.CertValid && c.Changed == 0 }

// decisions are what others than a certificate's CA have said.
type decisions struct {
	revoked map[string]wire.Revocation // by the contract's key: a serial number may have any number of them
	rules   map[wire.CAID][]wire.Rule
	changed map[string]wire.Millis // by the contract's key
}

func (a *Auditor) decisions() (*decisions, error) {
	d := &decisions{revoked: map[string]wire.Revocation{}, rules: map[wire.CAID][]wire.Rule{}, changed: map[string]wire.Millis{}}
	var bad error
	err := a.Scan(wire.RevokePrefix, func(key string, value []byte) bool {
		var r wire.Revocation
		_, _, _, err := wire.ParseRevokeKey(key)
		if err == nil {
			err = wire.Decode(value, &r)
		}
		if bad = err; bad != nil {
			return false
		}
		d.revoked[key] = r
		d.changed[key], bad = a.changed(key)
		return bad == nil
	})
	if err != nil || bad != nil {
		return nil, errorOf(err, bad)
	}
	err = a.Scan(wire.RulePrefix, func(key string, value []byte) bool {
		var r wire.Rule
		id, _, err := wire.ParseRuleKey(key)
		if err == nil {
			err = wire.Decode(value, &r)
		}
		if bad = err; bad != nil {
			return false
		}
		d.rules[id] = append(d.rules[id], r)
		d.changed[key], bad = a.changed(key)
		return bad == nil
	})
	return d, errorOf(err, bad)
}

// changed returns when the value at a contract's key last changed what is answered, 0 if it only records that a certificate is issued.
func (a *Auditor) changed(key string) (wire.Millis, error) {
	value, err := a.read(changedKey(key))
	if err != nil || len(value) != 8 {
		return 0, err
	}
	return wire.Millis(binary.BigEndian.Uint64(value)), nil
}

// Certificates calls fn with every certificate, in the order of CA and serial number, until it fails.
func (a *Auditor) Certificates(fn func(*Certificate) error) error {
	d, err := a.decisions()
	if err != nil {
		return err
	}
	var bad error
	err = a.Scan(wire.CertPrefix, func(key string, value []byte) bool {
		var c *Certificate
		if c, bad = a.certificate(d, key, value); bad == nil {
			bad = fn(c)
		}
		return bad == nil
	})
	return errorOf(err, bad)
}

// Certificate returns one certificate, nil if the ledger does not have it.
func (a *Auditor) Certificate(id wire.CAID, serial wire.Serial) (*Certificate, error) {
	key := wire.CertKey(id, serial)
	value, err := a.Get(key)
	if err != nil || value == nil {
		return nil, err
	}
	d, err := a.decisions()
	if err != nil {
		return nil, err
	}
	return a.certificate(d, key, value)
}

func (a *Auditor) certificate(d *decisions, key string, value []byte) (*Certificate, error) {
	id, serial, err := wire.ParseCertKey(key)
	if err != nil {
		return nil, err
	}
	c := &Certificate{CAID: id, Serial: serial}
	if err := wire.Decode(value, &c.Record); err != nil {
		return nil, err
	}
	sources := []string{wire.QuorumSource()}
	if len(c.Record.SPKIHash) == sha256.Size {
		sources = append(sources, wire.HolderSource([sha256.Size]byte(c.Record.SPKIHash)))
	}
	var revs []wire.Revocation
	for _, source := range sources {
		of := wire.RevokeKey(id, serial, source)
		if r, ok := d.revoked[of]; ok {
			revs = append(revs, r)
			c.Changed = max(c.Changed, d.changed[of])
		}
	}
	rules := d.rules[id]
	c.Status = status.Evaluate(&c.Record, revs, rules)
	if c.Record.Change > 0 || c.Record.Imported {
		at, err := a.changed(key)
		if err != nil {
			return nil, err
		}
		c.Changed = max(c.Changed, at)
	}
	for i := range rules {
		if r := &rules[i]; status.Covers(r, c.Record.Pre) || status.Covers(r, c.Record.Final) {
			c.Changed = max(c.Changed, d.changed[wire.RuleKey(id, r.N)])
		}
	}
	return c, nil
}

// errorOf is the first error that there is.
func errorOf(all ...error) error {
	for _, err := range all {
		if err != nil {
			return err
		}
	}
	return nil
}
