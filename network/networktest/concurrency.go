package networktest

import (
	"errors"
	"sync"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
)

// writers is how many submit to one log at the same time.
const writers = 16

// faultWriters is how many do while something else goes wrong: few enough that it is not the conflicts that take time.
const faultWriters = 4

func testConflicts(b *bench) {
	const each = 4
	acked := newAcknowledged()
	var wg sync.WaitGroup
	conflicts := make(chan error, writers*each)
	for range writers {
		ders := b.ca.IssueMany(b, each)
		wg.Go(func() {
			for _, der := range ders {
				r, err := b.operator.Submit(b.ctx, wire.FnIssue, b.ca.IssueArg(der))
				switch {
				case err == nil:
					b.ack(acked, r, der)
				case errors.Is(err, network.ErrConflict):
					conflicts <- err
				default:
					b.Errorf("neither success nor conflict: %v", err)
				}
			}
		})
	}
	wg.Wait()
	b.Logf("%d of %d submitted without retry committed", acked.len(), writers*each)
	if acked.len() == 0 {
		b.Error("conflicts left no winner")
	}
	b.auditLog(acked)
}

func testRetriedConflicts(b *bench) {
	const each = 2
	acked := newAcknowledged()
	var wg sync.WaitGroup
	for range writers {
		ders := b.ca.IssueMany(b, each)
		wg.Go(func() { b.issueAll(acked, ders) })
	}
	wg.Wait()
	if got := acked.len(); got != writers*each {
		b.Errorf("%d of %d certificates were acknowledged", got, writers*each)
	}
	b.auditLog(acked)
}

// issueAll records certificates one by one, retrying as package network tells callers to. It is for goroutines.
func (b *bench) issueAll(acked *acknowledged, ders [][]byte) {
	for _, der := range ders {
		r, err := insist(b.ctx, b.Patience, b.operator, wire.FnIssue, b.ca.IssueArg(der))
		if err != nil {
			b.Errorf("issue: %v", err)
			return
		}
		b.ack(acked, r, der)
	}
}

// ack notes what a receipt says about one certificate. It is for goroutines.
func (b *bench) ack(acked *acknowledged, r network.Receipt, der []byte) {
	var issued wire.IssueResult
	if err := wire.Decode(r.Result, &issued); err != nil || len(issued.Entries) != 1 {
		b.Errorf("answer to one certificate: %+v, %v", issued, err)
		return
	}
	key, err := keyOf(b.ca.ID, der)
	if err == nil {
		err = acked.add(key, issued.Entries[0])
	}
	if err != nil {
		b.Error(err)
	}
}
