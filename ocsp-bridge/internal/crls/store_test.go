package crls

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/crl"
)

// Organisations whose bridges are at different heights take the same CRL, and serve its octets.
func TestBridgesAtDifferentHeightsTakeTheSameCRL(t *testing.T) {
	w, ca := someRevoked(t)
	first := w.open(t.TempDir(), len(w.blocks))
	der := first.takes(ca, first.contents(ca, "", 0))
	w.set(&w.certs[3], wire.OpRevoke, wire.Superseded)
	w.set(&w.certs[1], wire.OpRelease, 0)
	later := w.open(t.TempDir(), len(w.blocks))
	later.advance(-time.Second) // clocks differ, and change is seconds away
	if out, err := later.offer(ca, der); err != nil || !out.Taken {
		t.Fatal(out, err)
	}
	for _, b := range []*bridge{first, later} {
		if list, err := b.Get(ca.ID, NameFull); err != nil || string(list.DER) != string(der) {
			t.Error(err)
		}
	}
	delta := later.takes(ca, later.contents(ca, "", first.contents(ca, "", 0).Number))
	l, err := crl.Parse(delta)
	if err != nil || len(l.Groups) != 1 || len(l.Groups[0].Entries) != 2 {
		t.Fatal(l, err)
	}
	w.apply(first.ix, len(w.blocks))
	if out, err := first.offer(ca, delta); err != nil || !out.Taken || out.Name != NameDelta {
		t.Error(out, err)
	}
}

// A CRL that differs from the ledger in anything is refused, though the CA has signed it, and what was served before stays.
func TestCRLThatDiffersIsRefused(t *testing.T) {
	w, ca := someRevoked(t)
	b := w.open(t.TempDir(), len(w.blocks)-1)
	before := b.takes(ca, b.contents(ca, "", 0))
	w.apply(b.ix, len(w.blocks))
	for name, tc := range map[string]struct {
		change func(*crl.Contents)
		want   string
	}{
		"one dropped":      {func(c *crl.Contents) { c.Entries = c.Entries[1:] }, "is missing"},
		"the last dropped": {func(c *crl.Contents) { c.Entries = c.Entries[:2] }, "is missing"},
		"one added": {func(c *crl.Contents) {
			c.Entries = append(c.Entries, crl.Entry{Serial: w.certs[5].serial, Time: 1})
			crl.Sort(c.Entries)
		}, "must not be listed"},
		"another date":        {func(c *crl.Contents) { c.Entries[0].Time++ }, "must be"},
		"another reason":      {func(c *crl.Contents) { c.Entries[2].Reason = wire.AACompromise }, "must be"},
		"an invalidity date":  {func(c *crl.Contents) { c.Entries[0].Invalidity = 1 }, "must be"},
		"an earlier height":   {func(c *crl.Contents) { c.Number--; c.Entries = c.Entries[:3] }, "must not be listed"},
		"a delta with less":   {func(c *crl.Contents) { c.Base, c.Entries = c.Number-1, nil }, "is missing"},
		"another shard's":     {func(c *crl.Contents) { c.Scope = "http://crl.example/b.crl" }, "must not be listed"},
		"from the future":     {func(c *crl.Contents) { c.ThisUpdate = c.ThisUpdate.Add(time.Minute) }, "thisUpdate"},
		"too old to be valid": {func(c *crl.Contents) { c.ThisUpdate = c.ThisUpdate.Add(-2 * time.Hour) }, "nextUpdate"},
	} {
		c := b.contents(ca, "", 0)
		tc.change(c)
		if name == "an earlier height" { // one that is not older than what is kept
			b := w.open(t.TempDir(), len(w.blocks))
			_, err := b.offer(ca, w.sign(ca, c))
			wantStatus(t, name, err, http.StatusUnprocessableEntity, tc.want)
			continue
		}
		_, err := b.offer(ca, w.sign(ca, c))
		wantStatus(t, name, err, http.StatusUnprocessableEntity, tc.want)
	}
	if list, err := b.Get(ca.ID, NameFull); err != nil || string(list.DER) != string(before) {
		t.Error("what was served is served no longer", err)
	}
}

