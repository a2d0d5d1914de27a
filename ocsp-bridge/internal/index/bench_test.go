package index

import (
	"crypto/rand"
	"fmt"
	"io/fs"
	"math/big"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/transparency-dev/merkle/compact"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/status"
	"github.com/certanchor/certanchor/network"
)

// webCert is a certificate of about 1.2 kB with as much in it that does not compress as a web server's: an RSA key and signature
// of 256 octets each, two SCTs, two key identifiers' worth of hashes.
func webCert(b *testing.B, n int) []byte {
	noise := make([]byte, noiseLen)
	if _, err := rand.Read(noise); err != nil {
		b.Fatal(err)
	}
	serial := append(append([]byte{0x40}, noise[:10]...), fmt.Sprintf("%08d", n)...)
	return webCertOf(serial, n, noise)
}

const noiseLen = 256 + 256 + 2*(32+72) + 20

// webCertOf is the n-th certificate with this serial number.
func webCertOf(serial []byte, n int, noise []byte) []byte {
	take := func(n int) []byte {
		out := noise[:n]
		noise = noise[n:]
		return out
	}
	text := func(format string) []byte { return fmt.Appendf(nil, format, n) }
	d := cryptobyte.NewBuilder(nil)
	d.AddASN1(cbasn1.SEQUENCE, func(d *cryptobyte.Builder) {
		d.AddASN1(cbasn1.SEQUENCE, func(d *cryptobyte.Builder) {
			d.AddASN1BigInt(new(big.Int).SetBytes(serial))
			issuer := func(d *cryptobyte.Builder) { d.AddBytes(make([]byte, 100)) }
			d.AddASN1(cbasn1.SEQUENCE, issuer)
			d.AddASN1(cbasn1.SEQUENCE, issuer)
			d.AddASN1(cbasn1.SEQUENCE, func(d *cryptobyte.Builder) {
				d.AddASN1UTCTime(cctest.LeafNotBefore)
				d.AddASN1UTCTime(cctest.LeafNotAfter)
			})
			d.AddASN1(cbasn1.SEQUENCE, func(d *cryptobyte.Builder) { d.AddBytes(text("host-%d.example")) })
			d.AddASN1(cbasn1.SEQUENCE, func(d *cryptobyte.Builder) { d.AddASN1BitString(take(256)) })
			d.AddASN1(cbasn1.Tag(3).ContextSpecific().Constructed(), func(d *cryptobyte.Builder) {
				d.AddASN1(cbasn1.SEQUENCE, func(d *cryptobyte.Builder) {
					d.AddASN1(cbasn1.SEQUENCE, func(d *cryptobyte.Builder) {
						d.AddASN1ObjectIdentifier([]int{2, 5, 29, 17})
						d.AddASN1OctetString(append(append(text("www.host-%d.example, host-%[1]d.example"), make([]byte, 180)...), take(208)...))
					})
				})
			})
		})
		d.AddASN1(cbasn1.SEQUENCE, func(*cryptobyte.Builder) {})
		d.AddASN1BitString(take(256))
	})
	return d.BytesOrPanic()
}

// chainOf makes blocks of batch new certificates each.
func chainOf(b *testing.B, certs, batch int) (*chain, int) {
	c := newChain(b)
	size := 0
	for n := 0; n < certs; n += batch {
		ders := make([][]byte, batch)
		for i := range ders {
			ders[i] = webCert(b, n+i)
			size += len(ders[i])
		}
		c.block(c.record(ders...))
	}
	return c, size
}

// BenchmarkApply reports what a certificate costs on its way into the index and in it. It wants -benchtime 200000x or more: a few
// thousand fit into memory.
func BenchmarkApply(b *testing.B) {
	const batch = 200
	certs := max(b.N/batch, 1) * batch
	c, der := chainOf(b, certs, batch)
	dir := b.TempDir()
	ix := open(b, dir)
	b.ResetTimer()
	cpu := cpuTime(b)
	apply(b, ix, c.blocks...)
	b.StopTimer()
	b.ReportMetric(float64(certs)/b.Elapsed().Seconds(), "certs/s")
	b.ReportMetric(float64((cpuTime(b)-cpu).Microseconds())/float64(certs), "cpu-us/cert") // what else runs matters less for it
	if err := ix.db.Flush(); err != nil {
		b.Fatal(err)
	}
	total := ix.db.Metrics().Total()
	b.ReportMetric(float64(total.TableBytesCompacted+total.TableBytesFlushed)/float64(certs), "written-B/cert")
	if err := ix.Close(); err != nil { // waits for compactions
		b.Fatal(err)
	}
	b.ReportMetric(float64(diskUse(b, dir))/float64(certs), "disk-B/cert")
	b.ReportMetric(float64(der)/float64(certs), "DER-B/cert")
}

