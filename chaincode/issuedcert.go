package chaincode

import (
	"crypto/x509"
	"fmt"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// checkNew says whether a certificate or precertificate with a new serial number may be recorded. issuers are the CA's certificates, now is the time that its leaf will have.
//
// A certificate with cA TRUE is recorded like any other: someone must answer for its status. It gains nothing by it: only
// RegisterCA puts a CA on the trust list. Whether contents suit the CA's policy is for the CA's linter, not for the ledger.
func checkNew(s *submission, state wire.CAState, issuers []*x509.Certificate, now wire.Millis) error {
	if state != wire.CAActive {
		return wire.Errorf(wire.FailedPrecondition, "ca.state", fmt.Sprint(state), "must be active (%d) to record new certificates", wire.CAActive)
	}
	if err := s.issued(issuers); err != nil {
		return err
	}
	if wire.MillisOf(s.cert.NotAfter) < now {
		return invalid(s.field+".not_after", timeText(s.cert.NotAfter), "must not have passed when the certificate is recorded, %s", timeText(now.Time()))
	}
	if err := checkNoPrecertSigner(s.field, s.cert); err != nil {
		return err
	}
	return checkResponder(s.field, s.cert)
}

// checkUnderAny accepts cert if one of the CA's certificates is its issuer. An error is about the first.
func checkUnderAny(field string, cert *x509.Certificate, issuers []*x509.Certificate) error {
	var first error
	for _, issuer := range issuers {
		err := checkUnder(field, cert, issuer)
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	return first
}

func checkUnder(field string, cert, issuer *x509.Certificate) error {
	if err := checkIssuedBy(field, cert, issuer); err != nil {
		return err
	}
	if cert.NotAfter.Before(cert.NotBefore) {
		return invalid(field+".not_after", timeText(cert.NotAfter), "must not be before notBefore, %s", timeText(cert.NotBefore))
	}
	if cert.NotBefore.Before(issuer.NotBefore) {
		return invalid(field+".not_before", timeText(cert.NotBefore), "must not be before the CA's notBefore, %s", timeText(issuer.NotBefore))
	}
	if cert.NotAfter.After(issuer.NotAfter) {
		return invalid(field+".not_after", timeText(cert.NotAfter), "must not be after the CA's notAfter, %s", timeText(issuer.NotAfter))
	}
	// RFC 5280 4.2.1.9
	if cert.BasicConstraintsValid && cert.IsCA && issuer.MaxPathLen == 0 {
		return invalid(field+".basic_constraints", "cA=true", "the CA's pathLenConstraint is 0: it must not issue CA certificates (RFC 5280 section 4.2.1.9)")
	}
	return nil
}

// checkResponder holds a delegated responder certificate against invariant 9. It looks at the key usage purpose alone, because
// clients do: a CA certificate with it is a responder too.
func checkResponder(field string, cert *x509.Certificate) error {
	noCheck, _ := hasExtension(cert, oidOCSPNoCheck)
	responder := mayBeResponder(cert)
	if !responder && noCheck {
		return invalid(field+".extensions", oidOCSPNoCheck.String(), "id-pkix-ocsp-nocheck is for OCSP responders only (RFC 6960 section 4.2.2.2.1)")
	}
	if !responder {
		return nil
	}
	if !noCheck {
		return invalid(field+".extensions", "", "a certificate with id-kp-OCSPSigning must have id-pkix-ocsp-nocheck, %s (RFC 6960 section 4.2.2.2.1)", oidOCSPNoCheck)
	}
	if life := cert.NotAfter.Sub(cert.NotBefore); life > maxResponderLife {
		return invalid(field+".not_after", timeText(cert.NotAfter), "a certificate with id-kp-OCSPSigning must live at most %v, not %v", maxResponderLife, life)
	}
	return nil
}

// parseIssuers returns the CA's certificates.
func parseIssuers(id wire.CAID, ca *wire.CARecord) ([]*x509.Certificate, error) {
	certs := make([]*x509.Certificate, len(ca.Certs))
	for i, der := range ca.Certs {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, corrupt(wire.CAKey(id), err)
		}
		certs[i] = cert
	}
	return certs, nil
}
