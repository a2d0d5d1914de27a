package index

import (
	"crypto/sha256"
	"encoding/asn1"
	"encoding/binary"
	"io"
	"log/slog"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctleaf"
	"github.com/certanchor/certanchor/network"
)

// oracle is a log as golang.org/x/mod/sumdb/tlog has it, which shares no code with the index.
type oracle struct {
	t      testing.TB
	hashes []tlog.Hash
	leaves [][]byte
}

// ReadHashes makes oracle a tlog.HashReader.
func (o *oracle) ReadHashes(at []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(at))
	for i, n := range at {
		out[i] = o.hashes[n]
	}
	return out, nil
}

func (o *oracle) size() int64 { return int64(len(o.leaves)) }

func (o *oracle) append(leaf []byte) tlog.Hash {
	o.t.Helper()
	hashes, err := tlog.StoredHashes(o.size(), leaf, o)
	if err != nil {
		o.t.Fatal(err)
	}
	o.hashes, o.leaves = append(o.hashes, hashes...), append(o.leaves, leaf)
	return hashes[0]
}

func (o *oracle) root(size int64) tlog.Hash {
	o.t.Helper()
	if size == 0 {
		return sha256.Sum256(nil)
	}
	root, err := tlog.TreeHash(size, o)
	if err != nil {
		o.t.Fatal(err)
	}
	return root
}

// chain makes blocks by hand, so that they can be wrong in every way.
type chain struct {
	t      testing.TB
	ca     *cctest.CA
	blocks []*network.Block
	now    time.Time
	log    *oracle // ca's
	status *oracle
	recs   map[string]*wire.CertRecord
	entry  wire.CARecord
	queue  []*wire.StatusLeaf // pending
	epoch  int64
}

func newChain(t testing.TB) *chain {
	t.Helper()
	c := &chain{
		t: t, ca: cctest.NewCA(t), now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), recs: map[string]*wire.CertRecord{},
		log: &oracle{t: t}, status: &oracle{t: t},
	}
	c.block(network.Tx{Function: wire.FnInit, Writes: []network.Write{
		{Key: wire.ConsortiumKey, Value: wire.Encode(&wire.Consortium{V: 1, MSPs: []string{"Org1MSP"}, TickInterval: 15000})},
	}})
	now := wire.MillisOf(c.now)
	c.entry = wire.CARecord{
		V: 1, Certs: [][]byte{c.ca.DER}, State: wire.CAActive, OperatingMSP: "Org1MSP", Registered: now, Change: 1, StateTime: now, Settled: 1,
	}
	empty := sha256.Sum256(nil)
	c.block(network.Tx{Function: wire.FnRegisterCA, Writes: []network.Write{
		{Key: wire.CAKey(c.ca.ID), Value: wire.Encode(&c.entry)},
		{Key: wire.LogHeadKey(c.ca.ID), Value: wire.Encode(&wire.LogHead{V: 1, Root: empty[:], Time: now})},
		c.pend(&wire.StatusLeaf{V: 1, Kind: wire.LeafCA, CAID: c.ca.ID, Change: 1, State: uint(wire.CAActive), Time: now}),
	}})
	return c
}

// block adds a block of valid transactions.
func (c *chain) block(txs ...network.Tx) *network.Block {
	b := &network.Block{Number: uint64(len(c.blocks)), Txs: txs}
	if len(c.blocks) > 0 {
		b.PrevHash = c.blocks[len(c.blocks)-1].Hash
	}
	for i := range txs {
		txs[i].Valid, txs[i].Time, txs[i].ID = true, c.now, "tx"+big.NewInt(int64(b.Number)).String()
	}
	h := sha256.Sum256(binary.BigEndian.AppendUint64(slices.Clone(b.PrevHash), b.Number))
	b.Hash = h[:]
	c.blocks = append(c.blocks, b)
	c.now = c.now.Add(time.Second)
	return b
}

// pend is the write of a status leaf.
func (c *chain) pend(leaf *wire.StatusLeaf) network.Write {
	c.queue = append(c.queue, leaf)
	return network.Write{Key: wire.PendingKey(leaf.Hash()), Value: wire.Encode(leaf)}
}

func serialAt(n int64) *big.Int { return big.NewInt(n + 1000) }

// issue records k certificates in one transaction; the serial number of the n-th leaf of the log is serialAt(n).
func (c *chain) issue(k int) network.Tx {
	c.t.Helper()
	ders := make([][]byte, k)
	for i := range ders {
		ders[i] = stub(c.t, serialAt(c.log.size()+int64(i)), false)
	}
	return c.record(ders...)
}

