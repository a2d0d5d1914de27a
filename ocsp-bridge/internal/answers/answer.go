package answers

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

// Counter counts; prometheus.Counter is one.
type Counter interface{ Inc() }

// Answer is a signed answer with everything that is sent with it. It is not changed once it is in a Cache.
type Answer struct {
	DER        []byte
	ThisUpdate time.Time // whole seconds
	NextUpdate time.Time // whole seconds
	Made       time.Time // local time of the decision, with its monotonic reading
	// Until is when time alone ends it: NextUpdate, or earlier if the answer becomes another one then, as that of a certificate that expires.
	Until time.Time
	// Due is the age at which it is made anew if it can be, Dead the one at which it must be.
	Due, Dead time.Duration
	Stamp     Stamp
	Stamped   bool    // Stamp is of all that the answer says; never of what is said of several certificates
	Hits      Counter // of requests that it answers
	Verdict   any     // what it says, for the caller

	// Header values, ready to be put into an http.Header. Nobody may write to them.
	Length, ETag, Modified []string

	key  string
	pos  int         // in the shard's ring; owned by its lock
	used atomic.Bool // since the ring's hand last came by
}

// Seal makes the header values of DER and ThisUpdate.
func (a *Answer) Seal() {
	sum := sha256.Sum256(a.DER)
	a.Length = []string{strconv.Itoa(len(a.DER))}
	a.ETag = []string{`"` + hex.EncodeToString(sum[:16]) + `"`}
	a.Modified = []string{a.ThisUpdate.UTC().Format(http.TimeFormat)}
}

// State is what may be done with an answer now.
type State int

// States.
const (
	Gone  State = iota // must not be given
	Due                // may be given if no newer one can be had
	Ready              // may be given
)

// State compares the answer with the time alone; what has changed, Versions knows. newest is the thisUpdate that an answer made now
// would have: one that would say no more is not worth a signature.
func (a *Answer) State(now, newest time.Time) State {
	age := a.age(now)
	switch {
	// The local clock has been set back to before the answer.
	case now.Before(a.ThisUpdate):
		return Gone
	case age >= a.Dead || !now.Before(a.Until):
		return Gone
	case age >= a.Due && newest.After(a.ThisUpdate):
		return Due
	}
	return Ready
}

// age is the less favourable of two: by the wall clock, which may be set back, and by the monotonic one.
func (a *Answer) age(now time.Time) time.Duration {
	return max(now.Sub(a.ThisUpdate), now.Sub(a.Made))
}

// overhead is what an answer takes beside its DER and its key, roughly.
const overhead = 512

func (a *Answer) size() int { return len(a.DER) + len(a.key) + overhead }
