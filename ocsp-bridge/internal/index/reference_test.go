package index

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctleaf"
	"github.com/certanchor/certanchor/internal/revmap"
	"github.com/certanchor/certanchor/network"
)

// reference says what an index must hold after some blocks. It keeps everything, and recomputes the map from the whole status log at
// every tick.
type reference struct {
	t       testing.TB
	logs    map[wire.CAID]*oracle
	pending map[string][]byte // values by key
	status  *oracle
	mapLog  *oracle
	values  map[[32]byte][]byte // the map at the newest tick
	rules   map[wire.CAID][]wire.Rule
	root    [32]byte
}

func referenceOf(t testing.TB, blocks []*network.Block) *reference {
	t.Helper()
	r := &reference{
		t: t, logs: map[wire.CAID]*oracle{}, pending: map[string][]byte{}, status: &oracle{t: t}, mapLog: &oracle{t: t},
		values: map[[32]byte][]byte{}, rules: map[wire.CAID][]wire.Rule{}, root: revmap.EmptyRoot,
	}
	for _, b := range blocks {
		for i := range b.Txs {
			if b.Txs[i].Valid {
				r.apply(&b.Txs[i])
			}
		}
	}
	return r
}

func (r *reference) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *reference) apply(tx *network.Tx) {
	switch tx.Function {
	case wire.FnIssue:
		var (
			arg wire.IssueArg
			res wire.IssueResult
		)
		r.must(wire.Decode(tx.Arg, &arg))
		r.must(wire.Decode(tx.Result, &res))
		ders, err := arg.Certs()
		r.must(err)
		r.issue(arg.CAID, ders, res.Entries)
	case wire.FnImport:
		var (
			arg wire.ImportArg
			res wire.ImportResult
		)
		r.must(wire.Decode(tx.Arg, &arg))
		r.must(wire.Decode(tx.Result, &res))
		ders, err := arg.Certs()
		r.must(err)
		var entries []wire.LogEntry
		for i, item := range arg.Items {
			if item.HasCert {
				entries = append(entries, *res.Entries[i].Log)
			}
		}
		r.issue(arg.CAID, ders, entries)
	case wire.FnIntegrate:
		var arg wire.IntegrateArg
		r.must(wire.Decode(tx.Arg, &arg))
		for _, h := range arg.Leaves {
			r.status.append(r.pending[wire.PendingKey([32]byte(h))])
		}
	}
	for _, w := range tx.Writes {
		switch {
		case strings.HasPrefix(w.Key, wire.CAPrefix):
			id, err := wire.ParseCAID(strings.TrimPrefix(w.Key, wire.CAPrefix))
			r.must(err)
			if r.logs[id] == nil {
				r.logs[id] = &oracle{t: r.t}
			}
		case strings.HasPrefix(w.Key, wire.PendingPrefix) && w.Value != nil:
			r.pending[w.Key] = w.Value
		case strings.HasPrefix(w.Key, wire.PendingPrefix):
			delete(r.pending, w.Key)
		}
	}
	if tx.Function == wire.FnTick {
		var c wire.Clock
		r.must(wire.Decode(tx.Writes[0].Value, &c))
		r.tick(c)
	}
}

func (r *reference) issue(id wire.CAID, ders [][]byte, entries []wire.LogEntry) {
	log := r.logs[id]
	for i, e := range entries {
		if e.Index < uint64(log.size()) {
			continue
		}
		leaf, err := ctleaf.X509(e.Index, e.Time, ders[i])
		if tbs, preErr := ctleaf.PrecertTBS(ders[i]); preErr == nil {
			leaf, err = ctleaf.Precert(e.Index, e.Time, id, tbs)
		}
		r.must(err)
		log.append(leaf)
	}
}

func (r *reference) leaves() []wire.StatusLeaf {
	leaves := make([]wire.StatusLeaf, len(r.status.leaves))
	for i, raw := range r.status.leaves {
		r.must(wire.Decode(raw, &leaves[i]))
	}
	return leaves
}

