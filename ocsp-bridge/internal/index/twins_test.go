package index

import (
	"crypto/sha256"
	"encoding/binary"
	"io"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
)

// cost is what a call asks of the store.
type cost struct {
	lookups, octets, ranges int
}

// counter is a Reader that adds up what is asked of it.
type counter struct {
	pebble.Reader
	sum *cost
}

func (c counter) Get(key []byte) ([]byte, io.Closer, error) {
	value, closer, err := c.Reader.Get(key)
	c.sum.lookups++
	c.sum.octets += len(value)
	return value, closer, err
}

func (c counter) NewIter(o *pebble.IterOptions) (*pebble.Iterator, error) {
	c.sum.ranges++
	return c.Reader.NewIter(o)
}

// costOf counts what fn asks of ix.
func costOf(ix *Index, fn func()) (sum cost) {
	before := ix.wrap
	ix.wrap = func(r pebble.Reader) pebble.Reader { return counter{r, &sum} }
	defer func() { ix.wrap = before }()
	fn()
	return sum
}

// twin is the hash of the n-th key that serial number 0 has beside the one on record.
func twin(n int) [32]byte {
	return sha256.Sum256(binary.BigEndian.AppendUint64([]byte("twin"), uint64(n)))
}

// A CA signs many certificates with one serial number, and the holders of their keys revoke them. Decision 0007 once named that as what
// would stop every bridge; now each costs what the first did.
func TestTwinsOfOneSerialCostTheSameEach(t *testing.T) {
	const (
		rounds = 12
		each   = 100
	)
	c := newChain(t)
	c.block(c.issue(1), c.integrate(1), c.tick())
	ix := open(t, t.TempDir())
	apply(t, ix, c.blocks...)
	serial := wire.Serial(serialAt(0).Bytes())
	rec, err := ix.Record(c.ca.ID, serial)
	if err != nil || rec == nil {
		t.Fatalf("record %v, %v", rec, err)
	}
	own := func(reason wire.Reason, change uint64, at wire.Millis) network.Tx {
		return c.revoke(0, &wire.Revocation{Source: wire.SourceHolder, SPKIHash: rec.SPKIHash, Reason: reason, Change: change, Time: at})
	}
	revoked := wire.MillisOf(c.now)
	apply(t, ix, c.block(
		own(wire.Superseded, 1, 0), c.revoke(0, &wire.Revocation{Source: wire.SourceQuorum, Reason: wire.PrivilegeWithdrawn, Change: 1}), c.set(0, wire.CertHeld),
	), c.block(c.integrate(3), c.tick()))

	written := func(fn func()) uint64 {
		before := ix.db.Metrics().WAL.BytesIn
		fn()
		return ix.db.Metrics().WAL.BytesIn - before
	}
	var revoking, folding [rounds]uint64
	for round := range rounds {
		var txs []network.Tx
		for n := range each {
			key := twin(round*each + n)
			txs = append(txs, c.revoke(0, &wire.Revocation{Source: wire.SourceHolder, SPKIHash: key[:], Reason: wire.KeyCompromise, Change: 1}))
		}
		revoking[round] = written(func() { apply(t, ix, c.block(txs...)) })
		folding[round] = written(func() { apply(t, ix, c.block(c.integrate(each), c.tick())) })
	}
	t.Logf("octets written for %d revocations: %d in the first round, %d in the last; for their fold into the map %d and %d",
		each, revoking[0], revoking[rounds-1], folding[0], folding[rounds-1])
	// A few octets more for larger numbers. The map's pages are cut again as they fill, so rounds differ, and it becomes deeper by a page.
	if first, last := revoking[0], revoking[rounds-1]; last > first+first/10 {
		t.Errorf("%d revocations wrote %d octets at first, %d at last", each, first, last)
	}
	if first, last := folding[0]+folding[1]+folding[2], folding[rounds-1]; last > first {
		t.Errorf("their fold wrote %d octets in the first three rounds, %d in the last one", first, last)
	}
	for _, tag := range []byte{revokedTag, mapValueTag} {
		for _, key := range keys(t, ix, tag) {
			if value, err := get(ix.db, key); err != nil || len(value) > 160 {
				t.Fatalf("value at %x has %d octets, %v", key, len(value), err)
			}
		}
	}
	// Change of one's own reason, after the others, is one value like the first.
	if n := written(func() { apply(t, ix, c.block(own(wire.KeyCompromise, 2, revoked))) }); n > 2*revoking[0]/each+1000 {
		t.Errorf("one more wrote %d octets", n)
	}
	apply(t, ix, c.block(c.integrate(1), c.tick()))
	referenceOf(t, c.blocks).compare(ix)
}

