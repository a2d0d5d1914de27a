package index

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
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

	"github.com/transparency-dev/merkle/compact"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctleaf"
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
	Open, Changed time.Duration   // until the large one, which no cache knows, is open; to enumerate what is revoked in it
	RSS           int             // octets, at most, with the large one alone
	Large, Small  []time.Duration // of lookups, sorted
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
	for range 2 * lookups { // what will be in memory is then
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
	for range 2 {
		m.Large, m.Small = m.Large[:0], m.Small[:0]
		for range lookups {
			l, err := large.look()
			if err != nil {
				return err
			}
			s, err := small.look()
			if err != nil {
				return err
			}
			m.Large, m.Small = append(m.Large, l), append(m.Small, s)
		}
	}
	slices.Sort(m.Large)
	slices.Sort(m.Small)
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
