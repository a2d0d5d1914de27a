package index

import (
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/transparency-dev/merkle/compact"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctleaf"
	"github.com/certanchor/certanchor/network"
)

// synthetic makes the blocks of a ledger of any size, with as much memory as one block needs. The n-th certificate has the serial number
// largeSerial(n); every hundredth is revoked one block later.
type synthetic struct {
	genesis     *chain
	ca          *cctest.CA
	now         wire.Millis
	log, status *compact.Range
	last        []wire.CertRecord // of the block before
	queue       [][sha256.Size]byte
	number      uint64
	prev        []byte
	epoch       int64
	next        int // certificate
	random      *rand.ChaCha8
}

func newSynthetic(b *testing.B) *synthetic {
	c := newChain(b)
	s := &synthetic{
		genesis: c, ca: c.ca, now: wire.MillisOf(c.now), log: ranges.NewEmptyRange(0), status: ranges.NewEmptyRange(0),
		number: uint64(len(c.blocks)), prev: c.blocks[len(c.blocks)-1].Hash, random: rand.NewChaCha8([32]byte{1}),
	}
	s.queue = append(s.queue, c.queue[0].Hash())
	return s
}

func largeSerial(n int) wire.Serial {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64([]byte("serial"), uint64(n)))
	sum[0] = 0x40 | sum[0]&0x3f
	return sum[:16]
}

// block is the next one.
func (s *synthetic) block(b *testing.B) *network.Block {
	s.now += 200
	txs := []network.Tx{s.revoke()}
	txs = append(txs, s.issue(b))
	if s.number%largeTicks == 0 {
		txs = append(txs, s.integrate(b), s.tick())
	}
	for i := range txs {
		txs[i].Valid, txs[i].Time, txs[i].ID = true, s.now.Time(), strconv.FormatUint(s.number, 10)
	}
	hash := sha256.Sum256(binary.BigEndian.AppendUint64(slices.Clone(s.prev), s.number))
	block := &network.Block{Number: s.number, PrevHash: s.prev, Hash: hash[:], Txs: txs}
	s.number, s.prev = s.number+1, hash[:]
	return block
}

func (s *synthetic) issue(b *testing.B) network.Tx {
	res, ders := &wire.IssueResult{V: 1}, make([][]byte, largeBatch)
	var writes []network.Write
	s.last = s.last[:0]
	noise := make([]byte, noiseLen)
	for i := range ders {
		if _, err := s.random.Read(noise[:*largeNoise]); err != nil {
			b.Fatal(err)
		}
		serial, index := largeSerial(s.next), s.log.End()
		ders[i] = webCertOf(serial, s.next, slices.Clone(noise))
		leaf, err := ctleaf.X509(index, s.now, ders[i])
		if err != nil {
			b.Fatal(err)
		}
		hash := ctleaf.HashLeaf(leaf)
		if err := s.log.Append(hash[:], nil); err != nil {
			b.Fatal(err)
		}
		f, err := fieldsOf(ders[i])
		if err != nil {
			b.Fatal(err)
		}
		entry := wire.LogEntry{Index: index, Time: s.now, LeafHash: hash[:]}
		rec := wire.CertRecord{V: 1, State: wire.CertValid, StatusTime: s.now, Final: &entry, SPKIHash: f.spkiHash[:], NotAfter: f.notAfter}
		s.last, s.next = append(s.last, rec), s.next+1
		writes = append(writes, network.Write{Key: wire.CertKey(s.ca.ID, serial), Value: wire.Encode(&rec)})
		res.Entries = append(res.Entries, entry)
	}
	root, err := rootOf(s.log)
	if err != nil {
		b.Fatal(err)
	}
	writes = append(writes, network.Write{Key: wire.LogHeadKey(s.ca.ID), Value: wire.Encode(&wire.LogHead{V: 1, Size: s.log.End(), Root: root[:], Time: s.now})})
	return network.Tx{Function: wire.FnIssue, Arg: wire.Encode(wire.NewIssueArg(s.ca.ID, ders)), Result: wire.Encode(res), Writes: sorted(writes)}
}

// revoke is about the certificates of the block before.
func (s *synthetic) revoke() network.Tx {
	tx := network.Tx{Function: wire.FnSetStatus}
	for i := 0; i < len(s.last); i += largeRatio {
		rec, serial := s.last[i], largeSerial(s.next-len(s.last)+i)
		rec.State, rec.Reason, rec.StatusTime, rec.Change = wire.CertRevoked, wire.Superseded, s.now, 1
		leaf := &wire.StatusLeaf{
			V: 1, Kind: wire.LeafCert, CAID: s.ca.ID, Serial: serial, Change: 1, State: uint(rec.State), Reason: rec.Reason, Time: rec.StatusTime,
		}
		s.queue = append(s.queue, leaf.Hash())
		tx.Writes = append(tx.Writes,
			network.Write{Key: wire.CertKey(s.ca.ID, serial), Value: wire.Encode(&rec)}, network.Write{Key: wire.PendingKey(leaf.Hash()), Value: wire.Encode(leaf)})
	}
	tx.Writes = sorted(tx.Writes)
	return tx
}

func (s *synthetic) integrate(b *testing.B) network.Tx {
	arg := &wire.IntegrateArg{V: 1, Size: s.status.End()}
	var writes []network.Write
	for _, hash := range s.queue {
		if err := s.status.Append(hash[:], nil); err != nil {
			b.Fatal(err)
		}
		arg.Leaves = append(arg.Leaves, slices.Clone(hash[:]))
		writes = append(writes, network.Write{Key: wire.PendingKey(hash)})
	}
	s.queue = nil
	root, err := rootOf(s.status)
	if err != nil {
		b.Fatal(err)
	}
	writes = append(writes, network.Write{Key: wire.StatusHeadKey, Value: wire.Encode(&wire.StatusHead{
		V: 1, Size: s.status.End(), Root: root[:], Time: s.now, MSP: "Org1MSP",
	})})
	return network.Tx{Function: wire.FnIntegrate, Arg: wire.Encode(arg), Writes: sorted(writes)}
}

func (s *synthetic) tick() network.Tx {
	s.epoch++
	return network.Tx{Function: wire.FnTick, Writes: []network.Write{
		{Key: wire.ClockKey(s.epoch), Value: wire.Encode(&wire.Clock{V: 1, Epoch: s.epoch, Time: s.now})},
	}}
}
