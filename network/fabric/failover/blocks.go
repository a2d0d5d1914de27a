package failover

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"

	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/network/fabric"
	"github.com/certanchor/certanchor/network/fabric/verify"
)

// Blocks implements network.Ledger. When the own peer has delivered nothing for as long as is configured, all foreign peers are followed at the same
// time, so that one that withholds or lies keeps nobody from another's blocks; the first verified block of a number is passed on. The own peer's stream
// stays open: when it is level with what was passed on, and agrees with it, the others are left.
func (l *Ledger) Blocks(ctx context.Context, from uint64, fn func(*network.Block) error) error {
	done, ok := l.use()
	if !ok {
		return &network.UnavailableError{Stage: "read blocks", Err: network.ErrClosed}
	}
	defer done()
	ctx, cancel := context.WithCancel(ctx)
	defer context.AfterFunc(l.ctx, cancel)()
	m := &merge{l: l, next: from, fn: fn, arrivals: make(chan arrival)}
	m.start(ctx, func(ctx context.Context) { m.followOwn(ctx, from) })
	err := m.run(ctx)
	m.leave()
	cancel()
	m.running.Wait()
	if l.ctx.Err() != nil {
		return &network.UnavailableError{Stage: "read blocks", Err: network.ErrClosed}
	}
	return err
}

// arrival is a block from one of the peers.
type arrival struct {
	raw   *common.Block  // from the own peer
	block *network.Block // from a foreign one, verified
	from  *foreignPeer
}

// merge is one stream of blocks. All fields are owned by the goroutine in run.
type merge struct {
	l        *Ledger
	next     uint64 // block that fn is to get
	last     []byte // hash of the one before, nil: none yet
	fn       func(*network.Block) error
	arrivals chan arrival
	running  sync.WaitGroup
	recall   context.CancelFunc // ends the foreign streams; nil: there are none
	said     bool               // the log has the first block from abroad
}

func (m *merge) start(ctx context.Context, follow func(context.Context)) {
	m.running.Go(func() { follow(ctx) })
}

func (m *merge) run(ctx context.Context) error {
	patience := time.NewTimer(max(m.l.after-m.l.silence(), 0))
	defer patience.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-patience.C:
			m.goAbroad(ctx)
		case a := <-m.arrivals:
			if a.raw == nil {
				if err := m.takeForeign(a); err != nil {
					return err
				}
				continue
			}
			level, err := m.takeOwn(a.raw)
			if err != nil {
				return err
			}
			m.l.hear()
			if level {
				m.comeBack()
				patience.Reset(m.l.after)
			}
		}
	}
}

// goAbroad follows every foreign peer.
func (m *merge) goAbroad(ctx context.Context) {
	if m.recall != nil {
		return
	}
	height, _ := m.l.gate.height()
	m.l.log.Warn("the own peer has delivered no block for too long: following other organisations' peers, every block verified",
		"fallback_after", m.l.after, "next_block", m.next, "verified", height, "peers", len(m.l.foreign))
	ctx, m.recall = context.WithCancel(ctx)
	m.l.abroad.Add(1)
	for _, p := range m.l.foreign {
		next := m.next
		m.start(ctx, func(ctx context.Context) { m.followForeign(ctx, p, next) })
	}
}

// comeBack leaves the foreign peers: the own one is level.
func (m *merge) comeBack() {
	if m.recall != nil {
		m.l.log.Info("the own peer is back, and agrees with what was verified", "next_block", m.next)
		m.leave()
	}
}

func (m *merge) leave() {
	if m.recall != nil {
		m.recall()
		m.recall, m.said = nil, false
		m.l.abroad.Add(-1)
	}
}

