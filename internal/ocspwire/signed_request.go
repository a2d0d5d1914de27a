package ocspwire

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// ErrRequestor is why Request.Verify does not believe who asks; the error's text says what exactly is wrong.
var ErrRequestor = errors.New("request is not signed by whom it names")

// RequestorOptions says whom a signed request may come from.
type RequestorOptions struct {
	// Roots are the CAs of requestors. nil: neither the signer's chain nor its validity is checked, and the caller must.
	Roots *x509.CertPool
	// Intermediates are known beside those that the request brings.
	Intermediates *x509.CertPool
	Now           time.Time // for Roots
}

// Verify checks a signed request (RFC 6960 section 4.1.2): the signature is by the key of the first certificate that it brings,
// requestorName is that certificate's subject or one of its alternative names, and the certificate may sign; with opts.Roots
// also that it is valid now and chains to one of them. It returns the certificate. Errors: ErrRequestor, also for a request
// without a signature.
func (r *Request) Verify(opts RequestorOptions) (*x509.Certificate, error) {
	cert, err := r.requestor(opts)
	if err != nil {
		return nil, fmt.Errorf("ocsp: %w: %w", ErrRequestor, err)
	}
	return cert, nil
}

func (r *Request) requestor(opts RequestorOptions) (*x509.Certificate, error) {
	switch {
	case r.Signature == nil:
		return nil, errors.New("optionalSignature is absent")
	case r.RequestorName == nil:
		return nil, errors.New("requestorName is absent: must be there when the request is signed (RFC 6960 section 4.1.2)")
	case len(r.Signature.Certs) == 0:
		return nil, errors.New("optionalSignature.certs is empty: must begin with the signer's certificate")
	}
	cert, err := x509.ParseCertificate(r.Signature.Certs[0])
	if err != nil {
		return nil, fmt.Errorf("optionalSignature.certs[0]: %w", err)
	}
	alg, err := algOf(r.Signature.Algorithm)
	if err != nil {
		return nil, err
	}
	if err := cert.CheckSignature(alg, r.Signature.TBS, r.Signature.Value); err != nil {
		return nil, fmt.Errorf("optionalSignature: %w", err)
	}
	named, err := r.RequestorName.names(cert)
	if err != nil {
		return nil, err
	}
	if !named {
		return nil, fmt.Errorf("requestorName is %s: must be the subject of the signer's certificate, %s, or one of its alternative names", r.RequestorName, cert.Subject)
	}
	// RFC 5280 section 4.2.1.3: a key usage extension, if there is one, must allow what the key is used for.
	if cert.KeyUsage != 0 && cert.KeyUsage&(x509.KeyUsageDigitalSignature|x509.KeyUsageContentCommitment) == 0 {
		return nil, errors.New("signer's keyUsage must contain digitalSignature or nonRepudiation (RFC 5280 section 4.2.1.3)")
	}
	if opts.Roots == nil {
		return cert, nil
	}
	return cert, r.checkChain(cert, opts)
}

func (r *Request) checkChain(cert *x509.Certificate, opts RequestorOptions) error {
	between := x509.NewCertPool()
	if opts.Intermediates != nil {
		between = opts.Intermediates.Clone()
	}
	for i, der := range r.Signature.Certs[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("optionalSignature.certs[%d]: %w", i+1, err)
		}
		between.AddCert(c)
	}
	_, err := cert.Verify(x509.VerifyOptions{
		Roots: opts.Roots, Intermediates: between, CurrentTime: opts.Now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	return err
}

// names tells whether n is among cert's names. Names are compared as they are encoded, which never takes two for one.
func (n *GeneralName) names(cert *x509.Certificate) (bool, error) {
	der, err := n.Marshal()
	if err != nil {
		return false, err
	}
	if n.Choice == DirectoryName && bytes.Equal(n.Value, cert.RawSubject) && !emptyName(cert.RawSubject) {
		return true, nil
	}
	san, ok := findExtension(cert.Extensions, asn1.ObjectIdentifier{2, 5, 29, 17})
	if !ok {
		return false, nil
	}
	var (
		s          = cryptobyte.String(san.Value)
		list, name cryptobyte.String
		tag        cbasn1.Tag
	)
	if !s.ReadASN1(&list, cbasn1.SEQUENCE) {
		return false, malformed("subjectAltName", "", "must be a SEQUENCE OF GeneralName (RFC 5280 section 4.2.1.6)")
	}
	for !list.Empty() {
		if !list.ReadAnyASN1Element(&name, &tag) {
			return false, malformed("subjectAltName", "", "must be a SEQUENCE OF GeneralName (RFC 5280 section 4.2.1.6)")
		}
		if bytes.Equal(name, der) {
			return true, nil
		}
	}
	return false, nil
}

// emptyName: a certificate without a subject names nobody.
func emptyName(raw []byte) bool { return bytes.Equal(raw, []byte{0x30, 0x00}) }

// Sign encodes r signed by key, whose certificate is certs[0]; the rest of certs help the responder to verify it. A nil RequestorName
// becomes the certificate's subject (RFC 6960 section 4.1.2), also in r; Signature is set. It fails on a key that CheckSigner
// refuses and without a certificate.
func (r *Request) Sign(key crypto.Signer, certs ...*x509.Certificate) ([]byte, error) {
	if len(certs) == 0 {
		return nil, errors.New("ocsp: sign request: must have the signer's certificate")
	}
	alg, err := ChooseAlgorithm(key.Public(), nil)
	if err != nil {
		return nil, err
	}
	if r.RequestorName == nil {
		r.RequestorName = DirectoryNameOf(certs[0].RawSubject)
	}
	sig := &RequestSignature{}
	if sig.TBS, err = r.marshalTBS(); err != nil {
		return nil, err
	}
	a, value, err := signWith(key, alg, sig.TBS)
	if err != nil {
		return nil, err
	}
	sig.Algorithm, sig.Value = a.der, value
	for _, c := range certs {
		sig.Certs = append(sig.Certs, c.Raw)
	}
	r.Signature = sig
	return marshalRequest(sig.TBS, sig)
}
