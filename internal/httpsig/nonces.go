package httpsig

import (
	"net/http"
	"sync"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// Times that a signature is good for.
const (
	Window = 60 * time.Second // after it was made
	Ahead  = 5 * time.Second  // before that: clocks differ
)

// maxNonces bounds what is remembered for one client.
const maxNonces = 1 << 17

// Nonces refuses signatures that are too old, too new, or were seen before. It is safe for concurrent use.
type Nonces struct {
	now   func() time.Time
	start time.Time

	mu   sync.Mutex
	seen map[string]*seen // by key ID
}

// seen are the nonces of one client, in two halves: what is in old is older than a Window and Ahead, at the latest when the next is.
type seen struct {
	young, old map[string]bool
	turned     time.Time
}

// NewNonces remembers from now on.
func NewNonces(now func() time.Time) *Nonces {
	return &Nonces{now: now, start: now(), seen: map[string]*seen{}}
}

// NotYetError: this process has not run for long enough to know that the signature was not seen by the one before.
type NotYetError struct{ Wait time.Duration }

func (e *NotYetError) Error() string {
	return "the server has just started and cannot tell whether the request was made before; sign it anew"
}

// CheckTime refuses a signature that was made too long ago, or will be. Errors are *wire.Error and *NotYetError.
//
// Nonces are not kept over a restart. A request that changes something must therefore be signed at a time at which the process before could not
// have taken it: Ahead after this one's start. What only reads may be repeated.
func (n *Nonces) CheckTime(s *Signature, method string) error {
	now := n.now()
	says := func(rule string) error {
		return bad(headerInput, s.Created.UTC().Format(time.RFC3339), "%s; the server's clock says %s", rule, now.UTC().Format(time.RFC3339))
	}
	switch floor := n.start.Add(Ahead); {
	case s.Created.Before(now.Add(-Window)):
		return says("created must be at most " + Window.String() + " ago")
	case s.Created.After(now.Add(Ahead)):
		return says("created must be at most " + Ahead.String() + " ahead")
	case !s.Expires.IsZero() && !now.Before(s.Expires):
		return says("expires must not be past")
	case method != http.MethodGet && method != http.MethodHead && !s.Created.After(floor):
		return &NotYetError{Wait: max(time.Second, floor.Sub(now)+time.Second)}
	}
	return nil
}

// Use remembers the nonce of a verified signature, and refuses one that is remembered. Errors are *wire.Error: of code failed_precondition if
// the client has sent more than can be remembered.
func (n *Nonces) Use(s *Signature) error {
	now := n.now()
	n.mu.Lock()
	defer n.mu.Unlock()
	c := n.seen[s.KeyID]
	if c == nil {
		c = &seen{young: map[string]bool{}, turned: now}
		n.seen[s.KeyID] = c
	}
	switch {
	case now.Before(c.turned): // the clock was set back: nothing is forgotten for it
		c.turned = now
	case now.Sub(c.turned) > Window+Ahead:
		c.old, c.young, c.turned = c.young, map[string]bool{}, now
	}
	switch {
	case c.young[s.Nonce] || c.old[s.Nonce]:
		return bad(headerInput, s.Nonce, "nonce was used already: the request is a repetition, sign it anew")
	case len(c.young) >= maxNonces:
		return wire.Errorf(wire.FailedPrecondition, headerInput, s.KeyID, "more than %d signed requests within %v", maxNonces, Window+Ahead)
	}
	c.young[s.Nonce] = true
	return nil
}
