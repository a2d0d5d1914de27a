package verify_test

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/rwset"
	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/rwset/kvrwset"
	"github.com/hyperledger/fabric-protos-go-apiv2/msp"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"

	"github.com/certanchor/certanchor/network/fabric/verify"
)

// The tests of this file are about what one organisation can do alone: write to its implicit collections.

const ownCollection = "_implicit_org_Org1MSP"

// private makes the part of a chaincode in which the first organisation's collection is written.
func private(t testing.TB, namespace string, hashed *kvrwset.HashedRWSet) *rwset.NsReadWriteSet {
	return &rwset.NsReadWriteSet{Namespace: namespace, CollectionHashedRwset: []*rwset.CollectionHashedReadWriteSet{{
		CollectionName: ownCollection, HashedRwset: marshal(t, hashed),
	}}}
}

// lone is a transaction that the first organisation endorses alone.
func (w *world) lone(hashed *kvrwset.HashedRWSet) call {
	c := w.call()
	c.endorsers = w.peers[:1]
	c.sets = []*rwset.NsReadWriteSet{private(w.t, ccName, hashed)}
	return c
}

var (
	secret = bytes.Repeat([]byte{7}, 32) // a key's hash
	put    = &kvrwset.KVWriteHash{KeyHash: secret, ValueHash: bytes.Repeat([]byte{1}, 32)}
	remove = &kvrwset.KVWriteHash{KeyHash: secret, IsDelete: true}
)

func puts(all ...*kvrwset.KVWriteHash) *kvrwset.HashedRWSet {
	return &kvrwset.HashedRWSet{HashedWrites: all}
}

// keyPolicy gives the key a policy of its own: of anybody's peer among those named.
func keyPolicy(t testing.TB, orgs ...string) *kvrwset.HashedRWSet {
	var all []*msp.MSPPrincipal
	for _, org := range orgs {
		all = append(all, role(t, org, msp.MSPRole_PEER))
	}
	m := &kvrwset.KVMetadataWriteHash{KeyHash: secret}
	if len(all) > 0 {
		m.Entries = []*kvrwset.KVMetadataEntry{{Name: "VALIDATION_PARAMETER", Value: marshal(t, nOutOf(1, all...))}}
	}
	return &kvrwset.HashedRWSet{MetadataWrites: []*kvrwset.KVMetadataWriteHash{m}}
}

