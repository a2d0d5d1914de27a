package audit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
)

// Source gives blocks from number from on, as network.Ledger.Blocks does.
type Source func(ctx context.Context, from uint64, fn func(*network.Block) error) error

// Progress says how far a Run has come.
type Progress struct {
	Height  uint64        // blocks audited
	Target  uint64        // blocks there are to audit
	Txs     uint64        // transactions executed by this Run
	Blocks  uint64        // blocks audited by this Run
	Elapsed time.Duration // of this Run
}

// BlocksPerSecond is the rate of this Run.
func (p Progress) BlocksPerSecond() float64 {
	if p.Elapsed <= 0 {
		return 0
	}
	return float64(p.Blocks) / p.Elapsed.Seconds()
}

// Left estimates how long the rest takes, 0 when that is not known.
func (p Progress) Left() time.Duration {
	rate := p.BlocksPerSecond()
	if rate == 0 || p.Target <= p.Height {
		return 0
	}
	return time.Duration(float64(p.Target-p.Height) / rate * float64(time.Second))
}

// progressEvery is how often Progress is called.
const progressEvery = 200 * time.Millisecond

var errReached = errors.New("reached")

// Run audits the blocks that are still missing below height, and checks the state before and after. Its error is a *Difference, or an
// error of the source, which may be a *verify.Error.
func (a *Auditor) Run(ctx context.Context, blocks Source, height uint64) error {
	if err := a.CheckState(ctx); err != nil {
		return err
	}
	if err := a.Follow(ctx, blocks, height); err != nil {
		return err
	}
	return a.CheckState(ctx)
}

// Follow is Run without checks of the state: for a few blocks after a Run.
func (a *Auditor) Follow(ctx context.Context, blocks Source, height uint64) error {
	begun, from, before := a.opts.Now(), a.Height(), a.txs
	last := begun
	report := func(now time.Time) {
		if a.opts.Progress != nil {
			a.opts.Progress(Progress{Height: a.Height(), Target: height, Txs: a.txs - before, Blocks: a.Height() - from, Elapsed: now.Sub(begun)})
		}
	}
	if from < height {
		err := blocks(ctx, from, func(b *network.Block) error {
			if err := a.Block(b); err != nil {
				return err
			}
			if now := a.opts.Now(); now.Sub(last) >= progressEvery {
				last = now
				report(now)
			}
			if a.Height() >= height {
				return errReached
			}
			return nil
		})
		if err == nil {
			err = fmt.Errorf("the source ended at block %d of %d", a.Height(), height)
		}
		if !errors.Is(err, errReached) {
			return err
		}
	}
	if a.Height() > from {
		report(a.opts.Now())
	}
	return nil
}

// CheckState reads the whole state and compares it with what was written: an error says that the audit's own store is damaged.
func (a *Auditor) CheckState(ctx context.Context) error {
	var sum digest
	err := a.Scan("", func(key string, value []byte) bool {
		sum.toggle(key, value)
		return ctx.Err() == nil
	})
	var ofMap digest
	for _, prefix := range []byte{mapNodePrefix, mapValuePrefix} {
		err = errors.Join(err, a.scan([]byte{prefix}, []byte{prefix + 1}, func(key, value []byte) bool {
			ofMap.toggle(string(key), value)
			return ctx.Err() == nil
		}))
	}
	if err == nil {
		err = ctx.Err()
	}
	if err == nil && (sum != a.position.State || ofMap != a.position.Map) {
		err = fmt.Errorf("audit state %s: damaged, delete it to start again: its contents are not those of height %d", a.opts.Dir, a.Height())
	}
	return err
}

// Get returns a key's value as of Height, nil if it is absent.
func (a *Auditor) Get(key string) ([]byte, error) { return a.read(stateKey(key)) }

// Scan calls fn for all keys with a prefix, in order, until it returns false. The value holds during the call.
func (a *Auditor) Scan(prefix string, fn func(key string, value []byte) bool) error {
	from := stateKey(prefix)
	return a.scan(from, after(from), func(key, value []byte) bool { return fn(string(key[1:]), value) })
}

// after is the first key that does not begin with prefix.
func after(prefix []byte) []byte {
	end := append([]byte{}, prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

// LogHeads returns the heads of all issuance logs as of Height.
func (a *Auditor) LogHeads() (map[wire.CAID]wire.LogHead, error) {
	heads := map[wire.CAID]wire.LogHead{}
	var bad error
	err := a.Scan(wire.LogPrefix, func(key string, value []byte) bool {
		if !strings.HasSuffix(key, "/head") {
			return true
		}
		var head wire.LogHead
		id, err := wire.ParseLogHeadKey(key)
		if bad = errors.Join(err, wire.Decode(value, &head)); bad == nil {
			heads[id] = head
		}
		return bad == nil
	})
	return heads, errors.Join(err, bad)
}

// StatusHead returns the head of the status log as of Height, nil while it is empty.
func (a *Auditor) StatusHead() (*wire.StatusHead, error) {
	encoded, err := a.Get(wire.StatusHeadKey)
	if err != nil || encoded == nil {
		return nil, err
	}
	var head wire.StatusHead
	return &head, wire.Decode(encoded, &head)
}