// record is an Issue of certificates and precertificates.
func (c *chain) record(ders ...[]byte) network.Tx {
	c.t.Helper()
	res := &wire.IssueResult{V: 1}
	now := wire.MillisOf(c.now)
	var writes []network.Write
	for _, der := range ders {
		index := uint64(c.log.size())
		pre, err := ctleaf.IsPrecert(der)
		if err != nil {
			c.t.Fatal(err)
		}
		var leaf []byte
		if pre {
			var tbs []byte
			if tbs, err = ctleaf.PrecertTBS(der); err == nil {
				leaf, err = ctleaf.Precert(index, now, c.ca.ID, tbs)
			}
		} else {
			leaf, err = ctleaf.X509(index, now, der)
		}
		if err != nil {
			c.t.Fatal(err)
		}
		hash := c.log.append(leaf)
		entry := wire.LogEntry{Index: index, Time: now, LeafHash: hash[:]}
		f, err := fieldsOf(der)
		if err != nil {
			c.t.Fatal(err)
		}
		key := wire.CertKey(c.ca.ID, f.serial)
		rec := c.recs[key]
		if rec == nil {
			rec = &wire.CertRecord{V: 1, State: wire.CertValid, StatusTime: now, SPKIHash: f.spkiHash[:], NotAfter: f.notAfter}
		}
		changed := *rec
		if pre {
			changed.Pre = &entry
		} else {
			changed.Final = &entry
		}
		c.recs[key] = &changed
		writes = append(writes, network.Write{Key: key, Value: wire.Encode(&changed)})
		res.Entries = append(res.Entries, entry)
	}
	root := c.log.root(c.log.size())
	writes = append(writes, network.Write{Key: wire.LogHeadKey(c.ca.ID), Value: wire.Encode(&wire.LogHead{
		V: 1, Size: uint64(c.log.size()), Root: root[:], Time: now,
	})})
	return network.Tx{
		Function: wire.FnIssue, Arg: wire.Encode(wire.NewIssueArg(c.ca.ID, ders)), Result: wire.Encode(res), Writes: sorted(writes),
	}
}

func sorted(writes []network.Write) []network.Write {
	slices.SortFunc(writes, func(a, b network.Write) int { return strings.Compare(a.Key, b.Key) })
	return writes
}

// set changes the record of a certificate that issue made.
func (c *chain) set(n int64, state wire.CertState) network.Tx {
	serial := wire.Serial(serialAt(n).Bytes())
	key := wire.CertKey(c.ca.ID, serial)
	rec := *c.recs[key]
	rec.State, rec.StatusTime, rec.Change = state, wire.MillisOf(c.now), rec.Change+1
	c.recs[key] = &rec
	return network.Tx{Function: wire.FnSetStatus, Writes: []network.Write{{Key: key, Value: wire.Encode(&rec)}, c.pend(&wire.StatusLeaf{
		V: 1, Kind: wire.LeafCert, CAID: c.ca.ID, Serial: serial, Change: rec.Change, State: uint(state), Reason: rec.Reason, Time: rec.StatusTime,
	})}}
}

// revoke is the n-th certificate's revocation by others.
func (c *chain) revoke(n int64, rev *wire.Revocation) network.Tx {
	serial := wire.Serial(serialAt(n).Bytes())
	rev.V = 1
	if rev.Time == 0 {
		rev.Time = wire.MillisOf(c.now)
	}
	return network.Tx{Function: wire.FnRevoke, Writes: []network.Write{
		{Key: wire.RevokeKey(c.ca.ID, serial, sourceOf(rev)), Value: wire.Encode(rev)},
		c.pend(&wire.StatusLeaf{
			V: 1, Kind: wire.LeafRevocation, CAID: c.ca.ID, Serial: serial, Change: rev.Change, State: uint(wire.CertRevoked),
			Reason: rev.Reason, Time: rev.Time, Source: rev.Source, SPKIHash: rev.SPKIHash,
		}),
	}}
}

// rule is the next rule about the CA, and suspend the end of new certificates.
func (c *chain) rule(from, to wire.Millis) network.Tx {
	c.entry.Change++
	c.entry.Rules++
	r := &wire.Rule{V: 1, N: c.entry.Rules, From: from, To: to, Reason: wire.CACompromise, Time: wire.MillisOf(c.now)}
	return network.Tx{Function: wire.FnDecide, Writes: []network.Write{
		{Key: wire.CAKey(c.ca.ID), Value: wire.Encode(&c.entry)},
		{Key: wire.RuleKey(c.ca.ID, r.N), Value: wire.Encode(r)},
		c.pend(&wire.StatusLeaf{
			V: 1, Kind: wire.LeafRule, CAID: c.ca.ID, Change: r.N, State: uint(wire.CertRevoked), Reason: r.Reason, Time: r.Time, From: from, To: to,
		}),
	}}
}

// anchor is what an operators' head leaves on the ledger.
func (c *chain) anchor() network.Tx {
	rec := &wire.OperatorsRecord{V: 1, Head: wire.OperatorsHead{Size: 1, Root: make([]byte, 32)}, Time: wire.MillisOf(c.now)}
	return network.Tx{Function: wire.FnAnchorOperators, Writes: []network.Write{{Key: wire.OperatorsKey(c.ca.ID, ""), Value: wire.Encode(rec)}}}
}