// TestOneOrganisationCannotStopAVerifier: whatever a peer takes for valid is let through, and none of it is shown.
func TestOneOrganisationCannotStopAVerifier(t *testing.T) {
	w := newWorld(t)
	for name, edit := range map[string]func(*call){
		"as it would be":             func(*call) {},
		"of another century":         func(c *call) { c.at = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC) },
		"refused":                    func(c *call) { c.action = func(a *peer.ChaincodeAction) { a.Response.Status = 500 } },
		"executed for somebody else": func(c *call) { c.proposer = w.admins[0] },
		"a key twice":                func(c *call) { c.sets = []*rwset.NsReadWriteSet{private(t, ccName, puts(put, put))} },
		"a policy of a key":          func(c *call) { c.sets = []*rwset.NsReadWriteSet{private(t, ccName, keyPolicy(t, "Org1MSP"))} },
		"an approval": func(c *call) {
			c.chaincode = "_lifecycle"
			c.sets = []*rwset.NsReadWriteSet{private(t, "_lifecycle", puts(put, put))}
		},
		"a hashed range query": func(c *call) {
			c.sets[0].Rwset = marshal(t, &kvrwset.KVRWSet{RangeQueriesInfo: []*kvrwset.RangeQueryInfo{{
				EndKey: "z", ItrExhausted: true, ReadsInfo: &kvrwset.RangeQueryInfo_ReadsMerkleHashes{ReadsMerkleHashes: &kvrwset.QueryReadsMerkleSummary{
					MaxDegree: 2, MaxLevel: 1, MaxLevelHashes: hashesOf(t, "a", "b", "c"),
				}},
			}}})
		},
		"no proposal": func(c *call) {
			c.raw = []byte("no proposal")
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			three := w.call()
			three.sets = []*rwset.NsReadWriteSet{set(t, ccName, &kvrwset.KVRWSet{Writes: []*kvrwset.KVWrite{
				{Key: "a", Value: []byte("1")}, {Key: "b", Value: []byte("1")}, {Key: "c", Value: []byte("1")},
			}})}
			w.add(ok, three.envelope(t))
			c := w.lone(puts(put))
			edit(&c)
			c.by, c.endorsers = w.clients[0], w.peers[:1] // of this world
			v := w.verifier()
			_, err := v.Block(w.next([]peer.TxValidationCode{endorsement}, c.envelope(t)))
			refused(t, err, 0, flagsField, "must be VALID")
			b := w.add(ok, c.envelope(t))
			parsed, err := v.Block(b)
			must(t, err)
			if len(parsed.Txs) != 0 {
				t.Errorf("it is shown: %+v", parsed.Txs)
			}
			parsed, err = v.Block(w.next([]peer.TxValidationCode{ok}, w.call().envelope(t)))
			if err != nil || len(parsed.Txs) != 1 {
				t.Errorf("what comes after it: %+v, %v", parsed, err)
			}
		})
	}
	c := w.lone(puts(put))
	c.sets[0].Rwset = marshal(t, &kvrwset.KVRWSet{Writes: []*kvrwset.KVWrite{{Key: "k", Value: []byte("v")}}})
	_, err := w.verifier().Block(w.next([]peer.TxValidationCode{ok}, c.envelope(t)))
	refused(t, err, 0, flagsField, "must be ENDORSEMENT_POLICY_FAILURE")
}

// hashesOf is the one hash of three results, written by the transaction that TestOneOrganisationCannotStopAVerifier begins with.
func hashesOf(t testing.TB, keys ...string) [][]byte {
	all := &kvrwset.QueryReads{}
	for _, k := range keys {
		all.KvReads = append(all.KvReads, &kvrwset.KVRead{Key: k, Version: &kvrwset.Version{BlockNum: uint64(len(newWorld(t).blocks))}})
	}
	sum := sha256.Sum256(marshal(t, all))
	return [][]byte{sum[:]}
}

// TestPrivateWritesAreFollowedAsFabricHasThem: keys named twice have odd effects, and later reads depend on them.
func TestPrivateWritesAreFollowedAsFabricHasThem(t *testing.T) {
	empty := sha256.Sum256(nil)
	for name, c := range map[string]struct {
		before, writes []*kvrwset.KVWriteHash
		at             int // transaction whose version the key has in the end; -1: it is absent
	}{
		"one value":                   {nil, []*kvrwset.KVWriteHash{put}, 1},
		"a deletion":                  {[]*kvrwset.KVWriteHash{put}, []*kvrwset.KVWriteHash{remove}, -1},
		"the hash of nothing":         {[]*kvrwset.KVWriteHash{put}, []*kvrwset.KVWriteHash{{KeyHash: secret, ValueHash: empty[:]}}, -1},
		"two values where nothing is": {nil, []*kvrwset.KVWriteHash{put, put}, -1},
		"two values":                  {[]*kvrwset.KVWriteHash{put}, []*kvrwset.KVWriteHash{put, put}, 1},
		"three values":                {nil, []*kvrwset.KVWriteHash{put, put, put}, 1},
		"two deletions":               {[]*kvrwset.KVWriteHash{put}, []*kvrwset.KVWriteHash{remove, remove}, 1},
		"a value and a deletion":      {[]*kvrwset.KVWriteHash{put}, []*kvrwset.KVWriteHash{put, remove}, -1},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			first := len(w.blocks)
			w.add(ok, w.lone(puts(c.before...)).onlyIf(len(c.before) > 0, w.call()).envelope(t))
			w.add(ok, w.lone(puts(c.writes...)).envelope(t))
			var has *kvrwset.Version
			if c.at >= 0 {
				has = &kvrwset.Version{BlockNum: uint64(first + c.at)}
			}
			read := w.lone(&kvrwset.HashedRWSet{HashedReads: []*kvrwset.KVReadHash{{KeyHash: secret, Version: has}}, HashedWrites: []*kvrwset.KVWriteHash{put}})
			_, err := w.verifier().Block(w.next([]peer.TxValidationCode{ok}, read.envelope(t)))
			must(t, err)
			// To a peer's database, the collection is a namespace with a name that anybody can give.
			alias := w.call()
			alias.sets = []*rwset.NsReadWriteSet{set(t, ccName+"$$h"+ownCollection, &kvrwset.KVRWSet{Reads: []*kvrwset.KVRead{{Key: string(secret), Version: has}}})}
			_, err = w.verifier().Block(w.next([]peer.TxValidationCode{ok}, alias.envelope(t)))
			must(t, err)
		})
	}
}

