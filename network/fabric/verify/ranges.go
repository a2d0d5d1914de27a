package verify

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/rwset/kvrwset"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/protobuf/proto"
)

// checkRange compares the keys that a range query gave with those that it would give now.
func (u *updates) checkRange(namespace string, q *kvrwset.RangeQueryInfo) (verdict, error) {
	present, err := u.scan(namespace, q)
	if err != nil {
		return verdict{}, err
	}
	conflict := invalid(peer.TxValidationCode_PHANTOM_READ_CONFLICT, "its range query of %s from %q to %q did not give what is there now, %d keys",
		namespace, q.GetStartKey(), q.GetEndKey(), len(present))
	if hashes := q.GetReadsMerkleHashes(); hashes != nil {
		same, err := sameHashes(hashes, present)
		if err != nil || same {
			return valid, err
		}
		return conflict, nil
	}
	same := slices.EqualFunc(q.GetRawReads().GetKvReads(), present, func(r *kvrwset.KVRead, p entry) bool {
		return r.GetKey() == p.key && bytes.Equal(encodeVersion(r.GetVersion().GetBlockNum(), r.GetVersion().GetTxNum()), p.version)
	})
	if !same {
		return conflict, nil
	}
	return valid, nil
}

type entry struct {
	key     string
	version []byte
}

// scan lists the keys of a range as of now. A query that was not read to its end names the last key read as its end, which a peer
// looks up after all others (Fabric: combinedIterator).
func (u *updates) scan(namespace string, q *kvrwset.RangeQueryInfo) ([]entry, error) {
	start, end := stateKey{namespace: namespace, key: q.GetStartKey()}, stateKey{namespace: namespace, key: q.GetEndKey()}
	from, to := start.stored(versionPrefix), end.stored(versionPrefix)
	prefix := len(from) - len(start.key)
	if end.key == "" {
		to[len(to)-1]++ // the NUL before the key
	}
	all := map[string][]byte{}
	if bytes.Compare(from, to) < 0 {
		err := u.store.Scan(from, to, func(key, version []byte) bool {
			all[string(key[prefix:])] = slices.Clone(version)
			return true
		})
		if err != nil {
			return nil, err
		}
	}
	for k, w := range u.written {
		if !k.private && k.namespace == namespace && k.key >= start.key && (end.key == "" || k.key < end.key) {
			all[k.key] = w.version
		}
	}
	var present []entry
	for key, version := range all {
		if version != nil {
			present = append(present, entry{key, version})
		}
	}
	slices.SortFunc(present, func(a, b entry) int { return bytes.Compare([]byte(a.key), []byte(b.key)) })
	if !q.GetItrExhausted() {
		version, _, err := u.version(end)
		if err != nil {
			return nil, err
		}
		if version != nil {
			present = append(present, entry{end.key, version})
		}
	}
	return present, nil
}

// sameHashes compares the summary that a query kept of many results with that of those there are. A peer compares while it builds; what
// it finds that way differs at the end as well.
func sameHashes(want *kvrwset.QueryReadsMerkleSummary, present []entry) (bool, error) {
	if want.GetMaxDegree() < 2 {
		return false, faultf("range query", fmt.Sprintf("degree %d", want.GetMaxDegree()), "must be at least 2: a peer stops at it")
	}
	top, hashes, err := summarize(int(want.GetMaxDegree()), present)
	return top > 0 && want.GetMaxLevel() == top && slices.EqualFunc(want.GetMaxLevelHashes(), hashes, bytes.Equal), err
}

// summarize returns the highest level of the tree over results, and its hashes (Fabric: rwsetutil, RangeQueryResultsHelper); level 0
// when there are so few that they would not have been hashed.
func summarize(degree int, present []entry) (top uint32, hashes [][]byte, err error) {
	tree := merkle{degree: degree, top: 1, levels: map[uint32][][]byte{}}
	var pending []*kvrwset.KVRead
	for i, p := range present {
		block, n := binary.Uvarint(p.version)
		tx, _ := binary.Uvarint(p.version[n:])
		pending = append(pending, &kvrwset.KVRead{Key: p.key, Version: &kvrwset.Version{BlockNum: block, TxNum: tx}})
		if rest := i == len(present)-1 && len(tree.levels) > 0; len(pending) <= degree && !rest {
			continue
		}
		encoded, err := proto.Marshal(&kvrwset.QueryReads{KvReads: pending})
		if err != nil {
			return 0, nil, err
		}
		tree.add(encoded)
		pending = nil
	}
	if len(tree.levels) == 0 {
		return 0, nil, nil
	}
	tree.finish()
	return tree.top, tree.levels[tree.top], nil
}

// merkle is the tree over the results of a range query, of which only the ends of full nodes are kept.
type merkle struct {
	degree int
	top    uint32
	levels map[uint32][][]byte
}

func digest(parts ...[]byte) []byte {
	sum := sha256.Sum256(bytes.Join(parts, nil))
	return sum[:]
}

func (m *merkle) add(leaf []byte) {
	m.levels[1] = append(m.levels[1], digest(leaf))
	for level := uint32(1); len(m.levels[level]) > m.degree; level++ {
		m.levels[level+1] = append(m.levels[level+1], digest(m.levels[level]...))
		delete(m.levels, level)
		m.top = max(m.top, level+1)
	}
}

func (m *merkle) finish() {
	for level := uint32(1); level < m.top; level++ {
		hashes := m.levels[level]
		if len(hashes) == 0 {
			continue
		}
		h := hashes[0]
		if len(hashes) > 1 {
			h = digest(hashes...)
		}
		delete(m.levels, level)
		m.levels[level+1] = append(m.levels[level+1], h)
	}
	if hashes := m.levels[m.top]; len(hashes) > m.degree {
		delete(m.levels, m.top)
		m.top++
		m.levels[m.top] = [][]byte{digest(hashes...)}
	}
}
