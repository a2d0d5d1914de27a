package ctfront

import (
	"context"
	"errors"
	"net/http"

	"github.com/certanchor/certanchor/chaincode/wire"
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

// headerForwarded marks a submission that another front sends on. It is not sent on again: two fronts that take each other for the operating
// organisation's would do so for ever.
const headerForwarded = "Certanchor-Forwarded"

type forwardedKey struct{}

func noteForwarded(r *http.Request) context.Context {
	if r.Header.Get(headerForwarded) == "" {
		return r.Context()
	}
	return context.WithValue(r.Context(), forwardedKey{}, true)
}

func wasForwarded(ctx context.Context) bool {
	was, _ := ctx.Value(forwardedKey{}).(bool)
	return was
}
