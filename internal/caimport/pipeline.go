package caimport

import (
	"context"
	"runtime"
	"sync"
)

// event is one thing that a source found, with what the workers made of it.
type event struct {
	rec     *Record
	bad     *Bad
	skip    string
	checked checked
}

// chunk is what goes through the workers at a time.
type chunk struct {
	events []event
	done   chan struct{}
}

const (
	chunkEvents = 128
	chunkBytes  = 1 << 20 // of certificates
)

// pipeline reads src, has work done on every event by as many goroutines as there are processors, and gives the events to take, one at a
// time, in the order of the source.
func pipeline(ctx context.Context, src source, work func(*event), take func(*event) error) error {
	ctx, cancel := context.WithCancel(ctx)
	workers := runtime.GOMAXPROCS(0)
	jobs, order := make(chan *chunk), make(chan *chunk, 2*workers)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for c := range jobs {
				for i := range c.events {
					work(&c.events[i])
				}
				close(c.done)
			}
		})
	}
	var readErr error
	wg.Go(func() {
		defer close(order)
		defer close(jobs)
		readErr = feed(ctx, src, jobs, order)
	})
	err := consume(order, take)
	cancel() // who still reads stops
	for c := range order {
		<-c.done
	}
	wg.Wait()
	if err != nil {
		return err
	}
	return readErr
}

func consume(order <-chan *chunk, take func(*event) error) error {
	for c := range order {
		<-c.done
		for i := range c.events {
			if err := take(&c.events[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// feed cuts what the source finds into chunks.
func feed(ctx context.Context, src source, jobs, order chan<- *chunk) error {
	next, size := &chunk{done: make(chan struct{})}, 0
	flush := func() error {
		if len(next.events) == 0 {
			return ctx.Err()
		}
		select {
		case order <- next:
		case <-ctx.Done():
			return ctx.Err()
		}
		jobs <- next // the workers take until it is closed
		next, size = &chunk{done: make(chan struct{})}, 0
		return nil
	}
	add := func(e event) error {
		next.events = append(next.events, e)
		if e.rec != nil {
			size += len(e.rec.DER)
		}
		if len(next.events) >= chunkEvents || size >= chunkBytes {
			return flush()
		}
		return nil
	}
	var failed error // add's: src may wrap it, or go on after skip
	note := func(e event) error {
		if failed == nil {
			failed = add(e)
		}
		return failed
	}
	err := src.read(&sink{
		record: func(r *Record) error { return note(event{rec: r}) },
		bad:    func(b *Bad) error { return note(event{bad: b}) },
		skip:   func(kind string) { note(event{skip: kind}) }, //nolint:errcheck // the next call returns it
	})
	if failed != nil {
		return failed
	}
	if ferr := flush(); ferr != nil {
		return ferr
	}
	return err
}
