package index

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/rapidtest"
	"github.com/certanchor/certanchor/internal/status"
	"github.com/certanchor/certanchor/network"
)

// feed says which changes an index must tell after some blocks, and what every certificate's status was at each height. It computes the
// status of all certificates before and after each transaction.
type feed struct {
	t       testing.TB
	recs    map[string]*wire.CertRecord
	revs    map[string]map[string]wire.Revocation
	rules   map[wire.CAID][]wire.Rule
	cas     map[wire.CAID]wire.CARecord
	changes []Change
	at      []map[string]status.Status    // by height
	recsAt  []map[string]*wire.CertRecord // likewise
}

func feedOf(t testing.TB, blocks []*network.Block) *feed {
	t.Helper()
	f := &feed{
		t: t, recs: map[string]*wire.CertRecord{}, revs: map[string]map[string]wire.Revocation{}, rules: map[wire.CAID][]wire.Rule{},
		cas: map[wire.CAID]wire.CARecord{},
	}
	f.at, f.recsAt = append(f.at, f.statuses()), append(f.recsAt, maps.Clone(f.recs))
	for _, b := range blocks {
		n := uint32(0)
		for i := range b.Txs {
			if !b.Txs[i].Valid {
				continue
			}
			for _, c := range f.apply(&b.Txs[i]) {
				n++
				c.Pos, c.At = Pos{b.Number, n}, wire.MillisOf(b.Txs[i].Time)
				f.changes = append(f.changes, c)
			}
		}
		f.at, f.recsAt = append(f.at, f.statuses()), append(f.recsAt, maps.Clone(f.recs))
	}
	return f
}

func (f *feed) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *feed) statuses() map[string]status.Status {
	all := map[string]status.Status{}
	for key, rec := range f.recs {
		id, _, err := wire.ParseCertKey(key)
		f.must(err)
		var revs []wire.Revocation
		for _, r := range f.revs[key] {
			revs = append(revs, r)
		}
		all[key] = status.Evaluate(rec, revs, f.rules[id])
	}
	return all
}

func (f *feed) apply(tx *network.Tx) (changes []Change) {
	before, recs := f.statuses(), maps.Clone(f.recs)
	var touched []string
	for _, w := range tx.Writes {
		switch {
		case strings.HasPrefix(w.Key, wire.CertPrefix):
			rec := new(wire.CertRecord)
			f.must(wire.Decode(w.Value, rec))
			f.recs[w.Key] = rec
			touched = append(touched, w.Key)
		case strings.HasPrefix(w.Key, wire.RevokePrefix):
			id, serial, source, err := wire.ParseRevokeKey(w.Key)
			f.must(err)
			var rev wire.Revocation
			f.must(wire.Decode(w.Value, &rev))
			key := wire.CertKey(id, serial)
			if f.revs[key] == nil {
				f.revs[key] = map[string]wire.Revocation{}
			}
			f.revs[key][source] = rev
			touched = append(touched, key)
		case strings.HasPrefix(w.Key, wire.RulePrefix):
			id, n, err := wire.ParseRuleKey(w.Key)
			f.must(err)
			var rule wire.Rule
			f.must(wire.Decode(w.Value, &rule))
			f.rules[id] = append(f.rules[id], rule)
			changes = append(changes, Change{CAID: id, Rule: n})
		case strings.HasPrefix(w.Key, wire.CAPrefix):
			id, err := wire.ParseCAID(strings.TrimPrefix(w.Key, wire.CAPrefix))
			f.must(err)
			var ca wire.CARecord
			f.must(wire.Decode(w.Value, &ca))
			if ca.Rules == f.cas[id].Rules {
				changes = append(changes, Change{CAID: id, CAState: ca.State})
			}
			f.cas[id] = ca
		}
	}
	after := f.statuses()
	for _, key := range touched {
		was, is := before[key], after[key]
		if _, issued := after[key]; !issued || !was.Bad() && !is.Bad() || was == is && bareOf(recs[key]) == bareOf(f.recs[key]) {
			continue
		}
		id, serial, err := wire.ParseCertKey(key)
		f.must(err)
		b := bareOf(f.recs[key])
		changes = append(changes, Change{CAID: id, Serial: serial, Before: was, After: is, SerialOnly: b.only, NotAfter: b.notAfter})
	}
	return changes
}

// bare is what is known of a certificate of which there is only the serial number.
type bare struct {
	only     bool
	notAfter wire.Millis
}

func bareOf(rec *wire.CertRecord) bare {
	if rec == nil || !rec.SerialOnly() {
		return bare{}
	}
	return bare{true, rec.NotAfter}
}

