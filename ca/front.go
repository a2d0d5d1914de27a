package ca

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctapi"
	"github.com/certanchor/certanchor/internal/problem"
	"github.com/certanchor/certanchor/internal/sct"
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

	mu   sync.Mutex // guards what follows
	log  http.Handler
	rec  *wire.CARecord
	read time.Time // when rec was read
}

// trustedFor is how long a trust list entry is used before it is read again. The contract decides anyway; this only chooses between
// its refusal and an earlier one.
const trustedFor = time.Second

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h, err := f.handler()
	if err != nil {
		problem.Write(w, f.server.log, err)
		return
	}
	h.ServeHTTP(w, r)
}

func (f *front) handler() (http.Handler, error) {
	f.mu.Lock()
	h := f.log
	f.mu.Unlock()
	if h != nil {
		return h, nil
	}
	s := f.server
	l, err := ctapi.New(ctapi.Config{
		CAID: s.issuer.id, CA: f.trusted, Key: f.cfg.Key, Submitter: submitter{s}, Prefix: f.cfg.Prefix,
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

// trusted returns the CA's trust list entry.
func (f *front) trusted() (*wire.CARecord, error) {
	s := f.server
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.rec != nil && s.now().Sub(f.read) < trustedFor {
		return f.rec, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.settings.SubmitTimeout)
	defer cancel()
	rec, err := s.trustListEntry(ctx)
	if err == nil && rec == nil {
		err = s.checkRegistered(ctx) // which says what is missing
	}
	if err != nil {
		return nil, err
	}
	f.rec, f.read = rec, s.now()
	return rec, nil
}

// submitter makes SubmitCertificate a ctapi.Submitter.
type submitter struct{ s *Server }

func (s submitter) Submit(ctx context.Context, der []byte) (wire.LogEntry, error) {
	return s.s.submit(ctx, der) // the front has verified the signature
}
