package served

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"sync"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/audit"
)

// subject is a certificate that bridges are asked about.
type subject struct {
	*audit.Certificate
	cert, issuer *x509.Certificate
	index        uint64 // of its entry: the certificate's, or the precertificate's if that is all
}

// sample counts the certificates and chooses: each about which anything was ever said, and some of the others, each as likely.
func (c *comparison) sample(ctx context.Context) error {
	var always, some []*audit.Certificate
	r, plain := c.report, 0
	err := c.Audit.Certificates(func(cert *audit.Certificate) error {
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

// question is what one bridge is asked about one certificate.
type question struct {
	seq    int
	bridge *bridge
	of     *subject
	ask    func(context.Context, *bridge, *subject) *Difference
}

// askSample asks every bridge about every chosen certificate. Who seems to be wrong is asked again after the blocks that have come
// meanwhile: the bridge may have been ahead.
func (c *comparison) askSample(ctx context.Context) error {
	all := make([]*question, 0, 2*len(c.bridges)*len(c.sampled))
	for _, b := range c.bridges {
		for _, s := range c.sampled {
			all = append(all, &question{len(all), b, s, c.askOCSP})
			if c.Policy != nil && s.Record.Final != nil {
				all = append(all, &question{len(all), b, s, c.askBundle})
			}
		}
	}
	again := c.askAll(ctx, all)
	if ctx.Err() != nil || len(again) == 0 {
		return ctx.Err()
	}
	if err := c.CatchUp(ctx); err != nil {
		return err
	}
	if err := c.knownLogs(ctx); err != nil {
		return err
	}
	for _, q := range again {
		now, err := c.Audit.Certificate(q.of.CAID, q.of.Serial)
		if err != nil {
			return err
		}
		s := *q.of
		s.Certificate = now
		d := q.ask(ctx, q.bridge, &s)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if d != nil && !c.add(0, d) {
			break
		}
	}
	return nil
}

// askAll returns the questions with a wrong answer, in order.
func (c *comparison) askAll(ctx context.Context, all []*question) (wrong []*question) {
	var (
		workers sync.WaitGroup
		mu      sync.Mutex
		next    int
		bad     = make([]bool, len(all))
	)
	for range c.Concurrency {
		workers.Go(func() {
			for ctx.Err() == nil {
				mu.Lock()
				i := next
				next++
				mu.Unlock()
				if i >= len(all) {
					return
				}
				if i%100 == 0 {
					c.progress("certificates", uint64(i), uint64(len(all)))
				}
				bad[i] = all[i].ask(ctx, all[i].bridge, all[i].of) != nil
			}
		})
	}
	workers.Wait()
	for i, q := range all {
		if bad[i] {
			wrong = append(wrong, q)
		}
	}
	return wrong
}
