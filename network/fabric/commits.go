package fabric

import (
	"context"
	"sync"

	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
)

// outcome is what a block says about a transaction.
type outcome struct {
	block uint64
	code  peer.TxValidationCode
}

// commits tells waiting submitters what the blocks say. All of a connection's submitters share one stream of filtered
// blocks: the gateway's CommitStatus would take one of the peer's 500 gateway slots for each of them.
type commits struct {
	starting chan struct{} // holds a token while nobody is starting the stream
	started  bool          // owned by the holder of the token

	mu      sync.Mutex
	waiting map[string][]chan outcome // by transaction ID; guarded by mu
}

func newCommits() *commits {
	c := &commits{starting: make(chan struct{}, 1), waiting: make(map[string][]chan outcome)}
	c.starting <- struct{}{}
	return c
}

// watchCommits makes sure that the stream is running from a block that is not yet there, so that it will show whatever is
// submitted after this returns. It reconnects by itself from then on. Error: *network.UnavailableError.
func (l *Ledger) watchCommits(ctx context.Context) error {
	c := l.commits
	select {
	case <-c.starting:
	case <-ctx.Done():
		return l.unavailable(ctx, "follow commits", ctx.Err())
	}
	defer func() { c.starting <- struct{}{} }()
	if c.started {
		return nil
	}
	height, err := l.Height(ctx)
	if err != nil {
		return err
	}
	c.started = true
	go func() {
		err := l.follow(l.ctx, height, filteredBlocks, func(r *peer.DeliverResponse) error {
			c.announce(r.GetFilteredBlock())
			return nil
		})
		if l.ctx.Err() != nil {
			return
		}
		// The peer refuses to serve the stream. Who waits now learns nothing; the next submission tries anew.
		l.log.Error("cannot follow commits", "error", err)
		<-c.starting
		c.started = false
		c.starting <- struct{}{}
	}()
	return nil
}

// expect returns where txID's outcome will arrive, once. forget must be called in the end.
func (c *commits) expect(txID string) (arrives <-chan outcome, forget func()) {
	ch := make(chan outcome, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting[txID] = append(c.waiting[txID], ch)
	return ch, func() { c.forget(txID, ch) }
}

func (c *commits) forget(txID string, ch chan outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	rest := c.waiting[txID][:0]
	for _, other := range c.waiting[txID] {
		if other != ch {
			rest = append(rest, other)
		}
	}
	if len(rest) == 0 {
		delete(c.waiting, txID)
		return
	}
	c.waiting[txID] = rest
}

func (c *commits) announce(block *peer.FilteredBlock) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, tx := range block.GetFilteredTransactions() {
		if tx.GetTxValidationCode() == peer.TxValidationCode_DUPLICATE_TXID {
			continue // an earlier copy of the same envelope decided; this one has no effect and says nothing about that
		}
		for _, ch := range c.waiting[tx.GetTxid()] {
			select {
			case ch <- outcome{block: block.GetNumber(), code: tx.GetTxValidationCode()}:
			default: // it has its answer and is about to forget
			}
		}
	}
}
