package ca

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/anchor"
	"github.com/certanchor/certanchor/internal/ctapi"
	"github.com/certanchor/certanchor/internal/ctleaf"
	"github.com/certanchor/certanchor/internal/problem"
	"github.com/certanchor/certanchor/internal/sct"
	"github.com/certanchor/certanchor/network"
)

// Submissions let other software's certificates of this CA in: the CA bridge takes them over HTTP as a CT log does (RFC 6962 sections
// 4.1 and 4.2). Whoever has a certificate of this CA may submit it.
type Submissions struct {
	Key    *sct.Key // of the log, the same that the organisation's OCSP bridge serves the log with
	Prefix string   // submission prefix: the URL that /ct/v1/ is below
}

// front is the CT log front, made when the CA is first seen on the trust list.
type front struct {
	server *Server
	cfg    Submissions

	asking sync.Mutex // held while the trust list is read; before mu

	mu   sync.Mutex // guards what follows; not held while anything is waited for
	log  http.Handler
	rec  *wire.CARecord
	read time.Time // when rec was read

	recent *recent // set at start
}

func newFront(s *Server, cfg Submissions) *front {
	return &front{server: s, cfg: cfg, recent: new(recent)}
}

// trustedFor is how long a trust list entry is used before it is read again. The contract decides anyway; this only chooses between
// its refusal and an earlier one.
const trustedFor = time.Second

// maxSubmission is room for the largest chain that package ctapi takes, in base64.
const maxSubmission = 10*(wire.MaxCertDER*4/3+16) + 4<<10

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h, err := f.handler()
	release := func() {}
	if err == nil && r.Method == http.MethodPost {
		r, release, err = f.door(w, r)
	}
	defer release()
	if err != nil {
		problem.Write(w, f.server.log, err)
		return
	}
	h.ServeHTTP(w, r)
}

// door turns away what the ledger has no time for: to verify signatures of what is refused afterwards would take the time that those need
// who are let in. A request gets its place in the queue when its body is here: a slow one must not keep a place from others.
func (f *front) door(w http.ResponseWriter, r *http.Request) (_ *http.Request, release func(), err error) {
	ctx := callerOf(r)
	release = func() {}
	if err := f.full(r); err != nil {
		return r, release, err
	}
	body, err := readSubmission(w, r)
	if err != nil {
		return r, release, err
	}
	if ctx, release, err = f.server.anchor.Admit(ctx); err != nil {
		return r, release, err
	}
	r = r.WithContext(ctx)
	r.Body = io.NopCloser(bytes.NewReader(body))
	return r, release, nil
}

func callerOf(r *http.Request) context.Context {
	return anchor.WithCaller(r.Context(), "host "+hostOf(r.RemoteAddr))
}

// full returns why the ledger has no time for a submission, before it is read.
func (f *front) full(r *http.Request) error { return f.server.anchor.Full(callerOf(r)) }

func readSubmission(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxSubmission))
	if tooLarge := new(http.MaxBytesError); err != nil && !errors.As(err, &tooLarge) {
		return nil, invalid("body", "", "must be readable: %v", err)
	}
	return body, err
}

// hostOf is who shares the queue with others: an IPv4 address, or the /64 that an IPv6 client has to itself.
func hostOf(remote string) string {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return remote
	}
	addr := at.Addr().Unmap().WithZone("")
	if addr.Is6() {
		return netip.PrefixFrom(addr, 64).Masked().String()
	}
	return addr.String()
}

func (f *front) handler() (http.Handler, error) {
	f.mu.Lock()
	h := f.log
	f.mu.Unlock()
	if h != nil {
		return h, nil
	}
	s := f.server
	g := &gate{server: s, recent: f.recent, reads: make(chan struct{}, maxReads)}
	l, err := ctapi.New(ctapi.Config{
		CAID: s.issuer.id, CA: f.trusted, Key: f.cfg.Key, Submitter: g, Recorded: g.recorded, Prefix: f.cfg.Prefix,
		MaxPending: s.settings.MaxQueue, SubmitTimeout: s.settings.IssueTimeout, Logger: s.log,
	})
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.log == nil {
		f.log = l.API()
	}
	return f.log, nil
}

// trusted returns the CA's trust list entry. One that is old is read again by one caller; the others go on with it, so that a slow ledger
// does not keep those waiting whom it has no time for.
func (f *front) trusted() (*wire.CARecord, error) {
	rec, fresh := f.known()
	if fresh {
		return rec, nil
	}
	if rec == nil {
		f.asking.Lock()
	} else if !f.asking.TryLock() {
		return rec, nil
	}
	defer f.asking.Unlock()
	if rec, fresh = f.known(); fresh { // another caller was faster
		return rec, nil
	}
	s := f.server
	ctx, cancel := context.WithTimeout(context.Background(), s.settings.SubmitTimeout)
	defer cancel()
	rec, err := s.trustListEntry(ctx)
	if err == nil && rec == nil {
		err = s.checkRegistered(ctx) // which says what is missing
	}
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rec, f.read = rec, s.now()
	return rec, nil
}

