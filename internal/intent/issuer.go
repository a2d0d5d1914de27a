package intent

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/certsig"
)

// checkIssuer accepts cert if one of a CA's certificates has issued it, as the contract does: expired or not, for a revocation is never too
// late. The error is about the first.
func checkIssuer(id wire.CAID, cert *x509.Certificate, issuers []*x509.Certificate) error {
	if len(issuers) == 0 {
		return wire.Errorf(wire.NotFound, "intent.ca_id", id.String(), "must be a registered CA")
	}
	var first error
	for _, issuer := range issuers {
		err := checkIssuedBy(cert, issuer)
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	return first
}

func checkIssuedBy(cert, issuer *x509.Certificate) error {
	if !bytes.Equal(cert.RawIssuer, issuer.RawSubject) {
		return invalid("cert.issuer", cert.Issuer.String(), "must be the subject of the issuing CA, %q, octet by octet", issuer.Subject.String())
	}
	if len(cert.AuthorityKeyId) > 0 && len(issuer.SubjectKeyId) > 0 && !bytes.Equal(cert.AuthorityKeyId, issuer.SubjectKeyId) {
		return invalid("cert.authority_key_id", hex.EncodeToString(cert.AuthorityKeyId), "must be the issuing CA's subject key identifier, %x", issuer.SubjectKeyId)
	}
	if err := certsig.Check(cert, issuer); err != nil {
		return invalid("cert.signature", cert.SignatureAlgorithm.String(), "must verify with the key of the issuing CA: %v", err)
	}
	return nil
}
