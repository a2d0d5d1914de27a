package index

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/status"
	"github.com/certanchor/certanchor/network"
)

var (
	largeCerts = flag.Int("large", 200_000, "certificates of BenchmarkLarge")
	largeNoise = flag.Int("large.noise", noiseLen, "octets in each of them that do not compress; fewer make them faster to make")
	largeDir   = flag.String("large.dir", "", "where BenchmarkLarge keeps its index, to be used again; default: a temporary directory")
)

const (
	largeBatch = 500 // certificates of an Issue, one of each block
	largeRatio = 100 // one of so many is revoked
	largeTicks = 50  // blocks from one tick to the next
	smallCerts = 10_000
	lookups    = 100_000
)

// largeIndex builds an index of so many certificates in dir. Blocks are made beside their application, on another core if there is one.
func largeIndex(b *testing.B, dir string, certs int) (caID wire.CAID, rate float64) {
	s := newSynthetic(b)
	blocks := make(chan *network.Block, 4)
	go func() {
		defer close(blocks)
		for s.next < certs {
			blocks <- s.block(b)
		}
	}()
	ix := open(b, dir)
	apply(b, ix, s.genesis.blocks...)
	began, told, cpu, n := time.Now(), time.Now(), time.Duration(0), 0
	for block := range blocks {
		from := time.Now()
		apply(b, ix, block)
		cpu += time.Since(from)
		if n += largeBatch; time.Since(told) > 10*time.Second {
			told = time.Now()
			fmt.Fprintf(os.Stderr, "%d of %d certificates, %.0f/s\n", n, certs, float64(n)/time.Since(began).Seconds())
		}
	}
	if err := ix.Close(); err != nil {
		b.Fatal(err)
	}
	return s.ca.ID, float64(certs) / cpu.Seconds()
}

// laid is an index that lies somewhere.
type laid struct {
	dir   string
	ca    wire.CAID
	certs int
}

// measured is what a process of its own finds about two indexes.
type measured struct {
	Open, Changed            time.Duration   // until the large one, which no cache knows, is open; to enumerate what is revoked in it
	RSS                      int             // octets, at most, with the large one alone
	Large, Small             []time.Duration // of lookups, sorted
	LargeSigned, SmallSigned []time.Duration // of lookups with one P-256 signature each, which an answer that nobody has kept costs at least
}

const largeEnv = "CERTANCHOR_INDEX_LARGE"

// TestMain is measure in the process that measureApart starts.
func TestMain(m *testing.M) {
	if plan := os.Getenv(largeEnv); plan != "" {
		if err := measure(plan); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	os.Exit(m.Run())
}

func measureApart(b *testing.B, large, small laid) (m measured) {
	forget(b, large.dir)
	cmd := exec.Command(os.Args[0])
	cmd.Env, cmd.Stderr = append(os.Environ(), fmt.Sprintf("%s=%s %s %d %s %s %d", largeEnv, large.dir, large.ca, large.certs, small.dir, small.ca, small.certs)), os.Stderr
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &m)
	}
	if err != nil {
		b.Fatal(err)
	}
	return m
}

// subject is an index that is asked for random certificates.
type subject struct {
	ix     *Index
	ca     wire.CAID
	certs  int
	random *rand.Rand
}

func subjectAt(dir, ca string, certs int) (*subject, error) {
	id, err := wire.ParseCAID(ca)
	if err != nil {
		return nil, err
	}
	ix, err := tryOpen(dir)
	return &subject{ix, id, certs, rand.New(rand.NewPCG(1, 2))}, err
}

func measure(plan string) error {
	var (
		m         measured
		dirs, ids [2]string
		certs     [2]int
	)
	if _, err := fmt.Sscan(plan, &dirs[0], &ids[0], &certs[0], &dirs[1], &ids[1], &certs[1]); err != nil {
		return err
	}
	began := time.Now()
	large, err := subjectAt(dirs[0], ids[0], certs[0])
	if err != nil {
		return err
	}
	m.Open = time.Since(began)
	// Once all records have been read, the system has them in memory, as that of a responder will after some time; the index keeps few.
	if err := large.ix.read(func(_ *View, r pebble.Reader) error {
		return each(r, []byte{certTag}, func(_, _ []byte) error { return nil })
	}); err != nil {
		return err
	}
	for range lookups {
		if _, err := large.look(); err != nil {
			return err
		}
	}
	began = time.Now()
	revoked := 0
	if err := large.ix.EachChanged(large.ca, func(wire.Serial, status.Status, *wire.CertRecord) error { revoked++; return nil }); err != nil {
		return err
	}
	m.Changed = time.Since(began)
	if want := (large.certs - largeBatch) / largeRatio; revoked != want {
		return fmt.Errorf("%d are revoked, want %d", revoked, want)
	}
	if m.RSS, err = resident(); err != nil {
		return err
	}
	small, err := subjectAt(dirs[1], ids[1], certs[1])
	if err != nil {
		return err
	}
	if err := m.compare(large, small); err != nil {
		return err
	}
	if err := errors.Join(large.ix.Close(), small.ix.Close()); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(m)
}

