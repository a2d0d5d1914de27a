package ca

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/anchor"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/catalogue"
	"github.com/certanchor/certanchor/internal/problem"
	"github.com/certanchor/certanchor/network"
)

// Request asks for a certificate.
type Request struct {
	CSR            string // PEM
	Profile        string
	Client         string    // who asks
	IdempotencyKey string    // may be empty
	CA             wire.CAID // which generation of the CA's key; zero: the one that issues

	Supersedes wire.Serial   // a certificate that is revoked when this one is there; nil: none
	Overlap    time.Duration // and how long after

	override override // over cfssl's API
}

// Issued is a certificate that the ledger has.
type Issued struct {
	Serial wire.Serial
	DER    []byte
	Log    wire.LogEntry
	Block  uint64
	TxID   string
}

// Steps of an issuance, in order, as Config.step sees them.
const (
	stepChecked     = "checked"
	stepSigned      = "signed"
	stepSuperseding = "superseding" // it is durable which certificate the new one replaces, if it does
	stepJournalled  = "journalled"
	stepAnchored    = "anchored"
	stepRecorded    = "recorded"
	stepReleasing   = "releasing" // over HTTP: the answer is about to be written
)

// Issue carries a request through the steps in doc.go. It returns a certificate only when the ledger has it. Errors:
// *wire.Error for a request that is at fault (from the CA's checks or the contract's), else those that problem.From sorts;
// a *problem.Problem of unknown outcome names where to ask later.
func (s *Server) Issue(ctx context.Context, r Request) (*Issued, error) {
	ctx, cancel := context.WithTimeout(ctx, s.settings.IssueTimeout)
	defer cancel()
	s = s.first() // one lock and one answer for an idempotency key, whichever generation's CA is asked
	request := digestOf(&r)
	var key digest
	if r.IdempotencyKey != "" {
		key = sha256.Sum256(fmt.Appendf(nil, "%d:%s%s", len(r.Client), r.Client, r.IdempotencyKey))
		release, err := s.keys.lock(ctx, key)
		if err != nil {
			return nil, &network.UnavailableError{Stage: "wait for the same request", Err: err}
		}
		defer release()
		for _, g := range s.line.list() {
			if e := g.book.findKey(key); e != nil {
				return g.repeat(ctx, e, request)
			}
		}
	}
	g, err := s.issuerFor(r.CA)
	if err != nil {
		return nil, err
	}
	return g.issueNew(ctx, r, request, key)
}

// issueNew carries out a request that has no certificate yet. key is zero without an idempotency key.
func (s *Server) issueNew(ctx context.Context, r Request, request, key digest) (*Issued, error) {
	csr, err := s.checked(r)
	if err != nil {
		return nil, err
	}
	leave, err := s.blocked.enter(catalogue.KeyOf(csr.RawSubjectPublicKeyInfo))
	if err != nil {
		return nil, err
	}
	defer leave()
	if err := s.mayBegin(ctx, r); err != nil {
		return nil, err
	}
	ctx, release, err := s.admit(anchor.WithCaller(ctx, "client "+r.Client))
	if err != nil {
		return nil, err
	}
	defer release()
	s.step(stepChecked)
	rec, err := s.signed(ctx, r, csr)
	if err != nil {
		return nil, err
	}
	if err := s.maySupersede(r, rec.Cert); err != nil {
		return nil, err
	}
	rec.Request = request[:]
	if r.IdempotencyKey != "" {
		rec.Key = key[:]
	}
	if err := s.journalSigned(r, rec); err != nil {
		return nil, err
	}
	defer s.superseded.journalled(r, rec.Serial) // once more, when the outcome is known
	e := s.book.findSerial(rec.Serial)
	if rec.Kind == kindPrecert {
		return s.bringWithSCTs(ctx, e, rec.Cert)
	}
	return s.bring(ctx, e, rec.Cert)
}

// mayBegin returns why nothing can be signed now: nothing is with a key out of use, that could not be journalled, or that the ledger could not take.
func (s *Server) mayBegin(ctx context.Context, r Request) error {
	if err := errors.Join(s.clockSound(), s.checkFronts(r.Profile), s.checkSuperseded(ctx, r)); err != nil {
		return err
	}
	if err := s.mayIssue(r.Profile); err != nil {
		return err
	}
	return s.journal.health()
}

// signed makes the certificate, or the precertificate of one for a profile that has it so, and returns the journal's record of it, without what tells the request.
func (s *Server) signed(ctx context.Context, r Request, csr *x509.CertificateRequest) (*record, error) {
	cert, err := s.issuer.sign(csr, r.Profile)
	if err != nil {
		return nil, err
	}
	s.step(stepSigned)
	rec := &record{Kind: kindSigned, Cert: cert.Raw, Client: r.Client, Profile: r.Profile, Op: operationOf(ctx).reference()}
	if rec.Serial, err = wire.SerialOf(cert.SerialNumber); err != nil {
		return nil, err
	}
	if k := s.issuer.policy.rules[r.Profile].scts; k > 0 {
		rec.Kind, rec.Need = kindPrecert, uint(k) //nolint:gosec // 1 to maxSCTs
	}
	return rec, nil
}

