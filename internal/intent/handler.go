package intent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/problem"
	"github.com/certanchor/certanchor/network"
)

// Path is where bridges serve Handler.
const Path = "/v1/revocations"

// TimeFormat is RFC 3339 in UTC with milliseconds, the ledger's resolution.
const TimeFormat = "2006-01-02T15:04:05.000Z07:00"

// Result is the answer to an intent that the ledger has taken. Repeating the request is safe: the date stays.
type Result struct {
	CAID    string `json:"ca_id"`
	Serial  string `json:"serial"`
	Reason  string `json:"reason"`           // RFC 5280's name
	Time    string `json:"time"`             // of the revocation by the key's holder, TimeFormat
	Changed bool   `json:"changed"`          // false: it was so already, and no transaction was made
	Block   uint64 `json:"block,omitempty"`  // if changed
	TxID    string `json:"tx_id,omitempty"`  // if changed
	Detail  string `json:"detail,omitempty"` // with 202: it is on the ledger, but this organisation's responders have not all confirmed it
}

// Ledger is what Handler needs of a network.Ledger.
type Ledger interface {
	Submit(ctx context.Context, function string, arg []byte) (network.Receipt, error)
	Evaluate(ctx context.Context, function string, arg []byte) ([]byte, error)
	Height(ctx context.Context) (uint64, error)
	Channel() string
}

// Options of Handler. Each zero value has a default.
type Options struct {
	// Applied returns once this organisation's responders have applied a block, so that none says good after the answer (docs/invariants.md,
	// invariant 2). nil: nothing is waited for.
	Applied func(ctx context.Context, block uint64) error

	MaxInFlight int           // requests that the ledger is busy with at once; more get 503. Default 16
	Timeout     time.Duration // of the transaction, and once more of Applied. Default 20 s
	Log         *slog.Logger  // default slog.Default()
}

// Defaults of Options.
const (
	defaultInFlight = 16
	defaultTimeout  = 20 * time.Second
)

type handler struct {
	ledger  Ledger
	applied func(ctx context.Context, block uint64) error
	slots   chan struct{}
	timeout time.Duration
	log     *slog.Logger
}

// Handler answers POST with an intent (Parse), whoever sends it: the signature inside is what counts. It refuses by itself what no ledger would
// take, and asks its own peer about the rest before anything is ordered, so that neither nonsense nor a repetition costs a transaction.
// Errors are RFC 9457 problems; after 503 the same request may be sent again. Callers limit the rate by source.
func Handler(ledger Ledger, o Options) http.Handler {
	h := &handler{
		ledger: ledger, applied: o.Applied, slots: make(chan struct{}, cmp.Or(o.MaxInFlight, defaultInFlight)),
		timeout: cmp.Or(o.Timeout, defaultTimeout), log: o.Log,
	}
	if h.log == nil {
		h.log = slog.Default()
	}
	return h
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		problem.Write(w, h.log, problem.New(http.StatusMethodNotAllowed, string(wire.InvalidArgument), "method", r.Method, "must be POST"))
		return
	}
	result, code, err := h.serve(w, r)
	if err != nil {
		problem.Write(w, h.log, err)
		return
	}
	body, err := json.Marshal(result)
	if err != nil { // strings, numbers and a bool
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	if _, err := w.Write(append(body, '\n')); err != nil {
		h.log.Debug("answer not delivered", "error", err)
	}
}

func (h *handler) serve(w http.ResponseWriter, r *http.Request) (*Result, int, error) {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxFile))
	if tooBig := new(http.MaxBytesError); errors.As(err, &tooBig) {
		return nil, 0, err
	}
	if err != nil {
		return nil, 0, invalid("body", "", "couldn't be read: %v", err)
	}
	arg, err := Parse(data)
	if err != nil {
		return nil, 0, err
	}
	intent, _, err := Check(arg)
	if err != nil {
		return nil, 0, err
	}
	if channel := h.ledger.Channel(); intent.Channel != channel {
		return nil, 0, invalid("intent.channel", intent.Channel, "must be this ledger's, %q", channel)
	}
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	default:
		return nil, 0, problem.New(http.StatusServiceUnavailable, problem.CodeUnavailable, "requests", "in flight", "too many at once; send the same again")
	}
	// Whoever hangs up has signed nevertheless.
	return h.revoke(context.WithoutCancel(r.Context()), intent, wire.Encode(arg))
}

func (h *handler) revoke(ctx context.Context, intent *wire.RevokeIntent, arg []byte) (*Result, int, error) {
	short, cancel := context.WithTimeout(ctx, h.timeout)
	defer cancel()
	encoded, err := h.ledger.Evaluate(short, wire.FnRevoke, arg)
	if err != nil {
		return nil, 0, err
	}
	var res wire.RevokeResult
	if err := wire.Decode(encoded, &res); err != nil {
		return nil, 0, err
	}
	out := &Result{CAID: intent.CAID.String(), Serial: intent.Serial.String()}
	var block uint64
	if res.Changed {
		receipt, err := h.ledger.Submit(short, wire.FnRevoke, arg)
		if err != nil {
			return nil, 0, err
		}
		res = wire.RevokeResult{}
		if err := wire.Decode(receipt.Result, &res); err != nil {
			return nil, 0, err
		}
		block, out.Block, out.TxID = receipt.Block, receipt.Block, receipt.TxID
		h.log.Info("revoked by its key's holder", "ca_id", out.CAID, "serial", out.Serial, "reason", res.Reason.String(), "block", block)
	} else {
		height, err := h.ledger.Height(short)
		if err != nil {
			return nil, 0, err
		}
		block = max(height, 1) - 1 // what the peer has just read is not newer
	}
	out.Reason, out.Time, out.Changed = res.Reason.String(), res.Time.Time().Format(TimeFormat), res.Changed
	return out, h.await(ctx, block, out), nil
}

// await returns the answer's status: 200 once the responders have applied block, else 202.
func (h *handler) await(ctx context.Context, block uint64, out *Result) int {
	if h.applied == nil {
		return http.StatusOK
	}
	ctx, cancel := context.WithTimeout(ctx, h.timeout)
	defer cancel()
	if err := h.applied(ctx, block); err != nil {
		h.log.Warn("revocation is on the ledger and not applied here yet", "block", block, "error", err)
		out.Detail = "the revocation is on the ledger; this organisation's responders have not confirmed it yet"
		return http.StatusAccepted
	}
	return http.StatusOK
}
