package index

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/revmap"
	"github.com/certanchor/certanchor/network"
)

// applyClock takes one of the clock keys that a Tick writes; all have one value.
func (a *applier) applyClock(w network.Write) error {
	n := strings.TrimPrefix(w.Key, wire.ClockPrefix)
	if len(n) != 1 || n[0] < '0' || n[0] >= '0'+wire.ClockKeys {
		return a.diverges("clock key", w.Key, "must end in 0 to %d", wire.ClockKeys-1)
	}
	var c wire.Clock
	if err := wire.Decode(w.Value, &c); err != nil {
		return a.unreadable(w, err)
	}
	if a.tick != nil && *a.tick != c {
		return a.diverges(w.Key, fmt.Sprintf("epoch %d, time %d", c.Epoch, c.Time), "another key of the same Tick has epoch %d, time %d", a.tick.Epoch, a.tick.Time)
	}
	a.tick = &c
	return a.set(clockKey(n[0]-'0'), w.Value)
}

// applyTick brings the revocation map up to the status log, and appends to the map log, after a transaction that was a Tick. Who
// called the contract does not matter: the clock keys tell.
func (a *applier) applyTick() error {
	if a.tick == nil {
		if a.tx.Function == wire.FnTick {
			return a.diverges("Tick", "without a clock key", "every tick writes at least one")
		}
		return nil
	}
	if last := a.view.Tick; last.V != 0 && (a.tick.Epoch <= last.Epoch || a.tick.Time <= last.Time) {
		return a.diverges("Tick", fmt.Sprintf("epoch %d, time %d", a.tick.Epoch, a.tick.Time), "the one before was in epoch %d, at %d", last.Epoch, last.Time)
	}
	a.view.Tick = *a.tick
	status := a.head(statusLog)
	if err := a.foldMap(status.Size); err != nil {
		return err
	}
	leaf := &wire.MapLeaf{
		V: wire.Version, Epoch: a.tick.Epoch, Time: a.tick.Time, StatusSize: status.Size, StatusRoot: status.Root[:], MapRoot: a.mapped.root[:],
	}
	if _, err := a.grow(mapLog, leaf.Hash(), stored(&merklelog.Entry{Kind: merklelog.Map, Leaf: wire.Encode(leaf)})); err != nil {
		return err
	}
	root, err := rootOf(a.tree(mapLog))
	if err != nil {
		return err
	}
	a.newLogs[mapLog] = Log{Size: a.tree(mapLog).End(), Root: root, Time: leaf.Time}
	return nil
}

// foldMap takes the status log's entries up to size into the map.
func (a *applier) foldMap(size uint64) error {
	if size == a.mapped.statusSize {
		return nil
	}
	f := mapFold{
		r: a.batch, root: a.mapped.root,
		certs: map[certName]*wire.MapCert{}, holders: map[[sha256.Size]byte]*wire.MapHolder{}, cas: map[wire.CAID]*caFold{},
	}
	for i := a.mapped.statusSize; i < size; i++ {
		leaf, err := statusLeaf(a.batch, i)
		if err == nil {
			err = f.add(leaf)
		}
		if err != nil {
			return fmt.Errorf("revocation map, status log entry %d: %w", i, err)
		}
	}
	var entries []revmap.Entry
	put := func(key [sha256.Size]byte, value any) error {
		raw := wire.Encode(value)
		entries = append(entries, revmap.Entry{Key: key, ValueHash: sha256.Sum256(raw)})
		return a.set(key32(mapValueTag, key), raw)
	}
	for name, c := range f.certs {
		if err := put(wire.CertMapKey(name.ca, wire.Serial(name.serial)), c); err != nil {
			return err
		}
	}
	for key, h := range f.holders {
		if err := put(key, h); err != nil {
			return err
		}
	}
	for id, c := range f.cas {
		for _, rule := range c.added {
			if err := a.set(ruleKey(mapRuleTag, id, rule.N), wire.Encode(&rule)); err != nil {
				return err
			}
		}
		if err := put(wire.CAMapKey(id), &c.entry); err != nil {
			return err
		}
	}
	root, err := revmap.Update(mapStore{mapNodes{r: a.batch}, a.batch}, entries)
	if err != nil {
		return fmt.Errorf("revocation map: %w", err)
	}
	a.mapped = mapState{statusSize: size, root: root}
	return nil
}

// mapFold is the part of the map that some entries of the status log change. The log may have the entries about one certificate
// in any order: change numbers decide. Each entry of the log reads and writes one value of the map, of a size that has a bound.
type mapFold struct {
	r       pebble.Reader
	root    [sha256.Size]byte // of the map before
	certs   map[certName]*wire.MapCert
	holders map[[sha256.Size]byte]*wire.MapHolder // by wire.HolderMapKey
	cas     map[wire.CAID]*caFold
}

type certName struct {
	ca     wire.CAID
	serial string
}

type caFold struct {
	entry wire.MapCA
	rules []wire.Rule // all that the status log has, sorted by N
	added []wire.Rule
}

