package witness

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"

	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/tlogproof"
)

var emptyRoot = [sha256.Size]byte(rfc6962.DefaultHasher.EmptyRoot())

// ErrForked tells that this organisation's own log is not the one it has cosigned before.
var ErrForked = errors.New("own log forked")

// Config is what a Server needs. All fields are required.
type Config struct {
	Dir    string // of the state: one small file for each log
	Signer note.Signer
	Watch  *Watch // whose LogKeys are those that the witness listens to

	// Logs returns this organisation's own log of an origin, and false for an origin it does not have.
	Logs func(origin string) (merklelog.Log, bool)

	// Wait returns nil once log's head has at least size entries, and an error when ctx ends before.
	Wait func(ctx context.Context, log merklelog.Log, size uint64) error

	// MaxWait is how long a request waits for the own log: what another organisation sees first is a block away.
	MaxWait time.Duration

	Log *slog.Logger
}

// Server is the witness of one organisation: an http.Handler for Path. It is safe for concurrent use.
type Server struct {
	cfg    Config
	states *states
}

// NewServer checks cfg and opens the state.
func NewServer(cfg Config) (*Server, error) {
	if cfg.Dir == "" || cfg.Signer == nil || cfg.Watch == nil || cfg.Logs == nil || cfg.Wait == nil || cfg.Log == nil || cfg.MaxWait <= 0 {
		return nil, errors.New("witness: every field of Config is required")
	}
	st, err := newStates(cfg.Dir)
	if err != nil {
		return nil, err
	}
	return &Server{cfg: cfg, states: st}, nil
}

// refusal is an answer other than 200.
type refusal struct {
	status int
	size   *uint64 // of a 409 that tells the recorded size
	err    error
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

func refuse(status int, format string, args ...any) *refusal {
	return &refusal{status: status, err: fmt.Errorf(format, args...)}
}

// ServeHTTP implements http.Handler for Path.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// C2SP tlog-witness, add-checkpoint: the request MUST be an HTTP POST.
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "add-checkpoint takes POST", http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxRequest))
	if err != nil {
		http.Error(w, fmt.Sprintf("request: must be at most %d octets", MaxRequest), http.StatusBadRequest)
		return
	}
	sig, err := s.add(r.Context(), body)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	w.Header().Set("Content-Type", tlogproof.ContentType)
	if _, err := io.WriteString(w, "\u2014 "+sig.Name+" "+sig.Base64+"\n"); err != nil {
		s.cfg.Log.Debug("witness: answer", "error", err)
	}
}

