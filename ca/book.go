package ca

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
	"unique"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// state is how far a certificate has come; doc.go has the list.
type state uint8

const (
	stateSigned state = iota + 1
	stateAnchored
	stateRefused
	stateAbandoned
)

// stage is how far a certificate in stateSigned has come.
type stage uint8

const (
	stageSigned      stage = iota // signed, without precertificate
	stagePrecert                  // its precertificate is signed
	stagePreAnchored              // and on the ledger
	stageStamped                  // there are SCTs for it
	stageFinal                    // it is signed
)

// current is where the record with what is to be submitted or released stands. For whoever may read e.stage.
func (e *entry) current() position {
	if e.stage == stageFinal {
		return e.final
	}
	return e.pos
}

// digest is a SHA-256.
type digest [sha256.Size]byte

// entry is what memory keeps of one certificate; the certificate itself stays in the journal.
type entry struct {
	serial  wire.Serial
	pos     position // of the record with the certificate, or of one with SCTs the precertificate
	request digest
	key     digest // zero: the request had no idempotency key

	client, profile unique.Handle[string] // few different ones, of many certificates

	need int // SCTs that the certificate is to have; 0: it has no precertificate

	// These change under book.mu; whoever owns the entry may read them without, and once it is resolved everybody may.
	stage    stage
	prePlace wire.LogEntry // from stagePreAnchored on
	stamps   position      // of the record with the SCTs, from stageStamped on
	final    position      // of the record with the certificate, from stageFinal on

	// The rest changes once, from stateSigned to another state, under book.mu; resolved is closed then. Whoever has seen it
	// closed may read without the lock.
	state    state
	resolved chan struct{}
	log      wire.LogEntry
	block    uint64
	txID     string
	refusal  *wire.Error

	// suspect is when an attempt to submit it may last have begun, by this machine's clock. Owned by whoever owns the entry: the
	// request that made it, then the resolver.
	suspect time.Time
}

// book is the journal's index: every certificate by serial and by idempotency key.
type book struct {
	mu        sync.Mutex
	replaying bool
	bySerial  map[string]*entry
	byKey     map[digest]*entry
	loose     map[*entry]struct{} // in stateSigned, and nobody is bringing them to the ledger
	counts    [stateAbandoned + 1]int
	last      *entry // that which stands last in the log
}

func newBook() *book {
	return &book{replaying: true, bySerial: map[string]*entry{}, byKey: map[digest]*entry{}, loose: map[*entry]struct{}{}}
}

// settledChan serves all entries that were resolved before this process began.
var settledChan = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// apply takes a journal record into the index. An error means that the journal contradicts itself.
func (b *book) apply(r *record, pos position) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.bySerial[string(r.Serial)]
	if r.Kind == kindSigned || r.Kind == kindPrecert {
		if e != nil {
			return fmt.Errorf("serial %x is signed twice", r.Serial)
		}
		return b.add(r, pos)
	}
	if e == nil || e.state != stateSigned {
		return fmt.Errorf("serial %x: record of kind %d, but it is not waiting for an outcome", r.Serial, r.Kind)
	}
	if ok, err := e.advance(r, pos); ok || err != nil {
		return err
	}
	switch r.Kind {
	case kindAnchored:
		if r.Log == nil || e.stage != stageSigned && e.stage != stageFinal {
			return fmt.Errorf("serial %x: anchored at stage %d, or without a place in the log", r.Serial, e.stage)
		}
		e.state, e.log, e.block, e.txID = stateAnchored, *r.Log, r.Block, r.TxID
	case kindRefused, kindAbandoned:
		if e.stage == stagePreAnchored || e.stage == stageStamped {
			return fmt.Errorf("serial %x: given up at stage %d, but its precertificate is on the ledger", r.Serial, e.stage)
		}
		e.state, e.refusal = stateRefused, r.Refusal
		if r.Kind == kindAbandoned {
			e.state = stateAbandoned
		}
		// The key is free again: a repetition may succeed when the ledger's state or the network has changed.
		if b.byKey[e.key] == e {
			delete(b.byKey, e.key)
		}
	default:
		return fmt.Errorf("serial %x: unknown kind of record %d", r.Serial, r.Kind)
	}
	b.tally(e)
	delete(b.loose, e) // there only during replay
	close(e.resolved)
	e.resolved = settledChan
	return nil
}

// advance takes a record that brings a certificate with SCTs one step further, and does not resolve it. It requires mu.
func (e *entry) advance(r *record, pos position) (ok bool, err error) {
	var from stage
	switch r.Kind {
	case kindPreAnchored:
		from, ok = stagePrecert, r.Log != nil
	case kindStamped:
		from, ok = stagePreAnchored, len(r.SCTs) > 0
	case kindFinal:
		from, ok = stageStamped, len(r.Cert) > 0
	default:
		return false, nil
	}
	if !ok || e.stage != from {
		return false, fmt.Errorf("serial %x: record of kind %d at stage %d, or without its contents", r.Serial, r.Kind, e.stage)
	}
	e.stage++
	switch r.Kind {
	case kindPreAnchored:
		e.prePlace = *r.Log
	case kindStamped:
		e.stamps = pos
	case kindFinal:
		e.final = pos
	}
	return true, nil
}

// add requires mu.
func (b *book) add(r *record, pos position) error {
	e := &entry{serial: r.Serial, pos: pos, state: stateSigned, resolved: make(chan struct{}), client: unique.Make(r.Client), profile: unique.Make(r.Profile)}
	if r.Kind == kindPrecert {
		e.stage, e.need = stagePrecert, int(min(r.Need, maxSCTs)) //nolint:gosec // a small number
	}
	if (r.Kind == kindPrecert) != (r.Need > 0) || r.Need > maxSCTs || len(r.Request) != len(e.request) || len(r.Key) != 0 && len(r.Key) != len(e.key) || len(r.Cert) == 0 {
		return fmt.Errorf("serial %x: incomplete", r.Serial)
	}
	copy(e.request[:], r.Request)
	if copy(e.key[:], r.Key) > 0 {
		if b.byKey[e.key] != nil {
			return errors.New("an idempotency key is used twice")
		}
		b.byKey[e.key] = e
	}
	b.bySerial[string(r.Serial)] = e
	b.counts[stateSigned]++
	if b.replaying {
		b.loose[e] = struct{}{}
	}
	return nil
}

func (b *book) findSerial(s wire.Serial) *entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bySerial[string(s)]
}

func (b *book) findKey(k digest) *entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.byKey[k]
}

// stateOf returns an entry's present state and the channel that is closed when it leaves stateSigned.
func (b *book) stateOf(e *entry) (state, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return e.state, e.resolved
}

// replayed ends the time in which records come from the journal's file. now is when the process that wrote them may last have
// submitted something.
func (b *book) replayed(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.replaying = false
	for e := range b.loose {
		e.suspect = now
	}
}

// release gives up an entry without an outcome; the resolver takes it.
func (b *book) release(e *entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.loose[e] = struct{}{}
}

// take hands all released entries to the caller, who owns them from then on.
func (b *book) take() []*entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	es := slices.Collect(maps.Keys(b.loose))
	clear(b.loose)
	return es
}

// unresolved counts the certificates that nobody waits for and that have no outcome yet.
func (b *book) unresolved() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.loose)
}
