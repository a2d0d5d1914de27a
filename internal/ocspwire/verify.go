package ocspwire

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// Reasons why Verify does not accept a response, for errors.Is; the error's text says what exactly is wrong.
var (
	ErrSigner    = errors.New("response is not signed by the issuer or by its delegate")
	ErrSignature = errors.New("response's signature does not verify")
	ErrNonce     = errors.New("response does not repeat the request's nonce")
	ErrNotAsked  = errors.New("response is not about the certificate asked for")
	ErrNotNow    = errors.New("response is not valid now")
)

// VerifyOptions says what a response must be to be believed.
type VerifyOptions struct {
	Issuer *x509.Certificate // of the certificate asked about
	ID     CertID            // the one asked about
	Nonce  []byte            // the request's; nil: none was sent
	Now    time.Time
	Skew   time.Duration // how far the responder's clock may be ahead of, or behind, Now
	MaxAge time.Duration // 0: no limit on Now - thisUpdate beside nextUpdate
}

// Verify checks everything RFC 6960 section 3.2 asks of a client and returns the status of opts.ID, with the certificate whose
// key signed.
func (r *Response) Verify(opts VerifyOptions) (*SingleResponse, *x509.Certificate, error) {
	signer, err := r.signer(opts)
	if err != nil {
		return nil, nil, fmt.Errorf("ocsp: %w: %w", ErrSigner, err)
	}
	alg, err := algOf(r.SignatureAlg)
	if err != nil {
		return nil, nil, fmt.Errorf("ocsp: %w: %w", ErrSignature, err)
	}
	if err := signer.CheckSignature(alg, r.TBS, r.Signature); err != nil {
		return nil, nil, fmt.Errorf("ocsp: %w: %w", ErrSignature, err)
	}
	if opts.Nonce != nil && !bytes.Equal(opts.Nonce, r.Nonce) {
		return nil, nil, fmt.Errorf("ocsp: %w: sent %x, received %x", ErrNonce, opts.Nonce, r.Nonce)
	}
	for _, e := range r.Extensions {
		if e.Critical && !e.Id.Equal(OIDNonce) && !e.Id.Equal(OIDExtendedRevoke) {
			return nil, nil, malformed("responseExtensions", e.Id.String(), "is critical and not known here (RFC 6960 section 4.4)")
		}
	}
	single, err := r.about(opts.ID)
	if err != nil {
		return nil, nil, err
	}
	if err := single.checkWindow(opts); err != nil {
		return nil, nil, err
	}
	return single, signer, nil
}

// about finds the one status of id. Two of them would let the reader choose.
func (r *Response) about(id CertID) (*SingleResponse, error) {
	var found *SingleResponse
	for i := range r.Responses {
		if !r.Responses[i].ID.Same(id) {
			continue
		}
		if found != nil {
			return nil, malformed("responses", fmt.Sprintf("serial %x", id.Serial), "must not occur twice")
		}
		found = &r.Responses[i]
	}
	if found == nil {
		return nil, fmt.Errorf("ocsp: %w: serial %x", ErrNotAsked, id.Serial)
	}
	return found, nil
}

