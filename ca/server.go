package ca

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/anchor"
	"github.com/certanchor/certanchor/internal/metrics"
	"github.com/certanchor/certanchor/internal/sct"
	"github.com/certanchor/certanchor/internal/weakkey"
	"github.com/certanchor/certanchor/network"
)

// Config is what a Server is made of.
type Config struct {
	Dir        string        // made by Init
	Key        crypto.Signer // from LoadKey, or another keeper of the CA's key
	KeyUsable  func() error  // why the key must sign nothing now, neither certificates nor CRLs; nil: it may
	Settings   Settings
	Responders []Responder       // in this process, beside Settings.Responders
	CRLHTTP    *http.Client      // for the OCSP bridges of Settings.CRL, without a timeout of its own; default: one with the system's roots
	CT         *Submissions      // nil: certificates that other software signed are not taken
	Fronts     []Front           // of other organisations: their SCTs, beside that of CT.Key, are embedded for profiles that have it so
	WeakKeys   *weakkey.List     // keys that are not certified, beside those that package weakkey finds; nil: none
	Metrics    *metrics.Registry // served at caapi.PathMetrics; default one of its own. No two Servers may share one
	Now        func() time.Time  // default time.Now
	Log        *slog.Logger      // default slog.Default

	// OpenKey opens the key of the generation of the CA's key that Rotate made in dir; nil: none is looked for. Join, if it is not nil, may put that one on the trust list.
	OpenKey func(dir string) (crypto.Signer, error)
	Join    func(ctx context.Context, cert *x509.Certificate, chain []*x509.Certificate) error
	// NextCT gives, if CT is not nil, the key of the log of a generation after the first; nil, or a nil *sct.Key: that one takes no submissions, and its SCTs are only
	// those of Fronts. The old key is not retired while profiles would become unusable by that.
	NextCT func(caID wire.CAID) (*sct.Key, error)

	line *lineage // of a generation after the first
	home string   // directory of the first generation

	// step is called with the name of each step of an issuance that has just ended. Tests die there.
	step    func(string)
	lintCRL func(der []byte) error // default lintCRL

	bulkChunk int // certificates of a bulk that are brought to the ledger at a time; default wire.MaxBatch
}

// Server is a running CA. Its methods are safe for concurrent use.
type Server struct {
	dir        string
	settings   Settings
	issuer     *issuer
	clients    *access
	dual       *dualControl
	responders []Responder
	ledger     network.Ledger
	metrics    *metrics.Registry
	anchor     *anchor.Log
	journal    *journal
	book       *book
	keys       keyedLock
	front      *front // nil: see Config.CT
	fronts     *fronts
	weakKeys   *weakkey.List
	operators  *operators
	backups    sync.Mutex // one at a time
	crls       *crlMaker  // nil: no CRLs are made
	log        *slog.Logger
	now        func() time.Time
	step       func(string)
	keyUsable  func() error
	custody    *custody
	line       *lineage
	enrolled   atomic.Int64 // responder certificates that this process has issued
	told       bool         // the operators' log tells that this generation's key was taken up; of the goroutine of succeed
	revoking

	lags chan struct{} // closed once the journal has what the ledger has of a restored generation; nil: this one is not marked as restored by itself

	registered atomic.Bool  // seen on the trust list with this organisation as its operator; never unset
	reached    atomic.Int64 // when the ledger last answered, Unix milliseconds

	resolveKick chan struct{}   // capacity 1
	reloadKick  chan struct{}   // capacity 1
	running     context.Context // until Close
	stop        context.CancelFunc
	background  sync.WaitGroup
	closing     sync.Once
	closeErr    error
}

