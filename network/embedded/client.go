package embedded

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/certanchor/certanchor/network"
)

// DefaultTimeout ends calls whose context has no deadline.
const DefaultTimeout = 30 * time.Second

// Pauses between attempts to get a broken block stream back.
const (
	firstPause = 20 * time.Millisecond
	lastPause  = 500 * time.Millisecond
)

// DialOptions say where a ledger is served and what to act as.
type DialOptions struct {
	Socket  string        // the Unix socket of certanchor ledger serve
	Role    string        // a role of the contract; the server believes it
	Timeout time.Duration // ends calls whose context has no deadline; 0 means DefaultTimeout
	Log     *slog.Logger  // receives warnings about lost block streams; nil means slog.Default()
}

// remote is a connection to a ledger that another process has open.
type remote struct {
	opts DialOptions
	info ledgerInfo
	http *http.Client

	ctx   context.Context // ends at Close
	close context.CancelFunc
}

var _ network.Ledger = (*remote)(nil)

// Dial connects to a ledger that another process serves, and asks it for its name. Error: *network.UnavailableError when there
// is nobody to ask.
func Dial(ctx context.Context, o DialOptions) (network.Ledger, error) {
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	o.Log = o.Log.With("socket", o.Socket)
	r := &remote{opts: o, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", o.Socket)
		},
		MaxIdleConnsPerHost: 64,
		DisableCompression:  true,
	}}}
	r.ctx, r.close = context.WithCancel(context.Background())
	info, err := r.ask(ctx)
	if err != nil {
		return nil, fmt.Errorf("ledger socket %s: %w", o.Socket, err)
	}
	r.info = *info
	return r, nil
}

// call derives the context of one call: it has a deadline, and ends when the connection is closed.
func (r *remote) call(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := r.untilClosed(ctx)
	if _, ok := ctx.Deadline(); ok {
		return ctx, cancel
	}
	timed, stop := context.WithTimeout(ctx, r.opts.Timeout)
	return timed, func() { stop(); cancel() }
}

