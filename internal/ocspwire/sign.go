package ocspwire

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// signatureAlg is one way to sign a response.
type signatureAlg struct {
	alg  x509.SignatureAlgorithm
	oid  asn1.ObjectIdentifier
	hash crypto.Hash // 0: the message itself is signed
	null bool        // parameters are NULL, not absent
}

// RFC 5758 section 3.2, RFC 4055 section 5 and RFC 8410 section 3 say which have NULL parameters and which have none.
var signatureAlgs = []signatureAlg{
	{x509.ECDSAWithSHA256, asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}, crypto.SHA256, false},
	{x509.ECDSAWithSHA384, asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}, crypto.SHA384, false},
	{x509.SHA256WithRSA, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, crypto.SHA256, true},
	{x509.SHA384WithRSA, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 12}, crypto.SHA384, true},
	{x509.SHA512WithRSA, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 13}, crypto.SHA512, true},
	{x509.PureEd25519, asn1.ObjectIdentifier{1, 3, 101, 112}, 0, false},
}

// algFor chooses the algorithm that goes with a public key.
func algFor(pub crypto.PublicKey) (signatureAlg, error) {
	want := x509.UnknownSignatureAlgorithm
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			want = x509.ECDSAWithSHA256
		case elliptic.P384():
			want = x509.ECDSAWithSHA384
		}
	case *rsa.PublicKey:
		want = x509.SHA256WithRSA
	case ed25519.PublicKey:
		want = x509.PureEd25519
	}
	for _, a := range signatureAlgs {
		if a.alg == want {
			return a, nil
		}
	}
	return signatureAlg{}, fmt.Errorf("ocsp: signing key is %T: must be ECDSA P-256 or P-384, RSA or Ed25519", pub)
}

// CheckSigner tells whether responses can be signed with this kind of key.
func CheckSigner(pub crypto.PublicKey) error {
	_, err := algFor(pub)
	return err
}

// Sign encodes r as a successful OCSPResponse signed by key, whose public half Responder must name. It fails on a key that
// CheckSigner refuses, on a response without a SingleResponse, and on a status, reason or time that has no encoding.
func (r *Response) Sign(key crypto.Signer) ([]byte, error) {
	alg, err := algFor(key.Public())
	if err != nil {
		return nil, err
	}
	tbs, err := r.marshalTBS()
	if err != nil {
		return nil, err
	}
	msg := tbs
	if alg.hash != 0 {
		msg = sum(alg.hash, tbs)
	}
	sig, err := key.Sign(rand.Reader, msg, alg.hash)
	if err != nil {
		return nil, fmt.Errorf("ocsp: sign response: %w", err)
	}
	b := cryptobyte.NewBuilder(make([]byte, 0, len(tbs)+1024))
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Enum(int64(Successful))
		b.AddASN1(explicit0, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(OIDBasic)
				b.AddASN1(cbasn1.OCTET_STRING, func(b *cryptobyte.Builder) { r.addBasic(b, tbs, alg, sig) })
			})
		})
	})
	return b.Bytes()
}

func (r *Response) addBasic(b *cryptobyte.Builder, tbs []byte, alg signatureAlg, sig []byte) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(tbs)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(alg.oid)
			if alg.null {
				addNull(b)
			}
		})
		b.AddASN1BitString(sig)
		if len(r.Certs) == 0 {
			return
		}
		b.AddASN1(explicit0, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				for _, c := range r.Certs {
					b.AddBytes(c)
				}
			})
		})
	})
}

func (r *Response) marshalTBS() ([]byte, error) {
	if len(r.Responses) == 0 {
		return nil, fmt.Errorf("ocsp: response without a certificate's status")
	}
	for _, s := range r.Responses {
		if err := s.check(); err != nil {
			return nil, err
		}
	}
	if (r.Responder.Name == nil) == (r.Responder.KeyHash == nil) {
		return nil, fmt.Errorf("ocsp: responder ID must be by name or by key, not both and not neither")
	}
	exts := withNonce(r.Extensions, r.Nonce)
	b := cryptobyte.NewBuilder(make([]byte, 0, 256))
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		if r.Responder.Name != nil {
			b.AddASN1(explicit1, func(b *cryptobyte.Builder) { b.AddBytes(r.Responder.Name) })
		} else {
			b.AddASN1(explicit2, func(b *cryptobyte.Builder) { b.AddASN1OctetString(r.Responder.KeyHash) })
		}
		addTime(b, r.ProducedAt)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, s := range r.Responses {
				s.add(b)
			}
		})
		if len(exts) > 0 {
			b.AddASN1(explicit1, func(b *cryptobyte.Builder) { addExtensions(b, exts) })
		}
	})
	return b.Bytes()
}

// check refuses what RFC 6960 section 4.2.1 has no encoding for, so that a mistake does not become another answer.
func (s *SingleResponse) check() error {
	if len(s.ID.Raw) == 0 {
		return fmt.Errorf("ocsp: status of a certificate without a CertID")
	}
	if s.Status != Good && s.Status != Revoked && s.Status != Unknown {
		return fmt.Errorf("ocsp: certificate status is %d: must be good, revoked or unknown", s.Status)
	}
	// RFC 5280 section 5.3.1: reasons 0 to 10 without 7.
	if s.Status == Revoked && (s.Reason < NoReason || s.Reason == 7 || s.Reason > 10) {
		return fmt.Errorf("ocsp: revocation reason is %d: must be one of RFC 5280 section 5.3.1", s.Reason)
	}
	if s.Status == Revoked && s.RevokedAt.IsZero() {
		return fmt.Errorf("ocsp: revoked without a revocation time")
	}
	return nil
}

func (s *SingleResponse) add(b *cryptobyte.Builder) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(s.ID.Raw)
		switch s.Status {
		case Good:
			b.AddASN1(implicit0, func(*cryptobyte.Builder) {})
		case Revoked:
			b.AddASN1(explicit1, func(b *cryptobyte.Builder) { // [1] IMPLICIT SEQUENCE is constructed too
				addTime(b, s.RevokedAt)
				if s.Reason != NoReason {
					b.AddASN1(explicit0, func(b *cryptobyte.Builder) { b.AddASN1Enum(int64(s.Reason)) })
				}
			})
		case Unknown:
			b.AddASN1(implicit2, func(*cryptobyte.Builder) {})
		}
		addTime(b, s.ThisUpdate)
		if !s.NextUpdate.IsZero() {
			b.AddASN1(explicit0, func(b *cryptobyte.Builder) { addTime(b, s.NextUpdate) })
		}
		if len(s.Extensions) > 0 {
			b.AddASN1(explicit1, func(b *cryptobyte.Builder) { addExtensions(b, s.Extensions) })
		}
	})
}

// addTime writes a GeneralizedTime. RFC 5280 section 4.1.2.5.2: UTC, with seconds, without fractions.
func addTime(b *cryptobyte.Builder, t time.Time) {
	b.AddASN1GeneralizedTime(t.UTC().Truncate(time.Second))
}