// tick computes the map anew. Sorted by change number, the last of each thing wins.
func (r *reference) tick(c wire.Clock) {
	leaves := r.leaves()
	slices.SortStableFunc(leaves, func(a, b wire.StatusLeaf) int { return cmp.Compare(a.Change, b.Change) })
	certs := map[string]*wire.MapCert{}
	holders := map[string]*wire.MapHolder{}
	cas := map[string]*wire.MapCA{}
	r.rules = map[wire.CAID][]wire.Rule{}
	for _, l := range leaves {
		switch l.Kind {
		case wire.LeafCA, wire.LeafRule:
			ca := cas[wire.CAKey(l.CAID)]
			if ca == nil {
				ca = &wire.MapCA{V: 1}
				cas[wire.CAKey(l.CAID)] = ca
			}
			if l.Kind == wire.LeafCA {
				ca.Change, ca.State, ca.Time = l.Change, wire.CAState(l.State), l.Time
			} else {
				ca.Rules++
				r.rules[l.CAID] = append(r.rules[l.CAID], wire.Rule{V: 1, N: l.Change, From: l.From, To: l.To, Reason: l.Reason, Time: l.Time, Invalidity: l.Invalidity})
			}
			ca.RulesHash = wire.RulesHash(r.rules[l.CAID])
		default:
			key := wire.CertKey(l.CAID, l.Serial)
			if len(l.SPKIHash) > 0 {
				holders[fmt.Sprintf("revoke/%s/%s/holder-%x", l.CAID, l.Serial, l.SPKIHash)] = &wire.MapHolder{
					V: 1, Reason: l.Reason, Time: l.Time, Invalidity: l.Invalidity, Change: l.Change,
				}
				continue
			}
			if certs[key] == nil {
				certs[key] = &wire.MapCert{V: 1, State: wire.CertValid}
			}
			if l.Kind == wire.LeafCert {
				*certs[key] = wire.MapCert{
					V: 1, Change: l.Change, State: wire.CertState(l.State), Reason: l.Reason, Time: l.Time, Invalidity: l.Invalidity, Quorum: certs[key].Quorum,
					Imported: l.Imported, Asserted: l.Asserted, Antedated: l.Antedated,
				}
			} else {
				certs[key].Quorum = &wire.MapQuorum{Reason: l.Reason, Time: l.Time, Invalidity: l.Invalidity, Change: l.Change}
			}
		}
	}
	r.values = map[[32]byte][]byte{}
	for key, ca := range cas {
		r.values[sha256.Sum256([]byte(key))] = wire.Encode(ca)
	}
	for key, cert := range certs {
		r.values[sha256.Sum256([]byte(key))] = wire.Encode(cert)
	}
	for key, holder := range holders {
		r.values[sha256.Sum256([]byte(key))] = wire.Encode(holder)
	}
	var entries []revmap.Entry
	for key, value := range r.values {
		entries = append(entries, revmap.Entry{Key: key, ValueHash: sha256.Sum256(value)})
	}
	var err error
	r.root, err = revmap.Update(memory{}, entries)
	r.must(err)
	statusRoot := r.status.root(r.status.size())
	r.mapLog.append(wire.Encode(&wire.MapLeaf{
		V: 1, Epoch: c.Epoch, Time: c.Time, StatusSize: uint64(r.status.size()), StatusRoot: statusRoot[:], MapRoot: r.root[:],
	}))
}

// memory is a store for one map.
type memory map[string][]byte

func (m memory) Get(key []byte) ([]byte, error) { return m[string(key)], nil }
func (m memory) Set(key, value []byte) error    { m[string(key)] = value; return nil }
func (m memory) Delete(key []byte) error        { delete(m, string(key)); return nil }

// compare checks everything that the index derives.
func (r *reference) compare(ix *Index) {
	r.t.Helper()
	for id, log := range r.logs {
		got, ok := ix.Issuance(id)
		if !ok {
			r.t.Fatalf("no log of CA %s", id)
		}
		compareLog(r.t, got, log)
	}
	compareLog(r.t, ix.StatusLog(), r.status)
	compareLog(r.t, ix.MapLog(), r.mapLog)
	r.comparePending(ix)
	r.compareEntries(ix)
	if r.mapLog.size() > 0 {
		r.compareMap(ix)
	}
}