// known is the entry as it was read last; nil: not yet.
func (f *front) known() (rec *wire.CARecord, fresh bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rec, f.rec != nil && f.server.now().Sub(f.read) < trustedFor
}

// gate keeps certificates from the ledger that it would only answer or refuse again. Anybody may submit what is logged, as often as
// they like, and each would be endorsed, ordered and stored for ever. This bridge has no index; to read each serial would
// cost more than it saves, so what was just made goes without.
type gate struct {
	server *Server
	recent *recent
	reads  chan struct{} // a token for each read in progress
}

const (
	// freshFor is how long after notBefore a certificate counts as just made. Some CAs date it back by an hour.
	freshFor = 90 * time.Minute
	// maxReads keeps reads, of which anybody may cause any number, from taking the peer's places for endorsements.
	maxReads = 32
)

// recorded is ctapi.Config.Recorded.
func (g *gate) recorded(ctx context.Context, cert *x509.Certificate) (at wire.LogEntry, found bool, err error) {
	s, now := g.server, g.server.now()
	known, err := s.front.trusted()
	if err != nil {
		return at, false, err
	}
	at, found, seen := g.recent.find(cert.Raw)
	fresh := now.Sub(cert.NotBefore) <= freshFor && !cert.NotAfter.Before(now)
	if found || fresh && !seen && known.State == wire.CAActive {
		return at, found, nil
	}
	serial, err := wire.SerialOf(cert.SerialNumber)
	if err != nil {
		return at, false, err
	}
	entry, rec, err := g.read(ctx, serial)
	if err != nil { // whatever it is about, it is not the certificate
		return at, false, &network.UnavailableError{Stage: "reading the record of serial " + serial.String(), Err: withoutOutcome(err)}
	}
	if at, found, err = ctapi.Recorded(s.issuer.id, rec, cert, now); found {
		g.recent.add(cert.Raw, at)
	}
	// The contract takes no new certificates of a suspended CA, and gives what has a record its place, as ever.
	if err == nil && (rec == nil || rec.SerialOnly()) && entry.State != wire.CAActive {
		err = wire.Errorf(wire.FailedPrecondition, "ca.state", fmt.Sprint(entry.State), "must be active (%d) to record new certificates", wire.CAActive)
	}
	return at, found, err
}

// read returns the trust list entry and a certificate's record, nil if there is none, as they are at one moment.
func (g *gate) read(ctx context.Context, serial wire.Serial) (*wire.CARecord, *wire.CertRecord, error) {
	id := g.server.issuer.id
	if err := g.server.anchor.Down(); err != nil {
		return nil, nil, err
	}
	select {
	case g.reads <- struct{}{}:
		defer func() { <-g.reads }()
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	values, err := g.server.readState(ctx, wire.CAKey(id), wire.CertKey(id, serial))
	if err != nil {
		return nil, nil, err
	}
	entry := new(wire.CARecord) // never taken off the trust list
	if err := wire.Decode(values[0], entry); err != nil {
		return nil, nil, err
	}
	if values[1] == nil {
		return entry, nil, nil
	}
	rec := new(wire.CertRecord)
	return entry, rec, wire.Decode(values[1], rec)
}

// Submit implements ctapi.Submitter.
func (g *gate) Submit(ctx context.Context, der []byte) (wire.LogEntry, error) {
	at, err := g.server.submit(ctx, der) // the front has verified the signature
	if err == nil {
		g.recent.add(der, at)
	}
	return at, err
}

// recent remembers where certificates are that were asked for last, at least maxRecent of them and less than twice as many.
type recent struct {
	mu       sync.Mutex
	now, old map[sighting]sighted
}

// maxRecent certificates take about 8 MB.
const maxRecent = 1 << 15

// sighting is a certificate, or a precertificate, of a serial.
type sighting struct {
	serial string
	pre    bool
}

type sighted struct {
	der digest
	at  wire.LogEntry
}

func sightingOf(der []byte) sighting {
	pre, err := ctleaf.IsPrecert(der)
	return sighting{serial: anchor.SerialIn(der), pre: pre && err == nil}
}

// find says where der is. seen without found: its serial was with other octets, such as another encoding of the signature.
func (r *recent) find(der []byte) (at wire.LogEntry, found, seen bool) {
	key := sightingOf(der)
	r.mu.Lock()
	s, seen := r.now[key]
	if !seen {
		s, seen = r.old[key]
	}
	r.mu.Unlock()
	if !seen || s.der != sha256.Sum256(der) {
		return wire.LogEntry{}, false, seen
	}
	return s.at, true, true
}

func (r *recent) add(der []byte, at wire.LogEntry) {
	key, s := sightingOf(der), sighted{sha256.Sum256(der), at}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now == nil || len(r.now) >= maxRecent {
		r.now, r.old = map[sighting]sighted{}, r.now
	}
	r.now[key] = s
}
