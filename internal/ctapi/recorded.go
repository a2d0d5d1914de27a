package ctapi

import (
	"bytes"
	"context"
	"crypto/x509"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctleaf"
)

// Recorded says where cert, a certificate or precertificate with a verified signature of the CA id, is in the log, by rec, the record of
// its serial; nil: there is none. False: it is the contract's to take it or not.
//
// Errors are *wire.Error, for what the contract would refuse now and ever: an expired certificate without a record, and another
// certificate than the recorded one. Anybody may submit those, again and again; a refusal here costs no transaction, and nobody
// who shares one a second attempt.
func Recorded(id wire.CAID, rec *wire.CertRecord, cert *x509.Certificate, now time.Time) (at wire.LogEntry, found bool, err error) {
	if rec == nil || rec.Imported && rec.SerialOnly() { // the certificate of an imported serial number is recorded like a new one
		if cert.NotAfter.Before(now) {
			return at, false, invalid(field(0)+".not_after", cert.NotAfter.UTC().Format(time.RFC3339), "must not have passed when the certificate is recorded, unless its precertificate is in the log")
		}
		return at, false, nil
	}
	other := func(rule string) error {
		return wire.Errorf(wire.AlreadyExists, field(0)+".serial", cert.SerialNumber.Text(16), "%s", rule)
	}
	pre, err := ctleaf.IsPrecert(cert.Raw)
	if err != nil {
		return at, false, invalid(field(0), "", "must be a DER X.509 certificate (RFC 5280 section 4.1): %v", err)
	}
	own := rec.Final
	if pre {
		own = rec.Pre
	}
	switch {
	case own != nil:
		leaf, err := leafOf(id, *own, cert.Raw, pre)
		if err != nil {
			return at, false, invalid(field(0), "", "%v", err)
		}
		if hash := ctleaf.HashLeaf(leaf); !bytes.Equal(hash[:], own.LeafHash) {
			return at, false, other("another certificate of this CA has this serial number")
		}
		return *own, true, nil
	case pre && rec.Final != nil:
		return at, false, other("a precertificate comes before its certificate: that one is recorded already")
	case rec.Pre != nil:
		tbs, err := ctleaf.FinalTBS(cert.Raw)
		if err != nil {
			return at, false, invalid(field(0)+".extensions", ctleaf.OIDSCTList.String(), "%v", err)
		}
		hash, err := ctleaf.PrecertHash(rec.Pre.Index, rec.Pre.Time, id, tbs)
		if err != nil {
			return at, false, invalid(field(0), "", "%v", err)
		}
		if !bytes.Equal(hash[:], rec.Pre.LeafHash) {
			return at, false, other("the precertificate with this serial number is of another certificate: they must be equal without poison and SCT list (RFC 6962 section 3.2)")
		}
	}
	return at, false, nil
}

// place returns where a checked certificate is in the log, after submitting it if it is not known to be there.
func (l *Log) place(ctx context.Context, cert *x509.Certificate) (wire.LogEntry, error) {
	if l.recorded != nil {
		if at, found, err := l.recorded(ctx, cert); err != nil || found {
			return at, err
		}
	}
	return l.submitter.Submit(ctx, cert.Raw)
}

// leafOf rebuilds the MerkleTreeLeaf of the entry at that the certificate der has.
func leafOf(id wire.CAID, at wire.LogEntry, der []byte, pre bool) ([]byte, error) {
	if !pre {
		return ctleaf.X509(at.Index, at.Time, der)
	}
	tbs, err := ctleaf.PrecertTBS(der)
	if err != nil {
		return nil, err
	}
	return ctleaf.Precert(at.Index, at.Time, id, tbs)
}
