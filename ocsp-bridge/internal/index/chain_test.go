package index

import (
	"crypto/sha256"
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

// chain makes blocks by hand, so that they can be wrong in every way. Its roots come from golang.org/x/mod/sumdb/tlog, which
// shares no code with the index.
type chain struct {
	t      testing.TB
	ca     *cctest.CA
	blocks []*network.Block
	now    time.Time
	store  []tlog.Hash // of ca's log
	size   int64
	recs   map[string]*wire.CertRecord
}

func newChain(t testing.TB) *chain {
	t.Helper()
	c := &chain{t: t, ca: cctest.NewCA(t), now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), recs: map[string]*wire.CertRecord{}}
	c.block(network.Tx{Function: wire.FnInit, Writes: []network.Write{
		{Key: wire.ConsortiumKey, Value: wire.Encode(&wire.Consortium{V: 1, MSPs: []string{"Org1MSP"}, TickInterval: 15000})},
	}})
	empty := sha256.Sum256(nil)
	c.block(network.Tx{Function: wire.FnRegisterCA, Writes: []network.Write{
		{Key: wire.CAKey(c.ca.ID), Value: wire.Encode(&wire.CARecord{V: 1, Certs: [][]byte{c.ca.DER}, State: wire.CAActive, OperatingMSP: "Org1MSP"})},
		{Key: wire.LogHeadKey(c.ca.ID), Value: wire.Encode(&wire.LogHead{V: 1, Root: empty[:]})},
		{Key: wire.PendingKey(empty), Value: []byte("pending")},
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

// ReadHashes makes chain a tlog.HashReader.
func (c *chain) ReadHashes(at []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(at))
	for i, n := range at {
		out[i] = c.store[n]
	}
	return out, nil
}

// serials n to n+k-1 are issued in one transaction.
func (c *chain) issue(k int) network.Tx {
	c.t.Helper()
	arg := &wire.IssueArg{V: 1, CAID: c.ca.ID}
	res := &wire.IssueResult{V: 1}
	now := wire.MillisOf(c.now)
	var writes []network.Write
	for range k {
		serial := big.NewInt(c.size + 1000)
		der := stub(c.t, serial)
		leaf, err := ctleaf.X509(uint64(c.size), now, der)
		if err != nil {
			c.t.Fatal(err)
		}
		hashes, err := tlog.StoredHashes(c.size, leaf, c)
		if err != nil {
			c.t.Fatal(err)
		}
		c.store = append(c.store, hashes...)
		entry := wire.LogEntry{Index: uint64(c.size), Time: now, LeafHash: hashes[0][:]}
		c.size++
		rec := &wire.CertRecord{V: 1, State: wire.CertValid, StatusTime: now, Final: &entry, SPKIHash: make([]byte, 32)}
		key := wire.CertKey(c.ca.ID, serial.Bytes())
		c.recs[key] = rec
		writes = append(writes, network.Write{Key: key, Value: wire.Encode(rec)})
		arg.Certs, res.Entries = append(arg.Certs, der), append(res.Entries, entry)
	}
	writes = append(writes, network.Write{Key: wire.LogHeadKey(c.ca.ID), Value: wire.Encode(c.head(now))})
	slices.SortFunc(writes, func(a, b network.Write) int { return strings.Compare(a.Key, b.Key) })
	return network.Tx{Function: wire.FnIssue, Arg: wire.Encode(arg), Result: wire.Encode(res), Writes: writes}
}

func (c *chain) head(now wire.Millis) *wire.LogHead {
	root := c.root(c.size)
	return &wire.LogHead{V: 1, Size: uint64(c.size), Root: root[:], Time: now}
}

func (c *chain) root(size int64) tlog.Hash {
	c.t.Helper()
	root, err := tlog.TreeHash(size, c)
	if err != nil {
		c.t.Fatal(err)
	}
	return root
}

// set changes the record of a certificate that issue made.
func (c *chain) set(n int64, state wire.CertState) network.Tx {
	key := wire.CertKey(c.ca.ID, big.NewInt(n+1000).Bytes())
	rec := *c.recs[key]
	rec.State, rec.StatusTime, rec.Change = state, wire.MillisOf(c.now), rec.Change+1
	c.recs[key] = &rec
	return network.Tx{Function: wire.FnSetStatus, Writes: []network.Write{{Key: key, Value: wire.Encode(&rec)}}}
}

// stub is as much of a certificate as the index looks at.
func stub(t testing.TB, serial *big.Int) []byte {
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1BigInt(serial) })
	})
	der, err := b.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func open(t testing.TB, dir string) *Index {
	t.Helper()
	ix, err := Open(Options{Dir: dir, Channel: "test", Now: time.Now, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
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

func apply(t testing.TB, ix *Index, blocks ...*network.Block) {
	t.Helper()
	for _, b := range blocks {
		if err := ix.Apply(b); err != nil {
			t.Fatal(err)
		}
	}
}
