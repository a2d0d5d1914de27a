package networktest

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
)

func testKillWhileSubmitting(b *bench) {
	const kills, each = 3, 10
	const total = faultWriters * each
	acked := newAcknowledged()
	var wg sync.WaitGroup
	for range faultWriters {
		ders := b.ca.IssueMany(b, each)
		wg.Go(func() { b.issueAll(acked, ders) })
	}
	for k := range kills {
		target := (k + 1) * total / (kills + 1)
		b.eventually("some are acknowledged", func() bool { return acked.len() >= target || b.Failed() })
		b.Kill(b)
		b.Start(b)
	}
	wg.Wait()
	if got := acked.len(); got != total {
		b.Errorf("%d of %d certificates were acknowledged", got, total)
	}
	b.auditLog(acked)
	b.chain(b.operator)
}

func testDown(b *bench) {
	b.operator = b.Direct(b, wire.RoleOperator) // a proxy would take what nobody is there to get
	defer b.operator.Close()
	_, entries := b.issue(b.ca.IssueMany(b, 1)...)
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	var next uint64
	seen := make(chan uint64, 1024)
	ended := make(chan error, 1)
	go func() {
		ended <- b.operator.Blocks(ctx, 0, func(block *network.Block) error { seen <- block.Number; return nil })
	}()
	for height := b.height(); next < height; next++ {
		if n := <-seen; n != next {
			b.Fatalf("the stream gave block %d, want %d", n, next)
		}
	}
	b.Kill(b)
	b.eventually("everything is unavailable", func() bool {
		_, err := b.operator.Height(b.ctx)
		return errors.Is(err, network.ErrUnavailable)
	})
	der, _ := b.ca.Issue(b)
	if _, err := b.operator.Submit(b.ctx, wire.FnIssue, b.ca.IssueArg(der)); !errors.Is(err, network.ErrUnavailable) || errors.Is(err, network.ErrUnknownOutcome) {
		b.Errorf("submit: %v, want ErrUnavailable", err)
	}
	if _, err := b.operator.Evaluate(b.ctx, wire.FnRead, cctest.ReadArg(wire.ConsortiumKey)); !errors.Is(err, network.ErrUnavailable) {
		b.Errorf("evaluate: %v, want ErrUnavailable", err)
	}
	b.Start(b)
	b.eventually("it is back", func() bool { _, err := b.operator.Height(b.ctx); return err == nil })
	_, more := b.issue(der)
	if more[0].Index != entries[0].Index+1 {
		b.Errorf("the next certificate has index %d, the one before %d", more[0].Index, entries[0].Index)
	}
	for height := b.height(); next < height; next++ {
		select {
		case n := <-seen:
			if n != next {
				b.Fatalf("after the restart the stream gave block %d, want %d", n, next)
			}
		case err := <-ended:
			b.Fatalf("the stream did not outlive the restart: %v", err)
		}
	}
	cancel()
	<-ended
}

func testFrozen(b *bench) {
	b.issue(b.ca.IssueMany(b, 1)...) // everything is connected
	der, _ := b.ca.Issue(b)
	const short = 500 * time.Millisecond
	b.Freeze(b)
	began := time.Now()
	ctx, cancel := context.WithTimeout(b.ctx, short)
	defer cancel()
	_, err := b.operator.Submit(ctx, wire.FnIssue, b.ca.IssueArg(der))
	if !errors.Is(err, network.ErrUnavailable) && !errors.Is(err, network.ErrUnknownOutcome) || !errors.Is(err, context.DeadlineExceeded) {
		b.Errorf("submit: %v, want ErrUnavailable or ErrUnknownOutcome, and context.DeadlineExceeded", err)
	}
	if _, err := b.operator.Height(ctx); !errors.Is(err, network.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		b.Errorf("height: %v, want ErrUnavailable and context.DeadlineExceeded", err)
	}
	if took := time.Since(began); took > short+5*time.Second {
		b.Errorf("calls with a deadline of %v took %v", short, took)
	}
	b.Thaw(b)
	acked := newAcknowledged()
	b.issueAll(acked, [][]byte{der})
	first, entries := b.issue(der)
	if !b.Failed() && acked.entries[certKey(b, der)].Index != entries[0].Index {
		b.Errorf("asked again, block %d puts it elsewhere", first.Block)
	}
}

func testStreamResumes(b *bench) {
	const blocks = 40
	from := b.height()
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	var got []*network.Block
	ended := make(chan error, 1)
	reader := b.Connect(b, wire.RoleAuditor)
	defer reader.Close()
	go func() {
		ended <- reader.Blocks(ctx, from, func(block *network.Block) error {
			got = append(got, block)
			if block.Number%3 == 0 {
				b.Proxy.Cut()
			}
			if len(got) == blocks {
				return errEnough
			}
			return nil
		})
	}()
	b.issueAll(newAcknowledged(), b.ca.IssueMany(b, blocks)) // each is a block at least
	if err := <-ended; !errors.Is(err, errEnough) {
		b.Fatalf("the stream ended: %v", err)
	}
	for i, block := range b.blocks(b.operator, from, from+blocks) {
		if got[i].Number != block.Number || string(got[i].Hash) != string(block.Hash) {
			b.Errorf("position %d: the cut stream gave block %d, want %d", i, got[i].Number, block.Number)
		}
	}
}

func testRetryAfterCut(b *bench) {
	const each = 5
	acked := newAcknowledged()
	writing, stop := context.WithCancel(b.ctx)
	var cutter, wg sync.WaitGroup
	cutter.Go(func() {
		for writing.Err() == nil {
			b.Proxy.Cut()
			select {
			case <-time.After(time.Duration(100+rand.IntN(300)) * time.Millisecond):
			case <-writing.Done():
			}
		}
	})
	for range faultWriters {
		ders := b.ca.IssueMany(b, each)
		wg.Go(func() { b.issueAll(acked, ders) })
	}
	wg.Wait()
	stop()
	cutter.Wait()
	if got := acked.len(); got != faultWriters*each {
		b.Errorf("%d of %d certificates were acknowledged", got, faultWriters*each)
	}
	b.auditLog(acked)
}
