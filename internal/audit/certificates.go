package audit

import (
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
	revoked map[string][]wire.Revocation // by the certificate's key
	rules   map[wire.CAID][]wire.Rule
	changed map[string]wire.Millis // by the certificate's key or the rule's
}

func (a *Auditor) decisions() (*decisions, error) {
	d := &decisions{revoked: map[string][]wire.Revocation{}, rules: map[wire.CAID][]wire.Rule{}, changed: map[string]wire.Millis{}}
	var bad error
	err := a.Scan(wire.RevokePrefix, func(key string, value []byte) bool {
		var r wire.Revocation
		id, serial, _, err := wire.ParseRevokeKey(key)
		if err == nil {
			err = wire.Decode(value, &r)
		}
		if bad = err; bad != nil {
			return false
		}
		cert := wire.CertKey(id, serial)
		d.revoked[cert] = append(d.revoked[cert], r)
		at, err := a.changed(key)
		d.changed[cert], bad = max(d.changed[cert], at), err
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

// changed returns when the value at a contract's key was changed last, 0 if only Issue wrote it.
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
	c := &Certificate{CAID: id, Serial: serial, Changed: d.changed[key]}
	if err := wire.Decode(value, &c.Record); err != nil {
		return nil, err
	}
	rules := d.rules[id]
	c.Status = status.Evaluate(&c.Record, d.revoked[key], rules)
	if c.Record.Change > 0 {
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
