package embedded

import (
	"fmt"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/certanchor/certanchor/network"
)

// view is the ledger as of one durable block. Reads go through a view rather than to the store, which shows a batch to
// readers before it has reached the disk.
type view struct {
	snapshot *pebble.Snapshot
	height   uint64
	lastHash []byte
	users    atomic.Int64 // the node counts as one while this is its newest view; the last one closes the snapshot
}

// acquire returns the newest view; release must be called. Error: *network.UnavailableError.
func (n *Node) acquire() (*view, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.newest == nil {
		return nil, n.unavailable("read")
	}
	n.newest.users.Add(1)
	n.readers.Add(1)
	return n.newest, nil
}

func (n *Node) release(v *view) {
	defer n.readers.Done()
	n.drop(v)
}

func (n *Node) drop(v *view) {
	if v.users.Add(-1) > 0 || n.failure() != nil {
		return // a store that failed is not touched any more
	}
	if err := v.snapshot.Close(); err != nil {
		n.opts.Log.Error("close snapshot", "error", err)
	}
}

// advance makes what the store holds now the newest view. Only the writer calls it, after a block is durable.
func (n *Node) advance(height uint64, lastHash []byte) {
	v := &view{snapshot: n.db.NewSnapshot(), height: height, lastHash: lastHash}
	v.users.Store(1)
	n.mu.Lock()
	old := n.newest
	n.newest = v
	close(n.advanced)
	n.advanced = make(chan struct{})
	n.mu.Unlock()
	if old != nil {
		n.drop(old)
	}
}

// record reads a block, which must be below the view's height.
func (v *view) record(number uint64) ([]byte, error) {
	encoded, err := get(v.snapshot, blockKey(number))
	if err != nil {
		return nil, fmt.Errorf("block %d: %w", number, err)
	}
	if encoded == nil {
		return nil, fmt.Errorf("block %d of %d is missing", number, v.height)
	}
	return encoded, nil
}

// failure returns why the ledger stopped by itself, nil while it has not.
func (n *Node) failure() error {
	select {
	case <-n.failed:
		return n.failedErr
	default:
		return nil
	}
}

// fail stops the ledger for good. It may be called from any goroutine, and more than once.
func (n *Node) fail(err error) {
	n.failOnce.Do(func() {
		n.failedErr = fmt.Errorf("the ledger has stopped and must be opened again: %w", err)
		close(n.failed)
	})
	n.mu.Lock()
	n.newest = nil
	n.mu.Unlock()
}

func (n *Node) unavailable(stage string) error {
	if err := n.failure(); err != nil {
		return &network.UnavailableError{Stage: stage, Err: err}
	}
	return &network.UnavailableError{Stage: stage, Err: network.ErrClosed}
}
