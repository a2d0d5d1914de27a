package ca

import (
	"context"
	"sync"
)

// keyedLock is a set of locks named by digests, held by requests with the same idempotency key one after another. The zero value is
// ready.
type keyedLock struct {
	mu   sync.Mutex
	held map[digest]chan struct{} // closed at release
}

// lock waits for k and returns its release, or ctx's error.
func (l *keyedLock) lock(ctx context.Context, k digest) (release func(), err error) {
	for {
		l.mu.Lock()
		other, taken := l.held[k]
		if !taken {
			mine := make(chan struct{})
			if l.held == nil {
				l.held = map[digest]chan struct{}{}
			}
			l.held[k] = mine
			l.mu.Unlock()
			return func() {
				l.mu.Lock()
				delete(l.held, k)
				l.mu.Unlock()
				close(mine)
			}, nil
		}
		l.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