func (c call) onlyIf(yes bool, other call) call {
	if yes {
		return c
	}
	return other
}

// TestPoliciesOfPrivateKeysAreFollowed: an organisation can say who else may write a key of its collection, itself excluded.
func TestPoliciesOfPrivateKeysAreFollowed(t *testing.T) {
	w := newWorld(t)
	flags := func(codes ...peer.TxValidationCode) []peer.TxValidationCode { return codes }
	by := func(c call, p *party) call { c.endorsers = []*party{p}; return c }
	take := func(codes []peer.TxValidationCode, calls ...call) {
		t.Helper()
		var data [][]byte
		for _, c := range calls {
			data = append(data, c.envelope(t))
		}
		v := w.verifier()
		for i := range codes {
			lie := append([]peer.TxValidationCode(nil), codes...)
			if lie[i] = ok; codes[i] == ok {
				lie[i] = endorsement
			}
			_, err := v.Block(w.next(lie, data...))
			refused(t, err, i, flagsField, "must be "+codes[i].String())
		}
		b := w.next(codes, data...)
		_, err := v.Block(b)
		must(t, err)
		w.blocks = append(w.blocks, b)
	}
	take(flags(ok), w.lone(keyPolicy(t, "Org2MSP"))) // of nothing: no effect
	take(flags(ok), w.lone(puts(put)))
	// Within the block nobody may write the key after its policy was changed.
	take(flags(ok, endorsement, endorsement), w.lone(keyPolicy(t, "Org2MSP")), w.lone(puts(put)), by(w.lone(puts(put)), w.peers[1]))
	take(flags(endorsement, ok), w.lone(puts(put)), by(w.lone(puts(put)), w.peers[1]))
	take(flags(endorsement, ok), w.lone(keyPolicy(t)), by(w.lone(puts(put)), w.peers[1])) // a value keeps the policy
	other := puts(put, &kvrwset.KVWriteHash{KeyHash: bytes.Repeat([]byte{8}, 32), ValueHash: secret})
	both := w.lone(other)
	both.endorsers = w.peers[:2]
	take(flags(endorsement, ok), by(w.lone(other), w.peers[1]), both) // the other key has no policy: its collection's counts
	take(flags(ok), by(w.lone(puts(remove)), w.peers[1]))
	take(flags(endorsement, ok), by(w.lone(puts(put)), w.peers[1]), w.lone(puts(put))) // its policy is gone with it
}

// TestReadsOfACollectionWithoutANameAreNotPublic: a peer looks for them elsewhere.
func TestReadsOfACollectionWithoutANameAreNotPublic(t *testing.T) {
	w := newWorld(t)
	c := w.call()
	c.sets = []*rwset.NsReadWriteSet{write(t, ccName, "k", "v")}
	w.add(ok, c.envelope(t))
	read := w.lone(puts(put))
	read.sets[0].CollectionHashedRwset = append(read.sets[0].CollectionHashedRwset, &rwset.CollectionHashedReadWriteSet{
		HashedRwset: marshal(t, &kvrwset.HashedRWSet{HashedReads: []*kvrwset.KVReadHash{{KeyHash: []byte("k")}}}),
	})
	_, err := w.verifier().Block(w.next([]peer.TxValidationCode{ok}, read.envelope(t)))
	must(t, err)
}

