package index

import (
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// moment is a View with the state of the store that belongs to it. All that one read needs comes from one moment: a record from
// before a block together with a revocation from that block would be a status that the certificate never had.
type moment struct {
	view *View
	snap *pebble.Snapshot
	refs atomic.Int64 // reads that use snap, and one while the moment is the newest; 0: snap is closed
}

// publish makes the store's present state, and v, what reads see, and tells who wants to know.
func (ix *Index) publish(v *View, changes []Change) {
	m := &moment{view: v, snap: ix.db.NewSnapshot()}
	m.refs.Store(1)
	if old := ix.now.Swap(m); old != nil {
		ix.release(old)
		if ix.opts.Published != nil {
			ix.opts.Published(v.Height, changes)
		}
	}
	ix.published.Store(v.Height)
	next := make(chan struct{})
	if old := ix.changed.Swap(&next); old != nil {
		close(*old)
	}
}

// acquire returns the newest moment, to be released. Requires closeMu.
func (ix *Index) acquire() *moment {
	for {
		m := ix.now.Load()
		for n := m.refs.Load(); n > 0; n = m.refs.Load() {
			if m.refs.CompareAndSwap(n, n+1) {
				return m
			}
		}
	}
}

func (ix *Index) release(m *moment) {
	if m.refs.Add(-1) == 0 {
		if err := m.snap.Close(); err != nil {
			ix.opts.Log.Error("index: release snapshot", "error", err)
		}
	}
}

// read runs fn on the newest moment, while the store cannot be closed.
func (ix *Index) read(fn func(*View, pebble.Reader) error) error {
	ix.closeMu.RLock()
	defer ix.closeMu.RUnlock()
	if ix.closed {
		return ErrClosed
	}
	m := ix.acquire()
	defer ix.release(m)
	return fn(m.view, m.snap)
}

// View returns the newest view.
func (ix *Index) View() *View { return ix.now.Load().view }

// PublishedHeight is the height up to which Options.Published has returned: whatever it keeps in step with the ledger is, so far.
func (ix *Index) PublishedHeight() uint64 { return ix.published.Load() }

// Changed returns a channel that is closed when a view newer than any that View has returned before this call is there.
// Call it before View.
func (ix *Index) Changed() <-chan struct{} { return *ix.changed.Load() }