// journalSigned makes durable what was signed, and before it which certificate it replaces.
func (s *Server) journalSigned(r Request, rec *record) error {
	if err := s.superseded.begin(r, rec.Serial); err != nil {
		return err
	}
	s.step(stepSuperseding)
	err := s.note(rec)
	s.superseded.journalled(r, rec.Serial)
	if err != nil {
		return fmt.Errorf("couldn't journal the certificate, which is dropped: %w", err)
	}
	s.step(stepJournalled)
	return nil
}

// checked looks for the request's own faults, which come first, whatever the ledger's condition.
func (s *Server) checked(r Request) (*x509.CertificateRequest, error) {
	csr, err := parseCSR(r.CSR)
	if err != nil {
		return nil, err
	}
	if err := keyFault(s.weakKeys.Check(csr.PublicKey)); err != nil {
		return nil, err
	}
	p, err := s.issuer.profile(r.Profile)
	if err != nil {
		return nil, err
	}
	if csr, err = r.override.apply(csr, r.Profile, p); err != nil {
		return nil, err
	}
	if err := s.issuer.policy.rules[r.Profile].check(csr, r.Profile); err != nil {
		return nil, err
	}
	return csr, checkAgainst(csr, r.Profile, p)
}

// bring submits a journalled certificate and records the outcome.
func (s *Server) bring(ctx context.Context, e *entry, der []byte) (*Issued, error) {
	place, receipt, err := s.anchor.Issue(ctx, der)
	if err != nil {
		return nil, s.notAnchored(e, err)
	}
	s.step(stepAnchored)
	if err := s.recordAnchored(e, place, receipt); err != nil {
		return nil, err
	}
	s.step(stepRecorded)
	return &Issued{Serial: e.serial, DER: der, Log: place, Block: receipt.Block, TxID: receipt.TxID}, nil
}

// notAnchored records why the first of a serial was not anchored, and returns what its requester is told.
func (s *Server) notAnchored(e *entry, err error) error {
	if errors.Is(err, network.ErrUnknownOutcome) {
		return s.leave(e, err)
	}
	// Nothing was written, now or later: no attempt of unknown outcome came before.
	k := kindRefused
	if errors.Is(err, network.ErrUnavailable) {
		k = kindAbandoned
	}
	if nerr := s.note(&record{Kind: k, Serial: e.serial, Refusal: refusalOf(err)}); nerr != nil {
		return errors.Join(nerr, err)
	}
	return err
}

// leave hands a certificate over to the resolver, and returns what its requester is told.
func (s *Server) leave(e *entry, err error) error {
	e.suspect = s.now()
	s.book.release(e)
	s.kickResolver()
	return s.unknown(e, err)
}

func (s *Server) recordAnchored(e *entry, place wire.LogEntry, receipt network.Receipt) error {
	s.reached.Store(s.now().UnixMilli())
	err := s.note(&record{Kind: kindAnchored, Serial: e.serial, Log: &place, Block: receipt.Block, TxID: receipt.TxID})
	if err != nil {
		return fmt.Errorf("certificate %s is on the ledger at index %d, but the journal did not take that: %w", e.serial, place.Index, err)
	}
	return nil
}

// repeat answers a request whose idempotency key is in use.
func (s *Server) repeat(ctx context.Context, e *entry, request digest) (*Issued, error) {
	if e.request != request {
		return nil, problem.New(http.StatusUnprocessableEntity, string(wire.InvalidArgument), caapi.IdempotencyKey, "",
			"must not be used again for another request: an earlier one with this key had a different csr, profile or ca_id")
	}
	return s.await(ctx, e)
}

// await returns the certificate of an entry once its outcome is known.
func (s *Server) await(ctx context.Context, e *entry) (*Issued, error) {
	_, resolved := s.book.stateOf(e)
	select {
	case <-resolved:
	default:
		s.kickResolver()
		select {
		case <-resolved:
		case <-ctx.Done():
			return nil, s.unknown(e, ctx.Err())
		}
	}
	return s.released(e)
}

// released returns a certificate that may leave: only one in stateAnchored may.
func (s *Server) released(e *entry) (*Issued, error) {
	st, _ := s.book.stateOf(e)
	if st != stateAnchored {
		if e.refusal != nil && st == stateRefused {
			return nil, e.refusal
		}
		return nil, notIssued(e.serial)
	}
	r, err := s.journal.read(e.current())
	if err != nil {
		return nil, err
	}
	return &Issued{Serial: e.serial, DER: r.Cert, Log: e.log, Block: e.block, TxID: e.txID}, nil
}

func notIssued(serial wire.Serial) error {
	return wire.Errorf(wire.NotFound, "serial", serial.String(), "must be the serial of a certificate that this CA has issued")
}

// unknown tells the requester where to ask again.
func (s *Server) unknown(e *entry, err error) error {
	u := &network.UnknownOutcomeError{Stage: "issue", Err: err}
	var deep *network.UnknownOutcomeError
	if errors.As(err, &deep) {
		u.TxID = deep.TxID
	}
	p := problem.From(u)
	p.Instance = caapi.PathCertificates + "/" + e.serial.String()
	s.log.Warn("outcome of an issuance is unknown", "serial", e.serial.String(), "error", err)
	return p
}

// refusalOf is err in the form the journal keeps.
func refusalOf(err error) *wire.Error {
	var we *wire.Error
	if errors.As(err, &we) {
		return we
	}
	return wire.Errorf(wire.FailedPrecondition, "ledger", "", "%v", err)
}
