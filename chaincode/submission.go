package chaincode

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctleaf"
)

// submission is one certificate or precertificate of an Issue.
type submission struct {
	field string // certs[i]
	cert  *x509.Certificate
	key   string // of its record
	pre   bool
	tbs   []byte // of a precertificate: what its leaf has
}

// parseBatch returns the submissions and the keys of their records.
func parseBatch(id wire.CAID, ders [][]byte) ([]*submission, []string, error) {
	batch := make([]*submission, len(ders))
	keys := make([]string, len(ders))
	first := make(map[string]int, len(ders))
	for i, der := range ders {
		s, err := parseSubmission(fmt.Sprintf("certs[%d]", i), der)
		if err != nil {
			return nil, nil, err
		}
		serial, err := wire.SerialOf(s.cert.SerialNumber)
		if err != nil {
			return nil, nil, invalid(s.field+".serial", s.cert.SerialNumber.Text(16), "must be positive and at most 20 octets (RFC 5280 section 4.1.2.2)")
		}
		s.key = wire.CertKey(id, serial)
		batch[i], keys[i] = s, s.key
		if other, twice := first[s.key]; twice {
			return nil, nil, invalid(s.field+".serial", serial.String(), "must not repeat in one batch: it is also the serial of certs[%d]", other)
		}
		first[s.key] = i
	}
	return batch, keys, nil
}

func parseSubmission(field string, der []byte) (*submission, error) {
	cert, err := parseCertificate(field, der)
	if err != nil {
		// crypto/x509 refuses a second extension of any kind; of this one the reason deserves its name.
		if pre, _ := ctleaf.IsPrecert(der); pre {
			if _, poison := ctleaf.PrecertTBS(der); poison != nil {
				return nil, invalid(field+".extensions", ctleaf.OIDPoison.String(), "%v", poison)
			}
		}
		return nil, err
	}
	s := &submission{field: field, cert: cert}
	// What followers parse, with their parser: they could not pass a transaction that they cannot read.
	if s.pre, err = ctleaf.IsPrecert(der); err != nil {
		return nil, invalid(field, hexPrefix(der), "%v", err)
	}
	if !s.pre {
		return s, nil
	}
	for _, e := range cert.Extensions {
		if !e.Id.Equal(ctleaf.OIDPoison) {
			continue
		}
		// RFC 6962 3.1. A client that does not know the extension must not accept the precertificate as a certificate.
		if !e.Critical || !bytes.Equal(e.Value, []byte{5, 0}) {
			return nil, invalid(field+".extensions", e.Id.String(), "a precertificate's poison must be critical and NULL (RFC 6962 section 3.1)")
		}
	}
	// RFC 6962 3.2: the certificate is compared without SCT list, so it would not be this one's.
	if present, _ := hasExtension(cert, ctleaf.OIDSCTList); present {
		return nil, invalid(field+".extensions", ctleaf.OIDSCTList.String(), "a precertificate must not have an SCT list (RFC 6962 section 3.2)")
	}
	if s.tbs, err = ctleaf.PrecertTBS(der); err != nil {
		return nil, invalid(field, hexPrefix(der), "%v", err)
	}
	return s, nil
}

// leafHash is the hash of the leaf that s has, or would have, at a place in the log.
func (s *submission) leafHash(id wire.CAID, index uint64, t wire.Millis) ([sha256.Size]byte, error) {
	if s.pre {
		return ctleaf.PrecertHash(index, t, id, s.tbs)
	}
	return ctleaf.Hash(index, t, s.cert.Raw)
}

// isAt reports whether s is what e, an entry of the record, has recorded.
func (s *submission) isAt(id wire.CAID, e *wire.LogEntry) (bool, error) {
	hash, err := s.leafHash(id, e.Index, e.Time)
	if err != nil {
		return false, corrupt(s.key, err)
	}
	return bytes.Equal(hash[:], e.LeafHash), nil
}

// issued says whether one of the CA's certificates issued s, without regard to what the ledger knows.
func (s *submission) issued(issuers []*x509.Certificate) error {
	err := checkUnderAny(s.field, s.cert, issuers)
	// RFC 6962 3.1 lets a special certificate sign precertificates. Its key is not the CA's, so its leaves could not name the CA.
	if e, ok := errors.AsType[*wire.Error](err); ok && s.pre && e.Field == s.field+".issuer" {
		return invalid(e.Field, e.Value, "%s; a precertificate must be signed by the CA itself, not by a precertificate signing certificate", e.Rule)
	}
	return err
}

// checkNoPrecertSigner refuses the special-purpose certificates of RFC 6962 section 3.1.
func checkNoPrecertSigner(field string, cert *x509.Certificate) error {
	for _, usage := range cert.UnknownExtKeyUsage {
		if usage.Equal(oidPrecertSigning) {
			return invalid(field+".ext_key_usage", usage.String(), "precertificate signing certificates (RFC 6962 section 3.1) are not supported: the CA signs its precertificates itself")
		}
	}
	return nil
}
