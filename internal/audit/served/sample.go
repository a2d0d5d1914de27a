package served

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/audit"
)

// subject is a certificate that bridges are asked about.
type subject struct {
	*audit.Certificate
	cert, issuer *x509.Certificate // cert is nil if the ledger has the serial number only
	index        uint64            // of its entry: the certificate's, or the precertificate's if that is all
}

// sample counts the certificates and chooses: each about which anything was ever said, and some of the others, each as likely.
func (c *comparison) sample(ctx context.Context) error {
	var always, some []*audit.Certificate
	r, plain := c.report, 0
	err := c.Audit.Certificates(func(cert *audit.Certificate) error {
		if cert.Record.Imported {
			r.Imported++
		}
		if cert.Record.SerialOnly() {
			r.SerialOnly++
		}
		switch r.Certificates++; cert.Status.State {
		case wire.CertValid:
			r.Good++
		case wire.CertHeld:
			r.Held++
		case wire.CertRevoked:
			r.Revoked++
		}
		if len(c.bridges) == 0 {
			return nil
		}
		if err := c.sawResponder(cert); err != nil {
			return err
		}
		if !cert.Plain() {
			always = append(always, cert)
			return nil
		}
		plain++
		if c.Sample == 0 || len(some) < c.Sample {
			some = append(some, cert)
		} else if i := c.Rand.IntN(plain); i < c.Sample {
			some[i] = cert
		}
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	for _, cert := range append(always, some...) {
		s, err := c.subject(cert)
		if err != nil {
			return err
		}
		c.sampled = append(c.sampled, s)
	}
	return nil
}

// subject reads the certificate itself.
func (c *comparison) subject(cert *audit.Certificate) (*subject, error) {
	l := c.log(cert.CAID.String())
	at := cert.Record.Final
	if at == nil {
		at = cert.Record.Pre
	}
	if l != nil && at == nil && cert.Record.Imported {
		s := &subject{Certificate: cert}
		var err error
		if s.issuer, err = x509.ParseCertificate(l.CA.Certs[0]); err != nil {
			return nil, fmt.Errorf("CA %s: %w", l.Name, err)
		}
		return s, nil
	}
	if l == nil || at == nil {
		return nil, fmt.Errorf("certificate %s of CA %s: has no entry in a log", cert.Serial, cert.CAID)
	}
	e, err := c.Audit.Entry(l, at.Index)
	if err != nil {
		return nil, err
	}
	s := &subject{Certificate: cert, index: at.Index}
	if s.cert, err = x509.ParseCertificate(e.DER); err != nil {
		return nil, fmt.Errorf("entry %d of log %s: %w", at.Index, l.Name, err)
	}
	for _, der := range l.CA.Certs {
		issuer, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("CA %s: %w", l.Name, err)
		}
		if s.issuer == nil || bytes.Equal(issuer.RawSubject, s.cert.RawIssuer) {
			s.issuer = issuer
		}
	}
	return s, nil
}

func (s *subject) String() string {
	return fmt.Sprintf("certificate %s of CA %s", s.Serial, s.CAID)
}
