package served

import (
	"fmt"
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
	KindUnreachable = "unreachable"  // no answer, so nothing was compared
)

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
	URL        string `json:"url"`
	Heads      int    `json:"heads"`
	Tiles      int    `json:"tiles"`   // of hashes
	Bundles    int    `json:"bundles"` // of entries, of both kinds
	Octets     int64  `json:"octets"`  // of both
	OCSP       int    `json:"ocsp"`    // answers compared
	Unanswered int    `json:"ocsp_try_later"`
	Proofs     int    `json:"proof_bundles"` // certificates' bundles compared
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
	Logs         []Log         `json:"logs"`
	Bridges      []*Bridge     `json:"bridges"`
	Notes        []string      `json:"notes"` // not differences, but the reader should know
	Differences  []*Difference `json:"differences"`
	More         bool          `json:"more_differences"` // there were more than the limit
}

// findings collects what several goroutines find. Each says where in the order of the comparison it is.
type findings struct {
	limit int

	mu    sync.Mutex
	list  []found         // guarded by mu
	more  bool            // guarded by mu
	notes map[string]bool // guarded by mu
	order []string        // of notes; guarded by mu
}

type found struct {
	at int // position in the order
	d  *Difference
}

// add takes a difference, and returns false once there are too many.
func (f *findings) add(at int, d *Difference) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.list) >= f.limit {
		f.more = true
		return false
	}
	f.list = append(f.list, found{at, d})
	return true
}

func (f *findings) full() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.more
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