// An old CRL with a new date would hide what has changed since.
func TestOldContentsWithNewDateAreRefused(t *testing.T) {
	w, ca := someRevoked(t)
	b := w.open(t.TempDir(), len(w.blocks))
	old := b.contents(ca, "", 0)
	w.set(&w.certs[3], wire.OpRevoke, wire.Superseded)
	for range 20 {
		w.tick()
		w.commit()
	}
	w.apply(b.ix, len(w.blocks))
	b.advance(w.ledger.Now.Sub(b.clock()))
	old.ThisUpdate = b.clock().UTC().Truncate(time.Second)
	_, err := b.offer(ca, w.sign(ca, old))
	wantStatus(t, "redated", err, http.StatusUnprocessableEntity, "next change")
}

func TestWhoMayOfferWhat(t *testing.T) {
	w, ca := someRevoked(t)
	b := w.open(t.TempDir(), len(w.blocks))
	good := b.contents(ca, "", 0)
	other := *good
	other.CAID = w.cas[1].ID
	_, err := b.offer(ca, w.sign(w.cas[1], &other))
	wantStatus(t, "signed by another CA", err, http.StatusUnprocessableEntity, "issuer")
	_, err = b.offer(cctest.NewCA(t), w.sign(ca, good))
	wantStatus(t, "of a CA that nobody knows", err, http.StatusNotFound, "ca_id")
	der := w.sign(ca, good)
	der[len(der)-1] ^= 1
	_, err = b.offer(ca, der)
	wantStatus(t, "with another signature", err, http.StatusUnprocessableEntity, "signature")
	_, err = b.offer(ca, []byte("-----BEGIN X509 CRL-----"))
	wantStatus(t, "PEM", err, http.StatusBadRequest, "CertificateList")
	_, err = b.offer(ca, w.sign(ca, b.contents(ca, "", good.Number-1)))
	wantStatus(t, "a delta before its base", err, http.StatusConflict, "BaseCRLNumber")
	b.halt = errors.New("the ledger contradicts itself")
	_, err = b.offer(ca, w.sign(ca, good))
	wantStatus(t, "halted", err, http.StatusServiceUnavailable, "contradicts")
	b.halt = nil
	b.takes(ca, good)
	for what, der := range map[string][]byte{"the same again": w.sign(ca, good), "an older one": w.sign(ca, oldest(good))} {
		if out, err := b.offer(ca, der); err != nil || out.Taken || out.Newest != good.Number {
			t.Errorf("%s: %+v, %v", what, out, err)
		}
	}
	if _, err := b.Get(ca.ID, NameDelta); err == nil {
		t.Error("a delta is there that nobody published")
	}
}

func oldest(c *crl.Contents) *crl.Contents {
	old := *c
	old.Number, old.Entries = 2, nil
	return &old
}

// A CRL that is ahead of this bridge waits for the blocks, for a while.
func TestCRLAheadOfTheBlocksWaits(t *testing.T) {
	w, ca := someRevoked(t)
	ahead := w.open(t.TempDir(), len(w.blocks))
	der := w.sign(ca, ahead.contents(ca, "", 0))
	b := w.open(t.TempDir(), len(w.blocks)-1)
	type answer struct {
		out Outcome
		err error
	}
	offer := func() chan answer {
		ch := make(chan answer, 1)
		go func() {
			out, err := b.offer(ca, der)
			ch <- answer{out, err}
		}()
		b.mu.Lock()
		defer b.mu.Unlock()
		return ch
	}
	waits := func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.fires) > 0
	}
	wait := func() {
		t.Helper()
		for end := time.Now().Add(deadline); !waits(); {
			if time.Now().After(end) {
				t.Fatal("does not wait")
			}
		}
	}
	ch := offer()
	wait()
	b.advance(patience)
	wantStatus(t, "ahead", (<-ch).err, http.StatusServiceUnavailable, "ahead")
	ch = offer()
	wait()
	w.apply(b.ix, len(w.blocks))
	if a := <-ch; a.err != nil || !a.out.Taken {
		t.Errorf("%+v", a)
	}
}

