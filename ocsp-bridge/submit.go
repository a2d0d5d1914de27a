package ocspbridge

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctapi"
	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/ctfront"
)

// Submitter is a CA in this process that takes certificates for the ledger.
type Submitter interface {
	// SubmitCertificate returns once the certificate or precertificate is committed. Errors are those of ctapi.Submitter.
	SubmitCertificate(ctx context.Context, der []byte) (wire.LogEntry, error)
}

// Forward says where submissions to a CA's log go.
type Forward struct {
	CAID wire.CAID
	URL  string       // base URL of the log at the CA bridge, or at another organisation's front
	HTTP *http.Client // default: one with many connections
}

// openFront opens the certificate transparency logs.
func (b *Bridge) openFront() (err error) {
	if b.cfg.PublicURL == "" {
		return nil
	}
	forwards := map[wire.CAID]Forward{}
	client := ctfront.HTTPClient(nil)
	for i, f := range b.cfg.Forwards {
		if _, twice := forwards[f.CAID]; twice {
			return fmt.Errorf("submit[%d].issuer: %q: must be there once", i, f.CAID)
		}
		if f.HTTP == nil {
			f.HTTP = client
		}
		forwards[f.CAID] = f
	}
	b.front, err = ctfront.New(ctfront.Config{
		Dir: filepath.Join(b.cfg.Dir, "ct"), Keys: b.cfg.LogKeys, Seal: b.cfg.Seal, PublicURL: b.cfg.PublicURL, Operator: b.ledger.MSPID(),
		CAs: b.frontCAs, Log: b.index.Issuance, Record: b.index.Record, Now: b.cfg.Now, Logger: b.log,
		Submit: func(id wire.CAID) ctapi.Submitter { return b.submitter(id, forwards) },
	})
	return err
}

func (b *Bridge) frontCAs() []ctfront.CA {
	var cas []ctfront.CA
	for _, ca := range b.index.View().CAs() {
		cas = append(cas, ctfront.CA{ID: ca.ID, Record: ca.Record, Name: ca.Certs[0].Subject.String()})
	}
	return cas
}

// submitter returns who brings certificates of a CA onto the ledger; nil: nobody that this organisation knows.
func (b *Bridge) submitter(id wire.CAID, forwards map[wire.CAID]Forward) ctapi.Submitter {
	log, ok := b.index.Issuance(id)
	if !ok {
		return nil
	}
	if b.cfg.Submit != nil {
		if s := b.cfg.Submit(id); s != nil {
			return &localSubmitter{b, s, log}
		}
	}
	f, ok := forwards[id]
	if !ok {
		return nil
	}
	s, err := ctfront.Forward(ctfront.ForwardConfig{
		CAID: id, URL: f.URL, Log: log, HTTP: f.HTTP, Changed: b.index.Changed,
		Chain: func() [][]byte {
			ca := b.index.View().CA(id)
			return append([][]byte{ca.Record.Certs[0]}, ca.Record.Chain...)
		},
	})
	if err != nil {
		b.log.Error("submissions cannot be forwarded", "ca", id, "error", err)
		return nil
	}
	return s
}

// issuers returns the certificates of a CA on the trust list as far as the index has it, and whether that is to be believed when it has none: not
// while there may be blocks that this bridge has not read.
func (b *Bridge) issuers(id wire.CAID) ([]*x509.Certificate, bool) {
	v := b.index.View()
	_, err := b.fresh(v, b.cfg.Now())
	ca := v.CA(id)
	if ca == nil {
		return nil, err == nil
	}
	return ca.Certs, err == nil
}

// localSubmitter adds to a CA in this process that the index must have the entry before its SCT leaves.
type localSubmitter struct {
	b   *Bridge
	ca  Submitter
	log merklelog.Log
}

// Submit implements ctapi.Submitter.
func (s *localSubmitter) Submit(ctx context.Context, der []byte) (wire.LogEntry, error) {
	at, err := s.ca.SubmitCertificate(ctx, der)
	if err != nil {
		return at, err
	}
	if err := s.b.waitSize(ctx, s.log, at.Index+1); err != nil {
		return at, &network.UnknownOutcomeError{Stage: "reading entry " + strconv.FormatUint(at.Index, 10), Err: err}
	}
	return at, nil
}
