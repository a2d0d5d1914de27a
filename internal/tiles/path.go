package tiles

import (
	"strconv"
	"strings"

	"github.com/certanchor/certanchor/chaincode/wire"
)

const (
	fullWidth = 256
	maxLevel  = 63
)

// tile is what a path below tile/ asks for.
type tile struct {
	entries bool   // entries, not hashes
	level   uint   // of hashes; 0 of entries
	index   uint64 // below 2^55
	width   int    // 1 to 256
}

// first and last are the range of hashes or entries [first, last) of the tile.
func (t tile) first() uint64 { return t.index * fullWidth }
func (t tile) last() uint64  { return t.first() + uint64(t.width) }

// within reports whether a log of size has all of the tile.
func (t tile) within(size uint64) bool {
	shift := 8 * t.level // 64 and more leave nothing
	return t.last() <= size>>shift
}

// parseTile reads <L>/<N>[.p/<W>], the only spelling that there is for a tile, so that caches hold each once. entries is the word that
// stands for <L> where entries are meant. Errors are *wire.Error.
func parseTile(path, entries string) (tile, error) {
	level, rest, _ := strings.Cut(path, "/")
	t := tile{width: fullWidth}
	if t.entries = level == entries; !t.entries {
		// C2SP tlog-tiles: a decimal ASCII integer between 0 and 63, with no additional leading zeroes.
		n, ok := decimal(level, maxLevel)
		if !ok {
			return t, malformed("level", level, "must be "+entries+" or a number from 0 to 63 without leading zeros")
		}
		t.level = uint(n)
	}
	// A directory of a partial tile has the tile's name and .p at its end.
	name, width, partial := strings.Cut(rest, ".p/")
	if partial {
		n, ok := decimal(width, fullWidth-1)
		if !ok || n == 0 {
			return t, malformed("width", width, "must be a number from 1 to 255 without leading zeros")
		}
		t.width = int(n)
	}
	var err error
	t.index, err = parseIndex(name)
	return t, err
}

// parseIndex reads elements of three digits, x before all but the last: x001/x234/067 is 1234067.
func parseIndex(name string) (uint64, error) {
	const (
		rule = "must be path elements of three digits, all but the last with an x before them, without superfluous ones (x001/x234/067 is 1234067)"
		most = 1<<55 - 1 // so that the index after a tile's last hash fits into 64 bits
	)
	elements := strings.Split(name, "/")
	index := uint64(0)
	for i, e := range elements {
		digits, crossed := strings.CutPrefix(e, "x")
		if crossed != (i < len(elements)-1) || len(digits) != 3 || strings.Trim(digits, "0123456789") != "" || i == 0 && crossed && digits == "000" {
			return 0, malformed("index", name, rule)
		}
		n, err := strconv.ParseUint(digits, 10, 64)
		if err != nil {
			return 0, malformed("index", name, rule)
		}
		if index > (most-n)/1000 {
			return 0, malformed("index", name, "must be below 2^55")
		}
		index = index*1000 + n
	}
	return index, nil
}

// decimal reads a number of at most most in its one spelling.
func decimal(s string, most uint64) (uint64, bool) {
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil && n <= most && strconv.FormatUint(n, 10) == s
}

func malformed(field, value, rule string) error {
	return wire.Errorf(wire.InvalidArgument, "tile "+field, value, "%s", rule+" (c2sp.org/tlog-tiles)")
}
