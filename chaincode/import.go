package chaincode

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// importing is one item of an Import while the transaction decides about it.
type importing struct {
	*wire.ImportItem
	field  string // items[i]
	serial wire.Serial
	key    string
	s      *submission     // nil: a serial number only
	rec    wire.CertRecord // as it will be
	before uint64          // its change number before
	first  bool            // the ledger has told no status of it before: neither a certificate's, nor a change of a serial number's
	dirty  bool            // it must be written
}

// importCerts records certificates that a CA has issued, and the status that it says they have. It merges: what the ledger has stays, and
// a status is only made worse (docs/decisions/0011-import.md). Without certificates it does not compete with issuance.
func importCerts(t *transaction, arg []byte) ([]byte, error) {
	var a wire.ImportArg
	if err := wire.Decode(arg, &a); err != nil {
		return nil, badArgument(arg, err)
	}
	items, keys, err := parseItems(&a, t.now)
	if err != nil {
		return nil, err
	}
	of := []string{wire.CAKey(a.CAID)}
	if len(a.Packed) > 0 {
		of = append(of, wire.LogHeadKey(a.CAID))
	}
	values, err := t.admit(operators, of...)
	if err != nil {
		return nil, err
	}
	ca, err := t.operatedCA(a.CAID, values[0])
	if err != nil {
		return nil, err
	}
	records, err := t.getMany(keys)
	if err != nil {
		return nil, err
	}
	log := &issuanceLog{id: a.CAID, time: t.now} // to which nothing is appended
	var issuers []*x509.Certificate
	if len(a.Packed) > 0 {
		if issuers, err = parseIssuers(a.CAID, ca); err != nil {
			return nil, err
		}
		if log, err = openLog(a.CAID, values[1], t.now); err != nil {
			return nil, err
		}
	}
	for i, m := range items {
		if err := m.place(records[i], ca, issuers, log, t.now); err != nil {
			return nil, err
		}
	}
	if err := t.mergeStatus(a.CAID, ca, items); err != nil {
		return nil, err
	}
	return t.saveImport(a.CAID, items, log)
}

// parseItems checks what can be checked without state, and returns the items and the keys of their records.
func parseItems(a *wire.ImportArg, now wire.Millis) ([]*importing, []string, error) {
	if err := checkBatch("items", len(a.Items)); err != nil {
		return nil, nil, err
	}
	certs, err := a.Certs()
	if err != nil {
		return nil, nil, err
	}
	items := make([]*importing, len(a.Items))
	keys := make([]string, len(a.Items))
	first := make(map[string]int, len(a.Items))
	taken := 0
	for i := range a.Items {
		m := &importing{ImportItem: &a.Items[i], field: fmt.Sprintf("items[%d]", i)}
		if err := m.check(now); err != nil {
			return nil, nil, err
		}
		m.serial = m.Serial
		if m.HasCert {
			if taken == len(certs) {
				return nil, nil, invalid(m.field+".has_cert", "true", "must be as often as there are certificates: %d", len(certs))
			}
			if err := m.parse(certs[taken]); err != nil {
				return nil, nil, err
			}
			taken++
		}
		m.key = wire.CertKey(a.CAID, m.serial)
		if m.s != nil {
			m.s.key = m.key
		}
		items[i], keys[i] = m, m.key
		if other, twice := first[m.key]; twice {
			return nil, nil, invalid(m.field+".serial", m.serial.String(), "must not repeat in one batch: it is also the serial of items[%d]", other)
		}
		first[m.key] = i
	}
	if taken != len(certs) {
		return nil, nil, invalid("certs", fmt.Sprint(len(certs)), "must be as many as there are items with has_cert: %d", taken)
	}
	return items, keys, nil
}

