package client

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/tlogproof"
)

const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
	maxCached  = 1024 // tiles of one log that are kept, of 8 kB
	maxSize    = 1 << 40

	// An entry: the leaf's certificate, a precertificate besides it, and what is around them. An entry of a bundle has a uint16 length.
	maxDataEntry   = 2*wire.MaxCertDER + 4096
	maxBundleEntry = 2 + 1<<16 - 1
)

// tree is a log as a checkpoint that is trusted commits to it. It gives out nothing that does not hash up to the checkpoint.
type tree struct {
	m     *Monitor
	ctx   context.Context // of the round
	dir   string          // path of the log, with a slash at the end
	cp    *tlogproof.Checkpoint
	anew  bool                 // past caches
	cache map[tlog.Tile][]byte // verified
}

// Height implements tlog.TileReader.
func (t *tree) Height() int { return tileHeight }

// ReadTiles implements tlog.TileReader.
func (t *tree) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	data := make([][]byte, len(tiles))
	return data, each(len(tiles), t.m.cfg.Parallel, func(i int) (err error) {
		if data[i] = t.cache[tiles[i]]; data[i] != nil {
			return nil
		}
		path := t.dir + tilePath(tiles[i], "")
		want := tiles[i].W * tlog.HashSize
		if data[i], err = t.m.get(t.ctx, path, want, t.anew); err == nil && len(data[i]) != want {
			err = damage("%s: length is %s octets: must be %d", path, atLeast(len(data[i]), want), want)
		}
		return err
	})
}

// SaveTiles implements tlog.TileReader: these tiles have been verified.
func (t *tree) SaveTiles(tiles []tlog.Tile, data [][]byte) {
	if len(t.cache) > maxCached {
		clear(t.cache)
	}
	for i, tile := range tiles {
		if tile.L > 0 || tile.W < tileWidth { // full ones of leaves are needed once
			t.cache[tile] = data[i]
		}
	}
}

func (t *tree) hashes() tlog.HashReader {
	return tlog.TileHashReader(tlog.Tree{N: int64(t.cp.Size), Hash: tlog.Hash(t.cp.Root)}, t)
}

// extends checks that the tree of t has the one of an older checkpoint as its beginning: RFC 6962 section 2.1.2. Requires 0 < old.Size < t's.
func (t *tree) extends(old *tlogproof.Checkpoint) error {
	proof, err := tlog.ProveTree(int64(t.cp.Size), int64(old.Size), t.hashes())
	if err != nil {
		return classify(t.dir, err)
	}
	if err := tlog.CheckTree(proof, int64(t.cp.Size), tlog.Hash(t.cp.Root), int64(old.Size), tlog.Hash(old.Root)); err != nil {
		return fork("the log of size %d with root %x does not begin with the one of size %d with root %x that was seen before",
			t.cp.Size, t.cp.Root, old.Size, old.Root)
	}
	return nil
}

// layout is how entries are served.
type layout struct {
	dir, kind string
	maxEntry  int
}

var (
	dataTiles    = layout{"static/", "data", maxDataEntry} // C2SP static-ct-api
	entryBundles = layout{"", "entries", maxBundleEntry}   // C2SP tlog-tiles
)

// entries reads the entries from, from+1, ... below to. Each tile's octets go to read, with the index of the tile's first entry, how many of them
// are wanted, [first, last), and their leaf hashes, which are in the tree. Calls of read are concurrent. Requires from < to <= size of the tree.
func (t *tree) entries(from, to uint64, how layout, read func(a tileArea, octets []byte) error) error {
	indexes := make([]int64, to-from)
	for i := range indexes {
		indexes[i] = tlog.StoredHashIndex(0, int64(from)+int64(i))
	}
	hashes, err := t.hashes().ReadHashes(indexes)
	if err != nil {
		return classify(t.dir, err)
	}
	firstTile := from / tileWidth
	count := int((to-1)/tileWidth - firstTile + 1)
	return each(count, t.m.cfg.Parallel, func(i int) error {
		n := firstTile + uint64(i)
		a := tileArea{start: n * tileWidth, first: max(from, n*tileWidth), last: min(to, (n+1)*tileWidth)}
		a.width = int(min(t.cp.Size-a.start, tileWidth))
		a.hashes = hashes[a.first-from : a.last-from]
		path := t.dir + how.dir + tilePath(tlog.Tile{H: tileHeight, N: int64(n), W: a.width}, how.kind)
		octets, err := t.m.get(t.ctx, path, a.width*how.maxEntry, t.anew)
		if err != nil {
			return err
		}
		if len(octets) > a.width*how.maxEntry {
			return damage("%s: longer than %d octets, the most that %d entries can have", path, a.width*how.maxEntry, a.width)
		}
		if err := read(a, octets); err != nil {
			return damage("%s: %w", path, err)
		}
		return nil
	})
}

// tileArea is what is wanted of one tile of entries.
type tileArea struct {
	start       uint64 // index of the tile's first entry
	width       int    // entries in the tile
	first, last uint64 // wanted
	hashes      []tlog.Hash
}

// verify compares the leaf of an entry that is wanted with the tree.
func (a *tileArea) verify(index uint64, leaf []byte) error {
	if got, want := tlog.RecordHash(leaf), a.hashes[index-a.first]; got != want {
		return fmt.Errorf("entry %d hashes to %x: the log has %x there", index, got, want)
	}
	return nil
}

// tilePath is C2SP tlog-tiles' path of a tile. kind is data or entries; empty: hashes.
func tilePath(t tlog.Tile, kind string) string {
	path := t.Path() // tile/<height>/<level>/<N>[.p/<W>]: the height is fixed in tlog-tiles
	path = "tile/" + strings.TrimPrefix(path, fmt.Sprintf("tile/%d/", tileHeight))
	if kind != "" {
		path = "tile/" + kind + strings.TrimPrefix(path, "tile/0")
	}
	return path
}

func atLeast(n, limit int) string {
	if n > limit {
		return fmt.Sprintf("more than %d", limit)
	}
	return fmt.Sprint(n)
}

// alarmError is a statement about a log that cannot be true.
type alarmError struct {
	class  string
	detail error
	served []byte // signed checkpoint that it is about; nil: see the saved one
}

func (e *alarmError) Error() string { return fmt.Sprintf("%v: %s: %v", ErrAlarm, e.class, e.detail) }
func (e *alarmError) Unwrap() error { return ErrAlarm }

func damage(format string, args ...any) error {
	return &alarmError{class: AlarmDamage, detail: fmt.Errorf(format, args...)}
}

func fork(format string, args ...any) error {
	return &alarmError{class: AlarmFork, detail: fmt.Errorf(format, args...)}
}

// classify tells tiles that could not be had from tiles that are wrong: of those tlog has its own errors.
func classify(dir string, err error) error {
	var alarm *alarmError
	if errors.As(err, &alarm) || errors.Is(err, ErrTransport) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return damage("%s: hashes do not lead to the signed root: %w", dir, err)
}
