package ocspbridge

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/certanchor/certanchor/ocsp-bridge/internal/index"
)

// Readiness is the state of a bridge's view.
type Readiness struct {
	Ready      bool              `json:"ready"`
	Reason     string            `json:"reason,omitempty"` // why not
	Height     uint64            `json:"height"`           // blocks applied
	PeerHeight *uint64           `json:"peer_height"`      // blocks on the peer, null if it does not tell
	ViewTime   *time.Time        `json:"view_time"`        // null before the first transaction
	ViewAgeMS  *int64            `json:"view_age_ms"`
	Responders map[string]string `json:"responders,omitempty"` // CA ID to why there is no usable responder certificate
	Tokens     map[string]string `json:"tokens,omitempty"`     // key to why the PKCS #11 token that has it cannot sign now
}

const heightPatience = time.Second

// Ready asks the peer's height, for a second at most, and reports the state of the view. It is ready when the view is whole
// and fresh, there is a usable responder certificate for every CA that one is configured for, and the tokens with their keys sign.
func (b *Bridge) Ready() Readiness {
	ctx, cancel := context.WithTimeout(context.Background(), heightPatience)
	defer cancel()
	peer, peerErr := b.ledger.Height(ctx)
	v, now := b.index.View(), b.cfg.Now()
	r := Readiness{Height: v.Height, Responders: b.responders.Problems(v.CAs(), now)}
	if peerErr == nil {
		r.PeerHeight = &peer
	}
	if v.Time != 0 {
		t, age := v.Time.Time(), viewAge(v, now).Milliseconds()
		r.ViewTime, r.ViewAgeMS = &t, &age
	}
	var unsigned bool
	r.Tokens, unsigned = b.tokensAway()
	if _, err := b.fresh(v, now); err != nil {
		r.Reason = err.Error()
	} else if unsigned {
		r.Reason = "a token that OCSP answers are signed in cannot sign now"
	} else if n := len(r.Responders); n > 0 {
		r.Reason = fmt.Sprintf("no usable responder certificate for %d of the CAs", n)
	}
	r.Ready = r.Reason == ""
	return r
}

// fresh tells whether answers may be given from v at now, and until when the ones given now hold. The error says why not.
func (b *Bridge) fresh(v *index.View, now time.Time) (limits, error) {
	if err := b.haltReason(); err != nil {
		return limits{}, fmt.Errorf("halted: %w", err)
	}
	l := b.limits.Load()
	if l == nil || v.Time == 0 {
		return limits{}, fmt.Errorf("the ledger is not founded as far as this bridge has read it")
	}
	if err := b.behind(v); err != nil {
		return *l, err
	}
	return *l, b.stale(l, v, now)
}

// behind tells why there may be blocks on the peer that are not in the view, other than new ones.
func (b *Bridge) behind(v *index.View) error {
	switch required := b.required.Load(); {
	case required == unknownHeight:
		return errors.New("the peer has not told its height since the block stream was last started")
	case v.Height < uint64(required):
		return fmt.Errorf("catching up: %d of %d blocks", v.Height, required)
	case !b.confirmed.Load():
		return fmt.Errorf("the peer, which told a height of %d, has not delivered block %d, the newest that this bridge has applied", required, v.Height-1)
	}
	return nil
}

// stale tells why the view is too old, or why that cannot be told.
func (b *Bridge) stale(l *limits, v *index.View, now time.Time) error {
	if behind := v.Time.Time().Sub(now); behind > b.cfg.Settings.ClockTolerance {
		return fmt.Errorf("the local clock is %s behind the ledger's: ages cannot be told", behind)
	}
	if age := viewAge(v, now); age > l.staleness {
		return fmt.Errorf("the newest transaction is %s old, more than %s: the ledger may have moved on unseen", age.Truncate(time.Millisecond), l.staleness)
	}
	return nil
}

// ailing tells why nothing will be answered until somebody looks after it: the bridge has halted, or its view is stale. One that is catching up after a
// start is neither, nor is one of a ledger that is not founded yet.
func (b *Bridge) ailing(now time.Time) (status string, err error) {
	if err := b.haltReason(); err != nil {
		return healthHalted, err
	}
	v, l := b.index.View(), b.limits.Load()
	if l == nil || v.Time == 0 {
		return "", nil
	}
	if required := b.required.Load(); required != unknownHeight && v.Height < uint64(required) {
		return "", nil
	}
	return healthStale, b.stale(l, v, now)
}

// viewAge is how long ago the ledger said something, as the less favourable of two clocks has it: the wall clock against the
// transaction's own time, and the monotonic clock since the transaction was seen, which a wall clock set back does not move.
func viewAge(v *index.View, now time.Time) time.Duration {
	return max(now.Sub(v.Time.Time()), now.Sub(v.Seen), 0)
}

// thisUpdate is the time the view's statements are known to be right: the ledger's, but never in the local future.
func thisUpdate(v *index.View, now time.Time) time.Time {
	t := v.Time.Time()
	if t.After(now) {
		t = now
	}
	return t.UTC().Truncate(time.Second)
}
