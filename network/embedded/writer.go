package embedded

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"maps"

	"github.com/cockroachdb/pebble/v2"

	"github.com/certanchor/certanchor/chaincode"
	"github.com/certanchor/certanchor/network"
)

// A block is cut when nobody waits any more, or at one of these.
const (
	maxBlockTxs   = 500
	maxBlockBytes = 4 << 20 // of arguments and writes; a single transaction may be larger
)

// request is one transaction on its way to the writer.
type request struct {
	id       string
	role     string
	function string
	arg      []byte
	reply    chan reply // holds one
}

func newRequest(id, role, function string, arg []byte) *request {
	return &request{id: id, role: role, function: function, arg: arg, reply: make(chan reply, 1)}
}

const txIDBytes = 32 // like Fabric's

func newTxID() string {
	var id [txIDBytes]byte
	rand.Read(id[:]) // never fails (crypto/rand)
	return hex.EncodeToString(id[:])
}

type reply struct {
	receipt network.Receipt
	err     error
}

// write is the writer: the one goroutine that executes transactions and writes to the store.
func (n *Node) write() {
	defer close(n.done)
	for {
		select {
		case <-n.closing:
			return
		case <-n.failed:
			return
		case r := <-n.queue:
			n.cutBlock(r)
		}
	}
}

// cutBlock makes a block of first and of whatever else is waiting.
func (n *Node) cutBlock(first *request) {
	on, err := n.acquire()
	if err != nil {
		first.reply <- reply{err: err}
		return
	}
	defer n.release(on)
	c := newCut(n, on)
	defer c.abandon()
	c.execute(first)
	for !c.full() {
		select {
		case r := <-n.queue:
			c.execute(r)
			continue
		default:
		}
		break
	}
	c.commit()
}

// cut is a block in the making.
type cut struct {
	node          *Node
	on            *view // what the block builds on
	txs           []txRecord
	accepted      []*request // one for each of txs
	refused       []*request
	refusals      []error // one for each of refused
	writes        map[string][]byte
	size          int
	batchFounding bool // block 0: the founding parameters go with it
}

func newCut(n *Node, on *view) *cut {
	return &cut{node: n, on: on, writes: make(map[string][]byte)}
}

func (c *cut) full() bool { return len(c.txs) >= maxBlockTxs || c.size >= maxBlockBytes }

// execute runs one transaction on top of those already in the block.
func (c *cut) execute(r *request) {
	n := c.node
	n.opts.step("execute")
	now := n.opts.Now().UTC()
	st := &overlay{base: c.on.snapshot, block: c.writes, writes: make(map[string][]byte)}
	tx := chaincode.Tx{ID: r.id, Channel: n.Channel(), Time: now, Caller: chaincode.Caller{MSPID: n.founding.MSPID, Role: r.role}}
	result, err := n.contract.Invoke(st, tx, r.function, r.arg)
	if err != nil {
		if st.broken != nil {
			err = &network.UnavailableError{Stage: "execute " + r.function, Err: st.broken}
		} else {
			err = &network.RejectedError{Function: r.function, Reason: err}
		}
		c.refused, c.refusals = append(c.refused, r), append(c.refusals, err)
		return
	}
	record := txRecord{
		ID: r.id, Time: now.UnixNano(), MSPID: n.founding.MSPID, Role: r.role,
		Function: r.function, Arg: r.arg, Result: result, Writes: st.sorted(),
	}
	c.txs, c.accepted = append(c.txs, record), append(c.accepted, r)
	c.size += len(r.arg) + len(result)
	for _, w := range record.Writes {
		c.size += len(w.Key) + len(w.Value)
	}
	maps.Copy(c.writes, st.writes)
}

// commit writes the block, if there is anything in it, and answers everybody. Refusals wait too: they may rest on what an
// earlier transaction of the block wrote.
func (c *cut) commit() {
	n := c.node
	if len(c.txs) > 0 {
		r := &record{V: formatVersion, Number: c.on.height, PrevHash: c.on.lastHash, Data: encode(c.txs)}
		if r.PrevHash == nil {
			r.PrevHash = []byte{}
		}
		hash := r.hash()
		if err := c.persist(r, hash); err != nil {
			n.fail(err)
			return // abandon answers
		}
		if err := n.witness.note(r.Number+1, hash); err != nil {
			n.fail(err)
			return
		}
		n.opts.step("advance")
		n.advance(r.Number+1, hash)
		n.opts.step("acknowledge")
		for i, q := range c.accepted {
			q.reply <- reply{receipt: network.Receipt{TxID: c.txs[i].ID, Block: r.Number, Result: c.txs[i].Result}}
		}
	}
	for i, q := range c.refused {
		q.reply <- reply{err: c.refusals[i]}
	}
	c.accepted, c.refused = nil, nil
}

// persist writes block, state and head as one batch and returns when the disk has them.
func (c *cut) persist(r *record, hash []byte) error {
	n := c.node
	n.opts.step("batch")
	batch := n.db.NewBatch()
	err := batch.Set(blockKey(r.Number), encode(r), nil)
	for key, value := range c.writes {
		if value == nil {
			err = errors.Join(err, batch.Delete(stateKey(key), nil))
		} else {
			err = errors.Join(err, batch.Set(stateKey(key), value, nil))
		}
	}
	if c.batchFounding {
		err = errors.Join(err, batch.Set(foundingKey, encode(n.founding), nil))
	}
	err = errors.Join(err, batch.Set(headKey, encode(head{V: formatVersion, Height: r.Number + 1, Hash: hash}), nil))
	if err != nil {
		return err
	}
	n.opts.step("commit")
	if err := batch.Commit(pebble.Sync); err != nil {
		return err
	}
	n.opts.step("committed")
	return batch.Close()
}

// abandon answers who has no answer yet, after a failure: the batch may or may not have reached the disk. It runs even when
// the store ended this goroutine.
func (c *cut) abandon() {
	for i, q := range c.accepted {
		q.reply <- reply{err: &network.UnknownOutcomeError{TxID: c.txs[i].ID, Stage: "write block", Err: c.node.failure()}}
	}
	for _, q := range c.refused {
		q.reply <- reply{err: c.node.unavailable("write block")}
	}
}