// check says whether the fields of an item go together.
func (m *importing) check(now wire.Millis) error {
	switch {
	case m.HasCert && len(m.Serial) != 0:
		return invalid(m.field+".serial", m.Serial.String(), "must be left out of an item with a certificate, which has it")
	case m.HasCert && m.NotAfter != 0:
		return invalid(m.field+".not_after", timeText(m.NotAfter.Time()), "must be left out of an item with a certificate, which has it")
	case !m.HasCert && m.Serial.Check() != nil:
		return invalid(m.field+".serial", m.Serial.String(), "must be 1 to %d octets without a leading zero (RFC 5280 section 4.1.2.2)", wire.MaxSerial)
	case m.NotAfter < 0 || m.NotAfter > wire.MillisOf(maxTime):
		return invalid(m.field+".not_after", fmt.Sprintf("%d ms", m.NotAfter), "must be from 1970 to 9999, or 0 if it is not known")
	}
	switch m.State {
	case wire.CertValid:
		if m.Reason != wire.Unspecified {
			return invalid(m.field+".reason", m.Reason.String(), "must be unspecified for a valid certificate")
		}
		if m.Revoked != 0 {
			return invalid(m.field+".revoked", timeText(m.Revoked.Time()), "only a hold or revocation has a date")
		}
	case wire.CertHeld:
		if m.Reason != wire.CertificateHold {
			return invalid(m.field+".reason", m.Reason.String(), "must be certificateHold for a hold")
		}
	case wire.CertRevoked:
		if err := checkRevocation(m.field+".", m.Reason, m.Invalidity, now); err != nil {
			return err
		}
	default:
		return invalid(m.field+".state", fmt.Sprint(uint(m.State)), "must be %d (valid), %d (held) or %d (revoked)", wire.CertValid, wire.CertHeld, wire.CertRevoked)
	}
	if m.State != wire.CertRevoked && m.Invalidity != 0 {
		return invalid(m.field+".invalidity", timeText(m.Invalidity.Time()), "only a revocation has an invalidity date")
	}
	// A CRL tells whole seconds, of which 0 is no date.
	if m.State != wire.CertValid && (m.Revoked < 1000 || m.Revoked > now) {
		return invalid(m.field+".revoked", timeText(m.Revoked.Time()), "must be at least a second after 1970 and not after the transaction's time, %s", timeText(now.Time()))
	}
	return nil
}

func (m *importing) parse(der []byte) (err error) {
	if m.s, err = parseSubmission(m.field+".cert", der); err != nil {
		return err
	}
	if m.s.pre {
		return invalid(m.s.field, m.s.cert.SerialNumber.Text(16), "must be a certificate; a precertificate is recorded by %s", wire.FnIssue)
	}
	if m.serial, err = wire.SerialOf(m.s.cert.SerialNumber); err != nil {
		return invalid(m.s.field+".serial", m.s.cert.SerialNumber.Text(16), "must be positive and at most 20 octets (RFC 5280 section 4.1.2.2)")
	}
	return nil
}

// place makes the item's record: the one that there is, with the certificate if that is new to it, or a new one.
func (m *importing) place(value []byte, ca *wire.CARecord, issuers []*x509.Certificate, log *issuanceLog, now wire.Millis) error {
	if value == nil {
		m.rec = wire.CertRecord{V: wire.Version, State: wire.CertValid, StatusTime: log.time, NotAfter: m.NotAfter, Imported: true}
		m.dirty = true
	} else if err := wire.Decode(value, &m.rec); err != nil {
		return corrupt(m.key, err)
	} else if m.rec.SerialOnly() && !m.rec.Imported {
		return corrupt(m.key, errors.New("it has no log entry"))
	}
	m.before = m.rec.Change
	m.first = m.rec.SerialOnly() && m.rec.Change == 0
	isNew := m.dirty || m.s != nil && m.rec.SerialOnly()
	if isNew && ca.State != wire.CAActive && m.State != wire.CertRevoked && m.rec.State != wire.CertRevoked {
		return wire.Errorf(wire.FailedPrecondition, "ca.state", fmt.Sprint(ca.State), "must be active (%d) to import certificates that are not revoked, as %s is not", wire.CAActive, m.field)
	}
	switch {
	case m.s == nil && m.rec.SerialOnly() && m.rec.NotAfter == 0 && m.NotAfter != 0:
		m.rec.NotAfter, m.dirty = m.NotAfter, true
	case m.s == nil:
	case m.rec.SerialOnly():
		m.dirty = true
		if err := checkHistory(m.s, ca, issuers, log.time); err != nil {
			return err
		}
		_, err := log.attach(m.s, &m.rec)
		return err
	default:
		_, added, err := placeOf(m.s, &m.rec, issuers, log)
		m.dirty = added
		return err
	}
	return nil
}