// compare checks the feed, in pages too, and what was on hold or revoked at every height.
func (f *feed) compare(ix *Index, page int) {
	f.t.Helper()
	var got []Change
	for after := (Pos{}); ; {
		some, err := ix.Changes(after, page)
		f.must(err)
		if len(some) == 0 {
			break
		}
		got, after = append(got, some...), some[len(some)-1].Pos
	}
	last := map[wire.CAID]Pos{}
	for i := range got {
		last[got[i].CAID] = got[i].Pos
		got[i].was = nil
	}
	if len(got) != len(f.changes) {
		f.t.Fatalf("%d changes, want %d", len(got), len(f.changes))
	}
	for i := range got {
		if !reflect.DeepEqual(got[i], f.changes[i]) {
			f.t.Fatalf("change %d is %+v, want %+v", i, got[i], f.changes[i])
		}
	}
	if n := len(got); n > 0 && ix.View().Changed != got[n-1].Pos {
		f.t.Fatalf("newest change is %v, want %v", ix.View().Changed, got[n-1].Pos)
	}
	for id := range f.cas {
		if pos, err := ix.LastChange(id); err != nil || pos != last[id] {
			f.t.Fatalf("newest change of %s is %v, %v, want %v", id, pos, err, last[id])
		}
		for height := range f.at {
			f.compareChanged(ix, id, uint64(height))
		}
	}
}

