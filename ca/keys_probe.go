package ca

import (
	"errors"
	"sync"
	"time"

	"github.com/certanchor/certanchor/internal/hsm"
	"github.com/certanchor/certanchor/internal/keystate"
)

// probeEvery is how long the answer of a token is believed in: whoever asks whether the CA is ready may ask often.
const probeEvery = 2 * time.Second

// probe remembers whether a token was there.
type probe struct {
	mu  sync.Mutex // held while the token is asked
	at  time.Time
	err error
}

// ready returns why the CA's key cannot sign certificates: its state, or that its token is away. A token is asked, with a signature that means nothing.
func (c *custody) ready() error {
	if err := c.usable(keystate.Certificates); err != nil {
		return err
	}
	c.signing.RLock()
	token, ok := c.key.(interface{ Ready() error })
	c.signing.RUnlock()
	if !ok {
		return nil
	}
	c.probe.mu.Lock()
	defer c.probe.mu.Unlock()
	if now := time.Now(); c.probe.at.IsZero() || now.Sub(c.probe.at) >= probeEvery {
		// Under the same rule as every other signature: a suspended key makes none.
		c.signing.RLock()
		err := c.allows(keystate.Certificates)
		if err == nil {
			err = token.Ready()
		}
		c.signing.RUnlock()
		c.probe.at, c.probe.err = time.Now(), err
	}
	return c.probe.err
}

// tokenAway reports whether err says that a token cannot sign now.
func tokenAway(err error) bool {
	var down *hsm.Error
	return errors.As(err, &down)
}
