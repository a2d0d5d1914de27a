package fabric

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
)

// The gateway picks endorsers without regard to which of them answer: one frozen peer or chaincode server among the
// organisations stalls every transaction that it is picked for until the gateway's timeout. So this side picks: the own
// organisation and as many others as make a majority, which is the channel's endorsement policy. When they take long, it asks
// again with each of the others replaced in turn, takes the first complete set, and avoids for a while whoever was not in it.
// The organisations asked at once execute in parallel, which the gateway's own way does not do.
const (
	// hedgeAfter is what a small transaction may take to be endorsed before others are asked, hedgePerKB what each kB adds.
	// When endorsing lately took as long as that, everybody is busy and not one of them frozen, and to ask more of them would
	// make all of them slower: then others are asked after hedgeFactor times what was usual, hedgeMost at most.
	hedgeAfter  = 700 * time.Millisecond
	hedgePerKB  = time.Millisecond
	hedgeFactor = 3
	hedgeMost   = 2500 * time.Millisecond

	firstAvoidance = 5 * time.Second // doubled at each recurrence
	lastAvoidance  = time.Minute
)

// endorserChoice remembers which organisations answer.
type endorserChoice struct {
	own string

	mu      sync.Mutex           // guards what follows
	others  []string             // MSP IDs of the other organisations; nil: not known yet
	need    int                  // how many of them make a majority with the own one
	turn    int                  // rotates who is asked, to spread the work
	avoided map[string]avoidance // organisations that kept others waiting
	usual   float64              // moving average of what endorsing took, as a share of allowance
}

type avoidance struct {
	until time.Time
	last  time.Duration
}

func newEndorserChoice(own string) *endorserChoice {
	return &endorserChoice{own: own, avoided: map[string]avoidance{}}
}

// know takes the membership from the ledger.
func (c *endorserChoice) know(consortium *wire.Consortium) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.others = slices.DeleteFunc(slices.Clone(consortium.MSPs), func(id string) bool { return id == c.own })
	c.need = min(consortium.Majority()-1, len(c.others))
}

func (c *endorserChoice) known() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.others != nil
}

// sets returns whom to ask first, and whom instead when that takes long: the same with one of the others replaced. nil means
// that the membership is not known and the gateway has to pick.
func (c *endorserChoice) sets(now time.Time) (first []string, instead [][]string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.others == nil {
		return nil, nil
	}
	if c.need == 0 {
		return []string{c.own}, nil
	}
	c.turn++
	order := slices.Concat(c.others[c.turn%len(c.others):], c.others[:c.turn%len(c.others)])
	slices.SortStableFunc(order, func(a, b string) int {
		return boolInt(c.avoided[a].until.After(now)) - boolInt(c.avoided[b].until.After(now))
	})
	chosen, spare := order[:c.need], order[c.need:]
	first = append([]string{c.own}, chosen...)
	if len(spare) == 0 {
		return first, nil
	}
	for i := range chosen {
		set := slices.Clone(first)
		set[i+1] = spare[i%len(spare)]
		instead = append(instead, set)
	}
	return first, instead
}

// allowance is what endorsing an argument of so many bytes may take on a network that is not busy.
func allowance(bytes int) time.Duration {
	return hedgeAfter + time.Duration(bytes>>10)*hedgePerKB
}

// took notes how long a set of endorsers took for an argument.
func (c *endorserChoice) took(d time.Duration, bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	const weight = 0.2 // of the newest
	c.usual += weight * (float64(d)/float64(allowance(bytes)) - c.usual)
}

// hedge is when to ask others too.
func (c *endorserChoice) hedge(bytes int) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	allowed := allowance(bytes)
	return max(allowed, min(hedgeMost, time.Duration(hedgeFactor*c.usual*float64(allowed))))
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// answered notes that done was complete before slow was.
func (c *endorserChoice) answered(done, slow []string, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range slow {
		if slices.Contains(done, id) {
			continue
		}
		a := c.avoided[id]
		a.last = min(max(2*a.last, firstAvoidance), lastAvoidance)
		a.until = now.Add(a.last)
		c.avoided[id] = a
	}
	for _, id := range done {
		if a, ok := c.avoided[id]; ok && !a.until.After(now) {
			delete(c.avoided, id) // it was tried again, and answers
		}
	}
}

// learnMembership reads the consortium's membership once. Before the ledger is founded there is none, and the gateway picks.
func (l *Ledger) learnMembership(ctx context.Context) {
	if l.endorsers.known() {
		return
	}
	raw, err := l.Evaluate(ctx, wire.FnRead, wire.Encode(&wire.ReadArg{V: wire.Version, Keys: []string{wire.ConsortiumKey}}))
	if err != nil {
		return // whatever it is, endorsing will say
	}
	var res wire.ReadResult
	var consortium wire.Consortium
	if wire.Decode(raw, &res) == nil && len(res.Values) == 1 && res.Values[0] != nil && wire.Decode(res.Values[0], &consortium) == nil {
		l.endorsers.know(&consortium)
	}
}

// attempt is one set of endorsers' answer.
type attempt struct {
	set      []string
	envelope *Envelope
	err      error
}

// endorseOnce has a transaction endorsed by the first set of organisations that agree on it. Every set gets a proposal of its
// own: peers refuse to execute one twice at once. At most one of them is submitted, so the others never come to be.
func (l *Ledger) endorseOnce(ctx context.Context, function string, arg []byte) (*Envelope, error) {
	l.learnMembership(ctx)
	first, instead := l.endorsers.sets(time.Now())
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // the slower sets are not needed any more
	answers := make(chan attempt, 1+len(instead))
	ask := func(set []string) {
		go func() {
			begin := time.Now()
			envelope, err := l.endorseBy(ctx, function, arg, set)
			if err == nil {
				l.endorsers.took(time.Since(begin), len(arg))
			}
			answers <- attempt{set, envelope, err}
		}()
	}
	ask(first)
	running := 1
	askOthers := func() {
		for _, set := range instead {
			ask(set)
		}
		running += len(instead)
		instead = nil
	}
	hedge := time.NewTimer(l.endorsers.hedge(len(arg)))
	defer hedge.Stop()
	var slow []string // who keeps the others waiting, or cannot be reached
	var firstErr error
	for {
		select {
		case <-hedge.C:
			slow = first
			askOthers()
		case a := <-answers:
			running--
			if a.err == nil {
				l.endorsers.answered(a.set, slow, time.Now())
				return a.envelope, nil
			}
			if network.IsRejected(a.err) {
				return nil, a.err // by the own organisation, whose word counts
			}
			if firstErr == nil {
				firstErr = a.err
			}
			// Organisations disagree for milliseconds whenever one is a block behind. The caller asks again, by then in
			// another composition; to ask all of them now would only add to the load that makes them lag.
			if !errors.Is(a.err, network.ErrConflict) {
				if slices.Equal(a.set, first) {
					slow = first
				}
				askOthers()
			}
			if running == 0 {
				return nil, firstErr
			}
		}
	}
}
