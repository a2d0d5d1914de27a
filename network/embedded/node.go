package embedded

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/certanchor/certanchor/chaincode"
	"github.com/certanchor/certanchor/chaincode/wire"
)

// Node is an open ledger. It is safe for concurrent use.
type Node struct {
	opts     Options
	founding *founding
	contract *chaincode.Contract
	lock     io.Closer // of the directory; nil in memory
	witness  witness   // written by the writer
	db       *pebble.DB

	queue   chan *request // unbuffered: what has been received is in the writer's hands
	closing chan struct{} // closed by Close
	done    chan struct{} // closed when the writer has ended

	failed    chan struct{} // closed when the store failed
	failedErr error         // set before failed is closed
	failOnce  sync.Once
	closeOnce sync.Once
	closeErr  error

	readers  sync.WaitGroup // users of views; grows only under mu
	mu       sync.Mutex
	newest   *view         // nil once closed or failed; guarded by mu
	advanced chan struct{} // closed and replaced when newest changes; guarded by mu
}

// Open opens the ledger in o.Dir, creating it (and founding it, as the contract's Init) when there is none. It checks that the end of
// the chain is intact; Verify checks all of it. Errors name the directory.
func Open(o Options) (*Node, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("embedded ledger: %w", err)
	}
	n := &Node{
		opts:     o,
		queue:    make(chan *request),
		closing:  make(chan struct{}),
		done:     make(chan struct{}),
		failed:   make(chan struct{}),
		advanced: make(chan struct{}),
	}
	if err := n.open(); err != nil {
		return nil, fmt.Errorf("embedded ledger %s: %w", o.Dir, err)
	}
	return n, nil
}

func (n *Node) open() error {
	if n.opts.fs == nil {
		n.opts.fs = vfs.Default
		var err error
		if n.lock, err = lockDir(n.opts.Dir, n.opts.MustExist); err != nil {
			return err
		}
		if n.witness, err = openWitness(n.opts.Dir); err != nil {
			return errors.Join(err, n.lock.Close())
		}
	}
	err := n.guarded(n.load)
	if err != nil {
		err = errors.Join(err, n.letGo())
	}
	return err
}

// letGo closes the store and releases the directory. A store that failed is left as it is, locked, until the process ends:
// Pebble may still be at work in it.
func (n *Node) letGo() error {
	if n.failure() != nil {
		return nil
	}
	n.mu.Lock()
	last := n.newest
	n.newest = nil
	close(n.advanced) // wakes the block streams
	n.advanced = make(chan struct{})
	n.mu.Unlock()
	n.readers.Wait()
	if last != nil {
		n.drop(last)
	}
	var err error
	if n.db != nil {
		err = n.guarded(n.db.Close)
	}
	err = errors.Join(err, n.witness.close())
	if n.lock != nil {
		err = errors.Join(err, n.lock.Close())
	}
	return err
}

// guarded runs f in a goroutine of its own, which the store may end, by panic too: it does so when the disk fails at a moment
// after which nothing is known about it.
func (n *Node) guarded(f func() error) error {
	result := make(chan error, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				n.fail(fmt.Errorf("store: %v", p))
			}
		}()
		result <- f()
	}()
	select {
	case err := <-result:
		return err
	case <-n.failed:
		return n.failedErr
	}
}

// load opens the store, brings the newest view in place and starts the writer.
func (n *Node) load() error {
	db, err := openStore(n.opts, n.fail)
	if err != nil {
		return err
	}
	n.db = db
	f, err := n.readFounding()
	if err != nil {
		return err
	}
	isNew := f == nil
	switch {
	case isNew && n.opts.MustExist:
		return errNoLedger
	case isNew:
		f, err = n.opts.found()
	default:
		err = n.opts.check(f)
	}
	if err != nil {
		return err
	}
	n.founding = f
	if n.contract, err = f.contract(); err != nil {
		return err
	}
	if isNew {
		err = n.create()
	} else {
		err = n.resume()
	}
	if err != nil {
		return err
	}
	go n.write()
	return nil
}