// New opens the CA in cfg.Dir. ledger is a connection as an operator of the CA's organisation; it stays the caller's to close,
// after Close. What an earlier process left without an outcome is resolved in the background, as soon as the ledger answers.
//
// Errors name what is wrong in the directory or the settings. A CA that is not registered yet is not an error: Ready says
// so, and issuing is refused until it is.
func New(cfg Config, ledger network.Ledger) (_ *Server, err error) {
	if err := cfg.Settings.Validate(); err != nil {
		return nil, err
	}
	s := &Server{settings: cfg.Settings.withDefaults(), ledger: ledger, metrics: cfg.Metrics, book: newBook(), log: cfg.Log, now: cfg.Now, step: cfg.step, keyUsable: cfg.KeyUsable, weakKeys: cfg.WeakKeys, resolveKick: make(chan struct{}, 1), reloadKick: make(chan struct{}, 1)}
	if s.log == nil {
		s.log = slog.Default()
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.keyUsable == nil {
		s.keyUsable = func() error { return nil }
	}
	if s.metrics == nil {
		s.metrics = metrics.New()
	}
	if s.step == nil {
		s.step = func(string) {}
	}
	if s.line = cfg.line; s.line == nil {
		s.line = &lineage{all: []*Server{s}}
	}
	if err := s.load(cfg); err != nil {
		return nil, fmt.Errorf("CA in %s: %w", cfg.Dir, err)
	}
	defer func() {
		if err != nil && s.stop == nil { // else Close has done it
			err = errors.Join(err, s.closeRevoking(), s.journal.close(), s.custody.close(), s.closeOperators())
		}
	}()
	opts := s.settings.anchorOptions()
	opts.Logger, opts.Now, opts.Metrics = s.log, s.now, s.metrics
	if s.anchor, err = anchor.New(ledger, s.issuer.id, opts); err != nil {
		return nil, err
	}
	if cfg.CT != nil {
		s.front = newFront(s, *cfg.CT)
	}
	for _, u := range s.settings.Responders {
		s.responders = append(s.responders, NewHTTPResponder(u, nil))
	}
	s.responders = append(s.responders, cfg.Responders...)

	if err := s.loadFronts(cfg); err != nil {
		return nil, err
	}
	if err := s.loadCRLs(cfg); err != nil {
		return nil, err
	}

	if err := s.openRevoking(cfg); err != nil {
		return nil, fmt.Errorf("CA in %s: %w", cfg.Dir, err)
	}

	s.metrics.Gauge("ca_unresolved_certificates", "Certificates signed and left by their requester, whose outcome on the ledger is not known yet.",
		func() float64 { return float64(s.book.unresolved()) })

	ctx, cancel := context.WithCancel(context.Background())
	s.running, s.stop = ctx, cancel
	// An old copy of the directory submits nothing and signs nothing, and what a restored journal lacks comes before what is added to it.
	settled := func(fn func(context.Context)) func() {
		return func() {
			if s.operators.awaitSettled(ctx) && s.awaitCaughtUp(ctx) {
				fn(ctx)
			}
		}
	}
	s.background.Go(settled(s.resolve))
	s.startRevoking(ctx, settled)
	if cfg.line == nil {
		s.background.Go(func() { s.watchFiles(ctx) })
		s.background.Go(func() { s.finishApproved(ctx) })
	}
	if s.crls != nil {
		s.background.Go(settled(s.crls.run))
	}
	if err := s.begin(cfg); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if cfg.line == nil {
		s.background.Go(func() { s.operators.run(ctx) }) // once the journals of all generations have told what they know
		s.background.Go(settled(s.tellPolicy))
	}
	if cfg.line == nil && cfg.OpenKey != nil {
		s.background.Go(settled(func(ctx context.Context) { s.succeed(ctx, cfg) })) // what is taken up before is there when a restored CA catches up
	}
	return s, nil
}

// load reads the directory.
func (s *Server) load(cfg Config) (err error) {
	cert, chain, err := LoadCertificate(cfg.Dir)
	if err != nil {
		return err
	}
	s.dir = cfg.Dir
	if err := s.findMark(cfg); err != nil {
		return err
	}
	if err := s.loadDual(cfg); err != nil {
		return err
	}
	policy, err := s.approvedProfiles(cfg.Dir)
	if err != nil {
		return err
	}
	if s.custody, err = takeCustody(cfg, cert, s.now); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.custody.close())
		}
	}()
	if s.issuer, err = newIssuer(cert, chain, s.custody, policy, s.now); err != nil {
		return err
	}
	for name, p := range policy.Profiles {
		if _, _, err := s.issuer.validity(name, p); err != nil {
			s.log.Warn("a profile cannot be used", "profile", name, "error", err)
		}
	}
	if err := s.checkCFSSL(); err != nil {
		return err
	}
	if s.clients, err = openAccess(cfg.Dir, s.settings, s.now, s.metrics.Auth(), s.log); err != nil {
		return err
	}
	if err := s.loadOperators(cfg); err != nil {
		return err
	}
	if s.journal, err = openJournal(filepath.Join(cfg.Dir, journalFile), s.issuer.id, s.log, func(r *record, pos position) error {
		s.operators.trace(s, r)
		return s.book.apply(r, pos)
	}); err != nil {
		return errors.Join(err, s.closeOperators())
	}
	s.book.replayed(s.now())
	return nil
}

// Close ends the CA. Requests that wait for the ledger get an error that says what they know.
func (s *Server) Close() error {
	s.closing.Do(func() {
		s.stop()
		s.anchor.Close()
		s.background.Wait()
		s.closeErr = errors.Join(s.endSuccession(), s.closeRevoking(), s.closeOperators(), s.journal.close(), s.custody.close())
	})
	return s.closeErr
}

// CAID names the CA on the ledger.
func (s *Server) CAID() wire.CAID { return s.issuer.id }

// note makes a record durable and takes it into the index.
func (s *Server) note(r *record) error {
	r.Time = s.now().UnixMilli()
	pos, err := s.journal.append(r)
	if err != nil {
		return err
	}
	return s.book.apply(r, pos)
}
