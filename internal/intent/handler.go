package intent

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
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

	// Known returns the certificates of a CA on the trust list, as this organisation has read it, none for a CA that is not there, and whether
	// it has read all of it. What no known CA has issued never reaches the ledger: anybody can sign an intent for a certificate of its
	// own making. nil: the ledger alone is asked.
	Known func(id wire.CAID) (issuers []*x509.Certificate, current bool)

	Rate        float64          // requests a second from one source, and twice as many at once; more get 429. Default 10
	MaxInFlight int              // certificates that the ledger is busy with at once; more get 503. Default 16
	Timeout     time.Duration    // of the transaction, and once more of Applied. Default 20 s
	Now         func() time.Time // clock of Rate. Default time.Now
	Log         *slog.Logger     // default slog.Default()
}

// Defaults of Options.
const (
	defaultRate     = 10
	defaultInFlight = 16
	defaultTimeout  = 20 * time.Second
)

type handler struct {
	ledger  Ledger
	applied func(ctx context.Context, block uint64) error
	known   func(id wire.CAID) ([]*x509.Certificate, bool)
	limit   limiter
	flights flights
	slots   chan struct{}
	timeout time.Duration
	log     *slog.Logger
}

// Handler answers POST with an intent (Parse), whoever sends it: the signature inside is what counts. It refuses by itself what no ledger would
// take, and asks its own peer about the rest before anything is ordered, so that neither nonsense nor a repetition costs a transaction.
// Errors are RFC 9457 problems; after 429 and 503 the same request may be sent again.
func Handler(ledger Ledger, o Options) http.Handler {
	h := &handler{
		ledger: ledger, applied: o.Applied, known: o.Known, slots: make(chan struct{}, cmp.Or(o.MaxInFlight, defaultInFlight)),
		flights: flights{by: map[subject]*flight{}}, timeout: cmp.Or(o.Timeout, defaultTimeout), log: o.Log,
	}
	rate := cmp.Or(o.Rate, defaultRate)
	h.limit.rate, h.limit.burst, h.limit.now, h.limit.buckets = rate, max(2*rate, 1), o.Now, map[string]bucket{}
	if h.limit.now == nil {
		h.limit.now = time.Now
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
	if !h.limit.allow(sourceOf(r)) {
		w.Header().Set("Retry-After", "1")
		problem.Write(w, h.log, problem.New(http.StatusTooManyRequests, problem.CodeUnavailable, "requests", sourceOf(r),
			"too many from one address; send the same again, a little later"))
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
	intent, cert, err := Check(arg)
	if err != nil {
		return nil, 0, err
	}
	if channel := h.ledger.Channel(); intent.Channel != channel {
		return nil, 0, invalid("intent.channel", intent.Channel, "must be this ledger's, %q", channel)
	}
	if err := h.checkKnown(intent, cert); err != nil {
		return nil, 0, err
	}
	ctx := context.WithoutCancel(r.Context()) // whoever hangs up has signed nevertheless
	got, err := h.submit(ctx, intent, cert, arg)
	if err != nil {
		return nil, 0, err
	}
	return &got.result, h.await(ctx, got.block, &got.result), nil
}

// checkKnown holds the certificate against the trust list. Behind the ledger, nothing is refused for good.
func (h *handler) checkKnown(intent *wire.RevokeIntent, cert *x509.Certificate) error {
	if h.known == nil {
		return nil
	}
	issuers, current := h.known(intent.CAID)
	err := checkIssuer(intent.CAID, cert, issuers)
	if err != nil && !current {
		return problem.New(http.StatusServiceUnavailable, problem.CodeUnavailable, "cert", intent.Serial.String(),
			"must be of a CA on the trust list, which this server has not read to its end yet; send the same again, or to another bridge")
	}
	return err
}

// submit has the ledger take the intent. It holds a slot while the ledger is busy with it, and no longer.
func (h *handler) submit(ctx context.Context, intent *wire.RevokeIntent, cert *x509.Certificate, arg *wire.RevokeArg) (taken, error) {
	ctx, cancel := context.WithTimeout(ctx, h.timeout)
	defer cancel()
	about := subject{ca: intent.CAID, serial: string(intent.Serial), holder: sha256.Sum256(cert.RawSubjectPublicKeyInfo)}
	return h.flights.do(ctx, about, string(arg.Intent), func() (taken, error) {
		select {
		case h.slots <- struct{}{}:
			defer func() { <-h.slots }()
		default:
			return taken{}, problem.New(http.StatusServiceUnavailable, problem.CodeUnavailable, "requests", "in flight", "too many at once; send the same again")
		}
		return h.revoke(ctx, intent, wire.Encode(arg))
	})
}

func (h *handler) revoke(ctx context.Context, intent *wire.RevokeIntent, arg []byte) (taken, error) {
	encoded, err := h.ledger.Evaluate(ctx, wire.FnRevoke, arg)
	if err != nil {
		return taken{}, err
	}
	var res wire.RevokeResult
	if err := wire.Decode(encoded, &res); err != nil {
		return taken{}, err
	}
	out := taken{result: Result{CAID: intent.CAID.String(), Serial: intent.Serial.String()}}
	if res.Changed {
		receipt, err := h.ledger.Submit(ctx, wire.FnRevoke, arg)
		if err != nil {
			return taken{}, err
		}
		res = wire.RevokeResult{}
		if err := wire.Decode(receipt.Result, &res); err != nil {
			return taken{}, err
		}
		out.block, out.result.Block, out.result.TxID = receipt.Block, receipt.Block, receipt.TxID
		h.log.Info("revoked by its key's holder", "ca_id", out.result.CAID, "serial", out.result.Serial, "reason", res.Reason.String(), "block", out.block)
	} else {
		height, err := h.ledger.Height(ctx)
		if err != nil {
			return taken{}, err
		}
		out.block = max(height, 1) - 1 // what the peer has just read is not newer
	}
	out.result.Reason, out.result.Time, out.result.Changed = res.Reason.String(), res.Time.Time().Format(TimeFormat), res.Changed
	return out, nil
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
