package ca

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/oplog"
)

// What was refused before it began is recorded so that it cannot fill the disk: of requests by nobody knows whom, one record an interval; of
// those that a known client's role does not allow, ownRefusals of each client an interval, and one that counts the others.
const (
	ownRefusals = 60
	maxSources  = 6 // that the record of an interval names
	maxClients  = 1024
)

// refusals counts an interval's.
type refusals struct {
	mu        sync.Mutex
	anonymous tally
	byClient  map[string]*tally
}

// tally is what a record of refused requests says.
type tally struct {
	how         string
	count       int // of those without a record of their own
	own         int // records of their own
	first, last time.Time
	sources     map[string]bool
	more        bool // there were more sources
}

func (t *tally) add(source string, now time.Time) {
	if t.count++; t.count == 1 {
		t.first, t.sources = now, map[string]bool{}
	}
	t.last = now
	if len(t.sources) < maxSources {
		t.sources[source] = true
	} else if !t.sources[source] {
		t.more = true
	}
}

// entry tells of the requests without a record of their own.
func (t *tally) entry(actor, outcome string) oplog.Entry {
	sources := strings.Join(slices.Sorted(maps.Keys(t.sources)), " ")
	if t.more {
		sources += " and others"
	}
	return oplog.Entry{
		Actor: actor, How: t.how, Action: "requests", Outcome: outcome,
		Detail: map[string]string{"count": fmt.Sprint(t.count), "first": t.first.UTC().Format(caapi.TimeFormat), "last": t.last.UTC().Format(caapi.TimeFormat), "sources": sources},
	}
}

// refusedAnonymous counts a request of nobody knows whom.
func (o *operators) refusedAnonymous(r *http.Request) {
	o.refusals.mu.Lock()
	defer o.refusals.mu.Unlock()
	o.refusals.anonymous.add(sourceOf(r), o.server.now())
}

// refused records a request that the client may not make.
func (o *operators) refused(r *http.Request, c *client, why error) {
	o.refusals.mu.Lock()
	defer o.refusals.mu.Unlock()
	if o.refusals.byClient == nil {
		o.refusals.byClient = map[string]*tally{}
	}
	t := o.refusals.byClient[c.name]
	if t == nil {
		if len(o.refusals.byClient) >= maxClients {
			o.refusals.anonymous.add(sourceOf(r), o.server.now())
			return
		}
		t = &tally{how: c.how}
		o.refusals.byClient[c.name] = t
	}
	if t.own >= ownRefusals || !o.settled.Load() {
		t.add(sourceOf(r), o.server.now())
		return
	}
	t.own++
	e := attributed(r, c, oplog.Entry{Action: r.Method + " " + r.URL.Path, Outcome: outcomeOf(why, 0)})
	if err := o.log.RecordLater(e); err != nil {
		t.add(sourceOf(r), o.server.now())
		return
	}
	o.grew()
}

// tellRefused records what was counted, once an interval. What cannot be recorded is counted on.
func (o *operators) tellRefused() {
	o.refusals.mu.Lock()
	defer o.refusals.mu.Unlock()
	if t := &o.refusals.anonymous; t.count > 0 && o.log.RecordLater(t.entry("", "refused: not authenticated, or over the rate")) == nil {
		*t = tally{}
		o.grew()
	}
	for _, name := range slices.Sorted(maps.Keys(o.refusals.byClient)) {
		t := o.refusals.byClient[name]
		if t.count > 0 {
			if o.log.RecordLater(t.entry(name, "refused: not allowed")) != nil {
				continue
			}
			o.grew()
		}
		delete(o.refusals.byClient, name)
	}
}
