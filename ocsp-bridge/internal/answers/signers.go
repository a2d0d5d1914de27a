package answers

import (
	"errors"
	"sync/atomic"
)

// ErrBusy: as much waits to be signed as may.
var ErrBusy = errors.New("signers are busy")

// Signers bounds how many signatures are made at a time and how many wait. Safe for concurrent use.
type Signers struct {
	slots   chan struct{}
	queue   int64
	waiting atomic.Int64
}

// NewSigners returns signers of which at most workers work at a time, while at most queue requests wait. Both are positive.
func NewSigners(workers, queue int) *Signers {
	return &Signers{slots: make(chan struct{}, workers), queue: int64(queue)}
}

// Do runs sign when its turn comes, in the caller's goroutine. It returns ErrBusy at once when too many wait already.
func (s *Signers) Do(sign func() ([]byte, error)) ([]byte, error) {
	select {
	case s.slots <- struct{}{}:
	default:
		if s.waiting.Add(1) > s.queue {
			s.waiting.Add(-1)
			return nil, ErrBusy
		}
		s.slots <- struct{}{}
		s.waiting.Add(-1)
	}
	defer func() { <-s.slots }()
	return sign()
}

// Load returns how many requests wait and how many are being signed.
func (s *Signers) Load() (waiting, working int) { return int(s.waiting.Load()), len(s.slots) }
