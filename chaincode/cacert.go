package chaincode

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"fmt"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// maxChain bounds the work that a RegisterCA may ask for.
const maxChain = 8

// checkCA says whether cert may stand on the trust list: a CA certificate that its chain leads up to a self-signed root.
// Neither names nor policies are constrained here: that is what a majority of administrators looks at before it votes.
func checkCA(cert *x509.Certificate, chain [][]byte, now wire.Millis) error {
	if len(chain) > maxChain {
		return invalid("chain", fmt.Sprint(len(chain)), "must be at most %d certificates", maxChain)
	}
	if err := checkCACert("cert", cert, now); err != nil {
		return err
	}
	// A CA certificate with this usage would be a delegated responder of its own issuer, for years.
	if mayBeResponder(cert) {
		return invalid("cert.ext_key_usage", "OCSPSigning", "a CA certificate must not be a delegated responder (RFC 6960 section 4.2.2.2)")
	}
	if err := checkNoPrecertSigner("cert", cert); err != nil {
		return err
	}
	field := "cert"
	for i, der := range chain {
		if selfSigned(cert) {
			return invalid(fmt.Sprintf("chain[%d]", i), hexPrefix(der), "the chain must end with its first self-signed certificate, which is %s", field)
		}
		issuerField := fmt.Sprintf("chain[%d]", i)
		issuer, err := parseCertificate(issuerField, der)
		if err != nil {
			return err
		}
		if err := checkCACert(issuerField, issuer, now); err != nil {
			return err
		}
		if err := checkIssuedBy(field, cert, issuer); err != nil {
			return err
		}
		// RFC 5280 4.2.1.9: i intermediates and the registered CA itself stand between this issuer and an end entity.
		if issuer.MaxPathLen >= 0 && issuer.MaxPathLen < i+1 {
			return invalid(issuerField+".path_len", fmt.Sprint(issuer.MaxPathLen), "must allow the %d CA certificates below it (RFC 5280 section 4.2.1.9)", i+1)
		}
		cert, field = issuer, issuerField
	}
	if !selfSigned(cert) {
		return invalid(field, cert.Subject.String(), "must be self-signed, or the chain must go on with its issuer up to a self-signed root")
	}
	return nil
}

// checkCACert holds one certificate of the path against RFC 5280's profile of a CA certificate.
func checkCACert(field string, cert *x509.Certificate, now wire.Millis) error {
	// RFC 5280 4.2.1.9
	if _, critical := hasExtension(cert, oidBasicConstraints); !cert.BasicConstraintsValid || !cert.IsCA || !critical {
		return invalid(field+".basic_constraints", fmt.Sprintf("cA=%t, critical=%t", cert.IsCA, critical), "must say cA and be critical (RFC 5280 section 4.2.1.9)")
	}
	// RFC 5280 4.2.1.3
	if cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		return invalid(field+".key_usage", fmt.Sprintf("%#x", int(cert.KeyUsage)), "must include keyCertSign (RFC 5280 section 4.2.1.3)")
	}
	if _, err := wire.SerialOf(cert.SerialNumber); err != nil {
		return invalid(field+".serial", cert.SerialNumber.Text(16), "must be positive and at most 20 octets (RFC 5280 section 4.1.2.2)")
	}
	// RFC 5280 4.1.2.6: the issuer field of everything it signs.
	if len(cert.Subject.Names) == 0 {
		return invalid(field+".subject", "", "must not be empty (RFC 5280 section 4.1.2.6)")
	}
	if cert.NotAfter.Before(cert.NotBefore) {
		return invalid(field+".not_after", timeText(cert.NotAfter), "must not be before notBefore, %s", timeText(cert.NotBefore))
	}
	// A CA may be registered before its certificate becomes valid: what it issues must lie inside its validity anyway.
	if wire.MillisOf(cert.NotAfter) < now {
		return invalid(field+".not_after", timeText(cert.NotAfter), "must not have passed at the transaction's time, %s", timeText(now.Time()))
	}
	return checkCAKey(field, cert)
}

func checkCAKey(field string, cert *x509.Certificate) error {
	const allowed = "must be ECDSA P-256, P-384 or P-521, RSA of 2048 to 8192 bits, or Ed25519"
	switch key := cert.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() && key.Curve != elliptic.P384() && key.Curve != elliptic.P521() {
			return invalid(field+".public_key", "ECDSA "+key.Curve.Params().Name, allowed)
		}
	case *rsa.PublicKey:
		if n := key.N.BitLen(); n < 2048 || n > 8192 {
			return invalid(field+".public_key", fmt.Sprintf("RSA %d", n), allowed)
		}
	case ed25519.PublicKey:
	default:
		return invalid(field+".public_key", cert.PublicKeyAlgorithm.String(), allowed)
	}
	// A CA is named by the hash of these octets, and crypto/x509 skips what follows a key inside them: another encoding of the
	// same key would be another CA with an empty log, under which what was revoked could be issued again.
	if spki, err := x509.MarshalPKIXPublicKey(cert.PublicKey); err != nil || !bytes.Equal(spki, cert.RawSubjectPublicKeyInfo) {
		return invalid(field+".public_key", cert.PublicKeyAlgorithm.String(), "must be encoded as RFC 3279, RFC 5480 or RFC 8410 says, with nothing added")
	}
	return nil
}

// selfSigned is more than self-issued: the signature verifies with the certificate's own key.
func selfSigned(cert *x509.Certificate) bool {
	return bytes.Equal(cert.RawIssuer, cert.RawSubject) && cert.CheckSignatureFrom(cert) == nil
}
