package crls

import (
	"crypto/sha256"
	"encoding/binary"
	"flag"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/crl"
	"github.com/certanchor/certanchor/internal/ctleaf"
	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/index"
)

var revokedCount = flag.Int("revoked", 100_000, "certificates on the CRL in BenchmarkCRL")

// synthetic makes the blocks of a ledger on which everything is revoked.
type synthetic struct {
	b    *testing.B
	w    *world
	ca   *cctest.CA
	log  *compact.Range
	recs []wire.CertRecord // of the certificates issued last
}

var spki = []byte{0x30, 5, 4, 3, 'k', 'e', 'y'}

// stub is as much of a certificate as the index and crl.Points look at.
func stub(serial wire.Serial) []byte {
	b := cryptobyte.NewBuilder(nil)
	empty := func(b *cryptobyte.Builder) { b.AddASN1(cbasn1.SEQUENCE, func(*cryptobyte.Builder) {}) }
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1BigInt(serial.Int())
			empty(b)
			empty(b)
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1UTCTime(cctest.LeafNotBefore)
				b.AddASN1UTCTime(cctest.LeafNotAfter)
			})
			empty(b)
			b.AddBytes(spki)
		})
		empty(b)
		b.AddASN1BitString(make([]byte, 64))
	})
	return b.BytesOrPanic()
}

func serialOf(n int) wire.Serial {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(n)))
	sum[0] = 0x40 | sum[0]&0x3f
	return sum[:16]
}

func (s *synthetic) add(ix *index.Index, txs ...network.Tx) {
	s.w.ledger.Now = s.w.ledger.Now.Add(50 * time.Millisecond)
	for i := range txs {
		slices.SortFunc(txs[i].Writes, func(a, b network.Write) int { return strings.Compare(a.Key, b.Key) })
		txs[i].Valid, txs[i].Time, txs[i].ID = true, s.w.ledger.Now, "tx"
	}
	v := ix.View()
	hash := sha256.Sum256(binary.BigEndian.AppendUint64(slices.Clone(v.Hash), v.Height))
	if err := ix.Apply(&network.Block{Number: v.Height, PrevHash: v.Hash, Hash: hash[:], Txs: txs}); err != nil {
		s.b.Fatal(err)
	}
}

// issue is the certificates from the n-th on.
func (s *synthetic) issue(n, k int) network.Tx {
	now, res := wire.MillisOf(s.w.ledger.Now), &wire.IssueResult{V: 1}
	tx, ders := network.Tx{Function: wire.FnIssue}, make([][]byte, k)
	key := sha256.Sum256(spki)
	s.recs = nil
	for i := range ders {
		ders[i] = stub(serialOf(n + i))
		leaf, err := ctleaf.X509(s.log.End(), now, ders[i])
		if err != nil {
			s.b.Fatal(err)
		}
		hash := ctleaf.HashLeaf(leaf)
		entry := wire.LogEntry{Index: s.log.End(), Time: now, LeafHash: hash[:]}
		if err := s.log.Append(hash[:], nil); err != nil {
			s.b.Fatal(err)
		}
		rec := wire.CertRecord{V: 1, State: wire.CertValid, StatusTime: now, Final: &entry, SPKIHash: key[:], NotAfter: wire.MillisOf(cctest.LeafNotAfter)}
		s.recs, res.Entries = append(s.recs, rec), append(res.Entries, entry)
		tx.Writes = append(tx.Writes, network.Write{Key: wire.CertKey(s.ca.ID, serialOf(n+i)), Value: wire.Encode(&rec)})
	}
	root, err := s.log.GetRootHash(nil)
	if err != nil {
		s.b.Fatal(err)
	}
	tx.Writes = append(tx.Writes, network.Write{Key: wire.LogHeadKey(s.ca.ID), Value: wire.Encode(&wire.LogHead{V: 1, Size: s.log.End(), Root: root, Time: now})})
	tx.Arg, tx.Result = wire.Encode(wire.NewIssueArg(s.ca.ID, ders)), wire.Encode(res)
	return tx
}

