package ocspwire

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Sign is SignWith the key's default algorithm.
func (r *Response) Sign(key crypto.Signer) ([]byte, error) {
	alg, err := ChooseAlgorithm(key.Public(), nil)
	if err != nil {
		return nil, err
	}
	return r.SignWith(key, alg)
}

// SignWith encodes r as a successful OCSPResponse signed by key, whose public half Responder must name. It fails on a key or an
// algorithm that Algorithms does not list, on a response without a SingleResponse, and on a status, reason or time that has no
// encoding.
func (r *Response) SignWith(key crypto.Signer, alg x509.SignatureAlgorithm) ([]byte, error) {
	tbs, err := r.marshalTBS()
	if err != nil {
		return nil, err
	}
	a, sig, err := signWith(key, alg, tbs)
	if err != nil {
		return nil, err
	}
	size := len(tbs) + len(sig) + 128
	for _, c := range r.Certs {
		size += len(c)
	}
	b := cryptobyte.NewBuilder(make([]byte, 0, size))
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Enum(int64(Successful))
		b.AddASN1(explicit0, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(OIDBasic)
				b.AddASN1(cbasn1.OCTET_STRING, func(b *cryptobyte.Builder) { r.addBasic(b, tbs, a, sig) })
			})
		})
	})
	return b.Bytes()
}

func (r *Response) addBasic(b *cryptobyte.Builder, tbs []byte, alg *signatureAlg, sig []byte) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(tbs)
		b.AddBytes(alg.der)
		b.AddASN1BitString(sig)
		if len(r.Certs) > 0 {
			addCerts(b, r.Certs)
		}
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
	return checkTimes(s.Extensions)
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
