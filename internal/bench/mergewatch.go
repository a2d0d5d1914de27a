package bench

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
)

// mergeWatch follows a ledger's blocks and measures how long changes of status stay pending: from the block of the change to the block that
// moves it into the status log, by when this process saw them.
type mergeWatch struct {
	now func() time.Time

	mu      sync.Mutex           // guards what follows
	begun   map[string]time.Time // pending changes by key, since when
	delays  []time.Duration      // of those that were integrated since the last take
	last    string               // MSP ID of who integrated last
	changed chan struct{}        // closed and replaced with each block
}

func newMergeWatch() *mergeWatch {
	return &mergeWatch{now: time.Now, begun: map[string]time.Time{}, changed: make(chan struct{})}
}

// apply takes a block.
func (w *mergeWatch) apply(b *network.Block) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now()
	for _, tx := range b.Txs {
		if !tx.Valid {
			continue
		}
		if tx.Function == wire.FnIntegrate {
			w.last = tx.MSPID
		}
		for _, write := range tx.Writes {
			if !strings.HasPrefix(write.Key, wire.PendingPrefix) {
				continue
			}
			since, pending := w.begun[write.Key]
			switch {
			case write.Value != nil && !pending:
				w.begun[write.Key] = now
			case write.Value == nil && pending:
				w.delays = append(w.delays, now.Sub(since))
				delete(w.begun, write.Key)
			}
		}
	}
	close(w.changed)
	w.changed = make(chan struct{})
	return nil
}

// take returns the delays since the last call, once n changes were integrated since then and nothing is pending.
func (w *mergeWatch) take(ctx context.Context, n int) ([]time.Duration, error) {
	for {
		w.mu.Lock()
		delays, changed := w.delays, w.changed
		done := len(delays) >= n && len(w.begun) == 0
		if done {
			w.delays = nil
		}
		w.mu.Unlock()
		if done {
			return delays, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// integrator is who integrated last; empty: nobody yet.
func (w *mergeWatch) integrator() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}
