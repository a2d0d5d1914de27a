package served

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sort"
	"strings"

	"github.com/certanchor/certanchor/internal/audit"
	"github.com/certanchor/certanchor/internal/merklelog"
)

// job is one file to compare.
type job struct {
	seq   int
	kind  string
	site  *site
	log   *audit.Log
	path  string // below the site's prefix
	first uint64 // index of its first hash or entry
	level int    // of hashes
	want  []byte
	ends  []int // of each hash or entry in want
}

func (j *job) add(part []byte) {
	j.want = append(j.want, part...)
	j.ends = append(j.ends, len(j.want))
}

// tilePath: C2SP tlog-tiles, Merkle Tree. 1234067 is x001/x234/067.
func tilePath(level string, index uint64, width int) string {
	name := fmt.Sprintf("%03d", index%1000)
	for index /= 1000; index > 0; index /= 1000 {
		name = fmt.Sprintf("x%03d/%s", index%1000, name)
	}
	if width < tileWidth {
		name += fmt.Sprintf(".p/%d", width)
	}
	return "/tile/" + level + "/" + name
}

// encodeEntry is an entry as files have it: C2SP static-ct-api's TileLeaf if there are fingerprints, else tlog-tiles'.
func encodeEntry(e *merklelog.Entry, fingerprints []byte) []byte {
	if fingerprints == nil {
		return append(binary.BigEndian.AppendUint16(nil, uint16(len(e.Leaf))), e.Leaf...)
	}
	const versionAndType = 2 // of a MerkleTreeLeaf, before its TimestampedEntry
	b := bytes.Clone(e.Leaf[versionAndType:])
	if e.Kind == merklelog.Precert {
		b = append(b, byte(len(e.DER)>>16), byte(len(e.DER)>>8), byte(len(e.DER)))
		b = append(b, e.DER...)
	}
	return append(binary.BigEndian.AppendUint16(b, uint16(len(fingerprints))), fingerprints...)
}

func fingerprintsOf(chain [][]byte) []byte {
	var all []byte
	for _, der := range chain {
		sum := sha256.Sum256(der)
		all = append(all, sum[:]...)
	}
	return all
}

// compareFile compares one file.
func (c *comparison) compareFile(ctx context.Context, j *job) {
	b := j.site.bridge
	where := b.URL + j.site.prefix + j.path
	body, err := b.fetch.get(ctx, j.site.prefix+j.path, maxTile)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		b.missing.Add(1)
		c.failed(j.seq, where, j.what(0, len(j.ends)), fmt.Sprintf("%d octets; the log's size there is %d", len(j.want), j.site.size), err)
		return
	}
	c.mu.Lock()
	if b.Octets += int64(len(body)); j.kind == KindTile {
		b.Tiles++
	} else {
		b.Bundles++
	}
	c.mu.Unlock()
	if bytes.Equal(body, j.want) {
		return
	}
	at := 0
	for at < min(len(body), len(j.want)) && body[at] == j.want[at] {
		at++
	}
	part := min(sort.SearchInts(j.ends, at+1), len(j.ends)-1) // the part that octet at is in
	begin := 0
	if part > 0 {
		begin = j.ends[part-1]
	}
	c.add(j.seq, &Difference{
		Kind: j.kind, Where: where, What: fmt.Sprintf("%s, octet %d", j.what(part, part+1), at-begin),
		Found: show(body, at), Blocks: show(j.want, at),
	})
}

// what names the parts of a file from the from-th on and before the to-th.
func (j *job) what(from, to int) string {
	if strings.HasPrefix(j.path, "/issuer/") {
		return caName(j.log) + ", certificate " + strings.TrimPrefix(j.path, "/issuer/")
	}
	noun := "entr"
	one, many := "y", "ies"
	if j.kind == KindTile {
		noun, one, many = fmt.Sprintf("level %d, hash", j.level), "", "es"
	}
	first, last := j.first+uint64(from), j.first+uint64(to)-1
	if first == last {
		return fmt.Sprintf("%s, %s%s %d", caName(j.log), noun, one, first)
	}
	return fmt.Sprintf("%s, %s%s %d to %d", caName(j.log), noun, many, first, last)
}

// show is some of what is at an octet.
func show(b []byte, at int) string {
	const shown = 16
	part, more := b[at:], ""
	if len(part) > shown {
		part, more = part[:shown], "..."
	}
	if len(part) == 0 {
		return fmt.Sprintf("an end after %d octets", len(b))
	}
	return fmt.Sprintf("%x%s (of %d octets)", part, more, len(b))
}