func (s *Server) writeError(w http.ResponseWriter, r *http.Request, err error) {
	var no *refusal
	if !errors.As(err, &no) {
		s.cfg.Log.Error("witness", "error", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	s.cfg.Log.Info("witness refuses", "status", no.status, "reason", no.err)
	switch {
	case no.size != nil:
		w.Header().Set("Content-Type", sizeType)
		w.WriteHeader(no.status)
		if _, err := fmt.Fprintf(w, "%d\n", *no.size); err != nil {
			s.cfg.Log.Debug("witness: answer", "error", err)
		}
		return
	case no.status == http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", strconv.Itoa(max(1, int(s.cfg.MaxWait/time.Second))))
	}
	http.Error(w, no.Error(), no.status)
}

// add decides about a request. Errors are a *refusal, or internal.
func (s *Server) add(ctx context.Context, body []byte) (note.Signature, error) {
	req, err := parseRequest(body)
	if err != nil {
		return note.Signature{}, refuse(http.StatusBadRequest, "%w", err)
	}
	cp, _, err := tlogproof.ReadUnverified(req.checkpoint)
	if err != nil {
		return note.Signature{}, refuse(http.StatusBadRequest, "%w", err)
	}
	// C2SP tlog-witness: if the checkpoint origin is unknown, 404.
	log, ok := s.cfg.Logs(cp.Origin)
	if !ok {
		return note.Signature{}, refuse(http.StatusNotFound, "origin %.200q is not of a log of this ledger", cp.Origin)
	}
	// If none of the signatures verify against a trusted public key, 403; signatures from unknown keys are ignored.
	v, err := open(req.checkpoint, s.cfg.Watch.cfg.LogKeys())
	if err != nil {
		return note.Signature{}, refuse(http.StatusForbidden, "%w", err)
	}
	// The old size MUST be equal to or lower than the checkpoint size, otherwise 400.
	if req.old > v.Size {
		return note.Signature{}, refuse(http.StatusBadRequest, "old size %d: must be at most the checkpoint's, %d", req.old, v.Size)
	}
	if err := s.compare(ctx, req, v, log); err != nil {
		return note.Signature{}, err
	}
	return s.cosign(req, v, log)
}

// compare lets a checkpoint pass only if its root is that of the own log. It holds no lock: it may wait for blocks.
func (s *Server) compare(ctx context.Context, req *request, v *verified, log merklelog.Log) error {
	err := s.cfg.Watch.check(v, log)
	if errors.Is(err, ErrAhead) {
		// Who asks with a wrong old size learns so at once.
		if err := s.checkOld(req, v); err != nil {
			return err
		}
		waitCtx, cancel := context.WithTimeout(ctx, s.cfg.MaxWait)
		defer cancel()
		if err := s.cfg.Wait(waitCtx, log, v.Size); err != nil {
			return refuse(http.StatusServiceUnavailable, "%s: size %d is not in this organisation's blocks yet", v.Origin, v.Size)
		}
		err = s.cfg.Watch.check(v, log)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrAhead):
		return refuse(http.StatusServiceUnavailable, "%w", err)
	case errors.Is(err, ErrSplitView):
		s.cfg.Log.Error("witness: SPLIT VIEW", "origin", v.Origin, "size", v.Size, "error", err)
		if old := s.checkOld(req, v); old != nil {
			return old
		}
		// If the old size matches the checkpoint size and the roots differ, 409; else no consistency proof can be right, 422.
		if req.old == v.Size {
			return refuse(http.StatusConflict, "%w", err)
		}
		return refuse(http.StatusUnprocessableEntity, "%w", err)
	}
	return err
}

// checkOld: the old size MUST match the size of the latest checkpoint cosigned, otherwise 409 with that size.
func (s *Server) checkOld(req *request, v *verified) error {
	st, err := s.states.lock(v.Origin)
	if err != nil {
		return err
	}
	defer st.mu.Unlock()
	return st.checkOld(req)
}

// checkOld requires st.mu to be held.
func (st *state) checkOld(req *request) error {
	if req.old == st.last.Size {
		return nil
	}
	size := st.last.Size
	return &refusal{status: http.StatusConflict, size: &size, err: fmt.Errorf("old size %d: the latest cosigned checkpoint has %d", req.old, size)}
}

// cosign compares the old size, records the checkpoint and signs it, in one step for each origin.
func (s *Server) cosign(req *request, v *verified, log merklelog.Log) (note.Signature, error) {
	st, err := s.states.lock(v.Origin)
	if err != nil {
		return note.Signature{}, err
	}
	defer st.mu.Unlock()
	if err := st.checkOld(req); err != nil {
		return note.Signature{}, err
	}
	// What was cosigned before must be the own log's past. It is not if the ledger was replaced under the witness, by an old backup that went on: then
	// nothing may be cosigned, whatever is asked.
	own, err := ownRoot(log, st.last.Size)
	if err != nil { // that the log cannot be read, at its end for example, says nothing about its past
		return note.Signature{}, err
	}
	if own != st.last.Root {
		return note.Signature{}, fmt.Errorf("%w: %s at size %d was cosigned with root %x, the own log now has %x", ErrForked, v.Origin, st.last.Size, st.last.Root, own)
	}
	if err := consistent(req, v, st); err != nil {
		return note.Signature{}, refuse(http.StatusUnprocessableEntity, "consistency proof from %d to %d: %w", req.old, v.Size, err)
	}
	raw, err := s.cfg.Signer.Sign([]byte(v.text))
	if err != nil {
		return note.Signature{}, err
	}
	if err := s.states.advance(st, &v.Checkpoint); err != nil {
		return note.Signature{}, err
	}
	return signature(s.cfg.Signer, raw), nil
}

// consistent verifies the RFC 6962 section 2.1.2 proof. Requires equal sizes to have equal roots: compare saw to it.
func consistent(req *request, v *verified, st *state) error {
	hashes := make([][]byte, len(req.proof))
	for i := range req.proof {
		hashes[i] = req.proof[i][:]
	}
	return proof.VerifyConsistency(rfc6962.DefaultHasher, req.old, v.Size, hashes, st.last.Root[:], v.Root[:])
}