// What was taken is served after a restart, once it was compared with the index again; what was changed on disk is not.
func TestRestartServesWhatItFindsRight(t *testing.T) {
	w, ca := someRevoked(t)
	b := w.open(t.TempDir(), len(w.blocks))
	der := b.takes(ca, b.contents(ca, "", 0))
	shard := b.takes(ca, b.contents(ca, shards[1][0], 0))
	old, err := b.Get(ca.ID, NameFull)
	if err != nil {
		t.Fatal(err)
	}
	b.reopen()
	_, err = b.Get(ca.ID, NameFull)
	wantStatus(t, "before it was compared", err, http.StatusServiceUnavailable, "not compared")
	b.run()
	served := func(name string, want []byte) func() bool {
		return func() bool { list, err := b.Get(ca.ID, name); return err == nil && string(list.DER) == string(want) }
	}
	b.until("served again", served(NameFull, der))
	b.until("the shard is served again", served("a.crl", shard))
	if list, _ := b.Get(ca.ID, NameFull); list.ETag != old.ETag || !list.Modified.Equal(old.Modified) {
		t.Errorf("for caches it has changed: %s %s, was %s %s", list.ETag, list.Modified, old.ETag, old.Modified)
	}

	// One that says less, in its place.
	less := b.contents(ca, "", 0)
	less.Entries = less.Entries[1:]
	forged := w.sign(ca, less)
	evil := w.open(b.dir, len(w.blocks))
	if err := os.WriteFile(filepath.Join(b.dir, ca.ID.String(), NameFull), forged, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.dir, ca.ID.String(), "a.crl"), shard[:100], 0o600); err != nil {
		t.Fatal(err)
	}
	evil.reopen()
	evil.run()
	evil.until("the forged one is found out", func() bool { return len(evil.Problems()) > 0 || evilServes(evil, ca) })
	if evilServes(evil, ca) {
		t.Error("a CRL is served that differs from the ledger")
	}
	_, err = evil.Get(ca.ID, "a.crl")
	wantStatus(t, "half a file", err, http.StatusNotFound, "crl")
	evil.takes(ca, evil.contents(ca, "", 0)) // the CA's next one
	if len(evil.Problems()) != 0 {
		t.Error(evil.Problems())
	}
}

func evilServes(b *bridge, ca *cctest.CA) bool {
	_, err := b.Get(ca.ID, NameFull)
	return err == nil
}

// An index that has not reached the CRL, since it is being built again, cannot vouch for it.
func TestNothingIsServedAheadOfTheIndex(t *testing.T) {
	w, ca := someRevoked(t)
	full := w.open(t.TempDir(), len(w.blocks))
	full.takes(ca, full.contents(ca, "", 0))
	b := w.open(full.dir, 1)
	b.run()
	for _, height := range []int{2, len(w.blocks) - 1} {
		w.apply(b.ix, height)
		if _, err := b.Get(ca.ID, NameFull); err == nil {
			t.Errorf("served at height %d", height)
		}
	}
	w.apply(b.ix, len(w.blocks))
	b.until("served", func() bool { _, err := b.Get(ca.ID, NameFull); return err == nil })
}

func TestNothingIsServedPastNextUpdate(t *testing.T) {
	w, ca := someRevoked(t)
	b := w.open(t.TempDir(), len(w.blocks))
	b.takes(ca, b.contents(ca, "", 0))
	list, err := b.Get(ca.ID, NameFull)
	if err != nil {
		t.Fatal(err)
	}
	b.advance(list.NextUpdate.Sub(b.clock()) - time.Nanosecond)
	if _, err := b.Get(ca.ID, NameFull); err != nil {
		t.Error(err)
	}
	b.advance(time.Nanosecond)
	_, err = b.Get(ca.ID, NameFull)
	wantStatus(t, "at nextUpdate", err, http.StatusServiceUnavailable, "nextUpdate")
}

// What cannot be written is not served: after a restart it would be gone.
func TestCRLThatCannotBeKeptIsNotTaken(t *testing.T) {
	w, ca := someRevoked(t)
	b := w.open(t.TempDir(), len(w.blocks))
	if err := os.WriteFile(filepath.Join(b.dir, ca.ID.String()), nil, 0o600); err != nil { // where its directory belongs
		t.Fatal(err)
	}
	der := w.sign(ca, b.contents(ca, "", 0))
	if out, err := b.offer(ca, der); err == nil || out.Taken {
		t.Errorf("taken: %+v", out)
	}
	_, err := b.Get(ca.ID, NameFull)
	wantStatus(t, "not kept", err, http.StatusNotFound, "crl")
	if err := os.Remove(filepath.Join(b.dir, ca.ID.String())); err != nil {
		t.Fatal(err)
	}
	if out, err := b.offer(ca, der); err != nil || !out.Taken {
		t.Errorf("not taken when there is room again: %+v, %v", out, err)
	}
}
