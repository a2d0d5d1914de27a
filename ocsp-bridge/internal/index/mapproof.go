package index

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/revmap"
)

// ErrNoTick is returned by MapProof before the first Tick.
var ErrNoTick = errors.New("the revocation map begins with the first tick")

// MapEntry is what the revocation map has at one key.
type MapEntry struct {
	Key   [sha256.Size]byte
	Value []byte        // encoded wire.MapCert, wire.MapHolder or wire.MapCA; nil: absent
	Rules []wire.Rule   // of a MapCA: the rules that its RulesHash is of, sorted by N
	Proof *revmap.Proof // of inclusion or absence
}

// MapProof returns what the revocation map has at keys (wire.CertMapKey, HolderMapKey, CAMapKey) at the newest Tick, and that Tick's leaf of
// the map log with its index. All is from one moment, and has been verified.
func (ix *Index) MapProof(keys ...[sha256.Size]byte) (leafIndex uint64, leaf wire.MapLeaf, entries []MapEntry, err error) {
	err = ix.read(func(v *View, r pebble.Reader) error {
		size := v.MapLog().Size
		if size == 0 {
			return ErrNoTick
		}
		leafIndex = size - 1
		newest, err := mapLeaf(r, leafIndex)
		if err != nil {
			return err
		}
		leaf = *newest
		if len(leaf.MapRoot) != sha256.Size {
			return fmt.Errorf("map log entry %d has a root of %d octets", leafIndex, len(leaf.MapRoot))
		}
		for _, key := range keys {
			e, err := mapEntry(v, r, [sha256.Size]byte(leaf.MapRoot), key)
			if err != nil {
				return err
			}
			entries = append(entries, e)
		}
		return nil
	})
	if err != nil {
		return 0, wire.MapLeaf{}, nil, err
	}
	return leafIndex, leaf, entries, nil
}

func mapEntry(v *View, r pebble.Reader, root, key [sha256.Size]byte) (e MapEntry, err error) {
	e.Key = key
	if e.Value, err = get(r, key32(mapValueTag, key)); err != nil {
		return e, err
	}
	if e.Proof, err = proveValue(r, root, key, e.Value); err != nil || e.Value == nil {
		return e, err
	}
	if id, ok := v.mapped[key]; ok {
		var ca wire.MapCA
		if err = wire.Decode(e.Value, &ca); err == nil {
			e.Rules, err = mapRules(r, id, &ca)
		}
	}
	return e, err
}

// proveValue proves that the map with this root has value at key, or nothing if value is nil.
func proveValue(r pebble.Reader, root, key [sha256.Size]byte, value []byte) (*revmap.Proof, error) {
	p, err := revmap.Prove(mapNodes{r: r}, key)
	if err == nil && value == nil {
		err = revmap.VerifyAbsence(root, key, p)
	} else if err == nil {
		err = revmap.VerifyInclusion(root, key, sha256.Sum256(value), p)
	}
	if err != nil {
		return nil, fmt.Errorf("revocation map, key %x: the stored index is damaged: %w", key, err)
	}
	return p, nil
}

// mapRules returns the rules about a CA that the map has, compared with the digest there.
func mapRules(r pebble.Reader, id wire.CAID, ca *wire.MapCA) (rules []wire.Rule, err error) {
	if err := each(r, key32(mapRuleTag, id), func(_, raw []byte) error {
		var rule wire.Rule
		err := wire.Decode(raw, &rule)
		rules = append(rules, rule)
		return err
	}); err != nil {
		return nil, err
	}
	if uint64(len(rules)) != ca.Rules || !bytes.Equal(wire.RulesHash(rules), ca.RulesHash) {
		return nil, fmt.Errorf("revocation map: the rules of CA %s are not those of its entry: the stored index is damaged", id)
	}
	return rules, nil
}

// mapNodes is where package revmap keeps the map's nodes.
type mapNodes struct{ r pebble.Reader }

func mapNodeKey(key []byte) []byte { return append([]byte{mapNodeTag}, key...) }

func (m mapNodes) Get(key []byte) ([]byte, error) { return get(m.r, mapNodeKey(key)) }

// mapStore adds writing.
type mapStore struct {
	mapNodes
	batch *pebble.Batch
}

func (m mapStore) Set(key, value []byte) error { return m.batch.Set(mapNodeKey(key), value, nil) }
func (m mapStore) Delete(key []byte) error     { return m.batch.Delete(mapNodeKey(key), nil) }

// numbered reads a key that ends in a CAID and a number.
func numbered(key []byte) (wire.CAID, uint64, error) {
	id, rest, err := caOf(key)
	if err == nil && len(rest) != 8 {
		err = fmt.Errorf("key %x is damaged", key)
	}
	if err != nil {
		return id, 0, err
	}
	return id, binary.BigEndian.Uint64(rest), nil
}
