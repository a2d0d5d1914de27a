package embedded

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/certanchor/certanchor/network"
)

// Listen makes the Unix socket that a ledger is served on. Its directory must be closed to others, and is made so when absent;
// a socket that a dead process left behind is replaced.
func Listen(socket string) (net.Listener, error) {
	l, err := listen(socket)
	if err != nil {
		return nil, fmt.Errorf("ledger socket %s: %w", socket, err)
	}
	return l, nil
}

func listen(socket string) (net.Listener, error) {
	dir := filepath.Dir(socket)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("directory %s has mode %#o, must be 0700: who reaches the socket may act in any role", dir, mode)
	}
	l, err := net.Listen("unix", socket)
	if errors.Is(err, syscall.EADDRINUSE) {
		if err := removeStale(socket); err != nil {
			return nil, err
		}
		l, err = net.Listen("unix", socket)
	}
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func removeStale(socket string) error {
	c, err := net.Dial("unix", socket)
	if err == nil {
		return errors.Join(errors.New("another process is serving there"), c.Close())
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return os.Remove(socket)
}

// Serve answers clients (Dial) on l until ctx ends or the ledger stops, and closes l. Transactions that are being written when
// ctx ends are still answered.
func (n *Node) Serve(ctx context.Context, l net.Listener) error {
	ending := make(chan struct{})
	s := &http.Server{Handler: n.handler(ending), ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve ledger on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	case <-n.done:
	case <-n.failed:
	}
	close(ending)
	grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := s.Shutdown(grace)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.Close()
	}
	if err != nil {
		return fmt.Errorf("serve ledger on %s: %w", l.Addr(), err)
	}
	return n.failure()
}

// handler answers requests; block streams end when ending is closed.
func (n *Node) handler(ending <-chan struct{}) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+pathLedger, n.serveLedger)
	mux.HandleFunc("POST "+pathSubmit, n.serveSubmit)
	mux.HandleFunc("POST "+pathEvaluate, n.serveEvaluate)
	mux.HandleFunc("GET "+pathBlocks, func(w http.ResponseWriter, r *http.Request) { n.serveBlocks(w, r, ending) })
	return mux
}

func (n *Node) serveLedger(w http.ResponseWriter, _ *http.Request) {
	height, err := n.height()
	if err != nil {
		n.answerFailure(w, err)
		return
	}
	n.answer(w, http.StatusOK, encode(ledgerInfo{V: formatVersion, Channel: n.Channel(), MSPID: n.MSPID(), Height: height}))
}

func (n *Node) serveSubmit(w http.ResponseWriter, r *http.Request) {
	call, err := readCall(r)
	if err != nil {
		n.answerFailure(w, err)
		return
	}
	if id, err := hex.DecodeString(call.TxID); err != nil || len(id) != txIDBytes {
		n.answerFailure(w, &network.UnavailableError{Stage: "read request", Err: fmt.Errorf("transaction ID %q, must be %d octets in hexadecimal", call.TxID, txIDBytes)})
		return
	}
	receipt, err := n.submit(r.Context(), nil, newRequest(call.TxID, call.Role, call.Function, call.Arg))
	if err != nil {
		n.answerFailure(w, err)
		return
	}
	n.answer(w, http.StatusOK, encode(submitted{V: formatVersion, Block: receipt.Block, Result: receipt.Result}))
}

func (n *Node) serveEvaluate(w http.ResponseWriter, r *http.Request) {
	call, err := readCall(r)
	if err != nil {
		n.answerFailure(w, err)
		return
	}
	result, err := n.evaluate(call.Role, call.Function, call.Arg)
	if err != nil {
		n.answerFailure(w, err)
		return
	}
	n.answer(w, http.StatusOK, result)
}

// readCall reads a request to its end: one that was cut off is not executed.
func readCall(r *http.Request) (*callRequest, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxRequest+1))
	if err != nil {
		return nil, &network.UnavailableError{Stage: "read request", Err: err}
	}
	if len(body) > maxRequest {
		return nil, &network.UnavailableError{Stage: "read request", Err: fmt.Errorf("more than %d bytes", maxRequest)}
	}
	var call callRequest
	if err := decMode.Unmarshal(body, &call); err != nil {
		return nil, &network.UnavailableError{Stage: "read request", Err: err}
	}
	if call.V != formatVersion {
		return nil, &network.UnavailableError{Stage: "read request", Err: fmt.Errorf("format version %d, this program reads %d", call.V, formatVersion)}
	}
	return &call, nil
}

func (n *Node) serveBlocks(w http.ResponseWriter, r *http.Request, ending <-chan struct{}) {
	from, err := strconv.ParseUint(r.URL.Query().Get("from"), 10, 64)
	if err != nil {
		n.answerFailure(w, &network.UnavailableError{Stage: "read request", Err: fmt.Errorf("from: %w", err)})
		return
	}
	if _, _, err := n.record(from); err != nil {
		n.answerFailure(w, err)
		return
	}
	w.Header().Set("Content-Type", contentType)
	out := http.NewResponseController(w)
	if err := out.Flush(); err != nil {
		return
	}
	err = n.records(r.Context(), ending, from, func(_ uint64, encoded []byte) error {
		if err := writeFrame(w, encoded); err != nil {
			return err
		}
		return out.Flush()
	})
	n.opts.Log.Debug("block stream ended", "error", err)
}

func (n *Node) answerFailure(w http.ResponseWriter, err error) {
	f := failureOf(err)
	n.answer(w, statusOf[f.Class], encode(f))
}

func (n *Node) answer(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if _, err := w.Write(body); err != nil {
		n.opts.Log.Debug("answer not delivered", "error", err)
	}
}
