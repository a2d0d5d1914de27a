package embedded

import (
	"context"
	"fmt"

	"github.com/certanchor/certanchor/chaincode"
	"github.com/certanchor/certanchor/network"
)

// conn is a connection within the process that has the ledger open.
type conn struct {
	node  *Node
	role  string
	ctx   context.Context // ends at Close
	close context.CancelFunc
}

var _ network.Ledger = (*conn)(nil)

// Connect returns a connection that acts in a role of the contract (wire.RoleOperator and so on). Closing it leaves the
// ledger open.
func (n *Node) Connect(role string) network.Ledger {
	c := &conn{node: n, role: role}
	c.ctx, c.close = context.WithCancel(context.Background())
	return c
}

// Submit implements network.Ledger.
func (c *conn) Submit(ctx context.Context, function string, arg []byte) (network.Receipt, error) {
	if c.ctx.Err() != nil {
		return network.Receipt{}, &network.UnavailableError{Stage: "submit " + function, Err: network.ErrClosed}
	}
	return c.node.submit(ctx, c.ctx.Done(), newRequest(newTxID(), c.role, function, arg))
}

// submit hands a transaction to the writer and waits for its answer, or for ctx or gone to end.
func (n *Node) submit(ctx context.Context, gone <-chan struct{}, r *request) (network.Receipt, error) {
	if err := network.CheckArg(r.function, r.arg); err != nil {
		return network.Receipt{}, err
	}
	stage := "submit " + r.function
	if err := ctx.Err(); err != nil {
		return network.Receipt{}, &network.UnavailableError{Stage: stage, Err: err}
	}
	select {
	case n.queue <- r:
	case <-ctx.Done():
		return network.Receipt{}, &network.UnavailableError{Stage: stage, Err: ctx.Err()}
	case <-gone:
		return network.Receipt{}, &network.UnavailableError{Stage: stage, Err: network.ErrClosed}
	case <-n.closing:
		return network.Receipt{}, n.unavailable(stage)
	case <-n.failed:
		return network.Receipt{}, n.unavailable(stage)
	}
	unknown := func(err error) (network.Receipt, error) {
		return network.Receipt{}, &network.UnknownOutcomeError{TxID: r.id, Stage: stage, Err: err}
	}
	select {
	case a := <-r.reply:
		return a.receipt, a.err
	case <-ctx.Done():
		return unknown(ctx.Err())
	case <-gone:
		return unknown(network.ErrClosed)
	case <-n.failed:
	}
	select {
	case a := <-r.reply: // the writer may have answered just before
		return a.receipt, a.err
	default:
		return unknown(n.failure())
	}
}

// Evaluate implements network.Ledger. What the function writes is dropped.
func (c *conn) Evaluate(ctx context.Context, function string, arg []byte) ([]byte, error) {
	stage := "evaluate " + function
	if err := c.ended(ctx, stage); err != nil {
		return nil, err
	}
	return c.node.evaluate(c.role, function, arg)
}

func (n *Node) evaluate(role, function string, arg []byte) ([]byte, error) {
	if err := network.CheckArg(function, arg); err != nil {
		return nil, err
	}
	v, err := n.acquire()
	if err != nil {
		return nil, err
	}
	defer n.release(v)
	st := &overlay{base: v.snapshot, writes: make(map[string][]byte)}
	tx := chaincode.Tx{Channel: n.Channel(), Time: n.opts.Now().UTC(), Caller: chaincode.Caller{MSPID: n.founding.MSPID, Role: role}}
	result, err := n.contract.Invoke(st, tx, function, arg)
	switch {
	case st.broken != nil:
		return nil, &network.UnavailableError{Stage: "evaluate " + function, Err: st.broken}
	case err != nil:
		return nil, &network.RejectedError{Function: function, Reason: err}
	}
	return result, nil
}