// checkWindow: RFC 6960 section 4.2.2.1, and section 3.2 points 5 and 6.
func (s *SingleResponse) checkWindow(opts VerifyOptions) error {
	for _, e := range s.Extensions {
		if e.Critical && !e.Id.Equal(OIDArchiveCutoff) && !e.Id.Equal(OIDInvalidityDate) {
			return malformed("singleExtensions", e.Id.String(), "is critical and not known here (RFC 6960 section 4.4)")
		}
	}
	switch now := opts.Now; {
	case s.ThisUpdate.After(now.Add(opts.Skew)):
		return fmt.Errorf("ocsp: %w: thisUpdate %s is after now, %s, by more than the allowed skew %s", ErrNotNow, stamp(s.ThisUpdate), stamp(now), opts.Skew)
	case !s.NextUpdate.IsZero() && s.NextUpdate.Before(now.Add(-opts.Skew)):
		return fmt.Errorf("ocsp: %w: nextUpdate %s is before now, %s, by more than the allowed skew %s", ErrNotNow, stamp(s.NextUpdate), stamp(now), opts.Skew)
	case !s.NextUpdate.IsZero() && s.NextUpdate.Before(s.ThisUpdate):
		return fmt.Errorf("ocsp: %w: nextUpdate %s is before thisUpdate %s", ErrNotNow, stamp(s.NextUpdate), stamp(s.ThisUpdate))
	case opts.MaxAge > 0 && s.ThisUpdate.Before(now.Add(-opts.MaxAge-opts.Skew)):
		return fmt.Errorf("ocsp: %w: thisUpdate %s is older than the allowed %s", ErrNotNow, stamp(s.ThisUpdate), opts.MaxAge)
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// signer finds the certificate that the responder ID names: the issuer, or one among Certs that the issuer authorised.
func (r *Response) signer(opts VerifyOptions) (*x509.Certificate, error) {
	named, err := r.names(opts.Issuer)
	if err != nil {
		return nil, err
	}
	if named {
		return opts.Issuer, nil
	}
	refused := errors.New("no certificate in the response is the one that its responder ID names")
	for _, der := range r.Certs {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			refused = fmt.Errorf("certificate in the response: %w", err)
			continue
		}
		if named, err = r.names(cert); err != nil {
			return nil, err
		}
		if !named {
			continue
		}
		if err := CheckDelegate(cert, opts.Issuer, opts.Now, opts.Skew); err != nil {
			return nil, err
		}
		return cert, nil
	}
	return nil, refused
}

// names reports whether the responder ID is cert's. RFC 6960 section 4.2.2.3: by its name, or by SHA-1 of its key.
func (r *Response) names(cert *x509.Certificate) (bool, error) {
	if r.Responder.Name != nil {
		return bytes.Equal(r.Responder.Name, cert.RawSubject), nil
	}
	key, err := PublicKeyBits(cert.RawSubjectPublicKeyInfo)
	return err == nil && bytes.Equal(r.Responder.KeyHash, sum(crypto.SHA1, key)), err
}

// CheckDelegate tells whether cert may sign OCSP responses for issuer at now. RFC 6960 section 4.2.2.2: it is issued directly
// by the CA that issued the certificates in question, and has id-kp-OCSPSigning. Here it must also have id-pkix-ocsp-nocheck
// (section 4.2.2.2.1), since nobody can ask the delegate about itself.
func CheckDelegate(cert, issuer *x509.Certificate, now time.Time, skew time.Duration) error {
	who := fmt.Sprintf("responder certificate %x", cert.SerialNumber)
	if !bytes.Equal(cert.RawIssuer, issuer.RawSubject) {
		return fmt.Errorf("%s: issuer is %q: must be %q, the CA it answers for", who, cert.Issuer, issuer.Subject)
	}
	if err := issuer.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature); err != nil {
		return fmt.Errorf("%s: must be signed directly by the CA it answers for: %w", who, err)
	}
	if err := CheckMarks(cert); err != nil {
		return err
	}
	if now.Before(cert.NotBefore.Add(-skew)) || now.After(cert.NotAfter.Add(skew)) {
		return fmt.Errorf("%s: valid from %s to %s: must be valid now, %s", who, stamp(cert.NotBefore), stamp(cert.NotAfter), stamp(now))
	}
	return nil
}

// CheckMarks tells whether cert has what makes it a delegated responder's: id-kp-OCSPSigning, id-pkix-ocsp-nocheck and a key
// usage that allows signing. CheckDelegate includes it.
func CheckMarks(cert *x509.Certificate) error {
	who := fmt.Sprintf("responder certificate %x", cert.SerialNumber)
	eku := false
	for _, u := range cert.ExtKeyUsage {
		eku = eku || u == x509.ExtKeyUsageOCSPSigning
	}
	if !eku {
		return fmt.Errorf("%s: extendedKeyUsage must contain id-kp-OCSPSigning (RFC 6960 section 4.2.2.2)", who)
	}
	nocheck, ok := findExtension(cert.Extensions, OIDNoCheck)
	if !ok || !bytes.Equal(nocheck.Value, []byte{0x05, 0x00}) {
		return fmt.Errorf("%s: must have id-pkix-ocsp-nocheck with the value NULL (RFC 6960 section 4.2.2.2.1)", who)
	}
	// RFC 5280 section 4.2.1.3: a key usage extension, if there is one, must allow what the key is used for.
	if cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return fmt.Errorf("%s: keyUsage must contain digitalSignature (RFC 5280 section 4.2.1.3)", who)
	}
	if len(cert.UnhandledCriticalExtensions) > 0 {
		return fmt.Errorf("%s: critical extension %s is not known here", who, cert.UnhandledCriticalExtensions[0])
	}
	return nil
}

// ByKey is the responder ID of a certificate's key.
func ByKey(cert *x509.Certificate) (ResponderID, error) {
	key, err := PublicKeyBits(cert.RawSubjectPublicKeyInfo)
	if err != nil {
		return ResponderID{}, err
	}
	return ResponderID{KeyHash: sum(crypto.SHA1, key)}, nil
}
