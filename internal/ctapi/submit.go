package ctapi

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctleaf"
	"github.com/certanchor/certanchor/internal/problem"
	"github.com/certanchor/certanchor/internal/sct"
	"github.com/certanchor/certanchor/network"
)

// maxBody is room for the largest chain in base64, and for the JSON around it.
const maxBody = maxChain*(wire.MaxCertDER*4/3+16) + 4<<10

// addAnswer is RFC 6962 section 4.1.
type addAnswer struct {
	Version    int    `json:"sct_version"`
	ID         []byte `json:"id"`
	Time       int64  `json:"timestamp"`
	Extensions []byte `json:"extensions"`
	Signature  []byte `json:"signature"`
}

func (l *Log) addChain(r *http.Request) (*answer, error)    { return l.add(r, false) }
func (l *Log) addPreChain(r *http.Request) (*answer, error) { return l.add(r, true) }

func (l *Log) add(r *http.Request, pre bool) (*answer, error) {
	if len(l.pending) == cap(l.pending) { // before the body is read: an overloaded server says so at once
		return nil, overloaded(cap(l.pending))
	}
	chain, err := readChain(r.Body)
	if err != nil {
		return nil, err
	}
	// A submission that gets no place is over: nothing of it waits to be accepted later (Aviator 2016 accepted more than it
	// could merge in time).
	select {
	case l.pending <- struct{}{}:
		defer func() { <-l.pending }()
	default:
		return nil, overloaded(cap(l.pending))
	}
	known, err := l.trusted()
	if err != nil {
		return nil, err
	}
	leaf, err := l.checkChain(known, chain, pre)
	if err != nil {
		return nil, err
	}
	if err := l.checkReached(); err != nil {
		return nil, err
	}
	stamp, err := l.submit(r.Context(), leaf, pre)
	if err != nil {
		return nil, err
	}
	return &answer{
		body: addAnswer{
			ID: stamp.LogID[:], Time: int64(stamp.Time), Extensions: stamp.Extensions, Signature: stamp.Signature,
		},
		cache: private,
	}, nil
}

func overloaded(most int) error {
	return problem.New(http.StatusServiceUnavailable, problem.CodeUnavailable, "submissions", fmt.Sprint(most), "must be fewer at a time; nothing was submitted, ask again later")
}

// readChain reads {"chain": [base64, ...]}. Other fields are ignored, as RFC 6962 section 4 asks, and so is the content type: clients
// send several.
func readChain(body io.Reader) ([][]byte, error) {
	var request struct {
		Chain []string `json:"chain"`
	}
	text, err := io.ReadAll(body)
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		return nil, err
	} else if err != nil {
		return nil, invalid("body", "", "must be readable: %v", err)
	}
	if err := json.Unmarshal(text, &request); err != nil {
		return nil, invalid("body", string(text), "must be a JSON object with a list chain of base64 strings: %v", err)
	}
	if len(request.Chain) > maxChain {
		return nil, invalid("chain", fmt.Sprintf("%d certificates", len(request.Chain)), "must have 1 to %d, the end-entity certificate first (RFC 6962 section 4.1)", maxChain)
	}
	chain := make([][]byte, len(request.Chain))
	for i, s := range request.Chain {
		if chain[i], err = base64.StdEncoding.DecodeString(s); err != nil {
			return nil, invalid(field(i), s, "must be base64 (RFC 4648 section 4): %v", err)
		}
	}
	return chain, nil
}

// submit brings a checked certificate into the log and signs its SCT.
func (l *Log) submit(ctx context.Context, cert *x509.Certificate, pre bool) (*sct.SCT, error) {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	entry, err := l.place(ctx, cert)
	if err != nil {
		return nil, refused(err)
	}
	leaf, err := leafOf(l.caID, entry, cert.Raw, pre)
	if err != nil {
		return nil, err
	}
	// An SCT is a promise about these very octets: what the ledger has at that place must be them.
	if hash := ctleaf.HashLeaf(leaf); string(hash[:]) != string(entry.LeafHash) {
		return nil, fmt.Errorf("log %s: the ledger has leaf hash %x at index %d, this certificate would have %x: no SCT is signed", l.caID, entry.LeafHash, entry.Index, hash)
	}
	return l.key.SignSCT(leaf)
}

// refused turns the contract's refusal into a 400 with its message: RFC 6962 has no other status for a certificate that a log does not
// take. Everything else keeps the meaning that package problem gives it.
func refused(err error) error {
	if errors.Is(err, network.ErrUnknownOutcome) || errors.Is(err, network.ErrUnavailable) {
		return err
	}
	var why *wire.Error
	switch {
	case errors.As(err, &why) && why.Code != wire.Internal:
		return problem.New(http.StatusBadRequest, string(why.Code), why.Field, why.Value, why.Rule)
	case network.IsRejected(err) && why == nil:
		return problem.New(http.StatusBadRequest, string(wire.FailedPrecondition), "chain", "", err.Error())
	}
	return err
}