// Whoever asks about a certificate reads what is about it, and not what the holders of 3,000 other keys say about its serial number.
func TestReadersOfOneCertificateDoNotPayForItsTwins(t *testing.T) {
	const foreign = 3000
	var costs [2]map[string]cost
	for i, n := range []int{0, foreign} {
		c := newChain(t)
		c.block(c.issue(2), c.integrate(1), c.tick())
		ix := open(t, t.TempDir())
		apply(t, ix, c.blocks...)
		serial := wire.Serial(serialAt(0).Bytes())
		rec, err := ix.Record(c.ca.ID, serial)
		if err != nil || rec == nil {
			t.Fatalf("record %v, %v", rec, err)
		}
		apply(t, ix, c.block(c.revoke(0, &wire.Revocation{Source: wire.SourceHolder, SPKIHash: rec.SPKIHash, Reason: wire.Superseded, Change: 1})))
		for at := 0; at < n; {
			var txs []network.Tx
			for range 1000 {
				key := twin(at)
				txs = append(txs, c.revoke(0, &wire.Revocation{Source: wire.SourceHolder, SPKIHash: key[:], Reason: wire.KeyCompromise, Change: 1}))
				at++
			}
			apply(t, ix, c.block(txs...))
		}
		apply(t, ix, c.block(c.integrate(len(c.queue)), c.tick()))
		ask := map[string]func(){
			"Status": func() {
				st, _, err := ix.Status(c.ca.ID, serial)
				if err != nil || st.State != wire.CertRevoked || st.Reason != wire.Superseded || st.Change != 1 {
					t.Errorf("%d twins: status is %+v, %v", n, st, err)
				}
			},
			"Revocations": func() {
				if revs, err := ix.Revocations(c.ca.ID, serial); err != nil || len(revs) != 1 {
					t.Errorf("%d twins: %d revocations, %v", n, len(revs), err)
				}
			},
			"StatusEntries": func() {
				if entries, err := ix.StatusEntries(c.ca.ID, serial, wire.MaxBatch); err != nil || len(entries) != 1 || entries[0].Leaf.Reason != wire.Superseded {
					t.Errorf("%d twins: %d entries, %v", n, len(entries), err)
				}
			},
			"MapProof": func() {
				_, _, entries, err := ix.MapProof(wire.CertMapKey(c.ca.ID, serial), wire.HolderMapKey(c.ca.ID, serial, [32]byte(rec.SPKIHash)))
				if err != nil || entries[0].Value != nil || entries[1].Value == nil {
					t.Errorf("%d twins: the map has %+v, %v", n, entries, err)
				}
			},
		}
		costs[i] = map[string]cost{}
		for what, fn := range ask {
			costs[i][what] = costOf(ix, fn)
		}
	}
	for _, what := range []string{"Status", "Revocations"} {
		if costs[0][what] != costs[1][what] || costs[1][what].lookups > 3 || costs[1][what].ranges > 0 {
			t.Errorf("%s costs %+v without twins, %+v with %d", what, costs[0][what], costs[1][what], foreign)
		}
	}
	// Entries of logs are compared with their hashes, so that the path to the root is read, and proofs have as much more as a larger tree.
	for _, what := range []string{"StatusEntries", "MapProof"} {
		alone, among := costs[0][what], costs[1][what]
		t.Logf("%s: %+v without twins, %+v with %d", what, alone, among, foreign)
		if among.lookups > alone.lookups+20 || among.octets > alone.octets+16<<10 || among.ranges != alone.ranges {
			t.Errorf("%s costs %+v without twins, %+v with %d", what, alone, among, foreign)
		}
	}
}
