package intent

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"sync"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/problem"
)

// subject is the certificate that an intent is about. A CA may have signed two with one serial number: the ledger tells them by the key.
type subject struct {
	ca     wire.CAID
	serial string
	holder [sha256.Size]byte // of the public key
}

// flights has one request at a time for each certificate: whoever has one key gets one slot, however often it asks.
type flights struct {
	mu sync.Mutex
	by map[subject]*flight
}

type flight struct {
	intent string // encoded
	done   chan struct{}

	// Set before done is closed.
	taken taken
	err   error
}

// taken is what the ledger has said, before anything is waited for.
type taken struct {
	result Result
	block  uint64
}

// do runs ask, or waits for whoever asks already: with the same intent its answer is this one's too, with another one it is this one's turn
// then, for the ledger may say something else about it.
func (f *flights) do(ctx context.Context, about subject, intent string, ask func() (taken, error)) (taken, error) {
	for {
		f.mu.Lock()
		other := f.by[about]
		if other == nil {
			own := &flight{intent: intent, done: make(chan struct{}), err: errors.New("request has ended without an answer")}
			f.by[about] = own
			f.mu.Unlock()
			defer func() { // after a panic, too
				f.mu.Lock()
				delete(f.by, about)
				f.mu.Unlock()
				close(own.done)
			}()
			own.taken, own.err = ask()
			return own.taken, own.err
		}
		f.mu.Unlock()
		select {
		case <-other.done:
		case <-ctx.Done():
			return taken{}, problem.New(http.StatusServiceUnavailable, problem.CodeUnavailable, "requests", "in flight",
				"one about the same certificate has not been answered by the ledger yet; send the same again")
		}
		if other.intent == intent {
			return other.taken, other.err
		}
	}
}
