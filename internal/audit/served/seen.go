package served

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/audit"
)

// Seen is what an auditor remembers between audits, beside what the blocks say.
type Seen struct {
	V       int               `json:"v"`
	Channel string            `json:"channel,omitempty"`
	Genesis string            `json:"genesis,omitempty"` // hash of the first block, hexadecimal
	Pinned  bool              `json:"genesis_pinned"`    // somebody gave it; false: the ledger did
	Policy  string            `json:"policy,omitempty"`  // fingerprint that later policies are traced to
	Heads   map[string]*SawAt `json:"heads"`             // by kind, log and URL

	path string
}

// SawAt is the newest head that one server served.
type SawAt struct {
	Log   string                 `json:"log"`
	Where string                 `json:"where"`
	Size  uint64                 `json:"size"`
	Root  string                 `json:"root"`
	Note  string                 `json:"note"`
	Key   string                 `json:"key,omitempty"`
	Times map[string]wire.Millis `json:"times"` // by key name, the latest
}

const seenVersion = 1

// LoadSeen reads what is remembered in an audit's directory; nothing, if there is nothing.
func LoadSeen(dir string) (*Seen, error) {
	s := &Seen{V: seenVersion, Heads: map[string]*SawAt{}, path: filepath.Join(dir, audit.SeenFile)}
	data, err := os.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(data, s)
	}
	if err == nil && (s.V != seenVersion || s.Heads == nil) {
		err = fmt.Errorf("format version %d, this program reads %d", s.V, seenVersion)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: damaged; without it nothing is known of earlier audits: restore it, or delete it to begin again: %w", s.path, err)
	}
	return s, nil
}

// Save makes it durable.
func (s *Seen) Save() error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(s.path, append(data, '\n'))
}