// revoke is about the certificates that were issued last, which are from the n-th on.
func (s *synthetic) revoke(n int) network.Tx {
	tx, now := network.Tx{Function: wire.FnSetStatus}, wire.MillisOf(s.w.ledger.Now)
	for i, rec := range s.recs {
		rec.State, rec.Reason, rec.StatusTime, rec.Change = wire.CertRevoked, wire.Superseded, now, 1
		leaf := &wire.StatusLeaf{V: 1, Kind: wire.LeafCert, CAID: s.ca.ID, Serial: serialOf(n + i), Change: 1, State: uint(rec.State), Reason: rec.Reason, Time: now}
		tx.Writes = append(tx.Writes, network.Write{Key: wire.CertKey(s.ca.ID, serialOf(n+i)), Value: wire.Encode(&rec)},
			network.Write{Key: wire.PendingKey(leaf.Hash()), Value: wire.Encode(leaf)})
	}
	return tx
}

// BenchmarkCRL reports what a complete CRL costs from the index to its signature, and then to another organisation's acceptance; and what one more
// revocation costs until it is in a signed delta CRL. -revoked says how many certificates are revoked.
func BenchmarkCRL(b *testing.B) {
	w := newWorld(b, 1)
	s := &synthetic{b: b, w: w, ca: w.cas[0], log: (&compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}).NewEmptyRange(0)}
	br := w.open(b.TempDir(), len(w.blocks))
	const batch = 1000
	n := 0
	for ; n < *revokedCount; n += batch {
		s.add(br.ix, s.issue(n, batch))
		s.add(br.ix, s.revoke(n))
	}
	br.now = w.ledger.Now
	base := br.ix.View().Height
	heap := func(b *testing.B) {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		b.ReportMetric(float64(m.HeapSys>>20), "heap-MiB")
		b.ReportAllocs()
	}
	var full *crl.Contents
	b.Run("full/contents", func(b *testing.B) {
		for b.Loop() {
			full = br.contents(s.ca, "", 0)
		}
		heap(b)
	})
	if full == nil || len(full.Entries) != n {
		b.Fatal("not all are listed")
	}
	var der []byte
	b.Run("full/sign", func(b *testing.B) {
		for b.Loop() {
			der = w.sign(s.ca, full)
		}
		heap(b)
	})
	b.Run("full/judge", func(b *testing.B) {
		for b.Loop() {
			list, err := br.read(s.ca.ID, der, br.ix.View().CA(s.ca.ID).Certs)
			if err == nil {
				err = br.compare(list, false)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
		heap(b)
	})
	br.takes(s.ca, full)
	m := br.maker
	b.Run("full/oneMore", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			s.add(br.ix, s.issue(n, 1))
			s.add(br.ix, s.revoke(n))
			n++
			b.StartTimer()
			c, err := m.Contents(m.Newest(s.ca.ID, "", 0))
			if err != nil {
				b.Fatal(err)
			}
			w.sign(s.ca, c)
		}
		heap(b)
	})
	b.Run("delta/oneMore", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			b.StopTimer()
			s.add(br.ix, s.issue(n, 1))
			revocation := s.revoke(n)
			n++
			b.StartTimer()
			s.add(br.ix, revocation)
			c, err := m.Contents(m.Newest(s.ca.ID, "", base))
			if err != nil {
				b.Fatal(err)
			}
			br.now = w.ledger.Now
			if out, err := br.offer(s.ca, w.sign(s.ca, c)); err != nil || !out.Taken {
				b.Fatal(out, err)
			}
		}
		b.ReportMetric(float64(n-*revokedCount), "entries-at-end")
	})
	b.Logf("%d revoked, CRL of %d octets", *revokedCount, len(der))
}
