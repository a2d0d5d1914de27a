package ocspwire

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
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
	if err := r.check(); err != nil {
		return nil, err
	}
	scratch := writers.Get().(*writer)
	defer writers.Put(scratch)
	scratch.reset(1024)
	scratch.responseData(r)
	tbs := scratch.buf[scratch.at:]
	a, sig, err := signWith(key, alg, tbs)
	if err != nil {
		return nil, err
	}
	size := len(tbs) + len(a.der) + len(sig) + 80 // of headers: at most 9 of 6 octets, the type and the status
	for _, c := range r.Certs {
		size += len(c)
	}
	out := writer{buf: make([]byte, size), at: size}
	out.signed(tbs, a, sig, r.Certs)
	return out.buf[out.at:], nil
}

func (r *Response) marshalTBS() ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	var w writer
	w.reset(1024)
	w.responseData(r)
	return w.buf[w.at:], nil
}

// check refuses what RFC 6960 section 4.2.1 has no encoding for, so that a mistake does not become another answer.
func (r *Response) check() error {
	if len(r.Responses) == 0 {
		return fmt.Errorf("ocsp: response without a certificate's status")
	}
	if (r.Responder.Name == nil) == (r.Responder.KeyHash == nil) {
		return fmt.Errorf("ocsp: responder ID must be by name or by key, not both and not neither")
	}
	if err := checkYear("producedAt", r.ProducedAt); err != nil {
		return err
	}
	for i := range r.Responses {
		if err := r.Responses[i].check(); err != nil {
			return err
		}
	}
	return checkOIDs(r.Extensions)
}

// checkYear: GeneralizedTime has four digits for it.
func checkYear(field string, t time.Time) error {
	if y := t.UTC().Year(); y < 0 || y > 9999 {
		return fmt.Errorf("ocsp: %s is in the year %d: must be 0 to 9999", field, y)
	}
	return nil
}

// checkOIDs: an identifier that was not read from DER may be none.
func checkOIDs(exts []pkix.Extension) error {
	for i := range exts {
		if id := exts[i].Id; len(id) < 2 || id[0] > 2 || id[0] < 2 && id[1] >= 40 || slices.Min(id) < 0 {
			return fmt.Errorf("ocsp: extension %v: must have an object identifier", id)
		}
	}
	return nil
}

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
	for _, t := range []struct {
		field string
		time  time.Time
	}{{"revocationTime", s.RevokedAt}, {"thisUpdate", s.ThisUpdate}, {"nextUpdate", s.NextUpdate}} {
		if err := checkYear(t.field, t.time); err != nil {
			return err
		}
	}
	if err := checkOIDs(s.Extensions); err != nil {
		return err
	}
	return checkTimes(s.Extensions)
}

// addTime writes a GeneralizedTime. RFC 5280 section 4.1.2.5.2: UTC, with seconds, without fractions.
func addTime(b *cryptobyte.Builder, t time.Time) {
	b.AddASN1GeneralizedTime(t.UTC().Truncate(time.Second))
}
