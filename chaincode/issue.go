package chaincode

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctleaf"
)

// issue records certificates and precertificates of one CA and appends them to its log. What is recorded already keeps its
// place: a retry succeeds with the same answer, whatever has become of the CA or the certificate since.
func issue(t *transaction, arg []byte) ([]byte, error) {
	var a wire.IssueArg
	if err := wire.Decode(arg, &a); err != nil {
		return nil, badArgument(arg, err)
	}
	ders, err := a.Certs()
	if err != nil {
		return nil, err
	}
	values, err := t.admit(operators, wire.CAKey(a.CAID), wire.LogHeadKey(a.CAID))
	if err != nil {
		return nil, err
	}
	ca, err := t.operatedCA(a.CAID, values[0])
	if err != nil {
		return nil, err
	}
	issuers, err := parseIssuers(a.CAID, ca)
	if err != nil {
		return nil, err
	}
	batch, keys, err := parseBatch(a.CAID, ders)
	if err != nil {
		return nil, err
	}
	records, err := t.getMany(keys)
	if err != nil {
		return nil, err
	}
	log, err := openLog(a.CAID, values[1], t.now)
	if err != nil {
		return nil, err
	}
	result := &wire.IssueResult{V: wire.Version, Entries: make([]wire.LogEntry, len(batch))}
	for i, s := range batch {
		var entry *wire.LogEntry
		if records[i] != nil {
			entry, err = t.recordAgain(s, records[i], ca.State, issuers, log)
		} else if err = checkNew(s, ca.State, issuers, log.time); err == nil {
			entry, err = t.recordNew(s, log)
		}
		if err != nil {
			return nil, err
		}
		result.Entries[i] = *entry
	}
	if err := log.save(t); err != nil {
		return nil, err
	}
	return wire.Encode(result), nil
}

// operatedCA returns the trust list entry, which the caller's organisation must operate.
func (t *transaction) operatedCA(id wire.CAID, entry []byte) (*wire.CARecord, error) {
	if entry == nil {
		return nil, wire.Errorf(wire.NotFound, "ca_id", id.String(), "must be a registered CA")
	}
	ca, err := decodeCA(id, entry)
	if err != nil {
		return nil, err
	}
	if ca.OperatingMSP != t.caller.MSPID {
		return nil, wire.Errorf(wire.PermissionDenied, "caller.msp", t.caller.MSPID, "must be the organisation that operates the CA, %s", ca.OperatingMSP)
	}
	return ca, nil
}

// recordNew appends the first of its serial and writes its record.
func (t *transaction) recordNew(s *submission, log *issuanceLog) (*wire.LogEntry, error) {
	rec := &wire.CertRecord{V: wire.Version, State: wire.CertValid, StatusTime: log.time}
	entry, err := log.attach(s, rec)
	if err != nil {
		return nil, err
	}
	t.put(s.key, wire.Encode(rec))
	return entry, nil
}

// attach appends a certificate or precertificate and makes rec, which has none, its record. The status stays.
func (l *issuanceLog) attach(s *submission, rec *wire.CertRecord) (*wire.LogEntry, error) {
	entry, err := l.append(s)
	if err != nil {
		return nil, err
	}
	spki := sha256.Sum256(s.cert.RawSubjectPublicKeyInfo)
	rec.SPKIHash, rec.NotAfter = spki[:], wire.MillisOf(s.cert.NotAfter)
	if s.pre {
		rec.Pre = entry
	} else {
		rec.Final = entry
	}
	return entry, nil
}

