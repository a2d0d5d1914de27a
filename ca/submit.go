package ca

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
)

// SubmitCertificate anchors a certificate or precertificate of this CA that other software signed, and returns where it stands in the
// log once that is committed. A repetition returns the same place. Nothing is journalled: what was not signed here is not held back
// here either, and whoever has it submits it again when the outcome is unknown.
//
// Errors: *wire.Error for what is not this CA's certificate, which costs no transaction, and for what the contract refuses;
// network.ErrUnavailable when the ledger cannot be reached or too many others wait: nothing was written; network.ErrUnknownOutcome.
func (s *Server) SubmitCertificate(ctx context.Context, der []byte) (wire.LogEntry, error) {
	if err := s.issuer.signed(der); err != nil {
		return wire.LogEntry{}, err
	}
	return s.submit(ctx, der)
}

// submit is SubmitCertificate for a certificate whose signature is verified.
func (s *Server) submit(ctx context.Context, der []byte) (wire.LogEntry, error) {
	ctx, cancel := context.WithTimeout(ctx, s.settings.IssueTimeout)
	defer cancel()
	leave, err := s.enterSubmitted(der)
	if err != nil {
		return wire.LogEntry{}, err
	}
	defer leave()
	ctx, release, err := s.admit(ctx)
	if err != nil {
		return wire.LogEntry{}, err
	}
	defer release()
	place, _, err := s.anchor.Issue(ctx, der)
	if err == nil {
		s.reached.Store(s.now().UnixMilli())
	}
	return place, err
}

// signed checks that der is a certificate or precertificate with a signature of this CA's key. All else is the contract's to judge: which
// of the CA's certificates issued it, names, validity, the poison.
func (i *issuer) signed(der []byte) error {
	if len(der) == 0 || len(der) > wire.MaxCertDER {
		return invalid("certificate", fmt.Sprintf("%d bytes", len(der)), "must have 1 to %d bytes", wire.MaxCertDER)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return invalid("certificate", fmt.Sprintf("%d bytes", len(der)), "must be an X.509 certificate in DER: %v", err)
	}
	if err := i.cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature); err != nil {
		return invalid("certificate.signature", cert.Issuer.String(), "must be this CA's, %s: %v", i.cert.Subject, err)
	}
	if _, err := wire.SerialOf(cert.SerialNumber); err != nil {
		if we, ok := errors.AsType[*wire.Error](err); ok {
			return invalid("certificate.serial", we.Value, "%s", we.Rule)
		}
		return err
	}
	return nil
}

// admit reserves a place in the queue to the ledger, or refuses what the ledger could not take now. release is as anchor.Log.Admit says.
func (s *Server) admit(ctx context.Context) (_ context.Context, release func(), err error) {
	ctx, release, err = s.anchor.Admit(ctx)
	if err == nil {
		err = s.reachable(ctx)
	}
	if err != nil {
		release()
	}
	return ctx, release, err
}

// reachable costs a call to the ledger only when nothing has been heard from it for a while.
func (s *Server) reachable(ctx context.Context) error {
	if err := s.anchor.Down(); err != nil {
		return &network.UnavailableError{Stage: "issue", Err: fmt.Errorf("the ledger does not answer: %w", withoutOutcome(err))}
	}
	if !s.registered.Load() {
		return s.checkRegistered(ctx)
	}
	if s.now().UnixMilli()-s.reached.Load() < reachedFor.Milliseconds() {
		return nil
	}
	_, err := s.height(ctx)
	return err
}
