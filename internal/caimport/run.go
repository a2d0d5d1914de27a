package caimport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
)

// Limits of a Submitter.
const (
	DefaultBatchBytes = 2 << 20 // of certificates in one transaction, before they are packed
	leastBatch        = 50      // entries; smaller transactions win no more often against a CA that issues at the same time
	submitTimeout     = 30 * time.Second
	firstPause        = 20 * time.Millisecond
	longestPause      = 2 * time.Second
)

// Submitter brings items onto the ledger. One transaction is in flight at a time: a CA has one log, and each Import of certificates appends to
// its head, so two of them would undo each other. The CA's own bridge may be at work meanwhile; who loses against it waits a little, by
// chance, and tries with less.
type Submitter struct {
	Ledger     network.Ledger // as an operator of the CA's operating organisation
	CAID       wire.CAID
	BatchItems int           // default wire.MaxBatch
	BatchBytes int           // default DefaultBatchBytes
	Patience   time.Duration // how long the ledger may give no decision before Submit gives up; 0: as long as the context
	DryRun     bool          // the contract judges, nothing is written
	OnRefused  func(*Bad)    // items that the contract refuses are reported here and left out; nil: the first one ends it
	Log        *slog.Logger  // default slog.Default

	limit int // of items in the next transaction
}

// Outcome is what became of items.
type Outcome struct {
	Items   uint64 // on the ledger now; refused ones are not
	Changed uint64 // of these, those that the ledger did not have so
	Refused uint64
	Block   uint64 // of the last transaction
}

func (s *Submitter) fill() {
	if s.BatchItems <= 0 || s.BatchItems > wire.MaxBatch {
		s.BatchItems = wire.MaxBatch
	}
	if s.BatchBytes <= 0 {
		s.BatchBytes = DefaultBatchBytes
	}
	if s.Log == nil {
		s.Log = slog.Default()
	}
	if s.limit == 0 {
		s.limit = s.BatchItems
	}
}

// Batch is items for one transaction, if all goes well.
type Batch struct {
	items []*Item
	bytes int
}

// Add takes it, which must be small.
func (b *Batch) Add(it *Item) { b.items, b.bytes = append(b.items, it), b.bytes+len(it.DER) }

// add takes it, unless the batch is full.
func (b *Batch) add(s *Submitter, it *Item) bool {
	if len(b.items) >= s.BatchItems || len(b.items) > 0 && b.bytes+len(it.DER) > s.BatchBytes {
		return false
	}
	b.Add(it)
	return true
}

// Submit brings all items of a batch onto the ledger, in one or more transactions, and returns when they have committed. What was submitted
// with an unknown outcome is submitted again: Import merges. Errors: a *Bad for an item that the contract refuses, without OnRefused; another
// refusal; ErrUnavailable or ErrUnknownOutcome after Patience; the context's.
func (s *Submitter) Submit(ctx context.Context, b *Batch) (o Outcome, err error) {
	s.fill()
	for rest := b.items; len(rest) > 0; {
		n := min(len(rest), s.limit)
		if err := s.part(ctx, rest[:n], &o); err != nil {
			return o, err
		}
		rest = rest[n:]
	}
	return o, nil
}

