package chaincode

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"fmt"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctleaf"
)

// issue records certificates of one CA and appends them to its log. Certificates that are recorded already, octet for octet,
// keep their place: a retry succeeds with the same answer, whatever has become of the CA or the certificate since.
func issue(t *transaction, arg []byte) ([]byte, error) {
	var a wire.IssueArg
	if err := wire.Decode(arg, &a); err != nil {
		return nil, badArgument(arg, err)
	}
	if err := checkBatch("certs", len(a.Certs)); err != nil {
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
	certs, keys, err := parseBatch(&a)
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
	result := &wire.IssueResult{V: wire.Version, Entries: make([]wire.LogEntry, len(certs))}
	for i, cert := range certs {
		field := fmt.Sprintf("certs[%d]", i)
		var entry *wire.LogEntry
		if records[i] != nil {
			entry, err = recorded(field, keys[i], records[i], cert)
		} else if err = checkNew(field, cert, ca.State, issuers, log.time); err == nil {
			entry, err = t.record(keys[i], cert, log)
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

// parseBatch returns the certificates and the keys of their records.
func parseBatch(a *wire.IssueArg) ([]*x509.Certificate, []string, error) {
	certs := make([]*x509.Certificate, len(a.Certs))
	keys := make([]string, len(a.Certs))
	first := make(map[string]int, len(a.Certs))
	for i, der := range a.Certs {
		field := fmt.Sprintf("certs[%d]", i)
		cert, err := parseCertificate(field, der)
		if err != nil {
			return nil, nil, err
		}
		serial, err := wire.SerialOf(cert.SerialNumber)
		if err != nil {
			return nil, nil, invalid(field+".serial", cert.SerialNumber.Text(16), "must be positive and at most 20 octets (RFC 5280 section 4.1.2.2)")
		}
		certs[i], keys[i] = cert, wire.CertKey(a.CAID, serial)
		if other, twice := first[keys[i]]; twice {
			return nil, nil, invalid(field+".serial", serial.String(), "must not repeat in one batch: it is also the serial of certs[%d]", other)
		}
		first[keys[i]] = i
	}
	return certs, keys, nil
}

// recorded answers a certificate whose serial has a record: its place if it is the very same certificate.
func recorded(field, key string, value []byte, cert *x509.Certificate) (*wire.LogEntry, error) {
	var rec wire.CertRecord
	if err := wire.Decode(value, &rec); err != nil {
		return nil, corrupt(key, err)
	}
	if rec.Final != nil {
		hash, err := ctleaf.Hash(rec.Final.Index, rec.Final.Time, cert.Raw)
		if err != nil {
			return nil, corrupt(key, err)
		}
		if bytes.Equal(hash[:], rec.Final.LeafHash) {
			return rec.Final, nil
		}
	}
	return nil, wire.Errorf(wire.AlreadyExists, field+".serial", cert.SerialNumber.Text(16), "another certificate of this CA has this serial number")
}

// record appends a certificate and writes its record.
func (t *transaction) record(key string, cert *x509.Certificate, log *issuanceLog) (*wire.LogEntry, error) {
	entry, err := log.append(cert.Raw)
	if err != nil {
		return nil, err
	}
	spki := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	t.put(key, wire.Encode(&wire.CertRecord{
		V: wire.Version, State: wire.CertValid, StatusTime: entry.Time, Final: entry,
		SPKIHash: spki[:], NotAfter: wire.MillisOf(cert.NotAfter),
	}))
	return entry, nil
}
