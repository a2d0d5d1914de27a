package audit

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/fxamacker/cbor/v2"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/revmap"
)

// mapEntry is what is stored at a key of the map: of its parts the one that the key is for. The rules are those that the status log has.
type mapEntry struct {
	Cert   *wire.MapCert   `cbor:"0,keyasint,omitempty"`
	CA     *wire.MapCA     `cbor:"1,keyasint,omitempty"`
	Rules  []wire.Rule     `cbor:"2,keyasint,omitempty"`
	Holder *wire.MapHolder `cbor:"3,keyasint,omitempty"`
}

// value is what the map's leaf is of.
func (e *mapEntry) value() []byte {
	switch {
	case e.CA != nil:
		return wire.Encode(e.CA)
	case e.Holder != nil:
		return wire.Encode(e.Holder)
	}
	return wire.Encode(e.Cert)
}

// mapEntryOf is the key of the entry that a leaf changes, and the entry as it is before the first leaf.
func mapEntryOf(l *wire.StatusLeaf) (key [sha256.Size]byte, fresh *mapEntry, err error) {
	switch {
	case l.Kind == wire.LeafCA || l.Kind == wire.LeafRule:
		return wire.CAMapKey(l.CAID), &mapEntry{CA: &wire.MapCA{V: wire.Version, RulesHash: wire.RulesHash(nil)}}, nil
	case l.Kind == wire.LeafCert || l.Kind == wire.LeafRevocation && l.Source == wire.SourceQuorum:
		return wire.CertMapKey(l.CAID, l.Serial), &mapEntry{Cert: &wire.MapCert{V: wire.Version, State: wire.CertValid}}, nil
	case l.Kind == wire.LeafRevocation && l.Source == wire.SourceHolder && len(l.SPKIHash) == sha256.Size:
		return wire.HolderMapKey(l.CAID, l.Serial, [sha256.Size]byte(l.SPKIHash)), &mapEntry{Holder: &wire.MapHolder{V: wire.Version}}, nil
	}
	return key, nil, fmt.Errorf("kind %d, source %d, which this program does not know", l.Kind, l.Source)
}

func mapValueKey(key [sha256.Size]byte) []byte { return append([]byte{mapValuePrefix}, key[:]...) }

// fold takes the status log's entries below size into the map and returns its root.
func (d *derivation) fold(size uint64) ([sha256.Size]byte, error) {
	changed := map[[sha256.Size]byte]*mapEntry{}
	for ; d.next.Folded < size; d.next.Folded++ {
		stored, err := d.get(entryKey(StatusLog, d.next.Folded))
		if err != nil {
			return [sha256.Size]byte{}, err
		}
		var leaf wire.StatusLeaf
		if len(stored) == 0 {
			return [sha256.Size]byte{}, fmt.Errorf("entry %d of the status log is missing: the audit's state is damaged", d.next.Folded)
		}
		if err := wire.Decode(stored[1:], &leaf); err != nil {
			return [sha256.Size]byte{}, err
		}
		if err := d.foldLeaf(&leaf, changed); err != nil {
			return [sha256.Size]byte{}, fmt.Errorf("entry %d of the status log: %w", d.next.Folded, err)
		}
	}
	if len(changed) == 0 {
		return revmap.Root(mapStore{d})
	}
	var entries []revmap.Entry
	for key, e := range changed {
		entries = append(entries, revmap.Entry{Key: key, ValueHash: sha256.Sum256(e.value())})
		stored, err := cbor.Marshal(e)
		if err != nil {
			return [sha256.Size]byte{}, err
		}
		d.writes[string(mapValueKey(key))] = stored
	}
	return revmap.Update(mapStore{d}, entries)
}

// foldLeaf applies one change. Changes of one thing may be in the log in any order: the highest change number counts.
func (d *derivation) foldLeaf(l *wire.StatusLeaf, changed map[[sha256.Size]byte]*mapEntry) error {
	key, fresh, err := mapEntryOf(l)
	if err != nil {
		return err
	}
	e := changed[key]
	if e == nil {
		e = fresh
		stored, err := d.get(mapValueKey(key))
		if err != nil {
			return err
		}
		if stored != nil {
			e = &mapEntry{}
			if err := cbor.Unmarshal(stored, e); err != nil {
				return err
			}
		}
		changed[key] = e
	}
	switch {
	case l.Kind == wire.LeafCert && e.Cert != nil:
		if c := e.Cert; l.Change > c.Change {
			c.Change, c.State, c.Reason, c.Time, c.Invalidity = l.Change, wire.CertState(l.State), l.Reason, l.Time, l.Invalidity
			c.Imported, c.Asserted, c.Antedated = l.Imported, l.Asserted, l.Antedated
		}
	case l.Kind == wire.LeafRevocation && e.Cert != nil:
		if q := e.Cert.Quorum; q == nil || l.Change > q.Change {
			e.Cert.Quorum = &wire.MapQuorum{Reason: l.Reason, Time: l.Time, Invalidity: l.Invalidity, Change: l.Change}
		}
	case l.Kind == wire.LeafRevocation && e.Holder != nil:
		if h := e.Holder; l.Change > h.Change {
			h.Reason, h.Time, h.Invalidity, h.Change = l.Reason, l.Time, l.Invalidity, l.Change
		}
	case l.Kind == wire.LeafCA && e.CA != nil:
		if l.Change > e.CA.Change {
			e.CA.Change, e.CA.State, e.CA.Time = l.Change, wire.CAState(l.State), l.Time
		}
	case l.Kind == wire.LeafRule && e.CA != nil:
		e.Rules = append(e.Rules, wire.Rule{
			V: wire.Version, N: l.Change, From: l.From, To: l.To, Reason: l.Reason, Time: l.Time, Invalidity: l.Invalidity,
		})
		slices.SortFunc(e.Rules, func(a, b wire.Rule) int { return cmp.Compare(a.N, b.N) })
		e.CA.Rules, e.CA.RulesHash = uint64(len(e.Rules)), wire.RulesHash(e.Rules)
	default:
		return fmt.Errorf("the audit's state is damaged: the map's entry is not of kind %d", l.Kind)
	}
	return nil
}
