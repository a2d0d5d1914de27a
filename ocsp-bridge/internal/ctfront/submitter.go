package ctfront

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctapi"
	"github.com/certanchor/certanchor/network"
)

// submitter asks anew, at each submission, who takes the CA's certificates.
type submitter struct {
	f  *Front
	ca wire.CAID
}

func (s *submitter) Submit(ctx context.Context, der []byte) (wire.LogEntry, error) {
	to := s.f.cfg.Submit(s.ca)
	if to == nil {
		return wire.LogEntry{}, &network.UnavailableError{Stage: "submitting", Err: errors.New("no submissions are taken for this CA any more")}
	}
	return to.Submit(ctx, der)
}

// recorded answers ctapi.Config.Recorded from this organisation's blocks, whoever operates the CA.
func (s *submitter) recorded(_ context.Context, cert *x509.Certificate) (wire.LogEntry, bool, error) {
	serial, err := wire.SerialOf(cert.SerialNumber)
	if err != nil {
		return wire.LogEntry{}, false, err
	}
	rec, err := s.f.cfg.Record(s.ca, serial)
	if err != nil {
		return wire.LogEntry{}, false, fmt.Errorf("record of serial %s: %w", serial, err)
	}
	return ctapi.Recorded(s.ca, rec, cert, s.f.cfg.Now())
}

// headerForwarded counts the fronts that a submission has come through. Two fronts that take each other for the operating organisation's would
// send it to and fro for ever.
const headerForwarded = "Certanchor-Forwarded"

// maxHops is one more than there is use for: another organisation's front, the operator's front, the CA bridge.
const maxHops = 4

type hopsKey struct{}

// countHops keeps the request's count for the Submitter.
func countHops(r *http.Request) context.Context {
	said := r.Header.Get(headerForwarded)
	if said == "" {
		return r.Context()
	}
	n, err := strconv.Atoi(said)
	if err != nil || n < 0 {
		n = maxHops
	}
	return context.WithValue(r.Context(), hopsKey{}, n)
}

func hops(ctx context.Context) int {
	n, _ := ctx.Value(hopsKey{}).(int)
	return n
}
