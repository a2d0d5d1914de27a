package ca

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/crl"
	"github.com/certanchor/certanchor/internal/metrics"
)

// Steps of a CRL, in order, as Config.step sees them. The number is durable before the signature exists, and the CRL before anybody
// gets it: whatever the process is killed at, no number is ever signed twice.
const (
	stepReserved   = "crl reserved"
	stepCRLSigned  = "crl signed"
	stepKept       = "crl kept"
	stepPublishing = "crl publishing"
	stepPublished  = "crl published"
)

// crlMaker makes the CA's CRLs: a complete one about all certificates at intervals and, while it is small, soon after a change, a delta to it at
// each change, and a complete one for each shard at intervals and when a change is about one of its certificates. Revocations never wait for it.
type crlMaker struct {
	server  *Server
	set     CRLSettings
	source  *crlSource
	store   *crlStore
	targets []*crlTarget
	metrics *metrics.CRLs
	log     *slog.Logger
	lint    func(der []byte) error // lintCRL
	sampler *crlSampler

	kick chan struct{} // capacity 1

	mu       sync.Mutex
	need     uint64                       // height that the next delta must have, for every change known here; guarded by mu, as what follows
	changed  bool                         // others may have made changes
	own      map[string]uint64            // serials that this process has revoked for good, with the block, until a delta has them
	newest   map[slotKey]signedCRL        // without their octets
	problems map[string]*caapi.CRLProblem // by scope

	// The rest belongs to run.
	lists []*crlList // [0] is about all certificates
	floor uint64     // the ledger's height when the process began; 0: not known yet
}

type slotKey struct {
	scope string
	kind  crlKind
}

// crlList is the CRLs of one scope.
type crlList struct {
	scope   string
	numbers *crlNumbers
	newest  map[crlKind]*signedCRL
	dirty   bool          // what it says has changed since the newest complete CRL, or may have
	look    bool          // the delta's contents are to be looked at
	rebase  bool          // there is a complete CRL that no delta has seen
	large   bool          // the delta is to be against the newest complete CRL, and so smaller
	early   time.Time     // not before then is a complete CRL made for a change
	notYet  bool          // the last failure was errNotYet
	covered uint64        // height up to which the newest delta is known to be right
	seen    []crl.Entry   // of the last delta of this process
	pause   time.Duration // after the last failure
	after   time.Time     // when to try again
}

// signedCRL is one that may be published.
type signedCRL struct {
	scope                  string
	kind                   crlKind
	number, base           uint64
	thisUpdate, nextUpdate time.Time
	entries, size          int
	sum                    [sha256.Size]byte
	der                    []byte
}

// newCRLMaker reads what earlier processes left. scopes are those that certificates may have.
func newCRLMaker(s *Server, set CRLSettings, store *crlStore, scopes []string, client *http.Client) (*crlMaker, error) {
	if cert := s.issuer.cert; cert.KeyUsage&x509.KeyUsageCRLSign == 0 || len(cert.SubjectKeyId) == 0 {
		return nil, invalid("crl", cert.Subject.String(), "the CA certificate must have cRLSign and a subject key identifier to sign CRLs (RFC 5280 section 4.2.1.3); "+
			"disabled: true leaves them away")
	}
	if client == nil {
		client = &http.Client{}
	}
	m := &crlMaker{
		server: s, set: set, store: store, source: newCRLSource(set.Contents, client), metrics: s.metrics.CRLs(), log: s.log,
		lint: lintCRL, kick: make(chan struct{}, 1), newest: map[slotKey]signedCRL{}, problems: map[string]*caapi.CRLProblem{}, own: map[string]uint64{},
	}
	var err error
	if m.sampler, err = newCRLSampler(s.issuer.cert); err != nil {
		return nil, err
	}
	for _, u := range set.Publish {
		m.targets = append(m.targets, &crlTarget{
			url: strings.TrimSuffix(u, "/"), id: s.issuer.id, client: client, log: s.log, now: s.now, metrics: m.metrics, step: s.step,
			ask: askServed, kick: make(chan struct{}, 1),
		})
	}
	for _, scope := range append([]string{""}, scopes...) {
		l, err := m.loadList(scope)
		if err != nil {
			return nil, err
		}
		m.lists = append(m.lists, l)
	}
	return m, nil
}

