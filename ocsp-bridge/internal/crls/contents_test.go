package crls

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/crl"
	"github.com/certanchor/certanchor/internal/status"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/index"
)

// history is a ledger with up to as many steps.
func history(t *testing.T, r *rapid.T, steps int) *world {
	w := newWorld(t, 2)
	for range rapid.IntRange(steps/4, steps).Draw(r, "steps") {
		w.step(r)
	}
	w.commit()
	return w
}

// After any history, the contents at every height, complete and since every base, of all certificates and of every shard, are those that the
// definition gives when all records are evaluated; asked for in any order, whatever else was asked for before, and by an index of another height.
func TestContentsAtEveryHeightAreTheReference(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		w := history(t, r, 60)
		ref := w.reference()
		ix := w.index(len(w.blocks))
		m := NewMaker(ix)
		when := crl.At(ix.View().Time)
		for range 60 {
			q := Request{CAID: w.cas[rapid.IntRange(0, 1).Draw(r, "ca")].ID, ThisUpdate: when, Number: uint64(rapid.IntRange(3, len(w.blocks)).Draw(r, "number"))}
			q.Scope = rapid.SampledFrom([]string{"", "http://crl.example/a.crl", "http://crl.example/b.crl"}).Draw(r, "scope")
			if rapid.Bool().Draw(r, "delta") {
				q.Base = uint64(rapid.IntRange(1, int(q.Number)-1).Draw(r, "base"))
			}
			got, err := m.Contents(q)
			if err != nil {
				r.Fatal(err)
			}
			if err := got.Compare(ref.contents(w, q)); err != nil {
				r.Fatalf("number %d, base %d, scope %q: %v", q.Number, q.Base, q.Scope, err)
			}
		}
		_ = ix.Close()
	})
}

// While blocks come in, an index says at each height what a later one says about that height.
func TestContentsDoNotDependOnTheIndexHeight(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		w := history(t, r, 40)
		old := w.index(3)
		m := NewMaker(old)
		late := w.index(len(w.blocks))
		other := NewMaker(late)
		for h := 4; h <= len(w.blocks); h++ {
			w.apply(old, h)
			for _, base := range []uint64{0, 1, 3, uint64(h) - 1} {
				q := m.Newest(w.cas[0].ID, "", base)
				ours, err := m.Contents(q)
				if err != nil {
					r.Fatal(err)
				}
				theirs, err := other.Contents(q)
				if err != nil {
					r.Fatal(err)
				}
				if err := ours.Compare(theirs); err != nil {
					r.Fatalf("height %d, base %d: %v", h, base, err)
				}
			}
		}
		_, _ = old.Close(), late.Close()
	})
}

func entriesOf(t *testing.T, m *Maker, q Request) string {
	t.Helper()
	c, err := m.Contents(q)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for i := range c.Entries {
		all = append(all, strings.SplitN(c.Entries[i].String(), " ", 2)[0])
	}
	return fmt.Sprint(all)
}

// RFC 5280 section 5.2.4: a hold that was released is in every delta as removed until there is a base without it; also if the base did not
// have it.
func TestReleasedHoldIsRemovedUntilTheNextBase(t *testing.T) {
	w := newWorld(t, 1)
	c := w.issue(w.cas[0], nil)
	w.commit()
	before := uint64(len(w.blocks))
	w.set(c, wire.OpHold, wire.CertificateHold)
	held := uint64(len(w.blocks))
	w.set(c, wire.OpRelease, 0)
	released := uint64(len(w.blocks))
	w.tick()
	w.commit()
	later := uint64(len(w.blocks))
	m := NewMaker(w.index(len(w.blocks)))
	q := m.Newest(c.ca.ID, "", 0)
	for _, tc := range []struct {
		base, number uint64
		want         string
	}{
		{0, held, "[certificateHold]"}, {before, held, "[certificateHold]"}, {0, released, "[]"},
		{held, released, "[removed]"}, {held, later, "[removed]"}, {before, released, "[removed]"}, {released, later, "[]"},
	} {
		q.Base, q.Number = tc.base, tc.number
		if got := entriesOf(t, m, q); got != tc.want {
			t.Errorf("number %d, base %d: %s, want %s", tc.number, tc.base, got, tc.want)
		}
	}
}