func (f *mapFold) add(leaf *wire.StatusLeaf) error {
	switch leaf.Kind {
	case wire.LeafCert:
		c, err := f.cert(leaf)
		if err == nil && leaf.Change > c.Change {
			c.Change, c.State, c.Reason, c.Time, c.Invalidity = leaf.Change, wire.CertState(leaf.State), leaf.Reason, leaf.Time, leaf.Invalidity
			c.Imported, c.Asserted, c.Antedated = leaf.Imported, leaf.Asserted, leaf.Antedated
		}
		return err
	case wire.LeafRevocation:
		return f.addRevocation(leaf)
	case wire.LeafCA:
		c, err := f.ca(leaf.CAID)
		if err == nil && leaf.Change > c.entry.Change {
			c.entry.Change, c.entry.State, c.entry.Time = leaf.Change, wire.CAState(leaf.State), leaf.Time
		}
		return err
	case wire.LeafRule:
		c, err := f.ca(leaf.CAID)
		if err == nil {
			c.addRule(leaf)
		}
		return err
	}
	return fmt.Errorf("leaf of the unknown kind %d", leaf.Kind)
}

func (f *mapFold) addRevocation(leaf *wire.StatusLeaf) error {
	switch {
	case leaf.Source == wire.SourceQuorum:
		c, err := f.cert(leaf)
		if err == nil && (c.Quorum == nil || leaf.Change > c.Quorum.Change) {
			c.Quorum = &wire.MapQuorum{Reason: leaf.Reason, Time: leaf.Time, Invalidity: leaf.Invalidity, Change: leaf.Change}
		}
		return err
	case leaf.Source == wire.SourceHolder && len(leaf.SPKIHash) == sha256.Size:
		h, err := f.holder(leaf)
		if err == nil && leaf.Change > h.Change {
			*h = wire.MapHolder{V: wire.Version, Reason: leaf.Reason, Time: leaf.Time, Invalidity: leaf.Invalidity, Change: leaf.Change}
		}
		return err
	}
	return fmt.Errorf("revocation by the unknown source %d", leaf.Source)
}

func (c *caFold) addRule(leaf *wire.StatusLeaf) {
	rule := wire.Rule{
		V: wire.Version, N: leaf.Change, From: leaf.From, To: leaf.To, Reason: leaf.Reason, Time: leaf.Time, Invalidity: leaf.Invalidity,
	}
	at, _ := slices.BinarySearchFunc(c.rules, rule.N, func(r wire.Rule, n uint64) int { return int(r.N) - int(n) })
	c.rules, c.added = slices.Insert(c.rules, at, rule), append(c.added, rule)
	c.entry.Rules, c.entry.RulesHash = uint64(len(c.rules)), wire.RulesHash(c.rules)
}

// cert returns what the map has about a leaf's certificate; of one whose record never changed, the state that records begin with.
func (f *mapFold) cert(leaf *wire.StatusLeaf) (*wire.MapCert, error) {
	name := certName{leaf.CAID, string(leaf.Serial)}
	if c := f.certs[name]; c != nil {
		return c, nil
	}
	c := &wire.MapCert{V: wire.Version, State: wire.CertValid}
	raw, err := f.value(wire.CertMapKey(leaf.CAID, leaf.Serial))
	if err == nil && raw != nil {
		*c = wire.MapCert{}
		err = wire.Decode(raw, c)
	}
	f.certs[name] = c
	return c, err
}

// holder returns what the map has about the revocation of a leaf's certificate by the holder of its key; if nothing, change number 0.
func (f *mapFold) holder(leaf *wire.StatusLeaf) (*wire.MapHolder, error) {
	key := wire.HolderMapKey(leaf.CAID, leaf.Serial, [sha256.Size]byte(leaf.SPKIHash))
	h := f.holders[key]
	if h != nil {
		return h, nil
	}
	h = new(wire.MapHolder)
	raw, err := f.value(key)
	if err == nil && raw != nil {
		err = wire.Decode(raw, h)
	}
	f.holders[key] = h
	return h, err
}

// ca returns what the map has about a CA.
func (f *mapFold) ca(id wire.CAID) (*caFold, error) {
	if c := f.cas[id]; c != nil {
		return c, nil
	}
	c := &caFold{entry: wire.MapCA{V: wire.Version, RulesHash: wire.RulesHash(nil)}}
	raw, err := f.value(wire.CAMapKey(id))
	if err == nil && raw != nil {
		c.entry = wire.MapCA{}
		if err = wire.Decode(raw, &c.entry); err == nil {
			c.rules, err = mapRules(f.r, id, &c.entry)
		}
	}
	f.cas[id] = c
	return c, err
}

// value reads what the map has at a key, proved: a damaged value would otherwise live on in the next one.
func (f *mapFold) value(key [sha256.Size]byte) ([]byte, error) {
	raw, err := get(f.r, key32(mapValueTag, key))
	if err != nil || raw == nil {
		return nil, err
	}
	_, err = proveValue(f.r, f.root, key, raw)
	return raw, err
}