// TestRangeEndsAreServedLast: a query that was not read to its end gives its end in any case, whatever its start is.
func TestRangeEndsAreServedLast(t *testing.T) {
	w := newWorld(t)
	c := w.call()
	c.sets = []*rwset.NsReadWriteSet{write(t, ccName, "a", "v")}
	w.add(ok, c.envelope(t))
	query := w.lone(puts(put))
	query.sets[0].Rwset = marshal(t, &kvrwset.KVRWSet{RangeQueriesInfo: []*kvrwset.RangeQueryInfo{{
		StartKey: "z", EndKey: "a", ReadsInfo: &kvrwset.RangeQueryInfo_RawReads{RawReads: &kvrwset.QueryReads{
			KvReads: []*kvrwset.KVRead{{Key: "a", Version: &kvrwset.Version{BlockNum: uint64(len(w.blocks) - 1)}}},
		}},
	}}})
	_, err := w.verifier().Block(w.next([]peer.TxValidationCode{ok}, query.envelope(t)))
	must(t, err)
}

// TestLoneWritesAreCounted: in the order of the ledger, also by a verifier that continues.
func TestLoneWritesAreCounted(t *testing.T) {
	w := newWorld(t)
	approval := w.lone(puts(put))
	approval.chaincode = "_lifecycle"
	approval.sets = []*rwset.NsReadWriteSet{private(t, "_lifecycle", puts(put))}
	taken, failed := w.lone(puts(put)), w.lone(puts(put))
	failed.endorsers = nil
	public := w.call()
	public.sets = []*rwset.NsReadWriteSet{write(t, ccName, "k", "v")}
	w.add(ok, approval.envelope(t))
	w.blocks = append(w.blocks, w.next([]peer.TxValidationCode{ok, ok, endorsement, ok}, public.envelope(t), taken.envelope(t), failed.envelope(t), w.lone(puts(remove)).envelope(t)))

	store := verify.NewMemory()
	var told []verify.LoneWrite
	height := 0
	run := func(until int) {
		v, err := verify.New(verify.Config{
			Channel: channelName, Chaincode: ccName, Genesis: w.blocks[0], Store: store, LoneWrite: func(l verify.LoneWrite) { told = append(told, l) },
		})
		must(t, err)
		for ; height < until; height++ {
			_, err := v.Block(w.blocks[height])
			must(t, err)
		}
		n, err := v.Lone()
		must(t, err)
		if approvals, others := count(told); n != (verify.LoneCount{Approvals: approvals, Others: others}) {
			t.Errorf("%d blocks: %+v are counted, told were %+v", until, n, told)
		}
	}
	last := len(w.blocks) - 1
	run(last)
	set := len(told) // what the world was set up with, and the approval
	if set == 0 || !told[set-1].Approval || told[set-1].Block != uint64(last-1) {
		t.Fatalf("told %+v", told)
	}
	run(last + 1)
	if len(told) != set+2 {
		t.Fatalf("told %+v", told[set:])
	}
	for i, l := range told[set:] {
		if want := []int{1, 3}[i]; l.Block != uint64(last) || l.Tx != want || l.TxID == "" || l.Approval ||
			!slices.Equal(l.Collections, []string{ccName + "/" + ownCollection}) || !slices.Equal(l.Endorsers, []string{"Org1MSP"}) {
			t.Errorf("told %+v", l)
		}
	}
}

func count(all []verify.LoneWrite) (approvals, others uint64) {
	for _, l := range all {
		if l.Approval {
			approvals++
		} else {
			others++
		}
	}
	return approvals, others
}
