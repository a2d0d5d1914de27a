// Package bundletest is a ledger's logs in memory, and bundles made from them as a bridge does, for tests.
package bundletest

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/bundle"
	"github.com/certanchor/certanchor/internal/ctleaf"
	"github.com/certanchor/certanchor/internal/lognames"
	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/merklelog/merklelogtest"
	"github.com/certanchor/certanchor/internal/policy/policytest"
	"github.com/certanchor/certanchor/internal/revmap"
)

// Channel of every World.
const Channel = "testchannel"

// Start is when a World begins. Each thing that happens takes a second.
var Start = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// World is one CA on a ledger. Its Now is the ledger's time.
type World struct {
	*policytest.Consortium
	CA                    *cctest.CA
	Issuance, Status, Map *merklelogtest.Memory
	Now                   time.Time

	t       testing.TB
	entries map[string][]bundle.EntryRef // by serial
	certs   map[mapKey]*wire.MapCert     // by key in the map
	holders map[mapKey]*wire.MapHolder   // by key in the map
	ca      wire.MapCA
	rules   []wire.Rule
	store   store
	changed map[mapKey]bool // since the last Tick: keys in the map
	ticked  snapshot
}

type mapKey = [sha256.Size]byte

// snapshot is what the map had at the newest Tick.
type snapshot struct {
	index   uint64
	status  uint64 // size of the status log
	certs   map[mapKey]wire.MapCert
	holders map[mapKey]wire.MapHolder
	ca      wire.MapCA
	rules   []wire.Rule
}

// New makes a World with an active CA and a first Tick.
func New(t testing.TB, quorum int, mspIDs ...string) *World {
	t.Helper()
	w := &World{
		CA: cctest.NewCA(t), Issuance: merklelogtest.New(), Status: merklelogtest.New(), Map: merklelogtest.New(), Now: Start, t: t,
		entries: map[string][]bundle.EntryRef{}, certs: map[mapKey]*wire.MapCert{}, holders: map[mapKey]*wire.MapHolder{},
		store: store{}, changed: map[mapKey]bool{},
	}
	w.Consortium = policytest.New(t, Channel, quorum, 45*time.Second, func() time.Time { return w.Now }, mspIDs...)
	w.ca = wire.MapCA{V: wire.Version, State: wire.CAActive, RulesHash: wire.RulesHash(nil)}
	w.Change(wire.StatusLeaf{Kind: wire.LeafCA, Change: 1, State: uint(wire.CAActive)})
	w.Tick()
	return w
}

func (w *World) step() wire.Millis {
	w.Now = w.Now.Add(time.Second)
	return wire.MillisOf(w.Now)
}

// Cert signs a certificate without logging it. With sctTimes it has an SCT list with those timestamps.
func (w *World) Cert(sctTimes ...time.Time) *x509.Certificate {
	w.t.Helper()
	_, cert := w.CA.Issue(w.t, func(c *x509.Certificate) {
		if len(sctTimes) > 0 {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: ctleaf.OIDSCTList, Value: sctList(sctTimes)})
		}
	})
	return cert
}

func sctList(times []time.Time) []byte {
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1(cbasn1.OCTET_STRING, func(b *cryptobyte.Builder) {
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
			for _, t := range times {
				b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
					b.AddBytes(append(make([]byte, 1+sha256.Size), binary.BigEndian.AppendUint64(nil, uint64(t.UnixMilli()))...))
					b.AddBytes([]byte{0, 0, 4, 3, 0, 0}) // no extensions, and an empty signature
				})
			}
		})
	})
	return b.BytesOrPanic()
}

// Log appends an entry of cert to the issuance log, if the contract would.
func (w *World) Log(cert *x509.Certificate, kind bundle.Kind) {
	w.t.Helper()
	at, index := w.step(), w.Issuance.Head().Size
	leaf, err := ctleaf.X509(index, at, cert.Raw)
	if kind == bundle.Precert {
		var tbs []byte
		if tbs, err = ctleaf.FinalTBS(cert.Raw); err == nil {
			leaf, err = ctleaf.Precert(index, at, w.CA.ID, tbs)
		}
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.Issuance.Append(at, merklelog.Entry{Kind: merklelog.Kind(kind), Time: at, Leaf: leaf})
	s := cert.SerialNumber.String()
	bare := !slices.ContainsFunc(cert.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(ctleaf.OIDSCTList) })
	if len(w.entries[s]) > 0 && (kind == bundle.Precert || bare) {
		w.t.Fatal("the contract refuses a precertificate after its certificate, and the certificate of a precertificate without SCT list")
	}
	w.entries[s] = append(w.entries[s], bundle.EntryRef{Kind: kind, Index: index, Time: at})
	slices.SortFunc(w.entries[s], func(a, b bundle.EntryRef) int { return int(a.Kind) - int(b.Kind) })
}