// replaceFile puts data at path, wholly or not at all.
func replaceFile(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (cl *claim) id() string { return cl.kind + " " + cl.where }

// claims are the heads of earlier audits. They must be in what the ledger says now.
func (s *Seen) claims(logs []audit.Log) (all []*claim) {
	for id, h := range s.Heads {
		kind, _, _ := strings.Cut(id, " ")
		root, err := hex.DecodeString(h.Root)
		if err != nil || len(root) != sha256.Size || !slices.ContainsFunc(logs, func(l audit.Log) bool { return l.Name == h.Log }) {
			continue
		}
		all = append(all, &claim{log: h.Log, size: h.Size, root: [sha256.Size]byte(root), where: h.Where + ", at an earlier audit", kind: kind, note: []byte(h.Note)})
	}
	slices.SortFunc(all, func(a, b *claim) int { return strings.Compare(a.where, b.where) })
	return all
}

// compareSeen compares a head with what the same server served before.
func (c *comparison) compareSeen(cl *claim) {
	before := c.seen.Heads[cl.id()]
	if before == nil {
		return
	}
	what := caName(c.log(cl.log))
	if cl.size < before.Size {
		c.add(0, &Difference{
			Kind: KindRollback, Where: cl.where, What: what, Found: fmt.Sprintf("size %d: the log was restored from an old backup", cl.size),
			Blocks: fmt.Sprintf("size %d; the same server served %d before", c.log(cl.log).Size, before.Size), Evidence: c.evidence(cl, &claim{log: cl.log, size: before.Size, note: []byte(before.Note)}),
		})
	}
	if cl.key != before.Key {
		c.add(0, &Difference{Kind: KindSignature, Where: cl.where, What: what + ", key", Found: cl.key, Blocks: before.Key + ", the key at an earlier audit"})
	}
	for _, t := range cl.times {
		if last := before.Times[t.by]; t.at < last {
			c.add(0, &Difference{
				Kind: KindTime, Where: cl.where, What: what + ", time of the signature by " + t.by, Found: t.at.Time().Format(stamp) + ": it runs backwards",
				Blocks: "the same server served one of " + last.Time().Format(stamp) + " before", Evidence: c.evidence(cl, &claim{log: cl.log, size: before.Size, note: []byte(before.Note)}),
			})
		}
	}
}

// remember keeps the newest of what was served, if the blocks say the same. What is behind does not replace what was ahead.
func (c *comparison) remember() error {
	c.seen.Channel = c.channel
	for _, claims := range c.claims {
		for _, cl := range claims {
			if cl.bridge != nil {
				c.seen.update(cl)
			}
		}
	}
	return c.seen.Save()
}

func (s *Seen) update(cl *claim) {
	h := s.Heads[cl.id()]
	if h == nil {
		h = &SawAt{Log: cl.log, Where: cl.where, Times: map[string]wire.Millis{}, Key: cl.key}
	}
	if cl.right && cl.size >= h.Size {
		h.Size, h.Root, h.Note = cl.size, hex.EncodeToString(cl.root[:]), string(cl.note)
		s.Heads[cl.id()] = h
	}
	for _, t := range cl.times {
		h.Times[t.by] = max(h.Times[t.by], t.at)
	}
}

// equivocations reports each log and size about which there are different roots, with a note for each.
func (c *comparison) equivocations() {
	for _, l := range c.logs {
		bySize := map[uint64]map[[sha256.Size]byte][]*claim{}
		for _, cl := range c.claims[l.Name] {
			if bySize[cl.size] == nil {
				bySize[cl.size] = map[[sha256.Size]byte][]*claim{}
			}
			bySize[cl.size][cl.root] = append(bySize[cl.size][cl.root], cl)
		}
		for _, size := range slices.Sorted(maps.Keys(bySize)) {
			if len(bySize[size]) > 1 {
				c.equivocation(&l, size, bySize[size])
			}
		}
	}
}

func (c *comparison) equivocation(l *audit.Log, size uint64, roots map[[sha256.Size]byte][]*claim) {
	var sides []string
	var notes []*claim
	for _, root := range slices.SortedFunc(maps.Keys(roots), func(a, b [sha256.Size]byte) int { return bytes.Compare(a[:], b[:]) }) {
		claims := roots[root]
		// Consortium checkpoints first: those can be compared with one another without anything else.
		slices.SortStableFunc(claims, func(a, b *claim) int { return cmp.Compare(a.rank(), b.rank()) })
		notes = append(notes, claims[0])
		side := fmt.Sprintf("%x", root)
		if len(claims[0].by) > 0 {
			side += " signed by " + strings.Join(claims[0].by, ", ")
		}
		if claims[0].right {
			side += " (the blocks')"
		}
		var where []string
		for _, cl := range claims {
			if !slices.Contains(where, cl.where) && len(where) < shownPlaces {
				where = append(where, cl.where)
			}
		}
		sides = append(sides, side+" at "+strings.Join(where, ", "))
	}
	slices.Sort(sides)
	slices.SortStableFunc(notes, func(a, b *claim) int { return strings.Compare(a.where, b.where) })
	var where []string
	for _, cl := range notes {
		where = append(where, cl.where)
	}
	c.add(-1, &Difference{
		Kind: KindEquivocate, Where: strings.Join(where, " and "), What: fmt.Sprintf("%s, root of size %d", caName(l), size),
		Found: strings.Join(sides, "; and "), Blocks: "a log has one root at each size", Evidence: c.evidence(notes...),
	})
}

// shownPlaces is how many places a difference names for one root.
const shownPlaces = 4

// rank orders claims by what they prove.
func (cl *claim) rank() int {
	switch {
	case cl.note == nil:
		return 2
	case cl.kind == kindSTH || cl.kind == kindStatic:
		return 1
	}
	return 0
}

// evidence keeps the notes of claims, as they were served, and returns the files.
func (c *comparison) evidence(claims ...*claim) (files []string) {
	dir := filepath.Join(c.Dir, audit.EvidenceDir)
	err := os.MkdirAll(dir, 0o700)
	for _, cl := range claims {
		if len(cl.note) == 0 || err != nil {
			continue
		}
		sum := sha256.Sum256(cl.note)
		path := filepath.Join(dir, fmt.Sprintf("%.16s-%d-%x.note", cl.log, cl.size, sum[:8]))
		if err = replaceFile(path, cl.note); err == nil {
			files = append(files, path)
		}
	}
	if err != nil {
		c.note("evidence could not be kept: %v", err)
	}
	return files
}
