package witness

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Who can sign one fork can sign a million, and a few prove the same. The limit for each set of signers keeps one of them from using up
// the room for the others.
const (
	maxPerSigners = 20   // pieces of evidence for each set of signing keys
	maxEvidence   = 2000 // pieces overall, but for keys that nothing convicts yet
)

// ErrNotKept tells that a piece of evidence is new and there is no room for it: the alarm was raised all the same.
var ErrNotKept = errors.New("evidence is not kept: there is enough of these signers already")

// shelf is the evidence on disk, and the order in which it is let in. It needs a lock around it.
type shelf struct {
	dir       string
	kept      map[string]*Evidence // by file name
	sets      map[string]int       // pieces kept, by signers
	convicted map[string]bool      // keys that a piece kept is about
	told      map[string]bool      // names whose alarm was raised and which are not kept; bounded
}

// openShelf reads the evidence of earlier runs. A damaged file is an error: whoever looks after it must not take it for none.
func openShelf(dir string) (*shelf, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("witness: %w", err)
	}
	names, err := filepath.Glob(filepath.Join(dir, "*.evidence"))
	if err != nil {
		return nil, err
	}
	s := &shelf{dir: dir, kept: map[string]*Evidence{}, sets: map[string]int{}, convicted: map[string]bool{}, told: map[string]bool{}}
	for _, n := range names {
		data, err := os.ReadFile(n)
		if err != nil {
			return nil, fmt.Errorf("witness: %w", err)
		}
		e, err := ParseEvidence(data)
		if err != nil {
			return nil, fmt.Errorf("witness: %s: %w", n, err)
		}
		s.put(filepath.Base(n), e)
	}
	return s, nil
}

// setOf names a set of signers, in whatever order they are.
func setOf(signers []string) string {
	return strings.Join(slices.Sorted(slices.Values(signers)), "\n") // no key name has a line break
}

func (s *shelf) put(name string, e *Evidence) {
	s.kept[name] = e
	s.sets[setOf(e.Signers)]++
	for _, key := range e.Signers {
		s.convicted[key] = true
	}
	delete(s.told, name)
}

// room: keys that nothing convicts yet always have some, and they are few.
func (s *shelf) room(e *Evidence) bool {
	if slices.ContainsFunc(e.Signers, func(key string) bool { return !s.convicted[key] }) {
		return true
	}
	return len(s.kept) < maxEvidence && s.sets[setOf(e.Signers)] < maxPerSigners
}

// keep writes a piece of evidence, durably. isNew: its alarm is to be raised, even if there is no room or the disk is full.
func (s *shelf) keep(name string, e *Evidence) (isNew bool, err error) {
	if s.kept[name] != nil {
		return false, nil
	}
	if isNew = !s.told[name]; isNew {
		if len(s.told) >= maxEvidence { // a repeated alarm is better than memory without bound
			clear(s.told)
		}
		s.told[name] = true
	}
	if !s.room(e) {
		return isNew, ErrNotKept
	}
	if err := replaceFile(filepath.Join(s.dir, name), e.Marshal()); err != nil {
		return isNew, fmt.Errorf("witness: evidence: %w", err)
	}
	s.put(name, e)
	return isNew, nil
}

// all returns the evidence, the oldest first, but before that the oldest of each set of signers: who takes over a part of the list learns of
// everybody.
func (s *shelf) all() []*Evidence {
	names := make([]string, 0, len(s.kept))
	for name := range s.kept {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(s.kept[a].Seen.Compare(s.kept[b].Seen), cmp.Compare(a, b))
	})
	seen := map[string]bool{}
	var first, more []*Evidence
	for _, name := range names {
		e := s.kept[name]
		if set := setOf(e.Signers); !seen[set] {
			seen[set] = true
			first = append(first, e)
		} else {
			more = append(more, e)
		}
	}
	return append(first, more...)
}
