package ocspbridge_test

import (
	"context"
	"errors"
	"sync"

	"github.com/certanchor/certanchor/network"
)

// faulty is a real ledger behind a line that tests can cut.
type faulty struct {
	network.Ledger
	ahead uint64 // what Height adds to the truth
	drops bool   // a block that meets a cut line ends the stream instead of waiting

	mu   sync.Mutex
	mend chan struct{} // nil while the line is whole; closed when it is mended
}

func cutLine(l network.Ledger) *faulty {
	f := &faulty{Ledger: l}
	f.set(true)
	return f
}

// set cuts the line, so that blocks are held back and nothing gets an answer, or mends it.
func (f *faulty) set(cut bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case cut && f.mend == nil:
		f.mend = make(chan struct{})
	case !cut && f.mend != nil:
		close(f.mend)
		f.mend = nil
	}
}

// broken returns a channel to wait for while the line is cut, nil when it is whole.
func (f *faulty) broken() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mend
}

var errCut = &network.UnavailableError{Stage: "test", Err: errors.New("line is cut")}

func (f *faulty) Blocks(ctx context.Context, from uint64, fn func(*network.Block) error) error {
	return f.Ledger.Blocks(ctx, from, func(b *network.Block) error {
		if mend := f.broken(); mend != nil {
			if f.drops {
				return errCut
			}
			select {
			case <-mend:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return fn(b)
	})
}

func (f *faulty) Height(ctx context.Context) (uint64, error) {
	if f.broken() != nil {
		return 0, errCut
	}
	h, err := f.Ledger.Height(ctx)
	return h + f.ahead, err
}

func (f *faulty) Submit(ctx context.Context, function string, arg []byte) (network.Receipt, error) {
	if f.broken() != nil {
		return network.Receipt{}, errCut
	}
	return f.Ledger.Submit(ctx, function, arg)
}