// loadList reads what is remembered of a scope and publishes its CRLs again: some target may not have got them.
func (m *crlMaker) loadList(scope string) (*crlList, error) {
	l := &crlList{scope: scope, newest: map[crlKind]*signedCRL{}}
	var err error
	if l.numbers, err = m.store.numbers(scope); err != nil {
		return nil, err
	}
	for _, kind := range []crlKind{kindComplete, kindDelta} {
		der, err := m.store.load(scope, kind)
		if err != nil {
			return nil, err
		}
		if der == nil {
			continue
		}
		c, err := readSigned(scope, kind, der, m.server.issuer.cert)
		if err != nil {
			m.log.Warn("a CRL on disk is not usable, and is made anew", "scope", scope, "kind", string(kind), "error", err)
			continue
		}
		if c.number > l.numbers.Number {
			return nil, fmt.Errorf("%s: CRL number %d of scope %q: must be at least %d, which was signed", crlDir, l.numbers.Number, scope, c.number)
		}
		if kind == kindComplete {
			m.addBase(l, crlBase{c.number, c.nextUpdate, c.thisUpdate})
		}
		m.announce(l, c)
	}
	return l, nil
}

// readSigned reads a CRL that this CA has signed.
func readSigned(scope string, kind crlKind, der []byte, issuer *x509.Certificate) (*signedCRL, error) {
	p, err := crl.Parse(der)
	if err != nil {
		return nil, err
	}
	if _, err := p.Verify([]*x509.Certificate{issuer}); err != nil {
		return nil, err
	}
	c, err := p.Contents(wire.CAIDOf(issuer.RawSubjectPublicKeyInfo))
	if err != nil {
		return nil, err
	}
	if c.Scope != scope || (c.Base != 0) != (kind == kindDelta) {
		return nil, fmt.Errorf("is of scope %q with base %d", c.Scope, c.Base)
	}
	return newSigned(c, kind, p.NextUpdate, der), nil
}

func newSigned(c *crl.Contents, kind crlKind, nextUpdate time.Time, der []byte) *signedCRL {
	return &signedCRL{
		scope: c.Scope, kind: kind, number: c.Number, base: c.Base, thisUpdate: c.ThisUpdate, nextUpdate: nextUpdate,
		entries: len(c.Entries), size: len(der), sum: sha256.Sum256(der), der: der,
	}
}

// path is where an OCSP bridge serves the CRL.
func (c *signedCRL) path(id string) string {
	name := shardFile(c.scope)
	if c.scope == "" {
		name = fullFile
	}
	if c.kind == kindDelta {
		name = deltaFile
	}
	return "/crl/" + id + "/" + name
}

// announce makes a CRL the newest of its scope and kind, here and at every target.
func (m *crlMaker) announce(l *crlList, c *signedCRL) {
	l.newest[c.kind] = c
	brief := *c
	brief.der = nil
	m.mu.Lock()
	m.newest[slotKey{c.scope, c.kind}] = brief
	m.mu.Unlock()
	for _, t := range m.targets {
		t.publish(c)
	}
}

// run makes and publishes CRLs until ctx ends.
func (m *crlMaker) run(ctx context.Context) {
	var background sync.WaitGroup
	for _, t := range m.targets {
		background.Go(func() { t.run(ctx) })
	}
	background.Go(func() { m.follow(ctx) })
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			background.Wait()
			return
		case <-timer.C:
			m.poll() // somebody may have changed something, and the stream be broken
		case <-m.kick:
		}
		timer.Reset(m.round(ctx))
	}
}

// changedAt says that a block holds a change of status of one of the CA's certificates, made here.
func (m *crlMaker) changedAt(block uint64, serial wire.Serial, res wire.StatusResult) {
	if m == nil {
		return
	}
	m.mu.Lock()
	m.need = max(m.need, block+1)
	if res.Changed && res.State == wire.CertRevoked {
		m.own[string(serial)] = block
	}
	m.mu.Unlock()
	m.wake()
}

// poll has the contents looked at.
func (m *crlMaker) poll() {
	m.mu.Lock()
	m.changed = true
	m.mu.Unlock()
}

func (m *crlMaker) wake() {
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

// follow learns of changes that others made.
func (m *crlMaker) follow(ctx context.Context) {
	for ctx.Err() == nil {
		err := m.source.follow(ctx, m.server.issuer.id, func() { m.poll(); m.wake() })
		m.log.Debug("the stream of changes for CRLs ended", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(m.set.PollEvery):
		}
	}
}