// RFC 5280 section 3.3: what has expired stays for the grace, and then is gone.
func TestExpiredLeaveAfterTheGrace(t *testing.T) {
	w := newWorld(t, 1)
	c := w.issue(w.cas[0], nil)
	w.commit()
	before := uint64(len(w.blocks))
	w.set(c, wire.OpRevoke, wire.Superseded)
	m := NewMaker(w.index(len(w.blocks)))
	q := m.Newest(c.ca.ID, "", 0)
	for _, base := range []uint64{0, before} {
		q.Base = base
		for after, want := range map[time.Duration]string{0: "[superseded]", crl.Grace: "[superseded]", crl.Grace + time.Second: "[]"} {
			q.ThisUpdate = cctest.LeafNotAfter.Add(after)
			if got := entriesOf(t, m, q); got != want {
				t.Errorf("base %d, %s after notAfter: %s, want %s", base, after, got, want)
			}
		}
	}
}

func TestContentsAreRefused(t *testing.T) {
	w := newWorld(t, 1)
	m := NewMaker(w.index(len(w.blocks)))
	good := m.Newest(w.cas[0].ID, "", 0)
	for name, tc := range map[string]struct {
		change func(*Request)
		want   string
	}{
		"another CA": {func(q *Request) { q.CAID[0]++ }, "ca_id"},
		"ahead":      {func(q *Request) { q.Number++ }, "number"},
		"base":       {func(q *Request) { q.Base = q.Number }, "base"},
		"scope":      {func(q *Request) { q.Scope = "a.crl" }, "scope"},
	} {
		q := good
		tc.change(&q)
		if _, err := m.Contents(q); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}

func TestNames(t *testing.T) {
	for scope, want := range map[string]string{
		"": "full.crl delta.crl", "http://a/b/s1.crl": "s1.crl s1-delta.crl", "http://a/full.crl": "", "http://a/x-delta.crl": "", "http://a/indirect.crl": "",
		"http://a/.crl": "", "http://a/s1": "", "http://a/s1.crl?x": "", "http://a/..%2fs.crl": "",
	} {
		full, err := Name(scope, false)
		delta, err2 := Name(scope, true)
		if got := strings.TrimSpace(full + " " + delta); got != want || (err == nil) != (want != "") || (err2 == nil) != (want != "") {
			t.Errorf("%q: %q, %v, %v; want %q", scope, got, err, err2, want)
		}
	}
}

// A hold that begins and ends within one block was on no CRL that there could be, and is not removed from any.
func TestHoldWithinABlockIsNotRemoved(t *testing.T) {
	w := newWorld(t, 1)
	c := w.issue(w.cas[0], nil)
	w.commit()
	ix := w.index(len(w.blocks))
	valid, held := status.Status{State: wire.CertValid}, status.Status{State: wire.CertHeld}
	f := newFold(c.ca.ID, 1)
	for i, st := range []struct{ before, after status.Status }{{valid, held}, {held, valid}} {
		change := index.Change{Pos: index.Pos{Block: 7, N: uint32(i + 1)}, CAID: c.ca.ID, Serial: c.serial, Before: st.before, After: st.after}
		if err := f.add(ix, &change); err != nil {
			t.Fatal(err)
		}
	}
	if got := f.certs[string(c.serial)]; got.held || got.now != valid {
		t.Errorf("%+v", got)
	}
	change := index.Change{Pos: index.Pos{Block: 8, N: 1}, CAID: c.ca.ID, Serial: c.serial, Before: held, After: valid}
	if err := f.add(ix, &change); err != nil || !f.certs[string(c.serial)].held {
		t.Error("one that lasted until the next block is forgotten", err)
	}
}
