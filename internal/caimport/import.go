package caimport

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Import brings what p has found onto the ledger, through s, from where st says that an earlier run had come. It saves st beside: at least
// every saveEvery, and at the end. progress is called after each transaction with the number of entries that are done. What the contract refuses
// goes to s.OnRefused, or ends it. An error leaves on the ledger what st says, and perhaps more: run it again.
func Import(ctx context.Context, p *Plan, s *Submitter, st *State, progress func(done uint64)) (Outcome, error) {
	s.fill()
	im := &importer{plan: p, submitter: s, state: st, progress: progress}
	err := im.run(ctx)
	if !s.DryRun {
		err = errors.Join(err, st.Save(p.opts.Now()))
	}
	return im.total, err
}

const saveEvery = time.Second

type importer struct {
	plan      *Plan
	submitter *Submitter
	state     *State
	progress  func(uint64)
	total     Outcome
	saved     time.Time
}

// run reads the next batch while one is on its way.
func (im *importer) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	batches := make(chan *Batch, 1)
	var wg sync.WaitGroup
	var readErr error
	wg.Go(func() {
		defer close(batches)
		readErr = im.fill(ctx, batches)
	})
	var err error
	for b := range batches {
		if err = im.submit(ctx, b); err != nil {
			cancel()
			break
		}
	}
	for range batches { // until who fills them has noticed
	}
	wg.Wait()
	if err != nil {
		return err
	}
	return readErr
}

// fill cuts the plan's items into batches, without those that are done.
func (im *importer) fill(ctx context.Context, batches chan<- *Batch) error {
	skip, next := im.state.Done, &Batch{}
	send := func() error {
		if len(next.items) == 0 {
			return nil
		}
		select {
		case batches <- next:
			next = &Batch{}
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	err := im.plan.Each(ctx, func(it *Item) error {
		if skip > 0 {
			skip--
			return nil
		}
		if next.add(im.submitter, it) {
			return nil
		}
		if err := send(); err != nil {
			return err
		}
		next.add(im.submitter, it)
		return nil
	})
	if err != nil {
		return err
	}
	return send()
}

func (im *importer) submit(ctx context.Context, b *Batch) error {
	o, err := im.submitter.Submit(ctx, b)
	im.total.Items += o.Items
	im.total.Changed += o.Changed
	im.total.Refused += o.Refused
	im.total.Block = max(im.total.Block, o.Block)
	if err != nil {
		return err
	}
	im.state.Done += uint64(len(b.items))
	im.state.Changed += o.Changed
	im.state.Refused += o.Refused
	im.progress(im.state.Done)
	if im.submitter.DryRun || time.Since(im.saved) < saveEvery {
		return nil
	}
	im.saved = time.Now()
	return im.state.Save(im.plan.opts.Now())
}