func (n *Node) readFounding() (*founding, error) {
	encoded, err := get(n.db, foundingKey)
	if err != nil || encoded == nil {
		return nil, err
	}
	var f founding
	if err := decMode.Unmarshal(encoded, &f); err != nil {
		return nil, fmt.Errorf("what it was created with: %w", err)
	}
	if f.V != formatVersion {
		return nil, fmt.Errorf("has format version %d, this program reads %d", f.V, formatVersion)
	}
	return &f, nil
}

// create writes block 0 together with the founding parameters: a ledger is there whole or not at all.
func (n *Node) create() error {
	if err := syncDir(n.opts.fs, n.opts.Dir); err != nil {
		return err
	}
	if err := syncDir(n.opts.fs, filepath.Dir(filepath.Clean(n.opts.Dir))); err != nil {
		return err
	}
	n.advance(0, nil)
	on, err := n.acquire()
	if err != nil {
		return err
	}
	defer n.release(on)
	init := newRequest(newTxID(), wire.RoleAdministrator, wire.FnInit,
		wire.Encode(&wire.InitArg{V: wire.Version, MSPs: []string{n.founding.MSPID}, TickInterval: n.founding.TickInterval}))
	c := newCut(n, on)
	c.batchFounding = true
	c.execute(init)
	c.commit()
	c.abandon()
	return (<-init.reply).err
}

// resume takes up the chain where the head says, after checking that the store holds its end.
func (n *Node) resume() error {
	encoded, err := get(n.db, headKey)
	if err != nil {
		return err
	}
	var h head
	if err := decMode.Unmarshal(encoded, &h); err != nil {
		return fmt.Errorf("damaged: its head: %w", err)
	}
	if h.V != formatVersion || h.Height == 0 {
		return fmt.Errorf("damaged: its head has format version %d and height %d", h.V, h.Height)
	}
	n.advance(h.Height, h.Hash)
	if err := n.checkEnd(&h); err != nil {
		return fmt.Errorf("damaged: %w", err)
	}
	return nil
}

// checkEnd compares the last two blocks with the head, makes sure that there is none above it, and that none is lost.
func (n *Node) checkEnd(h *head) error {
	v, err := n.acquire()
	if err != nil {
		return err
	}
	defer n.release(v)
	above, err := get(v.snapshot, blockKey(h.Height))
	if err != nil {
		return err
	}
	if above != nil {
		return fmt.Errorf("there is a block %d, its head says %d blocks", h.Height, h.Height)
	}
	var prev []byte
	for number := h.Height - min(h.Height, 2); number < h.Height; number++ {
		if prev, err = v.hashOf(number, prev); err != nil {
			return err
		}
	}
	if !bytes.Equal(prev, h.Hash) {
		return fmt.Errorf("block %d has hash %x, the head says %x", h.Height-1, prev, h.Hash)
	}
	return n.checkWitness(v)
}

// MSPID is the ledger's organisation.
func (n *Node) MSPID() string { return n.founding.MSPID }

// Channel is the ledger's name.
func (n *Node) Channel() string { return n.founding.Channel }

// TickInterval is the length of the ledger's epochs.
func (n *Node) TickInterval() time.Duration { return n.founding.tick() }

// Done is closed when the ledger has stopped: by Close, or by itself because its store failed (Err tells).
func (n *Node) Done() <-chan struct{} { return n.done }

// Err tells why the ledger stopped by itself; nil while it runs and after Close. Such a ledger can be opened again only by
// another process.
func (n *Node) Err() error { return n.failure() }

// Close finishes the block that is being written and releases the directory. What waits for its turn gets ErrUnavailable.
func (n *Node) Close() error {
	n.closeOnce.Do(func() {
		close(n.closing)
		select {
		case <-n.done:
		case <-n.failed:
		}
		if err := n.letGo(); err != nil {
			n.closeErr = fmt.Errorf("close embedded ledger %s: %w", n.opts.Dir, err)
		}
	})
	return n.closeErr
}
