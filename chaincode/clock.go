package chaincode

import (
	"fmt"
	"math"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// The clock keeps claimed times honest. A transaction's time is its client's claim. Peers compare it with their own clocks
// when they endorse, but an endorsed envelope can be held back for weeks. So time is cut into epochs of one tick interval, and
// of three clock keys a transaction reads the one of its own epoch's class, epoch modulo 3:
//
//	Tick in epoch f, the one before it in epoch g < f (minus infinity if none), overwrites the classes of all
//	epochs e with g-2 < e <= f-2.
//
// Every epoch is in that interval of exactly one tick, the first one whose own epoch is e+2 or more. That tick overwrites the
// key that envelopes of epoch e have read, so those that come later fail the version check (MVCC); checkOpen refuses to endorse
// new ones, because the key then holds an epoch of e+2 or more. The interval is never empty, so every tick writes a key, and
// every tick reads all three: two ticks that did not see one another cannot both commit. The newest tick's epoch is the greatest of
// the three values. A regular tick, f = g+1, writes only the class of f-2, which neither f nor f-1 shares.

// epoch is the number of the transaction's epoch. Requires an admitted or at least loaded consortium.
func (t *transaction) epoch() int64 { return int64(t.now) / t.consortium.TickInterval }

// checkOpen refuses a transaction whose epoch a Tick has closed. value is what the epoch's clock key holds.
func (t *transaction) checkOpen(epoch int64, value []byte) error {
	if value == nil {
		return nil
	}
	var clock wire.Clock
	if err := wire.Decode(value, &clock); err != nil {
		return corrupt(wire.ClockKey(epoch), err)
	}
	if clock.Epoch >= epoch+2 {
		return wire.Errorf(wire.FailedPrecondition, "time", fmt.Sprintf("%d ms, epoch %d", t.now, epoch),
			"is too far behind the ledger's clock, which stands in epoch %d or later", clock.Epoch)
	}
	return nil
}

// tick moves the clock to the epoch of the transaction's time.
func tick(t *transaction, arg []byte) ([]byte, error) {
	var a wire.TickArg
	if err := wire.Decode(arg, &a); err != nil {
		return nil, badArgument(arg, err)
	}
	if err := t.admitMember(anyRole); err != nil {
		return nil, err
	}
	keys := clockKeys()
	values, err := t.getMany(keys)
	if err != nil {
		return nil, err
	}
	newest := int64(math.MinInt32) // before every epoch, and far from overflow
	for i, value := range values {
		if value == nil {
			continue
		}
		var clock wire.Clock
		if err := wire.Decode(value, &clock); err != nil {
			return nil, corrupt(keys[i], err)
		}
		newest = max(newest, clock.Epoch)
	}
	epoch := t.epoch()
	if newest >= epoch {
		return nil, wire.Errorf(wire.FailedPrecondition, "time", fmt.Sprintf("%d ms, epoch %d", t.now, epoch),
			"the clock already stands in epoch %d: one tick per epoch", newest)
	}
	value := wire.Encode(&wire.Clock{V: wire.Version, Epoch: epoch, Time: t.now})
	for class, key := range keys {
		if closes(newest, epoch, int64(class)) {
			t.put(key, value)
		}
	}
	return wire.Encode(&wire.TickResult{V: wire.Version, Epoch: epoch, Time: t.now}), nil
}

// closes reports whether a tick in epoch f, the one before it in epoch g, closes an epoch e of class: g-2 < e <= f-2.
func closes(g, f, class int64) bool {
	if f-g >= wire.ClockKeys {
		return true
	}
	for e := g - 1; e <= f-2; e++ {
		if (e+wire.ClockKeys)%wire.ClockKeys == class {
			return true
		}
	}
	return false
}

func clockKeys() []string {
	keys := make([]string, wire.ClockKeys)
	for class := range keys {
		keys[class] = wire.ClockKey(int64(class))
	}
	return keys
}