// BenchmarkRevoke: certificates that are recorded change status, 200 in a transaction, 1000 in an Integrate, 5000 for each Tick.
func BenchmarkRevoke(b *testing.B) {
	const batch = 200
	n := max(b.N/(25*batch), 1) * 25 * batch
	c := newChain(b)
	for range n / batch {
		c.block(c.issue(batch))
	}
	dir := b.TempDir()
	ix := open(b, dir)
	apply(b, ix, c.blocks...)
	if err := ix.db.Flush(); err != nil {
		b.Fatal(err)
	}
	before, first := diskUse(b, dir), len(c.blocks)
	for i := range n / batch {
		var tx network.Tx
		for k := range batch {
			tx.Writes = append(tx.Writes, c.set(int64(i*batch+k), wire.CertRevoked).Writes...)
		}
		tx.Writes = sorted(tx.Writes)
		c.block(tx)
		if i%5 == 4 {
			c.block(c.integrate(5 * batch))
		}
		if i%25 == 24 {
			c.block(c.tick())
		}
	}
	b.ResetTimer()
	apply(b, ix, c.blocks[first:]...)
	b.StopTimer()
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "changes/s")
	if err := ix.db.Flush(); err != nil {
		b.Fatal(err)
	}
	if err := ix.Close(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(diskUse(b, dir)-before)/float64(n), "disk-B/change")
}

// BenchmarkReads: what is served, from a log of 20,000.
func BenchmarkReads(b *testing.B) {
	const certs = 20000
	c, _ := chainOf(b, certs, 200)
	c.block(c.integrate(1), c.tick())
	ix := open(b, b.TempDir())
	apply(b, ix, c.blocks...)
	if err := ix.db.Flush(); err != nil {
		b.Fatal(err)
	}
	log, _ := ix.Issuance(c.ca.ID)
	var tile []compact.NodeID
	for i := range uint64(256) {
		tile = append(tile, compact.NewNodeID(0, 512+i))
	}
	for name, read := range map[string]func(n uint64) error{
		"tile":        func(uint64) error { _, err := log.Nodes(tile); return err },
		"256-entries": func(uint64) error { _, err := log.Entries(512, 768); return err },
		"inclusion":   func(n uint64) error { _, err := merklelog.Inclusion(log, n*7919%certs, certs); return err },
		"map-proof":   func(uint64) error { _, _, _, err := ix.MapProof(wire.CAMapKey(c.ca.ID), [32]byte{1}); return err },
	} {
		b.Run(name, func(b *testing.B) {
			for n := range b.N {
				if err := read(uint64(n)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// cpuTime is what this process has used, compactions included.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func diskUse(b *testing.B, dir string) (n int64) {
	if err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(d.Name()) == ".log" {
			return err
		}
		info, err := d.Info()
		if err == nil {
			n += info.Size()
		}
		return err
	}); err != nil {
		b.Fatal(err)
	}
	return n
}

// BenchmarkStatus: the OCSP path, without and with revocations by others about the CA.
func BenchmarkStatus(b *testing.B) {
	const certs = 20000
	for _, others := range []bool{false, true} {
		b.Run(fmt.Sprintf("others-%t", others), func(b *testing.B) {
			c, _ := chainOf(b, certs, 200)
			if others {
				serial := serialAt(0).Bytes()
				rev := wire.Revocation{V: 1, Source: wire.SourceQuorum, Time: 1, Change: 1}
				c.block(network.Tx{Writes: []network.Write{{Key: wire.RevokeKey(c.ca.ID, serial, wire.QuorumSource()), Value: wire.Encode(&rev)}, c.pend(&wire.StatusLeaf{
					V: 1, Kind: wire.LeafRevocation, CAID: c.ca.ID, Serial: serial, Change: 1, State: uint(wire.CertRevoked), Time: 1, Source: wire.SourceQuorum,
				})}})
			}
			ix := open(b, b.TempDir())
			apply(b, ix, c.blocks...)
			if err := ix.db.Flush(); err != nil {
				b.Fatal(err)
			}
			var serials []wire.Serial
			for key := range c.recs {
				_, s, err := wire.ParseCertKey(key)
				if err != nil {
					b.Fatal(err)
				}
				serials = append(serials, s)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for n := range b.N {
				if _, rec, err := ix.Status(c.ca.ID, serials[n%len(serials)]); err != nil || rec == nil {
					b.Fatal(rec, err)
				}
			}
		})
	}
}

// BenchmarkEachChanged: what a complete CRL reads for each of its entries.
func BenchmarkEachChanged(b *testing.B) {
	const certs, batch = 20000, 200
	c := newChain(b)
	for range certs / batch {
		c.block(c.issue(batch))
	}
	for i := range certs / batch {
		var tx network.Tx
		for k := range batch {
			tx.Writes = append(tx.Writes, c.set(int64(i*batch+k), wire.CertRevoked).Writes...)
		}
		tx.Writes = sorted(tx.Writes)
		c.block(tx)
	}
	ix := open(b, b.TempDir())
	apply(b, ix, c.blocks...)
	if err := ix.db.Flush(); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; {
		if err := ix.EachChanged(c.ca.ID, func(wire.Serial, status.Status, *wire.CertRecord) error { n++; return nil }); err != nil {
			b.Fatal(err)
		}
	}
}
