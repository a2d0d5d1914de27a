package served

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/audit"
	"github.com/certanchor/certanchor/internal/merklelog"
)

var (
	hasher = rfc6962.DefaultHasher
	ranges = compact.RangeFactory{Hash: hasher.HashChildren}
)

// tileWidth is the number of hashes or entries in a full tile (C2SP tlog-tiles).
const tileWidth = 256

// site is a tree of files that a bridge serves about a log.
type site struct {
	bridge *bridge
	log    string
	prefix string // path that tile/ is below
	size   uint64
	chain  [][]byte // of every entry, where it is static-ct-api; nil: tlog-tiles
}

// walk reads a log from its first leaf on and makes the tiles there are.
type walk struct {
	c      *comparison
	log    *audit.Log
	sites  []*site
	wanted map[uint64]bool // sizes of which something is to be compared
	jobs   []chan *job     // by bridge
	ctx    context.Context

	tree    *compact.Range
	hashes  [][][]byte // by tile level: those of the tile that is not full yet
	filled  []uint64   // by tile level: full tiles
	entries []*merklelog.Entry
	newest  wire.Millis // time of the last entry
}

// walkLogs compares every head and every tile. The logs are read once, for all bridges.
func (c *comparison) walkLogs(ctx context.Context) error {
	jobs := make([]chan *job, len(c.bridges))
	for i := range jobs {
		jobs[i] = make(chan *job, c.Concurrency)
	}
	compared := make(chan error, 1)
	reader := *c // the lanes are joined to c while it reads
	reader.findings = newFindings(c.limit)
	go func() {
		compared <- c.onEach(ctx, func(ctx context.Context, own *comparison, b *bridge) error {
			own.files(ctx, jobs[b.index])
			return nil
		})
	}()
	seq := 1
	var err error
	for i := range c.logs {
		if err = reader.walkLog(ctx, &c.logs[i], jobs, &seq); err != nil {
			break
		}
	}
	for _, of := range jobs {
		close(of)
	}
	err = errorOf([]error{err, <-compared})
	reader.claims, reader.inBundles = nil, nil
	c.join(&reader)
	return err
}

func (c *comparison) walkLog(ctx context.Context, l *audit.Log, jobs []chan *job, seq *int) error {
	w := &walk{c: c, log: l, wanted: map[uint64]bool{}, jobs: jobs, ctx: ctx, tree: ranges.NewEmptyRange(0)}
	for _, cl := range c.claims[l.Name] {
		w.wanted[cl.size] = true
	}
	for _, b := range c.bridges {
		for _, s := range b.sites {
			if s.log != l.Name {
				continue
			}
			s.size = min(s.size, l.Size) // what is ahead has been reported
			w.sites, w.wanted[s.size] = append(w.sites, s), true
			if err := w.issuers(s, seq); err != nil {
				return err
			}
		}
	}
	if err := w.reached(seq); err != nil {
		return err
	}
	if err := c.Audit.Entries(l, func(_ uint64, e *merklelog.Entry) error { return w.leaf(e, seq) }); err != nil {
		return err
	}
	root, err := w.root()
	if err != nil {
		return err
	}
	return c.Audit.CheckLog(l, root)
}

func (w *walk) root() ([sha256.Size]byte, error) {
	if w.tree.End() == 0 {
		return [sha256.Size]byte(hasher.EmptyRoot()), nil
	}
	root, err := w.tree.GetRootHash(nil)
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	return [sha256.Size]byte(root), nil
}

const progressLeaves = 1 << 12

func (w *walk) leaf(e *merklelog.Entry, seq *int) error {
	hash := hasher.HashLeaf(e.Leaf)
	if err := w.tree.Append(hash, nil); err != nil {
		return err
	}
	w.newest = max(w.newest, e.Time)
	w.entries = append(w.entries, e)
	if len(w.entries) == tileWidth {
		if err := w.bundle(seq, nil); err != nil {
			return err
		}
		w.entries = nil // not reused: jobs have them
	}
	if err := w.push(0, hash, seq); err != nil {
		return err
	}
	if n := w.tree.End(); n%progressLeaves == 0 || n == w.log.Size {
		w.c.progress("log "+w.log.Name, n, w.log.Size)
	}
	return w.reached(seq)
}

