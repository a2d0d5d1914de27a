package ocspbridge

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"sync"

	"github.com/fxamacker/cbor/v2"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/lognames"
	"github.com/certanchor/certanchor/internal/problem"
	"github.com/certanchor/certanchor/internal/tlogproof"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/index"
)

// checkpoints signs heads, and remembers on disk what it signed. The index may be deleted, and the ledger behind it may be put
// back to an older copy; this memory is what keeps the log key from signing two histories then.
type checkpoints struct {
	dir string

	mu     sync.Mutex
	newest map[wire.CAID]*signedHead
}

// signedHead is the newest head signed for a log.
type signedHead struct {
	Size uint64   `cbor:"0,keyasint"`
	Root [32]byte `cbor:"1,keyasint"`
	Note []byte   `cbor:"-"` // nil: signed by an earlier run, and not compared with the index yet
}

// checkpoint returns the signed checkpoint of a CA's log, as large as the view has it, or larger when another request has
// already been given a newer one.
func (b *Bridge) checkpoint(v *index.View, id wire.CAID) (*signedHead, error) {
	if err := b.haltReason(); err != nil {
		return nil, unavailable(err)
	}
	head, ok := v.Log(id)
	if !ok {
		return nil, wire.Errorf(wire.NotFound, "ca_id", id.String(), "must be a registered CA")
	}
	c := &b.heads
	c.mu.Lock()
	defer c.mu.Unlock()
	last, err := c.load(id)
	if err != nil {
		return nil, err
	}
	if last != nil && last.Note == nil {
		if err := b.consistent(head, id, last); err != nil {
			return nil, err
		}
	}
	if last != nil && last.Note != nil && last.Size >= head.Size {
		return last, nil
	}
	cp := tlogproof.Checkpoint{Origin: lognames.Issuance(b.ledger.Channel(), id), Size: head.Size, Root: head.Root}
	note, err := cp.Sign(b.key)
	if err != nil {
		return nil, fmt.Errorf("sign checkpoint: %w", err)
	}
	next := &signedHead{Size: head.Size, Root: head.Root, Note: note}
	if err := c.store(id, next); err != nil {
		return nil, fmt.Errorf("remember checkpoint: %w", err)
	}
	return next, nil
}

// consistent: C2SP tlog-checkpoint: a log must not sign a checkpoint that is inconsistent with one it signed before. Within
// one run the index only grows, so this is asked once, of what an earlier run has left.
func (b *Bridge) consistent(head index.Log, id wire.CAID, last *signedHead) error {
	if last.Size > head.Size {
		return unavailable(fmt.Errorf("log %s: this bridge has signed a checkpoint of size %d and read %d entries: it is still reading, or the ledger went back", id, last.Size, head.Size))
	}
	root, err := b.index.RootAt(id, last.Size)
	if err != nil {
		return err
	}
	if root != last.Root {
		err := fmt.Errorf("log %s: root at size %d is %x, but this bridge has signed %x: the ledger shows two histories", id, last.Size, root, last.Root)
		b.halt(err)
		return unavailable(err)
	}
	return nil
}

// unavailable is answered while the bridge cannot vouch for what it has.
func unavailable(err error) error {
	return problem.New(http.StatusServiceUnavailable, problem.CodeUnavailable, "bridge", "not ready", err.Error())
}

// load returns the newest head signed, nil if there is none. c.mu is held.
func (c *checkpoints) load(id wire.CAID) (*signedHead, error) {
	if h := c.newest[id]; h != nil {
		return h, nil
	}
	data, err := os.ReadFile(c.path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("last signed checkpoint: %w", err)
	}
	h := new(signedHead)
	if err := cbor.Unmarshal(data, h); err != nil {
		return nil, fmt.Errorf("last signed checkpoint %s: %w", c.path(id), err)
	}
	c.keep(id, h)
	return h, nil
}

// store writes h durably, then keeps it. c.mu is held.
func (c *checkpoints) store(id wire.CAID, h *signedHead) error {
	data, err := cbor.Marshal(h)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	tmp := c.path(id) + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, c.path(id)); err != nil {
		return err
	}
	d, err := os.Open(c.dir)
	if err != nil {
		return err
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return err
	}
	c.keep(id, h)
	return nil
}

func (c *checkpoints) keep(id wire.CAID, h *signedHead) {
	if c.newest == nil {
		c.newest = map[wire.CAID]*signedHead{}
	}
	c.newest[id] = h
}

func (c *checkpoints) path(id wire.CAID) string { return filepath.Join(c.dir, id.String()) }