// takeOwn takes a block of the own peer; level tells whether it is as far as what was passed on.
func (m *merge) takeOwn(raw *common.Block) (level bool, err error) {
	number := raw.GetHeader().GetNumber()
	var wrong *verify.Error
	switch err := m.l.gate.agrees(raw); {
	case errors.As(err, &wrong):
		return false, &DisagreementError{err}
	case err != nil && number < m.next:
		return false, &network.UnavailableError{Stage: "compare blocks", Err: err}
	case err != nil: // the store's: the own peer is trusted without it
		m.l.log.Error("a block of the own peer was not compared", "block", number, "error", err)
	}
	if number < m.next {
		return number+1 == m.next, nil
	}
	block, err := fabric.ParseBlock(raw, m.l.gate.chaincode)
	if err == nil && m.last != nil && !bytes.Equal(block.PrevHash, m.last) {
		err = fmt.Errorf("block %d names %x as its predecessor, which has hash %x", number, block.PrevHash, m.last)
	}
	if err != nil {
		return false, &network.UnavailableError{Stage: "read blocks", Err: err}
	}
	return true, m.pass(block)
}

// takeForeign takes a verified block, unless it is known already.
func (m *merge) takeForeign(a arrival) error {
	if a.block.Number != m.next || m.recall == nil {
		return nil
	}
	if m.last != nil && !bytes.Equal(a.block.PrevHash, m.last) {
		// The own peer's blocks so far, which were passed on, are not those that the verifier has.
		return &DisagreementError{fmt.Errorf("block %d has hash %x, the one that verifies after it names %x", m.next-1, m.last, a.block.PrevHash)}
	}
	if !m.said {
		m.said = true
		m.l.log.Info("verified blocks come from another organisation's peer", "msp_id", a.from.mspID, "peer", a.from.endpoint, "block", m.next)
	}
	a.from.passed.Add(1)
	return m.pass(a.block)
}

func (m *merge) pass(block *network.Block) error {
	m.next, m.last = block.Number+1, block.Hash
	return m.fn(block)
}

// send hands an arrival to run.
func (m *merge) send(ctx context.Context, a arrival) error {
	select {
	case m.arrivals <- a:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// followOwn brings the own peer's blocks from next on, until ctx ends. What would end the stream for good without foreign peers does not here.
func (m *merge) followOwn(ctx context.Context, next uint64) {
	for pause := firstPause; ctx.Err() == nil; {
		reached := next
		err := m.l.own.RawBlocks(ctx, next, func(raw *common.Block) error {
			if err := m.send(ctx, arrival{raw: raw}); err != nil {
				return err
			}
			next++
			return nil
		})
		if ctx.Err() != nil {
			return
		}
		if next > reached {
			pause = firstPause
		}
		m.l.log.Warn("the own peer does not serve blocks", "next_block", next, "error", err)
		if !m.l.rest(ctx, &pause) {
			return
		}
		pause = min(pause, ownPause)
	}
}

// followForeign brings a foreign peer's blocks as far as they verify, until ctx ends. The verifier has to get to wanted first.
func (m *merge) followForeign(ctx context.Context, p *foreignPeer, wanted uint64) {
	for pause := firstPause; ctx.Err() == nil; {
		before := wanted
		err := m.foreignOnce(ctx, p, &wanted)
		if ctx.Err() != nil {
			return
		}
		if wanted > before {
			pause = firstPause
		}
		var wrong *verify.Error
		if errors.As(err, &wrong) {
			p.refusals.Add(1)
			m.l.log.Error("a block is refused", "error", &RefusedError{MSPID: p.mspID, Peer: p.endpoint, Err: err})
		} else {
			m.l.log.Warn("no verified blocks from another organisation's peer", "msp_id", p.mspID, "peer", p.endpoint, "error", err)
		}
		if !m.l.rest(ctx, &pause) {
			return
		}
	}
}

// foreignOnce reads one stream of a foreign peer, from where the verifier stands or from the wanted block on, whichever is earlier.
func (m *merge) foreignOnce(ctx context.Context, p *foreignPeer, wanted *uint64) error {
	height, ok := m.l.gate.height()
	if !ok {
		return errNoAnchor
	}
	return p.ledger.RawBlocks(ctx, min(*wanted, height), func(raw *common.Block) error {
		block, err := m.l.gate.admit(raw)
		if err != nil {
			return err
		}
		if block.Number < *wanted {
			return nil // the verifier is being built
		}
		if err := m.send(ctx, arrival{block: block, from: p}); err != nil {
			return err
		}
		*wanted = block.Number + 1
		return nil
	})
}
