package ocspbridge

import (
	"crypto"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// tokenProbe is how long the answers of tokens are believed in.
const tokenProbe = 2 * time.Second

// tokens remembers which of the bridge's keys are in tokens that cannot sign now.
type tokens struct {
	mu     sync.Mutex // held while they are asked; guards what follows
	at     time.Time
	away   map[string]string // by use of the key
	answer bool              // one that OCSP answers are signed with is among them
}

// tokensAway asks each token for a signature that means nothing, at the same time, and not more often than every tokenProbe.
func (b *Bridge) tokensAway() (away map[string]string, answers bool) {
	t := &b.tokens
	t.mu.Lock()
	defer t.mu.Unlock()
	if now := time.Now(); !t.at.IsZero() && now.Sub(t.at) < tokenProbe {
		return maps.Clone(t.away), t.answer
	}
	responders := b.responders.Keys()
	keys := map[string]crypto.Signer{}
	for i, k := range responders {
		keys[fmt.Sprintf("responder %d", i+1)] = k
	}
	for id, k := range b.cfg.LogKeys {
		keys["log of "+id.String()] = k
	}
	if b.indirect != nil {
		keys["indirect CRL"] = b.indirect.Key()
	}
	var (
		group sync.WaitGroup
		found sync.Mutex
	)
	t.away, t.answer = map[string]string{}, false
	for name, key := range keys {
		token, ok := key.(interface{ Ready() error })
		if !ok {
			continue
		}
		group.Go(func() {
			err := token.Ready()
			if err == nil {
				return
			}
			found.Lock()
			defer found.Unlock()
			t.away[name] = err.Error()
			t.answer = t.answer || slices.Contains(responders, key)
		})
	}
	group.Wait()
	t.at = time.Now()
	return maps.Clone(t.away), t.answer
}
