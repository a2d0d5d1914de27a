package served

import (
	"crypto/x509"
	"slices"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/audit"
)

// sawResponder notes the CAs for which somebody may answer by OCSP: those with a delegated responder certificate on the ledger that is valid
// now (RFC 6960 section 4.2.2.2). Nobody can answer for another CA, whose key is elsewhere, and that is no bridge's fault.
func (c *comparison) sawResponder(cert *audit.Certificate) error {
	r, now := &cert.Record, wire.MillisOf(c.Now())
	// Such a certificate lives so long at most: of a CA with others, no more are read than it has short-lived ones.
	if c.responders[cert.CAID] || r.Final == nil || cert.Status.State != wire.CertValid || r.NotAfter < now || r.NotAfter > now+wire.Millis(wire.MaxResponderLife.Milliseconds()) {
		return nil
	}
	s, err := c.subject(cert)
	if err != nil {
		return err
	}
	if slices.Contains(s.cert.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning) && !s.cert.NotBefore.After(c.Now()) {
		c.responders[cert.CAID] = true
	}
	return nil
}