// Issue signs and logs a certificate.
func (w *World) Issue() *x509.Certificate {
	w.t.Helper()
	cert := w.Cert()
	w.Log(cert, bundle.Final)
	return cert
}

// Set changes a certificate's own state.
func (w *World) Set(cert *x509.Certificate, state wire.CertState, reason wire.Reason) {
	w.t.Helper()
	var change uint64
	if m := w.certs[w.key(cert)]; m != nil {
		change = m.Change
	}
	w.Change(wire.StatusLeaf{
		Kind: wire.LeafCert, Serial: cctest.Serial(w.t, cert), Change: change + 1, State: uint(state), Reason: reason,
	})
}

// Rule revokes all that was logged in [from, to).
func (w *World) Rule(from, to time.Time, reason wire.Reason) {
	w.t.Helper()
	w.Change(wire.StatusLeaf{
		Kind: wire.LeafRule, Change: uint64(len(w.rules)) + 1, State: uint(wire.CertRevoked), Reason: reason,
		From: wire.MillisOf(from), To: wire.MillisOf(to),
	})
}

// Change appends a leaf to the status log, and to what the next Tick puts into the map. V, CAID and Time are filled in.
func (w *World) Change(l wire.StatusLeaf) {
	w.t.Helper()
	l.V, l.CAID, l.Time = wire.Version, w.CA.ID, w.step()
	w.Status.Append(l.Time, merklelog.Entry{Kind: merklelog.Status, Time: l.Time, Leaf: wire.Encode(&l)})
	switch l.Kind {
	case wire.LeafCA:
		w.ca.Change, w.ca.State, w.ca.Time = l.Change, wire.CAState(l.State), l.Time
		return
	case wire.LeafRule:
		w.rules = append(w.rules, wire.Rule{V: wire.Version, N: l.Change, From: l.From, To: l.To, Reason: l.Reason, Time: l.Time, Invalidity: l.Invalidity})
		w.ca.Rules, w.ca.RulesHash = uint64(len(w.rules)), wire.RulesHash(w.rules)
		return
	}
	if l.Kind == wire.LeafRevocation && l.Source == wire.SourceHolder {
		key := wire.HolderMapKey(w.CA.ID, l.Serial, [sha256.Size]byte(l.SPKIHash))
		w.holders[key] = &wire.MapHolder{V: wire.Version, Reason: l.Reason, Time: l.Time, Invalidity: l.Invalidity, Change: l.Change}
		w.changed[key] = true
		return
	}
	key := wire.CertMapKey(w.CA.ID, l.Serial)
	m := w.certs[key]
	if m == nil {
		m = &wire.MapCert{V: wire.Version, State: wire.CertValid}
		w.certs[key] = m
	}
	w.changed[key] = true
	if l.Kind == wire.LeafCert {
		m.Change, m.State, m.Reason, m.Time, m.Invalidity = l.Change, wire.CertState(l.State), l.Reason, l.Time, l.Invalidity
		m.Imported, m.Asserted, m.Antedated = l.Imported, l.Asserted, l.Antedated
		return
	}
	m.Quorum = &wire.MapQuorum{Reason: l.Reason, Time: l.Time, Invalidity: l.Invalidity, Change: l.Change}
}

// Revoke is the revocation of cert by the holder of its key.
func (w *World) Revoke(cert *x509.Certificate, reason wire.Reason) {
	w.t.Helper()
	key := holderKey(cert)
	w.Change(wire.StatusLeaf{
		Kind: wire.LeafRevocation, Serial: cctest.Serial(w.t, cert), Change: 1, State: uint(wire.CertRevoked), Reason: reason,
		Source: wire.SourceHolder, SPKIHash: key[:],
	})
}

func holderKey(cert *x509.Certificate) [sha256.Size]byte {
	return sha256.Sum256(cert.RawSubjectPublicKeyInfo)
}

