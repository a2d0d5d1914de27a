package audit

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"

	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/network/fabric/verify"
)

// blocksAhead is how far verification may be ahead of execution. A block may have megabytes.
const blocksAhead = 8

// RawSource gives blocks as a Fabric peer sends them, as fabric.Ledger.RawBlocks does.
type RawSource func(ctx context.Context, from uint64, fn func(*common.Block) error) error

// Verified is a Source of verified blocks: while one is executed, the next ones are verified. open makes a verifier on the store that it
// is given, once for each call of the Source.
func (a *Auditor) Verified(raw RawSource, open func(verify.Store) (*verify.Verifier, error)) Source {
	return func(ctx context.Context, from uint64, fn func(*network.Block) error) error {
		store := &aheadStore{a: a, changed: map[string]aheadValue{}, next: from}
		v, err := open(store)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(ctx)
		blocks := make(chan aheadBlock, blocksAhead)
		ended := make(chan error, 1)
		go func() {
			err := v.Blocks(raw)(ctx, from, func(b *network.Block) error {
				select {
				case blocks <- aheadBlock{b, store.last}:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
			close(blocks)
			ended <- err
		}()
		var fnErr error
		for b := range blocks {
			if fnErr != nil {
				continue // until the other side has ended: it uses the store
			}
			a.verified = b.changes
			if fnErr = fn(b.block); fnErr == nil {
				store.done(b.block.Number)
				continue
			}
			// What the verifier has learnt of a block that was audited is stored with it; the rest is learnt again.
			a.verified = nil
			cancel()
		}
		cancel()
		return errors.Join(fnErr, unlessStopped(<-ended, fnErr))
	}
}

// unlessStopped is the verifier's error, unless it was told to stop.
func unlessStopped(err, because error) error {
	if because != nil {
		return nil
	}
	return err
}

type aheadBlock struct {
	block   *network.Block
	changes []verify.Change
}

type aheadValue struct {
	value []byte // nil: deleted
	block uint64 // that changed it last
}

// aheadStore is a verifier's store whose newest changes are not in the audit's store yet.
type aheadStore struct {
	a    *Auditor
	last []verify.Change // of the newest block; the verifier's goroutine's
	next uint64          // block of the next Commit; the verifier's goroutine's

	mu      sync.Mutex
	changed map[string]aheadValue // guarded by mu
}

// Get implements verify.Store. What leaves the map is in the audit's store by then.
func (s *aheadStore) Get(key []byte) ([]byte, error) {
	s.mu.Lock()
	ahead, ok := s.changed[string(key)]
	s.mu.Unlock()
	if ok {
		return ahead.value, nil
	}
	return verifierStore{s.a}.Get(key)
}

// Scan implements verify.Store.
func (s *aheadStore) Scan(from, to []byte, fn func(key, value []byte) bool) error {
	values := map[string][]byte{}
	s.mu.Lock()
	for key, ahead := range s.changed {
		if key >= string(from) && key < string(to) {
			values[key] = ahead.value
		}
	}
	s.mu.Unlock()
	if len(values) == 0 {
		return verifierStore{s.a}.Scan(from, to, fn)
	}
	if err := (verifierStore{s.a}).Scan(from, to, func(key, value []byte) bool {
		if _, ok := values[string(key)]; !ok {
			values[string(key)] = slices.Clone(value)
		}
		return true
	}); err != nil {
		return err
	}
	keys := make([]string, 0, len(values))
	for key, value := range values {
		if value != nil {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, strings.Compare)
	for _, key := range keys {
		if !fn([]byte(key), values[key]) {
			break
		}
	}
	return nil
}

// Commit implements verify.Store.
func (s *aheadStore) Commit(changes []verify.Change) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range changes {
		s.changed[string(c.Key)] = aheadValue{c.Value, s.next}
	}
	s.next, s.last = s.next+1, changes
	return nil
}

// done forgets what a block has changed, which the audit's store has now.
func (s *aheadStore) done(block uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, ahead := range s.changed {
		if ahead.block <= block {
			delete(s.changed, key)
		}
	}
}