func (r *reference) comparePending(ix *Index) {
	r.t.Helper()
	leaves, err := ix.Pending(1 << 20)
	r.must(err)
	if len(leaves) != len(r.pending) || ix.View().Pending != len(r.pending) {
		r.t.Fatalf("%d changes are pending, the view counts %d, want %d", len(leaves), ix.View().Pending, len(r.pending))
	}
	for i, p := range leaves {
		if !bytes.Equal(wire.Encode(&p.Leaf), r.pending[wire.PendingKey(p.Hash)]) || p.Leaf.Hash() != p.Hash {
			r.t.Fatalf("pending change %x is %+v", p.Hash, p.Leaf)
		}
		if i > 0 && p.Since.Before(leaves[i-1].Since) {
			r.t.Fatalf("pending change %d is of %s, the one before of %s", i, p.Since, leaves[i-1].Since)
		}
	}
	if some, err := ix.Pending(1); err != nil || len(some) != min(1, len(leaves)) || len(some) == 1 && some[0].Hash != leaves[0].Hash {
		r.t.Fatalf("the oldest pending change is %v, %v", some, err)
	}
}

// compareEntries looks up the entries about each certificate and each CA.
func (r *reference) compareEntries(ix *Index) {
	r.t.Helper()
	want := map[string][]uint64{} // newest first
	all := r.leaves()
	for i := len(all) - 1; i >= 0; i-- {
		if rec, err := ix.Record(all[i].CAID, all[i].Serial); err != nil || len(all[i].SPKIHash) > 0 && (rec == nil || !bytes.Equal(rec.SPKIHash, all[i].SPKIHash)) {
			r.must(err)
			continue // by the holder of another key
		}
		want[wire.CertKey(all[i].CAID, all[i].Serial)] = append(want[wire.CertKey(all[i].CAID, all[i].Serial)], uint64(i))
	}
	for _, l := range all {
		got, err := ix.StatusEntries(l.CAID, l.Serial, 1000)
		r.must(err)
		var at []uint64
		for _, e := range got {
			if e.Leaf.Hash() != all[e.Index].Hash() {
				r.t.Fatalf("entry %d is %+v, want %+v", e.Index, e.Leaf, all[e.Index])
			}
			at = append(at, e.Index)
		}
		if !slices.Equal(at, want[wire.CertKey(l.CAID, l.Serial)]) {
			r.t.Fatalf("entries about CA %s, serial %s are %d, want %d", l.CAID, l.Serial, at, want[wire.CertKey(l.CAID, l.Serial)])
		}
		if few, err := ix.StatusEntries(l.CAID, l.Serial, 1); err != nil || len(few) != min(1, len(at)) || len(few) == 1 && few[0].Index != at[0] {
			r.t.Fatalf("the newest entry about %s is %v, %v, want %d", l.Serial, few, err, at[0])
		}
	}
}

func (r *reference) compareMap(ix *Index) {
	r.t.Helper()
	absent := sha256.Sum256([]byte("nothing"))
	keys := append(slices.Collect(maps.Keys(r.values)), absent)
	index, leaf, entries, err := ix.MapProof(keys...)
	r.must(err)
	if index+1 != uint64(r.mapLog.size()) || !bytes.Equal(wire.Encode(&leaf), r.mapLog.leaves[index]) || !bytes.Equal(leaf.MapRoot, r.root[:]) {
		r.t.Fatalf("map leaf %d is %+v", index, leaf)
	}
	for i, e := range entries {
		if e.Key != keys[i] || !bytes.Equal(e.Value, r.values[e.Key]) || (e.Value == nil) != (e.Key == absent) {
			r.t.Fatalf("at %x the map has %x, want %x", e.Key, e.Value, r.values[e.Key])
		}
		p, err := revmap.ParseProof(e.Proof.Marshal())
		r.must(err)
		if e.Value == nil {
			r.must(revmap.VerifyAbsence(r.root, e.Key, p))
		} else {
			r.must(revmap.VerifyInclusion(r.root, e.Key, sha256.Sum256(e.Value), p))
		}
	}
	for id := range r.logs {
		_, _, e, err := ix.MapProof(wire.CAMapKey(id))
		r.must(err)
		if !slices.EqualFunc(e[0].Rules, r.rules[id], func(a, b wire.Rule) bool { return a == b }) {
			r.t.Fatalf("the map's rules of CA %s are %+v, want %+v", id, e[0].Rules, r.rules[id])
		}
	}
}
