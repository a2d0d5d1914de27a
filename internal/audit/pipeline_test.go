package audit

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/certanchor/certanchor/network/fabric/verify"
)

// TestTheStoreOfAVerifierThatIsAheadIsOneStore: whatever part of its changes is stored already, it sees what one store would show.
func TestTheStoreOfAVerifierThatIsAheadIsOneStore(t *testing.T) {
	a := open(t, Options{})
	ahead, plain := &aheadStore{a: a, changed: map[string]aheadValue{}}, verify.NewMemory()
	rng := rand.New(rand.NewPCG(1, 2))
	var waiting [][]verify.Change
	stored := uint64(0)
	list := func(s verify.Store, stop int) (out string) {
		must(t, s.Scan([]byte("k2"), []byte("k7"), func(key, value []byte) bool {
			out += fmt.Sprintf("%s=%s ", key, value)
			stop--
			return stop != 0
		}))
		return out
	}
	for n := range 300 {
		var changes []verify.Change
		for i := range rng.IntN(4) {
			c := verify.Change{Key: fmt.Appendf(nil, "k%d", rng.IntN(10)), Value: fmt.Appendf(nil, "%d/%d", n, i)}
			if rng.IntN(3) == 0 {
				c.Value = nil
			}
			changes = append(changes, c)
		}
		must(t, ahead.Commit(changes))
		must(t, plain.Commit(changes))
		waiting = append(waiting, changes)
		for len(waiting) > 0 && rng.IntN(2) == 0 { // the audit follows
			for _, c := range waiting[0] {
				if c.Value == nil {
					must(t, a.db.Delete(verifierKey(c.Key), pebble.NoSync))
				} else {
					must(t, a.db.Set(verifierKey(c.Key), c.Value, pebble.NoSync))
				}
			}
			ahead.done(stored)
			waiting, stored = waiting[1:], stored+1
		}
		for i := range 10 {
			key := fmt.Appendf(nil, "k%d", i)
			got, err := ahead.Get(key)
			must(t, err)
			want, err := plain.Get(key)
			must(t, err)
			if !bytes.Equal(got, want) {
				t.Fatalf("step %d: %s is %q, want %q", n, key, got, want)
			}
		}
		for _, stop := range []int{1, 3, 100} {
			if got, want := list(ahead, stop), list(plain, stop); got != want {
				t.Fatalf("step %d: scan of %d: %q, want %q", n, stop, got, want)
			}
		}
	}
}