// Blocks implements network.Ledger.
func (c *conn) Blocks(ctx context.Context, from uint64, fn func(*network.Block) error) error {
	var last []byte
	return c.node.records(ctx, c.ctx.Done(), from, func(number uint64, encoded []byte) error {
		if c.ctx.Err() != nil {
			return &network.UnavailableError{Stage: "read blocks", Err: network.ErrClosed}
		}
		b, err := readBlock(number, encoded, last)
		if err != nil {
			return &network.UnavailableError{Stage: "read blocks", Err: err}
		}
		last = b.Hash
		return fn(b)
	})
}

// readBlock decodes a block and checks that it continues the chain whose last hash is prev; nil: not known.
func readBlock(number uint64, encoded, prev []byte) (*network.Block, error) {
	r, err := decodeRecord(number, encoded)
	if err != nil {
		return nil, err
	}
	if err := r.follows(prev); err != nil {
		return nil, err
	}
	return r.block()
}

// records calls fn with every block from number next on as it is stored, waiting for new ones. It ends with ctx, gone, the
// node, or an error of fn.
func (n *Node) records(ctx context.Context, gone <-chan struct{}, next uint64, fn func(uint64, []byte) error) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		encoded, advanced, err := n.record(next)
		switch {
		case err != nil:
			return err
		case encoded != nil:
			if err := fn(next, encoded); err != nil {
				return err
			}
			next++
			continue
		}
		select {
		case <-advanced:
		case <-ctx.Done():
		case <-n.failed:
		case <-gone:
			return &network.UnavailableError{Stage: "read blocks", Err: network.ErrClosed}
		}
	}
}

// record returns a stored block, or what to wait for when it is not there yet.
func (n *Node) record(number uint64) (encoded []byte, advanced <-chan struct{}, err error) {
	n.mu.Lock()
	advanced = n.advanced // before looking, so that no block is missed in between
	n.mu.Unlock()
	v, err := n.acquire()
	if err != nil {
		return nil, nil, err
	}
	defer n.release(v)
	if number >= v.height {
		return nil, advanced, nil
	}
	if encoded, err = v.record(number); err != nil {
		return nil, nil, &network.UnavailableError{Stage: "read blocks", Err: err}
	}
	return encoded, nil, nil
}

// Height implements network.Ledger.
func (c *conn) Height(ctx context.Context) (uint64, error) {
	if err := c.ended(ctx, "ask for height"); err != nil {
		return 0, err
	}
	return c.node.height()
}

func (n *Node) height() (uint64, error) {
	v, err := n.acquire()
	if err != nil {
		return 0, err
	}
	defer n.release(v)
	return v.height, nil
}

// Verify reads the whole chain and checks every block's place in it; it returns the number of blocks and the last one's hash.
// It takes as long as reading the store takes.
func (n *Node) Verify(ctx context.Context) (height uint64, last []byte, err error) {
	v, err := n.acquire()
	if err != nil {
		return 0, nil, err
	}
	defer n.release(v)
	for number := range v.height {
		if err := ctx.Err(); err != nil {
			return 0, nil, fmt.Errorf("verify embedded ledger %s: %w", n.opts.Dir, err)
		}
		if last, err = v.hashOf(number, last); err != nil {
			return 0, nil, fmt.Errorf("verify embedded ledger %s: damaged: %w", n.opts.Dir, err)
		}
	}
	return v.height, last, nil
}

// hashOf checks one block against the hash of the one before and returns its own.
func (v *view) hashOf(number uint64, prev []byte) ([]byte, error) {
	encoded, err := v.record(number)
	if err != nil {
		return nil, err
	}
	b, err := readBlock(number, encoded, prev)
	if err != nil {
		return nil, err
	}
	return b.Hash, nil
}

// MSPID implements network.Ledger.
func (c *conn) MSPID() string { return c.node.MSPID() }

// Channel implements network.Ledger.
func (c *conn) Channel() string { return c.node.Channel() }

// Close implements network.Ledger.
func (c *conn) Close() error {
	c.close()
	return nil
}

func (c *conn) ended(ctx context.Context, stage string) error {
	if c.ctx.Err() != nil {
		return &network.UnavailableError{Stage: stage, Err: network.ErrClosed}
	}
	if err := ctx.Err(); err != nil {
		return &network.UnavailableError{Stage: stage, Err: err}
	}
	return nil
}