// historyMargin is how long before the CA's registration a certificate must have begun to be history: CAs set notBefore back by up to a day,
// so what begins later may have been issued when the CA was on the ledger.
const historyMargin = wire.Millis(24 * time.Hour / time.Millisecond)

// checkHistory says whether a certificate may be recorded that its CA has issued at any time. Of what is older than the CA's registration,
// that the CA's key has signed it is all that counts: whether it has expired, or was valid beyond the CA's own certificate, cannot be mended
// any more, and its status is wanted nevertheless. Only what would do harm from now on is refused, as by checkNew. What is newer could have
// been recorded by Issue, and must be what Issue would have recorded, but may have expired since.
func checkHistory(s *submission, ca *wire.CARecord, issuers []*x509.Certificate, now wire.Millis) error {
	if wire.MillisOf(s.cert.NotBefore) > ca.Registered-historyMargin {
		if err := s.issued(issuers); err != nil {
			return err
		}
		if err := checkNoPrecertSigner(s.field, s.cert); err != nil {
			return err
		}
		return checkResponder(s.field, s.cert)
	}
	if err := checkIssuedByAny(s.field, s.cert, issuers); err != nil {
		return err
	}
	notAfter := wire.MillisOf(s.cert.NotAfter)
	if notAfter <= 0 {
		return invalid(s.field+".not_after", timeText(s.cert.NotAfter), "must be after 1970")
	}
	if err := checkNoPrecertSigner(s.field, s.cert); err != nil || notAfter < now {
		return err
	}
	return checkResponder(s.field, s.cert)
}

// mergeStatus makes each record's status what the CA says, where that is worse.
//
//	        valid       held                            revoked
//	valid   unchanged   held, unless released since     revoked
//	held    unchanged   unchanged                       revoked, dates of the hold
//	revoked unchanged   unchanged                       unchanged, or reason becomes keyCompromise
func (t *transaction) mergeStatus(id wire.CAID, ca *wire.CARecord, items []*importing) error {
	changes := make([]wire.StatusChange, len(items))
	var held []ending
	for i, m := range items {
		changes[i] = wire.StatusChange{Serial: m.serial, Op: wire.OpRevoke, Reason: m.Reason, Invalidity: m.Invalidity}
		if e := (ending{m.field + ".state", &m.rec, &changes[i]}); m.State == wire.CertRevoked && e.ends() {
			held = append(held, e)
		}
	}
	if err := t.heedOthers(id, ca, held); err != nil {
		return err
	}
	for i, m := range items {
		// No change of a record takes effect before the one before it.
		effective := max(t.now, m.rec.StatusTime)
		switch {
		case m.State == wire.CertHeld && m.rec.State == wire.CertValid:
			if err := m.hold(effective); err != nil {
				return err
			}
		case m.State == wire.CertRevoked:
			wasValid := m.rec.State == wire.CertValid
			if revoke(&m.rec, &changes[i], effective) && wasValid {
				m.rec.Asserted, m.rec.Antedated = m.Revoked, m.first
			}
		}
	}
	return nil
}

// hold puts a record on hold that is valid. One that was released keeps the date of its last imported hold, so that the same Import, sent
// again, does not undo the release.
func (m *importing) hold(effective wire.Millis) error {
	if m.Revoked <= m.rec.Asserted {
		return nil
	}
	if _, err := hold(m.field+".state", &m.rec, effective); err != nil {
		return err
	}
	m.rec.Asserted, m.rec.Antedated = m.Revoked, m.first
	return nil
}

// saveImport writes what has changed, and the status leaves that say so.
func (t *transaction) saveImport(id wire.CAID, items []*importing, log *issuanceLog) ([]byte, error) {
	result := &wire.ImportResult{V: wire.Version, Entries: make([]wire.ImportEntry, len(items))}
	for i, m := range items {
		changed := m.rec.Change != m.before
		e := &result.Entries[i]
		if e.Log = m.rec.Final; e.Log == nil {
			e.Log = m.rec.Pre
		}
		if e.Changed = m.dirty || changed; !e.Changed {
			continue
		}
		t.put(m.key, wire.Encode(&m.rec))
		if changed {
			t.putLeaf(m.rec.Leaf(id, m.serial))
		}
	}
	if err := log.save(t); err != nil {
		return nil, err
	}
	return wire.Encode(result), nil
}
