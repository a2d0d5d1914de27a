package revmap

import (
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
)

// onPebble is a tree under the prefix 'm'.
type onPebble struct {
	get   func(key []byte) ([]byte, io.Closer, error)
	batch *pebble.Batch
	buf   []byte
	reads int
}

func prefixed(key []byte) []byte { return append([]byte{'m'}, key...) }

func (s *onPebble) Get(key []byte) ([]byte, error) {
	s.reads++
	v, closer, err := s.get(prefixed(key))
	if err == pebble.ErrNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s.buf = append(s.buf[:0], v...)
	return s.buf, closer.Close()
}

func (s *onPebble) Set(key, value []byte) error { return s.batch.Set(prefixed(key), value, nil) }
func (s *onPebble) Delete(key []byte) error     { return s.batch.Delete(prefixed(key), nil) }

// addBatch is what a bridge does for k status changes: their values, of 100 octets, and the map, in one pebble batch.
func addBatch(b *testing.B, db *pebble.DB, n, k int, sync *pebble.WriteOptions) (t *tree, s *onPebble) {
	batch := db.NewIndexedBatch()
	value := make([]byte, 100)
	entries := numbered(n, k)
	for i, e := range entries {
		copy(value, e.ValueHash[:]) // incompressible in part, as digests are
		binary.BigEndian.PutUint64(value[32:], uint64(n+i))
		h := keyOf(-1 - n - i)
		copy(value[68:], h[:])
		if err := batch.Set(append([]byte{'v'}, e.Key[:]...), value, nil); err != nil {
			b.Fatal(err)
		}
	}
	s = &onPebble{get: func(key []byte) ([]byte, io.Closer, error) { return batch.Get(key) }, batch: batch}
	t = &tree{r: s}
	if _, err := t.apply(s, entries); err != nil {
		b.Fatal(err)
	}
	if err := batch.Commit(sync); err != nil {
		b.Fatal(err)
	}
	if err := batch.Close(); err != nil {
		b.Fatal(err)
	}
	return t, s
}

// diskBytes is all that is in dir, and what of it are write-ahead logs: up to a few memtables, whatever the number of entries.
func diskBytes(b *testing.B, dir string) (all, logs float64) {
	if err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		all += float64(info.Size())
		if filepath.Ext(d.Name()) == ".log" {
			logs += float64(info.Size())
		}
		return nil
	}); err != nil {
		b.Fatal(err)
	}
	return all / 1e6, logs / 1e6
}

// BenchmarkMillionEntries loads a million entries with values of 100 octets into pebble, in batches as a replay of the status
// log would, then measures single changes and proofs. One iteration is one load: run with -benchtime 1x.
func BenchmarkMillionEntries(b *testing.B) {
	const n = 1_000_000
	for _, size := range []int{1000, 20000} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			for b.Loop() {
				dir := b.TempDir()
				cache := pebble.NewCache(64 << 20)
				db, err := pebble.Open(dir, likeIndex(cache))
				cache.Unref() // db has its own reference
				if err != nil {
					b.Fatal(err)
				}
				start := time.Now()
				hashes, reads := 0, 0
				for at := 0; at < n; at += size {
					t, s := addBatch(b, db, at, size, pebble.NoSync)
					hashes, reads = hashes+t.count, reads+s.reads
				}
				if err := db.Flush(); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(time.Since(start).Seconds(), "load-s")
				all, logs := diskBytes(b, dir)
				b.ReportMetric(all, "disk-MB")
				b.ReportMetric(logs, "disk-wal-MB")
				b.ReportMetric(float64(hashes)/n, "load-hashes/entry")
				b.ReportMetric(float64(reads)/n, "load-reads/entry")
				singles(b, db, n)
				proofs(b, db, n)
				if err := db.Compact(b.Context(), []byte{0}, []byte{0xff}, false); err != nil {
					b.Fatal(err)
				}
				if err := db.Close(); err != nil {
					b.Fatal(err)
				}
				all, logs = diskBytes(b, dir)
				b.ReportMetric(all, "compacted-MB")
				b.ReportMetric(logs, "compacted-wal-MB")
			}
		})
	}
}

// singles measures one new entry at a time, without waiting for the disk.
func singles(b *testing.B, db *pebble.DB, n int) {
	const k = 2000
	hashes, most, reads, octets := 0, 0, 0, 0
	start := time.Now()
	for i := range k {
		t, s := addBatch(b, db, n+i, 1, pebble.NoSync)
		hashes, most, reads = hashes+t.count, max(most, t.count), reads+s.reads
		for _, w := range t.writes {
			octets += len(w.value)
		}
	}
	b.ReportMetric(float64(time.Since(start).Microseconds())/k, "single-us")
	b.ReportMetric(float64(hashes)/k, "single-hashes")
	b.ReportMetric(float64(most), "single-hashes-max")
	b.ReportMetric(float64(reads)/k, "single-reads")
	b.ReportMetric(float64(octets)/k, "single-write-B")
}

// proofs measures making, and checking, proofs of keys that are there and keys that are not.
func proofs(b *testing.B, db *pebble.DB, n int) {
	const k = 4000
	snapshot := db.NewSnapshot()
	defer func() {
		if err := snapshot.Close(); err != nil {
			b.Error(err)
		}
	}()
	s := &onPebble{get: func(key []byte) ([]byte, io.Closer, error) { return snapshot.Get(key) }}
	root, err := Root(s)
	if err != nil {
		b.Fatal(err)
	}
	var sum, most int
	var proving, verifying time.Duration
	for i := range k {
		at := i * (n / k)
		if i%2 == 1 {
			at += 10 * n // absent
		}
		start := time.Now()
		p, err := Prove(s, keyOf(at))
		if err != nil {
			b.Fatal(err)
		}
		proving += time.Since(start)
		raw := p.Marshal()
		sum, most = sum+len(raw), max(most, len(raw))
		start = time.Now()
		if !holds(root, keyOf(at), valueOf(at), raw) {
			b.Fatalf("proof of key %d does not hold", at)
		}
		verifying += time.Since(start)
	}
	b.ReportMetric(float64(proving.Microseconds())/k, "prove-us")
	b.ReportMetric(float64(verifying.Microseconds())/k, "verify-us")
	b.ReportMetric(float64(sum)/k, "proof-B")
	b.ReportMetric(float64(most), "proof-B-max")
}

// likeIndex are the options of ocsp-bridge/internal/index, but for the memtable, there 32 MB: its logs, kept for reuse, would be a third
// of what is on disk.
func likeIndex(cache *pebble.Cache) *pebble.Options {
	o := &pebble.Options{Cache: cache, MemTableSize: 8 << 20, FormatMajorVersion: pebble.FormatNewest, Logger: quiet{}}
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		o.Levels[i].BlockSize = 16 << 10
		o.Levels[i].Compression = func() *sstable.CompressionProfile { return sstable.FastCompression }
	}
	return o
}

type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf(format, args...))
}
