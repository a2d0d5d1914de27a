package anchor

import (
	"context"
	"time"
)

// turns keeps several Logs of one CA, in several processes, from wasting one another's transactions. Of those that append to one head
// at the same time one wins; the others' transactions are endorsed, ordered and stored for nothing, and under load a loser that just
// tries again comes too late every time. So a Log that has lost a transaction believes in rivals for a while and takes turns:
//
//   - who wins gives way after turnLength transactions in a row: it pauses until another one's has committed;
//   - who loses waits until the head has stood still for longer than the winner's transactions take, which is such a pause. Before
//     that, and when the winner does not pause, it tries again quickly a few times: the winner then loses one too, and learns of it.
//
// Nothing is agreed on and nobody is needed: if the pause passes and nobody took the turn, rivals are believed in less, and a Log
// that is alone soon pauses no more. What is correct does not depend on any of this.
type turns struct {
	head       func(context.Context) ([]byte, error) // what transactions compete for; nil: nothing, and there are no turns
	minBackoff time.Duration

	flight time.Duration // how long a committed transaction took, a moving average
	ended  time.Time     // when the last one did
	rivals int           // in how many more of our turns somebody else is believed in
	wins   int           // in this turn
	tries  int           // how often to try again at once
}

const (
	turnLength  = 16
	quickTries  = 3
	beliefs     = 3                     // see rivals
	firstFlight = 20 * time.Millisecond // before one was measured
	minPoll     = 2 * time.Millisecond
	maxPoll     = 100 * time.Millisecond
)

// won notes a committed transaction. Pacing goes by this machine's monotonic clock.
func (t *turns) won(took time.Duration) {
	if t.flight == 0 {
		t.flight = took
	}
	t.flight = (3*t.flight + took) / 4
	t.ended = time.Now()
	t.tries = 0
	t.wins++
}

// yield leaves rivals a turn before a new batch is submitted, if it is time to.
func (t *turns) yield(ctx context.Context) {
	if t.head == nil || t.rivals == 0 {
		return
	}
	if time.Since(t.ended) > t.oneFlight() { // there was a gap: whoever wanted to had its chance
		t.wins = 0
	}
	if t.wins < turnLength {
		return
	}
	t.wins = 0
	// The others need one transaction's time and a quarter to see the pause, and another one to use it.
	if t.still(ctx, 3*t.oneFlight(), 0) {
		t.rivals--
		return
	}
	t.rivals = beliefs
	t.await(ctx)
}

// lost waits after a transaction that lost against another, until it makes sense to try again. It requires head.
func (t *turns) lost(ctx context.Context) {
	if t.rivals == 0 {
		t.tries = quickTries
	}
	t.rivals, t.wins = beliefs, 0
	if t.tries > 0 {
		t.tries--
		pause(ctx, jitter(t.minBackoff))
		return
	}
	t.await(ctx)
}

// await returns when the rival's turn has ended, or when it has lasted so long that the rival cannot know of this Log.
func (t *turns) await(ctx context.Context) {
	f := t.oneFlight()
	if !t.still(ctx, f+f/4+jitter(f/4), 2*turnLength*f) {
		t.tries = quickTries
	}
}

// still watches the head until it has not changed for d, and returns true, or for longer than limit, and returns false; with limit 0 at
// the first change. A head that cannot be read does not change.
func (t *turns) still(ctx context.Context, d, limit time.Duration) bool {
	poll := min(max(t.oneFlight()/6, minPoll), maxPoll)
	began := time.Now()
	before, known := t.look(ctx)
	for since := began; time.Since(since) < d && ctx.Err() == nil; {
		pause(ctx, min(poll, d))
		now, ok := t.look(ctx)
		if ok && known && now != before {
			if since = time.Now(); since.Sub(began) >= limit {
				return false
			}
		}
		if ok {
			before, known = now, true
		}
	}
	return true
}

func (t *turns) look(ctx context.Context) (head string, ok bool) {
	b, err := t.head(ctx)
	return string(b), err == nil
}

func (t *turns) oneFlight() time.Duration {
	if t.flight == 0 {
		return firstFlight
	}
	return t.flight
}