// Tick appends to the map log.
func (w *World) Tick() {
	w.t.Helper()
	at := w.step()
	updates := []revmap.Entry{{Key: wire.CAMapKey(w.CA.ID), ValueHash: sha256.Sum256(wire.Encode(&w.ca))}}
	snap := snapshot{
		index: w.Map.Head().Size, status: w.Status.Head().Size, certs: map[mapKey]wire.MapCert{}, holders: map[mapKey]wire.MapHolder{},
		ca: w.ca, rules: slices.Clone(w.rules),
	}
	update := func(key mapKey, value any) {
		if w.changed[key] {
			updates = append(updates, revmap.Entry{Key: key, ValueHash: sha256.Sum256(wire.Encode(value))})
		}
	}
	for key, m := range w.certs {
		snap.certs[key] = *m
		update(key, m)
	}
	for key, h := range w.holders {
		snap.holders[key] = *h
		update(key, h)
	}
	clear(w.changed)
	root, err := revmap.Update(w.store, updates)
	if err != nil {
		w.t.Fatal(err)
	}
	status := w.Status.Head()
	leaf := wire.MapLeaf{
		V: wire.Version, Epoch: at.Time().Unix() / 15, Time: at, StatusSize: status.Size, StatusRoot: status.Root[:], MapRoot: root[:],
	}
	w.Map.Append(at, merklelog.Entry{Kind: merklelog.Map, Time: at, Leaf: wire.Encode(&leaf)})
	w.ticked = snap
}

func (w *World) key(cert *x509.Certificate) [sha256.Size]byte {
	return wire.CertMapKey(w.CA.ID, cctest.Serial(w.t, cert))
}

// Prove returns the proof of a key of the map at the newest Tick.
func (w *World) Prove(key [sha256.Size]byte) (*revmap.Proof, error) {
	return revmap.Prove(w.store, key)
}

// Parts returns what a bundle of cert at the newest Tick is made from. newer adds all later status leaves about it.
func (w *World) Parts(cert *x509.Certificate, newer bool) *bundle.Parts {
	w.t.Helper()
	key, holder := w.key(cert), wire.HolderMapKey(w.CA.ID, cctest.Serial(w.t, cert), holderKey(cert))
	prove := func(key mapKey) *revmap.Proof {
		p, err := w.Prove(key)
		if err != nil {
			w.t.Fatal(err)
		}
		return p
	}
	p := &bundle.Parts{
		Channel: Channel, CAKey: w.CA.Cert.RawSubjectPublicKeyInfo, Entries: w.entries[cert.SerialNumber.String()],
		Issuance: w.log(w.Issuance, lognames.Issuance(Channel, w.CA.ID)), Map: w.log(w.Map, lognames.Map(Channel)), Status: w.log(w.Status, lognames.Status(Channel)),
		TickIndex: w.ticked.index, CA: &w.ticked.ca, CAProof: prove(wire.CAMapKey(w.CA.ID)), CertProof: prove(key), HolderProof: prove(holder), Rules: w.ticked.rules,
	}
	if m, ok := w.ticked.certs[key]; ok {
		p.Cert = &m
	}
	if h, ok := w.ticked.holders[holder]; ok {
		p.Holder = &h
	}
	if newer {
		p.Newer = w.newer(cert)
	}
	return p
}

func (w *World) newer(cert *x509.Certificate) (indexes []uint64) {
	size := w.Status.Head().Size
	leaves, err := w.Status.Entries(w.ticked.status, size)
	if err != nil {
		w.t.Fatal(err)
	}
	for i, e := range leaves {
		var l wire.StatusLeaf
		if err := wire.Decode(e.Leaf, &l); err != nil {
			w.t.Fatal(err)
		}
		key := holderKey(cert)
		if foreign := l.Source == wire.SourceHolder && !bytes.Equal(l.SPKIHash, key[:]); !foreign && (len(l.Serial) == 0 || bytes.Equal(l.Serial, cctest.Serial(w.t, cert))) {
			indexes = append(indexes, w.ticked.status+uint64(i))
		}
	}
	return indexes
}

func (w *World) log(l *merklelogtest.Memory, origin string) bundle.Log {
	return bundle.Log{Log: l, Checkpoint: policytest.Checkpoint(w.t, l, origin, l.Head().Size, w.Orgs...)}
}

// Bundle makes a bundle of cert at the newest Tick.
func (w *World) Bundle(cert *x509.Certificate, newer bool) []byte {
	w.t.Helper()
	return w.Make(w.Parts(cert, newer))
}

// Make makes a bundle.
func (w *World) Make(p *bundle.Parts) []byte {
	w.t.Helper()
	data, err := bundle.Make(p)
	if err != nil {
		w.t.Fatal(err)
	}
	return data
}

// store is a revmap.Store in memory.
type store map[string][]byte

func (s store) Get(key []byte) ([]byte, error) { return s[string(key)], nil }

func (s store) Set(key, value []byte) error {
	s[string(key)] = value
	return nil
}

func (s store) Delete(key []byte) error {
	delete(s, string(key))
	return nil
}