// recordAgain answers what has a serial with a record: its place if it is recorded already, a new one if it is the certificate
// of a recorded precertificate. What was imported as a serial number only is recorded as if it were new, and keeps its status.
//
//	           neither     precertificate        certificate             both
//	pre        recordNew   its place, if it is   refused                 its place, if it is
//	final      recordNew   added, if it is the   its place, if it is     its place, if it is
//	                       precertificate's
func (t *transaction) recordAgain(s *submission, value []byte, state wire.CAState, issuers []*x509.Certificate, log *issuanceLog) (*wire.LogEntry, error) {
	var rec wire.CertRecord
	if err := wire.Decode(value, &rec); err != nil {
		return nil, corrupt(s.key, err)
	}
	if rec.SerialOnly() && rec.Imported {
		if err := checkNew(s, state, issuers, log.time); err != nil {
			return nil, err
		}
		entry, err := log.attach(s, &rec)
		if err == nil {
			t.put(s.key, wire.Encode(&rec))
		}
		return entry, err
	}
	entry, added, err := placeOf(s, &rec, issuers, log)
	if added {
		t.put(s.key, wire.Encode(&rec))
	}
	return entry, err
}

// placeOf returns where a certificate or precertificate stands whose record names at least one entry. added: it was not there, is the
// certificate of the precertificate that was, and rec names it now.
func placeOf(s *submission, rec *wire.CertRecord, issuers []*x509.Certificate, log *issuanceLog) (entry *wire.LogEntry, added bool, err error) {
	serial := s.cert.SerialNumber.Text(16)
	entry = rec.Final
	if s.pre {
		entry = rec.Pre
	}
	if entry == nil && s.pre {
		return nil, false, wire.Errorf(wire.AlreadyExists, s.field+".serial", serial, "a precertificate comes before its certificate: that one is recorded already")
	}
	if entry == nil && rec.Pre != nil {
		entry, err = complete(s, rec, issuers, log)
		return entry, err == nil, err
	}
	if entry == nil {
		return nil, false, corrupt(s.key, errors.New("it has no log entry"))
	}
	same, err := s.isAt(log.id, entry)
	if err != nil {
		return nil, false, err
	}
	if !same {
		return nil, false, wire.Errorf(wire.AlreadyExists, s.field+".serial", serial, "another certificate of this CA has this serial number")
	}
	// A precertificate's leaf has no signature.
	if s.pre {
		err = s.issued(issuers)
	}
	return entry, false, err
}

// complete records the certificate of a recorded precertificate. The CA has promised it when the precertificate was logged (RFC 6962
// section 3.1), and everything about it but the signature was checked then. So it is accepted from a CA that is suspended by now,
// and after it has expired: to refuse would not take it away from whoever has it, only keep it from the log. Its status is the
// record's, as it was.
//
// It must have an SCT list, of whichever logs. That tells those who are shown its own entry alone that there may be another,
// which a rule may cover (docs/decisions/0008-sct-list-tells-of-precertificate.md).
func complete(s *submission, rec *wire.CertRecord, issuers []*x509.Certificate, log *issuanceLog) (*wire.LogEntry, error) {
	tbs, err := ctleaf.FinalTBS(s.cert.Raw)
	if err != nil {
		return nil, invalid(s.field+".extensions", ctleaf.OIDSCTList.String(), "%v", err)
	}
	pre := &submission{key: s.key, pre: true, tbs: tbs}
	same, err := pre.isAt(log.id, rec.Pre)
	if err != nil {
		return nil, err
	}
	if !same {
		return nil, wire.Errorf(wire.AlreadyExists, s.field+".serial", s.cert.SerialNumber.Text(16),
			"the precertificate with this serial number, entry %d of the log, is of another certificate: they must be equal without poison and SCT list (RFC 6962 section 3.2)", rec.Pre.Index)
	}
	if present, _ := hasExtension(s.cert, ctleaf.OIDSCTList); !present {
		return nil, invalid(s.field+".extensions", ctleaf.OIDSCTList.String(),
			"must be there: the certificate of a recorded precertificate embeds SCTs (RFC 6962 section 3.3); until then entry %d of the log, the precertificate, stands for it", rec.Pre.Index)
	}
	if err := s.issued(issuers); err != nil {
		return nil, err
	}
	rec.Final, err = log.append(s)
	return rec.Final, err
}
