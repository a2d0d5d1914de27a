package responder

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ocspwire"
)

// MaxLifetime of a delegated responder certificate: since nobody can revoke it in a way that clients see
// (id-pkix-ocsp-nocheck), it must die soon.
const MaxLifetime = wire.MaxResponderLife

// checkOwn tells whether cert can be a responder certificate for key, whoever issued it.
func checkOwn(cert *x509.Certificate, key crypto.Signer) error {
	who := fmt.Sprintf("responder certificate %x", cert.SerialNumber)
	pub, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !pub.Equal(key.Public()) {
		return fmt.Errorf("%s: public key must be this responder's own", who)
	}
	if err := ocspwire.CheckSigner(key.Public()); err != nil {
		return fmt.Errorf("%s: %w", who, err)
	}
	// RFC 5280 section 4.1.2.5: the validity period includes both ends.
	if life := cert.NotAfter.Sub(cert.NotBefore); life > MaxLifetime {
		return fmt.Errorf("%s: lifetime is %s: must be at most %s", who, life, MaxLifetime)
	}
	return nil
}

// checkIssuer tells whether one of a CA's certificates issued cert as its delegate; the reason is about the last one tried.
func checkIssuer(cert *x509.Certificate, issuers []*x509.Certificate, now time.Time) error {
	err := fmt.Errorf("responder certificate %x: its CA is not on the trust list", cert.SerialNumber)
	for _, issuer := range issuers {
		if err = ocspwire.CheckDelegate(cert, issuer, now, 0); err == nil {
			return nil
		}
	}
	return err
}