// part brings some items onto the ledger.
func (s *Submitter) part(ctx context.Context, items []*Item, o *Outcome) error {
	began, lost := time.Now(), 0
	for n := 0; len(items) > 0; n++ {
		res, err := s.once(ctx, items)
		switch {
		case err == nil:
			s.count(o, items, res)
			if lost == 0 {
				s.limit = min(s.BatchItems, s.limit+s.limit/4+1)
			}
			return nil
		case network.IsRejected(err):
			if items, err = s.refused(ctx, items, err, o); err != nil {
				return err
			}
			began = time.Now()
			continue
		case errors.Is(err, network.ErrConflict):
			// Another transaction got in between. Smaller ones take less time to endorse, so less gets in between.
			if lost++; lost > 1 && len(items) > leastBatch {
				s.limit = max(leastBatch, len(items)/2)
				s.Log.Debug("others use the CA's log too, trying with fewer entries", "entries", s.limit)
				return s.halves(ctx, items, o)
			}
		default:
			if s.Patience > 0 && time.Since(began) > s.Patience {
				return fmt.Errorf("the ledger gave no decision for %s: %w", s.Patience, err)
			}
			if n == 0 || n%20 == 0 {
				s.Log.Warn("the ledger gave no decision, trying again", "entries", len(items), "error", err)
			}
		}
		if err := pause(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

func (s *Submitter) halves(ctx context.Context, items []*Item, o *Outcome) error {
	half := len(items) / 2
	if err := s.part(ctx, items[:half], o); err != nil {
		return err
	}
	return s.part(ctx, items[half:], o)
}

func (s *Submitter) count(o *Outcome, items []*Item, res *sent) {
	o.Items += uint64(len(items))
	for _, e := range res.entries {
		if e.Changed {
			o.Changed++
		}
	}
	o.Block = max(o.Block, res.block)
}

// sent is the contract's answer.
type sent struct {
	entries []wire.ImportEntry
	block   uint64
}

// once makes one transaction of items, or asks what would become of it.
func (s *Submitter) once(ctx context.Context, items []*Item) (*sent, error) {
	ctx, cancel := context.WithTimeout(ctx, submitTimeout)
	defer cancel()
	arg := encode(s.CAID, items)
	var receipt network.Receipt
	var err error
	if s.DryRun {
		receipt.Result, err = s.Ledger.Evaluate(ctx, wire.FnImport, arg)
	} else {
		receipt, err = s.Ledger.Submit(ctx, wire.FnImport, arg)
	}
	if err != nil {
		return nil, err
	}
	var res wire.ImportResult
	if err = wire.Decode(receipt.Result, &res); err == nil && len(res.Entries) != len(items) {
		err = fmt.Errorf("%d answers for %d entries", len(res.Entries), len(items))
	}
	if err != nil { // it committed, and only a repetition can say what
		return nil, &network.UnknownOutcomeError{TxID: receipt.TxID, Stage: "decode the contract's answer", Err: err}
	}
	return &sent{entries: res.Entries, block: receipt.Block}, nil
}

func encode(id wire.CAID, items []*Item) []byte {
	list, certs := make([]wire.ImportItem, len(items)), make([][]byte, 0, len(items))
	for i, it := range items {
		list[i] = it.Import
		if it.DER != nil {
			certs = append(certs, it.DER)
		}
	}
	return wire.Encode(wire.NewImportArg(id, list, certs))
}

// refused takes what the contract refuses out of items and returns the rest. A refusal that names no item is halved until it is about one.
func (s *Submitter) refused(ctx context.Context, items []*Item, err error, o *Outcome) ([]*Item, error) {
	if aboutAll(err) {
		return nil, err
	}
	i, ok := culprit(items, err)
	if !ok && len(items) > 1 {
		return nil, s.halves(ctx, items, o)
	}
	b := refusal(items[i], err)
	if s.OnRefused == nil {
		return nil, b
	}
	o.Refused++
	s.OnRefused(b)
	return append(items[:i:i], items[i+1:]...), nil
}

// aboutAll reports whether a refusal is about the caller, the CA or the clock, which no part of the batch would change.
func aboutAll(err error) bool {
	we, ok := errors.AsType[*wire.Error](err)
	if !ok {
		return false
	}
	switch we.Field {
	case "ca_id", "time", "consortium", "arg", "ca.state":
		return true
	}
	return we.Code == wire.PermissionDenied || we.Code == wire.Internal
}

// culprit finds the item that a refusal names: items[3].state by its place, certs[3].issuer by its place among those with a certificate.
func culprit(items []*Item, err error) (int, bool) {
	we, ok := errors.AsType[*wire.Error](err)
	if !ok {
		return 0, false
	}
	list, tail, _ := strings.Cut(we.Field, "[")
	digits, _, closed := strings.Cut(tail, "]")
	n, err := strconv.Atoi(digits)
	if err != nil || !closed || n < 0 {
		return 0, false
	}
	if list != "certs" {
		return n, list == "items" && n < len(items)
	}
	for i, it := range items {
		if it.DER == nil {
			continue
		}
		if n == 0 {
			return i, true
		}
		n--
	}
	return 0, false
}

// refusal is a refusal by the contract as whoever looks after the source needs it.
func refusal(it *Item, err error) *Bad {
	b := &Bad{Where: it.Where, Field: "serial", Value: it.Serial.String(), Rule: err.Error(), serial: it.Serial}
	if we, ok := errors.AsType[*wire.Error](err); ok {
		field := we.Field
		if _, rest, ok := strings.Cut(field, "]"); ok {
			field = "certificate" + rest
		}
		b.Field, b.Value, b.Rule = field, we.Value, fmt.Sprintf("%s (the ledger's rule, about serial %s)", we.Rule, it.Serial)
	}
	return b
}

// pause waits before attempt n+1, by chance: two who lost against one another must not meet again.
func pause(ctx context.Context, n int) error {
	d := longestPause
	if n < 7 {
		d = min(d, firstPause<<n)
	}
	t := time.NewTimer(rand.N(d) + time.Millisecond) //nolint:gosec // jitter needs no secrecy
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
