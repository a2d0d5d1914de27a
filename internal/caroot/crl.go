package caroot

import (
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/keyid"
	"github.com/certanchor/certanchor/internal/keystate"
)

// DefaultCRLValidity is how long a CRL of the root holds.
const DefaultCRLValidity = 365 * 24 * time.Hour

// Revoke notes that a subordinate CA's certificate is revoked from now on; the next CRL says so. Errors: *wire.Error for a certificate that the
// register does not have, one that is revoked, or a reason that a CRL of CAs cannot have.
func (r *Root) Revoke(serial *big.Int, reason wire.Reason, by string) error {
	text := serial.Text(16)
	e := r.reg.find(KindSigned, text)
	switch {
	case e == nil || e.N == 1:
		return bad("serial", text, "must be that of a subordinate CA's certificate in the register")
	case r.reg.find(KindRevoked, text) != nil:
		return bad("serial", text, "is revoked since %s", r.reg.find(KindRevoked, text).Time.Format(time.RFC3339))
	case reason == wire.CertificateHold || reason == wire.AACompromise:
		return bad("reason", reason.String(), "must be one that ends a CA's certificate")
	}
	return r.reg.append(Entry{Time: r.now(), By: by, Kind: KindRevoked, Serial: text, Subject: e.Subject, Reason: reason.String()})
}

// CRLOptions say what a CRL is.
type CRLOptions struct {
	Validity   time.Duration // default DefaultCRLValidity
	By         string
	Passphrase func() ([]byte, error)
	Confirm    func(plan string) error
}

// CRL signs the root's CRL: the subordinate CAs' certificates that are revoked and have not expired (RFC 5280 section 5). It returns DER. Its number is in the
// register before the signature exists.
func (r *Root) CRL(o CRLOptions) ([]byte, error) {
	if o.Validity == 0 {
		o.Validity = DefaultCRLValidity
	}
	now := r.now().UTC().Truncate(time.Second)
	next := now.Add(o.Validity)
	if o.Validity < time.Hour || next.After(r.Certificate.NotAfter) {
		return nil, bad("validity", o.Validity.String(), "must be at least an hour, and end before the root's certificate, %s", r.Certificate.NotAfter.Format(time.RFC3339))
	}
	number, list, err := r.revoked(now)
	if err != nil {
		return nil, err
	}
	plan := fmt.Sprintf("The root %s is about to sign CRL %d, %s to %s, with %d certificates:\n", r.Certificate.Subject, number, now.Format(time.RFC3339), next.Format(time.RFC3339), len(list))
	for _, e := range list {
		plan += fmt.Sprintf("  %s since %s\n", e.SerialNumber.Text(16), e.RevocationTime.Format(time.RFC3339))
	}
	if err := o.Confirm(plan); err != nil {
		return nil, err
	}
	key, err := r.key(keystate.CRLs, o.Passphrase)
	if err != nil {
		return nil, err
	}
	if err := r.reg.append(Entry{Time: r.now(), By: o.By, Kind: KindCRL, Number: number}); err != nil {
		return nil, err
	}
	r.did(stepReserved)
	template := &x509.RevocationList{Number: new(big.Int).SetUint64(number), ThisUpdate: now, NextUpdate: next, RevokedCertificateEntries: list}
	der, err := x509.CreateRevocationList(rand.Reader, template, r.Certificate, key)
	if err != nil {
		return nil, err
	}
	crl, err := x509.ParseRevocationList(der)
	if err == nil {
		err = crl.CheckSignatureFrom(r.Certificate)
	}
	if err != nil {
		return nil, fmt.Errorf("the key gave a bad signature: %w", err)
	}
	return der, nil
}

// revoked returns the next CRL's number and entries.
func (r *Root) revoked(now time.Time) (number uint64, list []x509.RevocationListEntry, err error) {
	number = 1
	for i := range r.reg.entries {
		e := &r.reg.entries[i]
		if e.Kind == KindCRL {
			number = max(number, e.Number+1)
		}
		if e.Kind != KindRevoked {
			continue
		}
		signed := r.reg.find(KindSigned, e.Serial)
		if signed == nil {
			return 0, nil, fmt.Errorf("register entry %d: revokes what was not signed", e.N)
		}
		cert, err := x509.ParseCertificate(signed.Cert)
		if err != nil {
			return 0, nil, err
		}
		reason, err := wire.ParseReason(e.Reason)
		if err != nil {
			return 0, nil, err
		}
		// RFC 5280 section 3.3: a revoked certificate is on at least one CRL that begins after it has expired.
		if cert.NotAfter.Add(2 * DefaultCRLValidity).Before(now) {
			continue
		}
		list = append(list, x509.RevocationListEntry{SerialNumber: cert.SerialNumber, RevocationTime: e.Time, ReasonCode: int(reason)})
	}
	return number, list, nil
}

func keyIDOf(csr *x509.CertificateRequest) []byte {
	id, err := keyid.Of(csr.PublicKey)
	if err != nil {
		panic(errors.Join(errors.New("a key that was parsed"), err))
	}
	return id
}
