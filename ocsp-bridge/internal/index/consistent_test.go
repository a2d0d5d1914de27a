package index

import (
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// One block puts a certificate on hold and the next one, all at once, releases it and has others revoke it: at no moment is it good.
// A reader that took the record of one block and the revocations of another would see it so, between the write and the new view.
func TestStatusIsOfOneMoment(t *testing.T) {
	c := newChain(t)
	c.block(c.issue(2))
	c.block(c.revoke(1, &wire.Revocation{Source: wire.SourceQuorum, Change: 1}), c.set(0, wire.CertHeld))
	c.block(c.revoke(0, &wire.Revocation{Source: wire.SourceQuorum, Change: 1}), c.set(0, wire.CertValid))
	ix := open(t, t.TempDir())
	apply(t, ix, c.blocks[:4]...)
	seen := map[string]wire.CertState{}
	ix.hook = func(step string) {
		st, _, err := ix.Status(c.ca.ID, serialAt(0).Bytes())
		if err != nil {
			t.Error(err)
		}
		seen[step] = st.State
	}
	apply(t, ix, c.blocks[4])
	if seen["built"] != wire.CertHeld || seen["written"] != wire.CertHeld || seen["published"] != wire.CertRevoked {
		t.Errorf("states are %v: want held (%d) until the view is published, then revoked (%d)", seen, wire.CertHeld, wire.CertRevoked)
	}
}

// A read that began before a block ends with what it began with.
func TestReadKeepsItsMoment(t *testing.T) {
	c := newChain(t)
	c.block(c.issue(1))
	b := c.block(c.set(0, wire.CertRevoked))
	ix := open(t, t.TempDir())
	apply(t, ix, c.blocks[:3]...)
	if err := ix.read(func(v *View, r pebble.Reader) error {
		apply(t, ix, b)
		rec, err := record(r, c.ca.ID, serialAt(0).Bytes())
		if err == nil && (v.Height != 3 || rec.State != wire.CertValid) {
			t.Errorf("height %d, record %+v", v.Height, rec)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if rec, err := ix.Record(c.ca.ID, serialAt(0).Bytes()); err != nil || rec.State != wire.CertRevoked {
		t.Errorf("afterwards: %+v, %v", rec, err)
	}
}

// A proof and the leaf that it is against are of one moment too, while ticks go on.
func TestMapProofIsOfOneMoment(t *testing.T) {
	c := newChain(t)
	c.block(c.issue(30))
	c.block(c.tick(), c.integrate(1))
	for n := range int64(30) {
		c.block(c.set(n, wire.CertRevoked))
		c.block(c.integrate(1), c.tick())
	}
	ix := open(t, t.TempDir())
	apply(t, ix, c.blocks[:4]...)
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			for n := int64(0); ; n = (n + 1) % 30 {
				select {
				case <-done:
					return
				default:
				}
				if _, _, _, err := ix.MapProof(wire.CertMapKey(c.ca.ID, serialAt(n).Bytes()), wire.CAMapKey(c.ca.ID)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	apply(t, ix, c.blocks[4:]...)
	close(done)
	wg.Wait()
	if n := ix.View().MapLog().Size; n != 31 {
		t.Errorf("%d ticks, want 31", n)
	}
}

// The queue of pending changes is read from its oldest element, also when that has just gone, and after a restart.
func TestPendingIsOldestFirst(t *testing.T) {
	c := newChain(t)
	c.block(c.issue(5))
	dir := t.TempDir()
	ix := open(t, dir)
	apply(t, ix, c.blocks...)
	for n := range int64(5) {
		apply(t, ix, c.block(c.set(n, wire.CertRevoked)))
		want := c.queue[0].Hash()
		if got, err := ix.Pending(10); err != nil || len(got) != len(c.queue) || got[0].Hash != want {
			t.Fatalf("pending is %+v, %v, want %d, first %x", got, err, len(c.queue), want)
		}
		if n%2 == 1 {
			apply(t, ix, c.block(c.integrate(2)))
		}
		if n == 3 {
			if err := ix.Close(); err != nil {
				t.Fatal(err)
			}
			ix = open(t, dir)
		}
	}
	got, err := ix.Pending(10)
	if err != nil || len(got) != 2 || got[0].Leaf.Serial.String() != wire.Serial(serialAt(3).Bytes()).String() || !got[0].Since.Before(got[1].Since) {
		t.Errorf("pending is %+v, %v", got, err)
	}
	if got, err := ix.Pending(0); err != nil || len(got) != 0 {
		t.Errorf("none asked for: %+v, %v", got, err)
	}
}