func (r *remote) untilClosed(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(r.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// because adds to err that the connection was closed, which net/http tells only as a cancelled context.
func (r *remote) because(err error) error {
	if r.ctx.Err() != nil {
		return fmt.Errorf("%w: %w", network.ErrClosed, err)
	}
	return err
}

// exchange sends one request and returns the whole answer. sent is false only if the server cannot have seen any of it.
func (r *remote) exchange(ctx context.Context, method, path string, body []byte) (answer []byte, status int, sent bool, err error) {
	if r.ctx.Err() != nil {
		return nil, 0, false, network.ErrClosed
	}
	var connected atomic.Bool
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
	q, err := http.NewRequestWithContext(traced, method, "http://ledger"+path, bytes.NewReader(body))
	if err != nil {
		return nil, 0, false, err
	}
	q.Header.Set("Content-Type", contentType)
	p, err := r.http.Do(q)
	if err != nil {
		return nil, 0, connected.Load(), r.because(err)
	}
	defer p.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(p.Body, maxAnswer+1))
	if err == nil && len(answer) > maxAnswer {
		err = fmt.Errorf("answer of more than %d bytes", maxAnswer)
	}
	if err == nil && p.StatusCode != http.StatusOK && p.Header.Get("Content-Type") != contentType {
		err = fmt.Errorf("answer %s, which is not from a ledger", p.Status)
	}
	if err != nil {
		return nil, 0, true, r.because(err)
	}
	return answer, p.StatusCode, true, nil
}

// Submit implements network.Ledger.
func (r *remote) Submit(ctx context.Context, function string, arg []byte) (network.Receipt, error) {
	if err := network.CheckArg(function, arg); err != nil {
		return network.Receipt{}, err
	}
	ctx, cancel := r.call(ctx)
	defer cancel()
	stage, txID := "submit "+function, newTxID()
	request := encode(callRequest{V: formatVersion, Role: r.opts.Role, Function: function, Arg: arg, TxID: txID})
	answer, status, sent, err := r.exchange(ctx, http.MethodPost, pathSubmit, request)
	switch {
	case err != nil && !sent:
		return network.Receipt{}, &network.UnavailableError{Stage: stage, Err: err}
	case err != nil:
		return network.Receipt{}, &network.UnknownOutcomeError{TxID: txID, Stage: stage, Err: err}
	case status != http.StatusOK:
		return network.Receipt{}, parseFailure(answer, function, stage, txID)
	}
	var s submitted
	if err := decMode.Unmarshal(answer, &s); err != nil {
		return network.Receipt{}, &network.UnknownOutcomeError{TxID: txID, Stage: stage, Err: err}
	}
	return network.Receipt{TxID: txID, Block: s.Block, Result: s.Result}, nil
}

// Evaluate implements network.Ledger.
func (r *remote) Evaluate(ctx context.Context, function string, arg []byte) ([]byte, error) {
	if err := network.CheckArg(function, arg); err != nil {
		return nil, err
	}
	ctx, cancel := r.call(ctx)
	defer cancel()
	stage := "evaluate " + function
	request := encode(callRequest{V: formatVersion, Role: r.opts.Role, Function: function, Arg: arg})
	answer, status, _, err := r.exchange(ctx, http.MethodPost, pathEvaluate, request)
	switch {
	case err != nil:
		return nil, &network.UnavailableError{Stage: stage, Err: err}
	case status != http.StatusOK:
		return nil, asUnavailable(parseFailure(answer, function, stage, ""))
	}
	return answer, nil
}

func parseFailure(answer []byte, function, stage, txID string) error {
	var f failure
	if err := decMode.Unmarshal(answer, &f); err != nil {
		f = failure{Class: classUnknown, Text: err.Error()}
	}
	return f.err(function, stage, txID)
}

// asUnavailable is for calls that change nothing, whose outcome does not matter.
func asUnavailable(err error) error {
	var unknown *network.UnknownOutcomeError
	if errors.As(err, &unknown) {
		return &network.UnavailableError{Stage: unknown.Stage, Err: unknown.Err}
	}
	return err
}

// ask asks for the ledger's name and height.
func (r *remote) ask(ctx context.Context) (*ledgerInfo, error) {
	ctx, cancel := r.call(ctx)
	defer cancel()
	const stage = "ask for height"
	answer, status, _, err := r.exchange(ctx, http.MethodGet, pathLedger, nil)
	if err == nil && status != http.StatusOK {
		return nil, asUnavailable(parseFailure(answer, "", stage, ""))
	}
	var info ledgerInfo
	if err == nil {
		err = decMode.Unmarshal(answer, &info)
	}
	if err != nil {
		return nil, &network.UnavailableError{Stage: stage, Err: err}
	}
	return &info, nil
}

// Height implements network.Ledger.
func (r *remote) Height(ctx context.Context) (uint64, error) {
	info, err := r.ask(ctx)
	if err != nil {
		return 0, err
	}
	return info.Height, nil
}

// Blocks implements network.Ledger.
func (r *remote) Blocks(ctx context.Context, from uint64, fn func(*network.Block) error) error {
	if r.ctx.Err() != nil {
		return &network.UnavailableError{Stage: "read blocks", Err: network.ErrClosed}
	}
	inner, cancel := r.untilClosed(ctx)
	defer cancel()
	s := &follower{remote: r, next: from, fn: fn}
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		before := s.next
		err := s.read(inner)
		switch {
		case s.final != nil:
			return s.final
		case ctx.Err() != nil:
			return ctx.Err()
		case inner.Err() != nil:
			return &network.UnavailableError{Stage: "read blocks", Err: network.ErrClosed}
		}
		r.opts.Log.Warn("block stream lost, connecting again", "next_block", s.next, "error", err)
		if s.next > before {
			pause = firstPause
		}
		select {
		case <-time.After(pause):
		case <-inner.Done():
		}
	}
}

// follower reads blocks over as many streams as it takes.
type follower struct {
	remote *remote
	next   uint64
	last   []byte // hash of the block before next; nil if not known
	fn     func(*network.Block) error
	final  error // ends Blocks
}

// read reads one stream to its end.
func (s *follower) read(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the request on the server's side too
	url := "http://ledger" + pathBlocks + "?from=" + strconv.FormatUint(s.next, 10)
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	p, err := s.remote.http.Do(q)
	if err != nil {
		return err
	}
	defer p.Body.Close()
	if p.StatusCode != http.StatusOK {
		return fmt.Errorf("answer %s", p.Status)
	}
	stream := bufio.NewReaderSize(p.Body, 64<<10)
	for {
		encoded, err := readFrame(stream)
		if err != nil {
			return err
		}
		b, err := readBlock(s.next, encoded, s.last)
		if err != nil {
			s.final = &network.UnavailableError{Stage: "read blocks", Err: err}
			return s.final
		}
		if s.final = s.fn(b); s.final != nil {
			return s.final
		}
		s.next, s.last = s.next+1, b.Hash
	}
}

// MSPID implements network.Ledger.
func (r *remote) MSPID() string { return r.info.MSPID }

// Channel implements network.Ledger.
func (r *remote) Channel() string { return r.info.Channel }

// Close implements network.Ledger.
func (r *remote) Close() error {
	r.close()
	r.http.CloseIdleConnections()
	return nil
}