// push adds a hash to a level of tiles. A full tile is a hash of the level above.
func (w *walk) push(level int, hash []byte, seq *int) error {
	if level == len(w.hashes) {
		w.hashes, w.filled = append(w.hashes, nil), append(w.filled, 0)
	}
	w.hashes[level] = append(w.hashes[level], hash)
	if len(w.hashes[level]) < tileWidth {
		return nil
	}
	tile := w.hashes[level]
	if err := w.tile(level, seq, nil); err != nil {
		return err
	}
	w.hashes[level], w.filled[level] = nil, w.filled[level]+1
	for len(tile) > 1 {
		half := make([][]byte, len(tile)/2)
		for i := range half {
			half[i] = hasher.HashChildren(tile[2*i], tile[2*i+1])
		}
		tile = half
	}
	return w.push(level+1, tile[0], seq)
}

// reached compares what is about the log at its present size: heads, and the partial tiles at its end.
func (w *walk) reached(seq *int) error {
	size := w.tree.End()
	if !w.wanted[size] {
		return w.ctx.Err()
	}
	root, err := w.root()
	if err != nil {
		return err
	}
	w.c.atSize(*seq, w.log, size, root, w.newest)
	for _, s := range w.sites {
		if s.size != size {
			continue
		}
		if len(w.entries) > 0 {
			if err := w.bundle(seq, s); err != nil {
				return err
			}
		}
		for level := range w.hashes {
			if len(w.hashes[level]) == 0 {
				continue
			}
			if err := w.tile(level, seq, s); err != nil {
				return err
			}
		}
	}
	return w.ctx.Err()
}

// tile has the hashes of a level compared: a full tile at all sites that are as large, a partial one at only.
func (w *walk) tile(level int, seq *int, only *site) error {
	j := &job{kind: KindTile, first: w.filled[level] * tileWidth, level: 8 * level, path: tilePath(fmt.Sprint(level), w.filled[level], len(w.hashes[level]))}
	for _, h := range w.hashes[level] {
		j.add(h)
	}
	covered := (w.filled[level]*tileWidth + uint64(len(w.hashes[level]))) << (8 * level)
	return w.send(j, covered, seq, only, func(*site) bool { return true })
}

// bundle has the entries compared, in the two forms that there are.
func (w *walk) bundle(seq *int, only *site) error {
	covered := w.tree.End()
	first := covered - uint64(len(w.entries))
	for _, form := range []struct {
		static bool
		word   string
	}{{false, "entries"}, {true, "data"}} {
		var fingerprints []byte
		of := func(s *site) bool { return (s.chain != nil) == form.static }
		for _, s := range w.sites {
			if fingerprints == nil && form.static && of(s) {
				fingerprints = fingerprintsOf(s.chain)
			}
		}
		j := &job{kind: KindEntry, first: first, path: tilePath(form.word, first/tileWidth, len(w.entries))}
		for _, e := range w.entries {
			if form.static && fingerprints == nil {
				break // no site has it
			}
			j.add(encodeEntry(e, fingerprints))
		}
		if err := w.send(j, covered, seq, only, of); err != nil {
			return err
		}
	}
	return nil
}

// send gives a job to the workers for each site that has it.
func (w *walk) send(j *job, covered uint64, seq *int, only *site, has func(*site) bool) error {
	for _, s := range w.sites {
		if s.size < covered || only != nil && s != only || !has(s) {
			continue
		}
		of := *j
		of.site, of.log = s, w.log
		if err := w.enqueue(&of, seq); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) enqueue(j *job, seq *int) error {
	j.seq = *seq
	*seq++
	select {
	case w.jobs[j.site.bridge.index] <- j:
		return nil
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
}

// issuers has the certificates compared that entries' chains name.
func (w *walk) issuers(s *site, seq *int) error {
	for _, der := range s.chain {
		sum := sha256.Sum256(der)
		j := &job{kind: KindEntry, site: s, log: w.log, path: "/issuer/" + hex.EncodeToString(sum[:])}
		j.add(der)
		if err := w.enqueue(j, seq); err != nil {
			return err
		}
	}
	return nil
}
