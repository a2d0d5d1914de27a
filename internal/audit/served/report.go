package served

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Kinds of differences.
const (
	KindBlock       = "block"        // a block breaks a rule, is not the one audited before, or cannot be read
	KindRoot        = "root"         // a head with another root than the blocks give
	KindEquivocate  = "equivocation" // two heads of one size with different roots
	KindRollback    = "rollback"     // a log is smaller than it was
	KindAhead       = "ahead"        // a log is larger than the blocks make it
	KindTime        = "time"         // a timestamp runs backwards, or is before what it covers
	KindSignature   = "signature"    // a signature that does not verify, or too few of them
	KindForeign     = "foreign key"  // a signature by a key that the policy does not have, or does not have any more
	KindTile        = "tile"         // hashes
	KindEntry       = "entry"        // entries with their data
	KindMissing     = "missing"      // not served, although the log covers it
	KindStatus      = "status"       // a responder says another status than the blocks
	KindBundle      = "bundle"       // a bundle says another status than the blocks, or does not verify
	KindUnanswered  = "unanswered"   // a bridge has an answer to none of the questions of a kind now, so nothing was compared
	KindUnreachable = "unreachable"  // requests that nobody answered, so something was not compared
)

// severity has the kinds that a report begins with first: forgeries before what may be damage, that before what may pass.
var severity = []string{
	KindBlock, KindEquivocate, KindRoot, KindRollback, KindAhead, KindStatus, KindBundle, KindForeign, KindSignature, KindTime,
	KindEntry, KindTile, KindMissing, KindUnanswered, KindUnreachable,
}

// Difference is one place where what is served is not what the blocks say.
type Difference struct {
	Kind     string   `json:"kind"`
	Where    string   `json:"where"`  // URL, or block and transaction
	What     string   `json:"what"`   // log, index, tile, serial
	Found    string   `json:"found"`  // there
	Blocks   string   `json:"blocks"` // what the blocks say
	Evidence []string `json:"evidence,omitempty"`
}

func (d *Difference) String() string {
	s := fmt.Sprintf("%s: %s: %s: found %s; by the blocks: %s", d.Kind, d.Where, d.What, d.Found, d.Blocks)
	if len(d.Evidence) > 0 {
		s += "; evidence in " + strings.Join(d.Evidence, " and ")
	}
	return s
}

// Bridge says what was compared at one bridge.
type Bridge struct {
	URL         string `json:"url"`
	Heads       int    `json:"heads"`
	Tiles       int    `json:"tiles"`             // of hashes
	Bundles     int    `json:"bundles"`           // of entries, of both kinds
	Octets      int64  `json:"octets"`            // of both
	OCSP        int    `json:"ocsp"`              // answers compared
	Unanswered  int    `json:"ocsp_try_later"`    // of CAs that have a responder
	NoResponder int    `json:"ocsp_no_responder"` // tryLater, of CAs without any valid responder certificate on the ledger
	Proofs      int    `json:"proof_bundles"`     // certificates' bundles compared
}

// Log says what a log is by the blocks.
type Log struct {
	Name   string `json:"name"`
	Origin string `json:"origin"`
	Size   uint64 `json:"size"`
	Root   string `json:"root"` // hexadecimal
}

// Report is the outcome of a comparison.
type Report struct {
	Certificates int           `json:"certificates"`
	Good         int           `json:"good"`
	Held         int           `json:"held"`
	Revoked      int           `json:"revoked"`
	Imported     int           `json:"imported"`    // of all of them
	SerialOnly   int           `json:"serial_only"` // of those: without certificate, so good is never said of them
	Logs         []Log         `json:"logs"`
	Compared     bool          `json:"compared"` // with what at least one bridge serves
	Bridges      []*Bridge     `json:"bridges"`
	Notes        []string      `json:"notes"`            // not differences, but the reader should know
	Differences  []*Difference `json:"differences"`      // the most severe first
	More         bool          `json:"more_differences"` // there were more than the limit
}

// findings collects what several goroutines find. Each says where in the order of the comparison it is. The limit is kept for each kind,
// so that much of one does not hide another; the first ones in the order stay, whenever they were found.
type findings struct {
	limit int

	mu      sync.Mutex
	list    []found         // guarded by mu
	refused map[string]bool // kinds of which there were more; guarded by mu
	notes   map[string]bool // guarded by mu
	order   []string        // of notes; guarded by mu
}

func newFindings(limit int) *findings {
	return &findings{limit: limit, refused: map[string]bool{}, notes: map[string]bool{}}
}

type found struct {
	at int // position in the order
	d  *Difference
}

func (f *findings) add(at int, d *Difference) {
	f.mu.Lock()
	defer f.mu.Unlock()
	of := 0
	for _, other := range f.list {
		if other.d.Kind == d.Kind {
			of++
		}
	}
	if of >= f.limit {
		f.refused[d.Kind] = true
		last := -1 // in the order, and of those at one place the one that came last
		for i, other := range f.list {
			if other.d.Kind == d.Kind && (last < 0 || other.at >= f.list[last].at) {
				last = i
			}
		}
		if at >= f.list[last].at {
			return
		}
		f.list = slices.Delete(f.list, last, last+1)
	}
	f.list = append(f.list, found{at, d})
}

// full reports whether there were more of a kind than the limit: it need not be looked for any more.
func (f *findings) full(kind string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.refused[kind]
}

// result is what was found, the most severe first, and whether there is more than the limit.
func (f *findings) result() (all []*Difference, notes []string, more bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	slices.SortStableFunc(f.list, func(a, b found) int {
		return cmp.Or(cmp.Compare(slices.Index(severity, a.d.Kind), slices.Index(severity, b.d.Kind)), cmp.Compare(a.at, b.at))
	})
	all, more = []*Difference{}, len(f.refused) > 0 || len(f.list) > f.limit
	for _, one := range f.list[:min(len(f.list), f.limit)] {
		all = append(all, one.d)
	}
	return all, append([]string{}, f.order...), more
}

func (f *findings) note(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	if !f.notes[text] {
		f.notes[text] = true
		f.order = append(f.order, text)
	}
}
