package mirror

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caimport"
	"github.com/certanchor/certanchor/internal/ocspwire"
)

const (
	ocspTimeout  = 15 * time.Second
	maxOCSPBytes = 64 << 10
	ocspLongest  = time.Minute // rest after failures
)

// ocspRest is how long the responder is left alone after so many failures in a row.
func (m *Mirror) ocspRest() time.Duration {
	if m.ocspFaults == 0 {
		return 0
	}
	return min(time.Second<<min(m.ocspFaults-1, 10), ocspLongest)
}

// askNext asks about the certificate whose turn it is.
func (m *Mirror) askNext(ctx context.Context) error {
	serial := m.known.turn(m.cfg.Now(), m.listed.has)
	if serial == nil {
		return nil
	}
	return m.ask(ctx, serial)
}

// ask asks the responder about one certificate and imports what is news. An answer that cannot be believed is counted, and no error.
func (m *Mirror) ask(ctx context.Context, serial wire.Serial) error {
	m.report.Asked++
	single, err := m.question(ctx, serial)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		m.report.OCSPFailed++
		m.report.LastError = fmt.Sprintf("%s: serial %s: %v", m.cfg.OCSP, serial, err)
		if m.ocspFaults++; m.ocspFaults == 1 || m.ocspFaults%50 == 0 {
			m.cfg.Log.Warn("the responder gave no answer that can be believed", "url", m.cfg.OCSP, "serial", serial.String(), "failures", m.ocspFaults, "error", err)
		}
		return nil
	}
	m.ocspFaults = 0
	if single.Status != ocspwire.Revoked {
		return nil // good is what the ledger says; and what the CA does not know, it will tell by its CRL
	}
	return m.news(ctx, serial, single)
}

// news imports what the responder says and the CRL does not say yet.
func (m *Mirror) news(ctx context.Context, serial wire.Serial, single *ocspwire.SingleResponse) error {
	st := caimport.Status{State: wire.CertRevoked, Revoked: wire.MillisOf(single.RevokedAt)}
	if single.Reason != ocspwire.NoReason {
		st.Reason = wire.Reason(single.Reason)
	}
	if st.Reason == wire.CertificateHold {
		st.State = wire.CertHeld
	} else if at := single.InvalidityDate(); !at.IsZero() {
		st.Invalidity = wire.MillisOf(at)
	}
	switch {
	case single.RevokedAt.Unix() <= 0: // RFC 6960 section 2.2: so a responder speaks of what was never issued
		m.cfg.Log.Warn("the responder does not know a certificate that the ledger has", "serial", serial.String())
		return nil
	case st.State == wire.CertHeld && single.ThisUpdate.Before(m.state.ThisUpdate):
		return nil // the CRL is newer, and does not have it
	}
	if st.State == wire.CertHeld {
		m.state.Holds[serial.String()] = hold{Asserted: st.Revoked, Learned: single.ThisUpdate}
		if err := m.state.save(); err != nil { // before the ledger knows
			return err
		}
	}
	changed := m.report.Changed
	if err := m.importItems(ctx, []*caimport.Item{itemOf(m.cfg.OCSP, serial, st)}); err != nil {
		return err
	}
	m.report.OCSPNews += m.report.Changed - changed
	// What the ledger refuses is not kept: it is asked about again when its turn comes.
	delete(m.state.Retry, serial.String())
	return nil
}

// question sends one request (RFC 6960 appendix A.1) and verifies the answer.
func (m *Mirror) question(ctx context.Context, serial wire.Serial) (*ocspwire.SingleResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, ocspTimeout)
	defer cancel()
	issuer := m.cfg.CA.Certs[0]
	id, err := ocspwire.NewCertID(crypto.SHA1, issuer, serial.Int()) // what every responder knows
	if err != nil {
		return nil, err
	}
	der, err := (&ocspwire.Request{Items: []ocspwire.RequestItem{{ID: id}}}).Marshal()
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, m.cfg.OCSP, bytes.NewReader(der))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/ocsp-request")
	resp, err := m.cfg.HTTP.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("HTTP status %d: must be 200", resp.StatusCode)
	}
	raw, err := bounded(resp.Body, maxOCSPBytes)
	if err != nil {
		return nil, err
	}
	return m.verify(raw, ocspwire.VerifyOptions{Issuer: issuer, ID: id, Now: m.cfg.Now(), Skew: skew})
}

// verify is ocspwire's Verify, but for a delegate without id-pkix-ocsp-nocheck, as many CAs have: this mirror can look whether it is on the
// CA's CRL (RFC 6960 section 4.2.2.2.1).
func (m *Mirror) verify(raw []byte, opts ocspwire.VerifyOptions) (*ocspwire.SingleResponse, error) {
	status, resp, err := ocspwire.ParseResponse(raw)
	if err != nil {
		return nil, err
	}
	if status != ocspwire.Successful {
		return nil, fmt.Errorf("the responder answers %s", status)
	}
	single, _, err := resp.Verify(opts)
	if err == nil || !errors.Is(err, ocspwire.ErrSigner) {
		return single, err
	}
	for _, der := range resp.Certs {
		cert, perr := x509.ParseCertificate(der)
		if perr != nil || m.delegate(cert, opts) != nil {
			continue
		}
		opts.Issuer = cert // it names the signer; the certificate asked about is in opts.ID
		if single, _, err := resp.Verify(opts); err == nil {
			return single, nil
		}
	}
	return nil, err
}

// delegate: RFC 6960 section 4.2.2.2.
func (m *Mirror) delegate(cert *x509.Certificate, opts ocspwire.VerifyOptions) error {
	now := opts.Now
	if !bytes.Equal(cert.RawIssuer, opts.Issuer.RawSubject) || now.Before(cert.NotBefore.Add(-skew)) || now.After(cert.NotAfter.Add(skew)) {
		return errors.New("is not of this CA, or not valid now")
	}
	if err := opts.Issuer.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature); err != nil {
		return err
	}
	serial, err := wire.SerialOf(cert.SerialNumber)
	if err != nil {
		return err
	}
	if _, revoked := m.listed.serials[string(serial)]; revoked {
		return errors.New("is on the CRL")
	}
	for _, u := range cert.ExtKeyUsage {
		if u == x509.ExtKeyUsageOCSPSigning {
			return nil
		}
	}
	return errors.New("has no id-kp-OCSPSigning")
}
