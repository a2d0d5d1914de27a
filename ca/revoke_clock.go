package ca

import (
	"fmt"
	"net/http"
	"time"

	"github.com/certanchor/certanchor/internal/problem"
)

const (
	// clockWindow is how far a transaction's time may be from the clocks of the peers that endorse it.
	clockWindow = 10 * time.Second
	// clockGrace is what others' clocks may be off, and what a Tick may need to get here.
	clockGrace = 10 * time.Second
)

// clockSound refuses to sign or submit anything by a clock that the ledger's peers would not believe: a certificate would never get onto the
// ledger, and the error would not say why.
func (s *Server) clockSound() error {
	skew := s.catalogue.Skew()
	now := s.now()
	say := func(off time.Duration, how string) error {
		return problem.New(http.StatusServiceUnavailable, problem.CodeUnavailable, "clock", now.UTC().Format(time.RFC3339),
			fmt.Sprintf("this machine's clock is %v %s the ledger's and must be within %v of it; nothing was signed or submitted: set the clock", off.Round(time.Second), how, clockWindow))
	}
	if skew.Behind > clockWindow+clockGrace {
		return say(skew.Behind, "behind")
	}
	if skew.Ahead > clockWindow+clockGrace+skew.Every {
		return say(skew.Ahead, "ahead of")
	}
	return nil
}