func (c *chain) suspend() network.Tx {
	c.entry.Change++
	c.entry.State, c.entry.StateTime = wire.CASuspended, wire.MillisOf(c.now)
	return network.Tx{Function: wire.FnDecide, Writes: []network.Write{
		{Key: wire.CAKey(c.ca.ID), Value: wire.Encode(&c.entry)},
		c.pend(&wire.StatusLeaf{V: 1, Kind: wire.LeafCA, CAID: c.ca.ID, Change: c.entry.Change, State: uint(c.entry.State), Time: c.entry.StateTime}),
	}}
}

// integrate moves the k oldest pending changes to the status log.
func (c *chain) integrate(k int) network.Tx {
	c.t.Helper()
	arg := &wire.IntegrateArg{V: 1, Size: uint64(c.status.size())}
	var writes []network.Write
	for _, leaf := range c.queue[:k] {
		hash := c.status.append(wire.Encode(leaf))
		arg.Leaves = append(arg.Leaves, hash[:])
		writes = append(writes, network.Write{Key: wire.PendingKey([32]byte(hash))})
	}
	c.queue = c.queue[k:]
	root := c.status.root(c.status.size())
	writes = append(writes, network.Write{Key: wire.StatusHeadKey, Value: wire.Encode(&wire.StatusHead{
		V: 1, Size: uint64(c.status.size()), Root: root[:], Time: wire.MillisOf(c.now), MSP: "Org1MSP",
	})})
	return network.Tx{Function: wire.FnIntegrate, Arg: wire.Encode(arg), Writes: sorted(writes)}
}

// tick moves the clock by one epoch.
func (c *chain) tick() network.Tx {
	c.epoch++
	return network.Tx{Function: wire.FnTick, Writes: []network.Write{
		{Key: wire.ClockKey(c.epoch), Value: wire.Encode(&wire.Clock{V: 1, Epoch: c.epoch, Time: wire.MillisOf(c.now)})},
	}}
}

// story is a chain in which everything happens at least once.
func story(t testing.TB) *chain {
	c := newChain(t)
	c.block(c.issue(5), c.tick())
	c.block(c.record(stub(t, serialAt(5), true)))
	c.block(c.record(stub(t, serialAt(5), false), stub(t, serialAt(100), true)))
	c.block(c.set(0, wire.CertHeld), c.set(1, wire.CertRevoked))
	c.block(c.integrate(2), c.tick())
	c.block(c.revoke(2, &wire.Revocation{Source: wire.SourceQuorum, Reason: wire.Superseded, Change: 1}), c.set(0, wire.CertValid))
	holder := sha256.Sum256(nil)
	c.block(c.revoke(0, &wire.Revocation{Source: wire.SourceHolder, SPKIHash: holder[:], Reason: wire.KeyCompromise, Change: 1}))
	c.block(c.rule(1, wire.MillisOf(c.now)-100000), c.suspend(), c.integrate(4))
	c.block(c.set(3, wire.CertRevoked), c.tick())
	c.block(c.integrate(1), c.tick(), c.set(4, wire.CertHeld))
	return c
}

// stub is as much of a certificate as the index looks at. A precertificate and a certificate with one serial belong together.
func stub(t testing.TB, serial *big.Int, pre bool) []byte {
	b := cryptobyte.NewBuilder(nil)
	empty := func(b *cryptobyte.Builder) { b.AddASN1(cbasn1.SEQUENCE, func(*cryptobyte.Builder) {}) }
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1BigInt(serial)
			empty(b)
			empty(b)
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1UTCTime(cctest.LeafNotBefore)
				b.AddASN1GeneralizedTime(time.Date(2055, 1, 1, 0, 0, 0, 0, time.UTC))
			})
			empty(b)
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1OctetString([]byte("key")) })
			if pre {
				extensions(b, ctleaf.OIDPoison)
			}
		})
		empty(b)
		b.AddASN1BitString(make([]byte, 8))
	})
	der, err := b.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func extensions(b *cryptobyte.Builder, oids ...asn1.ObjectIdentifier) {
	b.AddASN1(cbasn1.Tag(3).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, oid := range oids {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(oid)
					b.AddASN1Boolean(true)
					b.AddASN1OctetString([]byte{5, 0})
				})
			}
		})
	})
}

func open(t testing.TB, dir string) *Index {
	t.Helper()
	ix, err := tryOpen(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ix.Close(); err != nil {
			t.Error(err)
		}
	})
	return ix
}

func tryOpen(dir string) (*Index, error) {
	return Open(Options{Dir: dir, Channel: "test", Now: time.Now, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
}

func apply(t testing.TB, ix *Index, blocks ...*network.Block) {
	t.Helper()
	for _, b := range blocks {
		if err := ix.Apply(b); err != nil {
			t.Fatal(err)
		}
	}
}