func (f *feed) compareChanged(ix *Index, id wire.CAID, height uint64) {
	f.t.Helper()
	var got, want []string
	line := func(serial wire.Serial, st status.Status) string { return fmt.Sprintf("%x %+v", []byte(serial), st) }
	f.must(ix.EachChangedAt(id, height, func(serial wire.Serial, st status.Status, rec *wire.CertRecord) error {
		want := f.recs[wire.CertKey(id, serial)]
		if then := f.recsAt[height][wire.CertKey(id, serial)]; bareOf(rec) != bareOf(then) || !then.SerialOnly() && !reflect.DeepEqual(rec, want) {
			f.t.Fatalf("record of %s at height %d is %+v, it was %+v, and is %+v", serial, height, rec, then, want)
		}
		got = append(got, line(serial, st))
		return nil
	}))
	for key, st := range f.at[height] {
		ca, serial, err := wire.ParseCertKey(key)
		f.must(err)
		if ca == id && st.Bad() {
			want = append(want, line(serial, st))
		}
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		f.t.Fatalf("at height %d of %d, on hold or revoked are\n%s\nwant\n%s", height, len(f.at)-1, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if height+1 < uint64(len(f.at)) {
		return
	}
	var now []string
	f.must(ix.EachChanged(id, func(serial wire.Serial, st status.Status, _ *wire.CertRecord) error {
		now = append(now, line(serial, st))
		return nil
	}))
	if !slices.Equal(now, want) {
		f.t.Fatalf("on hold or revoked are %s, want %s", now, want)
	}
}

func TestEveryPrefixOfTheLedgerTellsItsChanges(t *testing.T) {
	c := story(t)
	dir := t.TempDir()
	ix := open(t, dir)
	for n, b := range c.blocks {
		apply(t, ix, b)
		feedOf(t, c.blocks[:n+1]).compare(ix, 1+n)
		if err := ix.Close(); err != nil {
			t.Fatal(err)
		}
		ix = open(t, dir)
		feedOf(t, c.blocks[:n+1]).compare(ix, 2)
		if n == len(c.blocks)-1 && ix.View().Integrator != "Org1MSP" {
			t.Errorf("after a restart, %q has integrated last", ix.View().Integrator)
		}
	}
}

func TestChangesAgreeWithTheContract(t *testing.T) {
	rapidtest.Check(t, 4, func(r *rapid.T) {
		l := newLive(t, r)
		for range rapid.IntRange(10, 80).Draw(r, "steps") {
			l.step()
		}
		l.commit()
		ix := open(t, t.TempDir())
		apply(t, ix, l.blocks...)
		feedOf(t, l.blocks).compare(ix, rapid.IntRange(1, 20).Draw(r, "page"))
		if err := ix.Close(); err != nil {
			r.Fatal(err)
		}
	})
}

// What others decided before a certificate was issued takes effect then, if it is about this certificate's key.
func TestRevocationBeforeIssuanceIsAChangeAtIssuance(t *testing.T) {
	c := newChain(t)
	other := make([]byte, 32)
	revokes := c.block(
		c.revoke(0, &wire.Revocation{Source: wire.SourceQuorum, Reason: wire.Superseded, Change: 1}),
		c.revoke(1, &wire.Revocation{Source: wire.SourceHolder, SPKIHash: other, Reason: wire.KeyCompromise, Change: 1}),
	)
	c.block(c.rule(wire.MillisOf(c.now.Add(2*time.Second)), wire.MillisOf(c.now.Add(3*time.Second))))
	issues := c.block(c.issue(2))
	covered := c.block(c.issue(2))
	ix := open(t, t.TempDir())
	apply(t, ix, c.blocks...)
	feedOf(t, c.blocks).compare(ix, 1)
	if early, err := ix.Changes(Before(revokes.Number), 1); err != nil || len(early) != 1 || early[0].Rule != 1 {
		t.Errorf("a revocation of what is not issued is %+v, %v", early, err)
	}
	got, err := ix.Changes(Before(issues.Number), 100)
	if err != nil || len(got) != 3 {
		t.Fatalf("changes are %+v, %v", got, err)
	}
	if got[0].Before != (status.Status{}) || got[0].After.Reason != wire.Superseded || got[0].Pos != (Pos{issues.Number, 1}) || got[2].Pos != (Pos{covered.Number, 2}) {
		t.Errorf("changes are %+v", got)
	}
}

func TestPublishedTellsEachBlockBeforeWaitersWake(t *testing.T) {
	c := story(t)
	var told []Change
	heights := uint64(0)
	ix := open(t, t.TempDir())
	var woken <-chan struct{}
	ix.opts.Published = func(height uint64, changes []Change) {
		if heights++; height != heights || ix.View().Height != height {
			t.Errorf("told height %d at height %d, the %d. time", height, ix.View().Height, heights)
		}
		if got := ix.PublishedHeight(); got != height-1 {
			t.Errorf("while height %d is told, it is published up to %d", height, got)
		}
		select {
		case <-woken:
			t.Errorf("height %d: waiters were woken before", height)
		default:
		}
		told = append(told, changes...)
	}
	for _, b := range c.blocks {
		woken = ix.Changed()
		apply(t, ix, b)
		<-woken
		if got := ix.PublishedHeight(); got != heights {
			t.Errorf("published up to %d at height %d", got, heights)
		}
	}
	all, err := ix.Changes(Pos{}, len(told)+1)
	if err != nil || len(told) == 0 || !reflect.DeepEqual(told, all) {
		t.Errorf("told %d changes, stored are %d, %v", len(told), len(all), err)
	}
}

// Nobody relies on a damaged change: an error, never another change.
func TestBitFlipInChangesIsNeverServed(t *testing.T) {
	for _, tag := range []byte{changeTag, changedTag, lastChangeTag} {
		c := story(t)
		ix := open(t, t.TempDir())
		apply(t, ix, c.blocks...)
		read := func() error {
			_, err := ix.Changes(Pos{}, 1000)
			_, lastErr := ix.LastChange(c.ca.ID)
			// The CA has a rule, with which records are read instead: before the rule they are not.
			return errors.Join(err, lastErr, ix.EachChangedAt(c.ca.ID, 9, func(wire.Serial, status.Status, *wire.CertRecord) error { return nil }))
		}
		if err := read(); err != nil {
			t.Fatal(err)
		}
		for i, key := range keys(t, ix, tag) {
			for bit := i; bit < i+9*53; bit += 53 {
				restore := flip(t, ix, key, bit)
				if err := read(); err == nil || !strings.Contains(err.Error(), "damaged") {
					t.Errorf("%c: bit %d of the value at %x: error is %v", tag, bit, key, err)
				}
				restore()
			}
		}
	}
}

func TestMissingChangeShows(t *testing.T) {
	c := story(t)
	dir := t.TempDir()
	ix := open(t, dir)
	apply(t, ix, c.blocks...)
	all, err := ix.Changes(Pos{}, 1000)
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(all, func(c Change) bool { return c.Pos.N == 2 })
	if err := ix.db.Delete(changeKey(Pos{all[at].Pos.Block, 1}), nil); err != nil {
		t.Fatal(err)
	}
	ix.publish(ix.View(), nil)
	if _, err := ix.Changes(Pos{}, 1000); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("error is %v", err)
	}
	if err := ix.db.Delete(changeKey(all[len(all)-1].Pos), nil); err != nil {
		t.Fatal(err)
	}
	if err := ix.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := tryOpen(dir); err == nil || !strings.Contains(err.Error(), "changes of status") {
		t.Errorf("opened without the newest change: %v", err)
	}
}

func TestHeightThatIsNotReachedHasNoChanges(t *testing.T) {
	c := story(t)
	ix := open(t, t.TempDir())
	apply(t, ix, c.blocks...)
	err := ix.EachChangedAt(c.ca.ID, uint64(len(c.blocks))+1, func(wire.Serial, status.Status, *wire.CertRecord) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "must be one that is reached") {
		t.Errorf("error is %v", err)
	}
}
