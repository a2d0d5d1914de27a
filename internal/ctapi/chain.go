package ctapi

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/certsig"
	"github.com/certanchor/certanchor/internal/ctleaf"
)

// maxChain is how many certificates a submission may have.
const maxChain = 10

// oidPrecertSigning is the extended key usage of a Precertificate Signing Certificate (RFC 6962 section 3.1).
var oidPrecertSigning = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 4}

// checkChain is what RFC 6962 section 4.1 (4.2 if pre) demands of a submission: a certificate of this log's CA, each followed by its
// issuer, up to a root that the log accepts or to a certificate that one signed. What the certificate may say is the
// contract's to decide. It returns the first certificate. Errors are *wire.Error and name the certificate.
func (l *Log) checkChain(known *anchors, ders [][]byte, pre bool) (*x509.Certificate, error) {
	if len(ders) == 0 || len(ders) > maxChain {
		return nil, invalid("chain", fmt.Sprintf("%d certificates", len(ders)), "must have 1 to %d, the end-entity certificate first (RFC 6962 section 4.1)", maxChain)
	}
	for i, der := range ders {
		if len(der) == 0 || len(der) > wire.MaxCertDER {
			return nil, invalid(field(i), fmt.Sprintf("%d bytes", len(der)), "must be 1 to %d bytes of DER", wire.MaxCertDER)
		}
	}
	if err := checkPoison(ders[0], pre); err != nil {
		return nil, err
	}
	chain := make([]*x509.Certificate, len(ders))
	for i, der := range ders {
		if chain[i] = known.certs[string(der)]; chain[i] != nil {
			continue
		}
		var err error
		if chain[i], err = x509.ParseCertificate(der); err != nil {
			return nil, invalid(field(i), fmt.Sprintf("%d bytes", len(der)), "must be a DER X.509 certificate (RFC 5280 section 4.1): %v", err)
		}
	}
	if pre {
		if err := checkCritical(chain[0]); err != nil {
			return nil, err
		}
	}
	if err := l.checkLeaf(chain); err != nil {
		return nil, err
	}
	for i := 1; i < len(chain); i++ {
		if err := known.checkLink(i-1, chain[i-1], chain[i]); err != nil {
			return nil, err
		}
	}
	return chain[0], known.checkEnd(chain)
}

// checkPoison tells certificates from precertificates. It reads the DER itself: crypto/x509 refuses a repeated extension without saying which.
func checkPoison(der []byte, pre bool) error {
	poisoned, err := ctleaf.IsPrecert(der)
	if err != nil {
		return invalid(field(0), fmt.Sprintf("%d bytes", len(der)), "must be a DER X.509 certificate (RFC 5280 section 4.1): %v", err)
	}
	switch {
	case !pre && poisoned:
		return invalid(field(0), "precertificate", "must not have the poison extension: precertificates go to add-pre-chain (RFC 6962 section 4.2)")
	case !pre:
		return nil
	case !poisoned:
		return invalid(field(0), "certificate", "must have the poison extension 1.3.6.1.4.1.11129.2.4.3: certificates go to add-chain (RFC 6962 section 4.1)")
	}
	if _, err := ctleaf.PrecertTBS(der); err != nil {
		return invalid(field(0), "precertificate", "%v", err)
	}
	return nil
}

// checkCritical: RFC 6962 3.1: the poison is critical, and its extnValue contains ASN.1 NULL data (0x05 0x00).
func checkCritical(precert *x509.Certificate) error {
	for _, e := range precert.Extensions {
		if e.Id.Equal(ctleaf.OIDPoison) && (!e.Critical || !bytes.Equal(e.Value, []byte{5, 0})) {
			return invalid(field(0), fmt.Sprintf("poison extension, critical %v, value %x", e.Critical, e.Value), "must be critical and an ASN.1 NULL, 0500 (RFC 6962 section 3.1)")
		}
	}
	return nil
}