// compare asks them by turns, so that what else the machine does meets both.
func (m *measured) compare(large, small *subject) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		return err
	}
	digest := sha256.Sum256(nil)
	for range lookups {
		for _, of := range []struct {
			s                *subject
			lookups, answers *[]time.Duration
		}{{large, &m.Large, &m.LargeSigned}, {small, &m.Small, &m.SmallSigned}} {
			took, err := of.s.look()
			if err != nil {
				return err
			}
			began := time.Now()
			if _, err := ecdsa.SignASN1(crand.Reader, key, digest[:]); err != nil {
				return err
			}
			*of.lookups, *of.answers = append(*of.lookups, took), append(*of.answers, took+time.Since(began))
		}
	}
	for _, all := range [][]time.Duration{m.Large, m.Small, m.LargeSigned, m.SmallSigned} {
		slices.Sort(all)
	}
	return nil
}

// look asks for a random certificate, and checks the answer.
func (s *subject) look() (time.Duration, error) {
	n := s.random.IntN(s.certs)
	serial := largeSerial(n)
	began := time.Now()
	st, rec, err := s.ix.Status(s.ca, serial)
	took := time.Since(began)
	if err != nil || rec == nil {
		return 0, fmt.Errorf("certificate %d: %v, %w", n, rec, err)
	}
	last := n >= (s.certs-1)/largeBatch*largeBatch // nobody has revoked those
	if revoked := n%largeRatio == 0 && !last; revoked != (st.State == wire.CertRevoked) {
		return 0, fmt.Errorf("certificate %d is %+v", n, st)
	}
	return took, nil
}

func percentile(sorted []time.Duration, p float64) float64 {
	return float64(sorted[min(int(float64(len(sorted))*p/100), len(sorted)-1)].Nanoseconds()) / 1e3
}

// resident is the most memory that this process ever had, without what the system keeps of its files.
func resident() (int, error) {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
			kib, err := strconv.Atoi(strings.Fields(rest)[0])
			return kib << 10, err
		}
	}
	return 0, errors.New("/proc/self/status has no VmHWM")
}

// BenchmarkLarge builds an index of -large certificates, and one of 10,000, and compares them: the rate of applying, octets on disk, and in a
// process of its own the time to open it with nothing cached, resident memory, and lookups. -large 10000000 takes some ten minutes of two cores,
// and 10 GB.
func BenchmarkLarge(b *testing.B) {
	for range b.N {
		dir := *largeDir
		if dir == "" {
			dir = b.TempDir()
		}
		large, rate := layLarge(b, dir, *largeCerts)
		small, _ := layLarge(b, dir, smallCerts)
		m := measureApart(b, large, small)
		if rate > 0 {
			b.ReportMetric(rate, "certs/s")
		}
		b.ReportMetric(float64(diskUse(b, large.dir))/float64(large.certs), "disk-B/cert")
		b.ReportMetric(m.Open.Seconds(), "open-s")
		b.ReportMetric(float64(m.RSS)/(1<<20), "RSS-MiB")
		b.ReportMetric(m.Changed.Seconds(), "enumerate-s")
		for _, p := range []float64{50, 99, 99.9} {
			b.ReportMetric(percentile(m.Large, p), fmt.Sprintf("p%g-us", p))
			b.ReportMetric(percentile(m.Small, p), fmt.Sprintf("p%g-us-small", p))
		}
		b.ReportMetric(percentile(m.Large, 99)/percentile(m.Small, 99), "p99-ratio")
		b.ReportMetric(percentile(m.LargeSigned, 99)/percentile(m.SmallSigned, 99), "p99-ratio-signed")
		b.ReportMetric(percentile(m.LargeSigned, 50)/percentile(m.SmallSigned, 50), "p50-ratio-signed")
	}
}

// layLarge builds an index, unless it is there; the rate is 0 then.
func layLarge(b *testing.B, dir string, certs int) (l laid, rate float64) {
	dir = filepath.Join(dir, strconv.Itoa(certs))
	l = laid{dir: filepath.Join(dir, "index"), certs: certs}
	note := filepath.Join(dir, "ca")
	if id, err := os.ReadFile(note); err == nil {
		if l.ca, err = wire.ParseCAID(string(id)); err != nil {
			b.Fatal(err)
		}
		return l, 0
	}
	l.ca, rate = largeIndex(b, l.dir, certs)
	if err := os.WriteFile(note, []byte(l.ca.String()), 0o600); err != nil {
		b.Fatal(err)
	}
	return l, rate
}

// forget has the system drop what it keeps of files.
func forget(b *testing.B, dir string) {
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return dropCache(path)
	}); err != nil {
		b.Fatal(err)
	}
}
