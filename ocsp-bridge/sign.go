package ocspbridge

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctleaf"
	"github.com/certanchor/certanchor/internal/ocspwire"
)

// chooseSigner chooses who signs, and how. A request about no CA on the trust list gets its "unknown" from the first identity there is:
// only a client that trusts this responder by configuration can believe it, and no other answer could be better founded.
func (b *Bridge) chooseSigner(q *question) error {
	ca := q.ca
	if ca == nil {
		err := fmt.Errorf("no CA is on the trust list")
		for _, ca = range q.view.CAs() {
			if _, err = b.responders.Signer(ca, q.now); err == nil {
				break
			}
		}
		if err != nil {
			return err
		}
	}
	prefs := q.req.PreferredAlgorithms()
	if prefs == nil {
		var err error
		if q.signer, err = b.responders.Signer(ca, q.now); err != nil {
			return err
		}
		q.alg, err = ocspwire.ChooseAlgorithm(q.signer.Key.Public(), nil)
		return err
	}
	ids, err := b.responders.Signers(ca, q.now)
	if err != nil {
		return err
	}
	return q.prefer(ids, prefs)
}

// prefer takes the first of the client's wishes that one of the identities can fulfil, or what is usual if there is none (RFC 6960
// section 4.4.7.2).
func (q *question) prefer(ids []*identity, prefs []ocspwire.PreferredAlgorithm) error {
	q.signer = ids[0]
	usual, err := ocspwire.ChooseAlgorithm(q.signer.Key.Public(), nil)
	if err != nil {
		return err
	}
	q.alg = usual
	for i := range prefs {
		for _, id := range ids {
			alg, err := ocspwire.ChooseAlgorithm(id.Key.Public(), prefs[i:i+1])
			if err != nil {
				return err
			}
			if alg == prefs[i].Signature {
				q.signer, q.alg, q.chosen = id, alg, id != ids[0] || alg != usual
				return nil
			}
		}
	}
	return nil
}

// responderID is how the answer names its signer. Both forms are for clients to choose the signer's certificate among those sent along, and both are
// of the certificate, which is the only one sent.
func (b *Bridge) responderID(signer *identity) ocspwire.ResponderID {
	if b.cfg.Settings.ResponderID == ResponderByName {
		return ocspwire.ResponderID{Name: signer.Cert.RawSubject}
	}
	return signer.ID
}

// checkRequestor tells whether a signed request is by the holder of a certificate that is on the ledger and valid, of whichever CA.
func (b *Bridge) checkRequestor(q *question) error {
	cert, err := q.req.Verify(ocspwire.RequestorOptions{})
	if err != nil {
		return err
	}
	if q.now.Before(cert.NotBefore) || q.now.After(cert.NotAfter) {
		return fmt.Errorf("%w: its certificate is valid from %s to %s only", ocspwire.ErrRequestor, cert.NotBefore, cert.NotAfter)
	}
	serial, err := wire.SerialOf(cert.SerialNumber)
	if err != nil {
		return fmt.Errorf("%w: %w", ocspwire.ErrRequestor, err)
	}
	for _, ca := range q.view.CAs() {
		for _, issuer := range ca.Certs {
			if !bytes.Equal(cert.RawIssuer, issuer.RawSubject) || issuer.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) != nil {
				continue
			}
			if err := b.validOnLedger(ca.ID, serial, cert); err != nil {
				return fmt.Errorf("%w: certificate %s %w", ocspwire.ErrRequestor, serial, err)
			}
			return nil
		}
	}
	return fmt.Errorf("%w: no CA on the trust list has issued the certificate of %s", ocspwire.ErrRequestor, cert.Subject)
}

// validOnLedger tells whether the ledger has this very certificate, with the status valid.
func (b *Bridge) validOnLedger(id wire.CAID, serial wire.Serial, cert *x509.Certificate) error {
	st, rec, err := b.index.Status(id, serial)
	if err != nil {
		return err
	}
	if rec == nil || rec.Final == nil {
		return errors.New("is not on the ledger")
	}
	leaf, err := ctleaf.Hash(rec.Final.Index, rec.Final.Time, cert.Raw)
	if err != nil {
		return err
	}
	if !bytes.Equal(leaf[:], rec.Final.LeafHash) {
		return errors.New("is not the one that the ledger has")
	}
	if st.State != wire.CertValid {
		return fmt.Errorf("is not valid since %s", st.Time.Time())
	}
	return nil
}