// checkLeaf refuses what this log is not for.
func (l *Log) checkLeaf(chain []*x509.Certificate) error {
	leaf := chain[0]
	if wire.CAIDOf(leaf.RawSubjectPublicKeyInfo) == l.caID {
		return invalid(field(0), leaf.Subject.String(), "must be a certificate that the CA issued, not one of the CA's own key")
	}
	if len(chain) == 1 {
		return nil // checkEnd looks for the issuer
	}
	if slices.ContainsFunc(chain[1].UnknownExtKeyUsage, oidPrecertSigning.Equal) {
		return invalid(field(1), chain[1].Subject.String(), "must not be a Precertificate Signing Certificate (RFC 6962 section 3.1): this log takes precertificates that the CA itself signed")
	}
	if id := wire.CAIDOf(chain[1].RawSubjectPublicKeyInfo); id != l.caID && !bytes.Equal(leaf.RawIssuer, chain[1].RawSubject) {
		return outOfOrder(1, leaf, chain[1])
	} else if id != l.caID {
		return invalid(field(1), fmt.Sprintf("%s, key %s", chain[1].Subject, id), "must be the CA that this log is for, whose key's SHA-256 is %s; each CA has its own log", l.caID)
	}
	return nil
}

func outOfOrder(i int, child, issuer *x509.Certificate) error {
	return invalid(field(i), issuer.Subject.String(), "must be the issuer of %s, %q: each certificate is followed by its issuer (RFC 6962 section 4.1)", field(i-1), child.Issuer.String())
}

// checkLink says whether issuer, which comes after child in the chain, certifies it. i is child's place.
func (a *anchors) checkLink(i int, child, issuer *x509.Certificate) error {
	if a.links[[2]*x509.Certificate{child, issuer}] {
		return nil
	}
	// RFC 5280 6.1.3 (a)(4). Octet by octet, as the contract compares.
	if !bytes.Equal(child.RawIssuer, issuer.RawSubject) {
		return outOfOrder(i+1, child, issuer)
	}
	// RFC 5280 4.2.1.9 and 4.2.1.3
	if !issuer.BasicConstraintsValid || !issuer.IsCA {
		return invalid(field(i+1), issuer.Subject.String(), "must be a CA certificate: basicConstraints with cA (RFC 5280 section 4.2.1.9)")
	}
	if issuer.KeyUsage != 0 && issuer.KeyUsage&x509.KeyUsageCertSign == 0 {
		return invalid(field(i+1), issuer.Subject.String(), "must have keyCertSign among its key usages (RFC 5280 section 4.2.1.3)")
	}
	// RFC 5280 6.1.3 (a)(1). Refuses MD5 and SHA-1 too.
	if err := certsig.Check(child, issuer); err != nil {
		return invalid(field(i)+".signature", child.SignatureAlgorithm.String(), "must verify with the key of its issuer, %s: %v", field(i+1), err)
	}
	return nil
}

// checkEnd looks for a root at the end of the chain, or just after it.
func (a *anchors) checkEnd(chain []*x509.Certificate) error {
	last, i := chain[len(chain)-1], len(chain)-1
	if a.isRoot(last) {
		return nil
	}
	issuers := a.record
	if i == 0 {
		issuers = a.record[:a.own] // a leaf is signed by the CA itself
	}
	var failed error
	for _, der := range issuers {
		issuer := a.certs[string(der)]
		if !bytes.Equal(last.RawIssuer, issuer.RawSubject) {
			continue
		}
		if a.links[[2]*x509.Certificate{last, issuer}] {
			return nil
		}
		if failed = certsig.Check(last, issuer); failed == nil {
			return nil
		}
	}
	if failed != nil {
		return invalid(field(i)+".signature", last.SignatureAlgorithm.String(), "must verify with the key of its issuer, %q: %v", last.Issuer.String(), failed)
	}
	return invalid(field(i), last.Subject.String(), "must be one of the roots in get-roots, or signed by one; its issuer is %q", last.Issuer.String())
}

func field(i int) string { return fmt.Sprintf("chain[%d]", i) }

func invalid(field, value, rule string, args ...any) error {
	return wire.Errorf(wire.InvalidArgument, field, value, rule, args...)
}
