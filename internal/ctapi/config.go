package ctapi

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/problem"
	"github.com/certanchor/certanchor/internal/sct"
	"github.com/certanchor/certanchor/internal/tiles"
)

// Submitter brings certificates onto the ledger.
type Submitter interface {
	// Submit records a certificate or precertificate and returns where it is in the log. When it returns, the entry is within the
	// Head that Config.Log returns, if there is one. The same bytes always get the same place.
	//
	// Errors: network.IsRejected (the contract refuses it; nothing was written); errors.Is network.ErrUnavailable (nothing was written);
	// errors.Is network.ErrUnknownOutcome (it may be recorded; the same bytes may be submitted again).
	Submit(ctx context.Context, der []byte) (wire.LogEntry, error)
}

// Config of a Log. A zero field of the second group takes its default.
type Config struct {
	CAID      wire.CAID                      // whose log it is
	CA        func() (*wire.CARecord, error) // its trust list entry as it is now
	Log       merklelog.Log                  // nil: submissions only; another server of the organisation, with the same Key and Prefix, serves the log
	Key       *sct.Key
	Submitter Submitter
	Prefix    string // submission prefix: URL that API is reached at, https://host/logs/<caID>

	// Recorded, if it is set, is asked before each Submit where a certificate is in the log, without a transaction; see the function Recorded.
	// What it finds is answered with, and must keep what Submit promises; an error, as of Submit, ends the submission.
	// The signature of cert has been verified. It must be cheap for certificates that were just made, which nearly all are.
	Recorded func(ctx context.Context, cert *x509.Certificate) (wire.LogEntry, bool, error)

	// Guard keeps the newest signed head beyond this process; nil: heads are compared within it only, for logs that do not outlive it.
	Guard HeadGuard

	MaxPending    int           // submissions in progress, beyond which further ones are refused at once; default 4096
	SubmitTimeout time.Duration // of one submission; default 30 s
	TileCache     *tiles.Cache  // for data tiles; one may serve many logs; default none
	Logger        *slog.Logger  // default slog.Default
}

const (
	defaultPending = 4096
	defaultTimeout = 30 * time.Second
)

// Log serves one issuance log. It is safe for concurrent use.
type Log struct {
	caID      wire.CAID
	ca        func() (*wire.CARecord, error)
	log       merklelog.Log
	key       *sct.Key
	submitter Submitter
	recorded  func(context.Context, *x509.Certificate) (wire.LogEntry, bool, error) // nil: not asked
	prefix    string
	logger    *slog.Logger
	timeout   time.Duration

	chain   [][]byte      // of every entry: issuer first, up to the root
	vector  []byte        // chain as an RFC 6962 certificate_chain
	pending chan struct{} // a token for each submission in progress
	static  *tiles.Handler
	guard   HeadGuard // nil: none

	signing sync.Mutex  // held while a head is made; before mu
	reached atomic.Bool // the log has everything that was signed before this process began

	mu      sync.Mutex // guards what follows
	head    *head      // the newest one that was signed; nil: none yet. Changed by the holder of signing
	anchors *anchors   // of the newest trust list entry; nil: none yet
}

// New makes a Log. Errors name the field that is missing or out of range.
func New(c Config) (*Log, error) {
	if c.CA == nil || c.Key == nil || c.Submitter == nil {
		return nil, errors.New("ctapi: CA, Key and Submitter must be set")
	}
	if c.MaxPending == 0 {
		c.MaxPending = defaultPending
	}
	if c.SubmitTimeout == 0 {
		c.SubmitTimeout = defaultTimeout
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.MaxPending < 0 {
		return nil, wire.Errorf(wire.InvalidArgument, "max_pending", fmt.Sprint(c.MaxPending), "must be at least 1")
	}
	if c.SubmitTimeout < 0 {
		return nil, wire.Errorf(wire.InvalidArgument, "submit_timeout", c.SubmitTimeout.String(), "must be positive")
	}
	if err := checkPrefix(c.Prefix); err != nil {
		return nil, err
	}
	l := &Log{
		caID: c.CAID, ca: c.CA, log: c.Log, key: c.Key, submitter: c.Submitter, recorded: c.Recorded,
		prefix: strings.TrimRight(c.Prefix, "/"), logger: c.Logger, timeout: c.SubmitTimeout,
		pending: make(chan struct{}, c.MaxPending), guard: c.Guard,
	}
	known, err := l.trusted()
	if err != nil {
		return nil, err
	}
	// The certificate it was registered with and the chain to that one's root never change: what is immutable may name them.
	l.chain = known.chain
	if l.vector, err = certificateChain(l.chain); err != nil {
		return nil, err
	}
	if l.log == nil {
		return l, nil
	}
	if err := l.remember(); err != nil {
		return nil, err
	}
	l.static, err = tiles.New(tiles.Config{
		Log: c.Log, Checkpoint: l.checkpoint, Static: &tiles.Static{Chain: l.chain}, Cache: c.TileCache, Logger: c.Logger,
	})
	return l, err
}

// checkPrefix refuses a submission prefix that cannot be a checkpoint's origin.
func checkPrefix(prefix string) error {
	u, err := url.Parse(prefix)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return wire.Errorf(wire.InvalidArgument, "prefix", prefix, "must be a URL, http or https, without query and fragment")
	}
	// C2SP signed-note: a key name has no spaces and no plus sign.
	if strings.ContainsAny(prefix, " +\t\r\n") {
		return wire.Errorf(wire.InvalidArgument, "prefix", prefix, "must have no spaces and no plus sign: it is a key's name (c2sp.org/signed-note)")
	}
	return nil
}

// Origin is the origin line of the static-ct-api checkpoints: the submission prefix without scheme.
func (l *Log) Origin() string {
	_, origin, _ := strings.Cut(l.prefix, "://")
	return origin
}

// Static serves the static-ct-api monitoring files, below whatever prefix it is mounted at: checkpoint, tile/ and issuer/. Use
// http.StripPrefix. Requires a Config with a Log.
func (l *Log) Static() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := l.checkReached(); err != nil {
			problem.Write(w, l.logger, err)
			return
		}
		l.static.ServeHTTP(w, r)
	})
}

// Pending returns how many submissions are in progress, and how many may be.
func (l *Log) Pending() (now, most int) { return len(l.pending), cap(l.pending) }
