package cli

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// tallyEvery is how often progress is told.
const tallyEvery = time.Second

// tally tells on stderr how far something is that takes over a second. It is safe for concurrent use.
type tally struct {
	w     io.Writer
	what  string
	total int
	began time.Time

	mu           sync.Mutex
	done, failed int
	told         time.Time
}

func newTally(w io.Writer, what string, total int) *tally {
	now := time.Now()
	return &tally{w: w, what: what, total: total, began: now, told: now}
}

func (p *tally) add(n int, failed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += n
	if failed {
		p.failed += n
	}
	p.tell(false)
}

// at says where it is now.
func (p *tally) at(done, failed int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done, p.failed = done, failed
	p.tell(false)
}

// end tells once more, if it told at all.
func (p *tally) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.told != p.began {
		p.tell(true)
	}
}

// tell requires mu.
func (p *tally) tell(always bool) {
	now := time.Now()
	if !always && now.Sub(p.told) < tallyEvery {
		return
	}
	p.told = now
	text := fmt.Sprintf("%d of %d %s", p.done, p.total, p.what)
	if p.failed > 0 {
		text += fmt.Sprintf(", %d failed", p.failed)
	}
	if took := now.Sub(p.began).Seconds(); took > 0 && p.done > 0 {
		text += fmt.Sprintf(", %.0f/s", float64(p.done)/took)
	}
	fmt.Fprintln(p.w, text)
}
