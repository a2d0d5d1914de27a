package oplog

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/framelog"
)

// Difference is a place where a log is not what it was, or not what the ledger says it was.
type Difference struct {
	Kind       string `json:"kind"` // "damaged", "changed", "cut off", "missing", "other"
	Generation uint64 `json:"generation"`
	Record     uint64 `json:"record"` // the first that may be affected
	Text       string `json:"text"`
}

func (d Difference) String() string {
	return fmt.Sprintf("generation %d, record %d: %s: %s", d.Generation, d.Record, d.Kind, d.Text)
}

// Kinds of a Difference.
const (
	KindDamaged = "damaged" // a record that does not follow the one before, or cannot be read
	KindChanged = "changed" // another history than the anchored one: records were changed or replaced, or an old copy was continued
	KindCut     = "cut off" // anchored records that are not there
	KindMissing = "missing" // a whole generation
	KindOther   = "other"   // a log of another CA, or that begins as the ledger does not know
)

// Gap is what was lost between two generations, as a restored CA said by itself.
type Gap struct {
	Before   uint64 `json:"before_generation"` // that begins after it
	From     uint64 `json:"from_record"`       // of the generation before: the first that is lost
	Anchored uint64 `json:"anchored"`          // lost records that were anchored; how many were lost beside them nobody knows
}

func (g Gap) String() string {
	return fmt.Sprintf("before generation %d: records from %d on of the generation before are lost, of which %d were anchored", g.Before, g.From, g.Anchored)
}

// Part is one generation of a log.
type Part struct {
	Generation uint64    `json:"generation"`
	File       string    `json:"file"`
	Records    uint64    `json:"records"`
	Root       string    `json:"root"`
	First      time.Time `json:"first"`
	Last       time.Time `json:"last"`
	Heads      int       `json:"anchored_heads"`   // that it agrees with
	Anchored   uint64    `json:"anchored_records"` // up to the newest of them
	Unfinished int       `json:"without_outcome"`
	Incomplete int64     `json:"incomplete_bytes,omitempty"` // of a write at the end that was interrupted or is under way
}

// Report is what Verify found.
type Report struct {
	CAID        string       `json:"ca_id"`
	Name        string       `json:"name"` // empty: the log of the CA's first bridge
	Compared    bool         `json:"compared_with_ledger"`
	Parts       []Part       `json:"generations"`
	Gaps        []Gap        `json:"gaps"`
	Differences []Difference `json:"differences"` // the first of each generation
}

// Files returns the generations of the log of the CA in dir, in their order.
func Files(dir string) ([]string, error) {
	dir = filepath.Join(dir, DirName)
	all, err := generations(dir)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s: holds no operators' log", dir)
	}
	files := make([]string, len(all))
	for i, n := range all {
		files[i] = filepath.Join(dir, fileName(n))
	}
	return files, nil
}

// Verify reads the generations of a log, which may be written meanwhile, and compares them with the heads that the ledger has anchored;
// compared: history is all of them, or the newest. fn, if it is not nil, gets every record that follows from the one before. Errors are about
// files that cannot be read; what is wrong with the log is in the report.
func Verify(files []string, id wire.CAID, name string, compared bool, history []Anchor, fn func(generation uint64, r *Record) error) (*Report, error) {
	v := &verifier{id: id, fn: fn, history: history, parts: map[uint64]*Part{}, begins: map[uint64]*Record{},
		report: &Report{CAID: id.String(), Name: name, Compared: compared, Gaps: []Gap{}, Differences: []Difference{}}}
	for _, file := range files {
		if err := v.file(file); err != nil {
			return nil, err
		}
	}
	if compared {
		v.missing()
	}
	for g := range v.begins {
		v.gap(g)
	}
	return v.sorted(), nil
}

type verifier struct {
	id      wire.CAID
	fn      func(uint64, *Record) error
	history []Anchor
	report  *Report
	parts   map[uint64]*Part
	begins  map[uint64]*Record
}

// errStop ends the reading of a file whose first difference was found.
var errStop = errors.New("stop")

// generationScan is one file while it is read.
type generationScan struct {
	*verifier
	chain   *chain
	part    *Part
	anchors []Anchor // of the generation, that are still to come
}

func (v *verifier) file(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	s := &generationScan{verifier: v, chain: newChain(nil, 0), part: &Part{File: path}}
	found := len(v.report.Differences)
	end, err := frameMagic.Scan(f, st.Size(), func(data []byte, _ framelog.Position) error { return s.record(data) })
	switch {
	case errors.Is(err, framelog.ErrDamaged):
		v.differs(KindDamaged, s.part.Generation, s.chain.tree.size(), "%v", err)
	case err != nil && !errors.Is(err, errStop):
		return fmt.Errorf("%s: %w", path, err)
	case s.chain.begin == nil && err == nil:
		v.differs(KindDamaged, s.part.Generation, 0, "%s has no first record", path)
	}
	s.part.Records, s.part.Unfinished = s.chain.tree.size(), len(s.chain.open)
	if err == nil {
		s.part.Incomplete = st.Size() - end
	}
	if root, err := s.chain.tree.root(); err == nil {
		s.part.Root = fmt.Sprintf("%x", root)
	}
	if len(s.anchors) > 0 && len(v.report.Differences) == found && !v.successor(s.part) {
		a := s.anchors[len(s.anchors)-1]
		v.differs(KindCut, s.part.Generation, s.part.Records, "the log ends here, and the ledger has anchored %d records more (block %d, %s): %v",
			a.Head.Size-s.part.Records, a.Block, a.Time.Time().Format(time.RFC3339), a.Head)
	}
	if s.chain.begin != nil {
		v.parts[s.part.Generation], v.begins[s.part.Generation] = s.part, s.chain.begin
	}
	return nil
}

// record takes the next record of a file.
func (s *generationScan) record(data []byte) error {
	if s.chain.tree.size() == 0 {
		if r, err := decode(data); err == nil { // what generation it is, it says itself
			s.chain.generation, s.part.Generation = r.Generation, r.Generation
			if r.Kind == Begins && !bytes.Equal(r.CAID, s.id[:]) {
				s.differs(KindOther, r.Generation, 0, "it is the log of the CA %x, not of %s", r.CAID, s.id)
				return errStop
			}
			if r.Kind == Begins && r.Name != s.report.Name {
				s.differs(KindOther, r.Generation, 0, "it is the log called %q, not %q", r.Name, s.report.Name)
				return errStop
			}
			for _, a := range s.history {
				if a.Head.Generation == r.Generation {
					s.anchors = append(s.anchors, a)
				}
			}
		}
	}
	r, err := s.chain.add(data, framelog.Position{})
	if err != nil {
		return err
	}
	if r.Seq == 0 {
		s.part.First = r.Time.Time()
	}
	s.part.Last = r.Time.Time()
	if s.fn != nil {
		if err := s.fn(s.part.Generation, r); err != nil {
			return err
		}
	}
	for len(s.anchors) > 0 && s.anchors[0].Head.Size == s.chain.tree.size() {
		a := s.anchors[0]
		root, err := s.chain.tree.root()
		if err != nil {
			return err
		}
		if !bytes.Equal(root, a.Head.Root) {
			s.differs(KindChanged, s.part.Generation, s.part.Anchored, "one of the records %d to %d is not what it was when block %d anchored them (%s): the root is %x, it was %x",
				s.part.Anchored, a.Head.Size-1, a.Block, a.Time.Time().Format(time.RFC3339), root, a.Head.Root)
			return errStop
		}
		s.part.Heads, s.part.Anchored, s.anchors = s.part.Heads+1, a.Head.Size, s.anchors[1:]
	}
	return nil
}

func (v *verifier) differs(kind string, generation, record uint64, format string, args ...any) {
	v.report.Differences = append(v.report.Differences, Difference{kind, generation, record, fmt.Sprintf(format, args...)})
}

// successor tells whether the ledger has taken the generation after p: then what p lacks is a gap, which that one admits.
func (v *verifier) successor(p *Part) bool {
	for _, a := range v.history {
		if a.Head.Generation == p.Generation+1 {
			return true
		}
	}
	return false
}

// missing finds generations that are on the ledger and not here.
func (v *verifier) missing() {
	seen := map[uint64]bool{}
	for _, a := range v.history {
		if g := a.Head.Generation; v.parts[g] == nil && !seen[g] {
			seen[g] = true
			damaged := false
			for _, d := range v.report.Differences {
				damaged = damaged || d.Generation == g
			}
			if !damaged && !v.admitted(g) {
				v.differs(KindMissing, g, 0, "the ledger has anchored it (block %d, %s), and there is no file of it", a.Block, a.Time.Time().Format(time.RFC3339))
			}
		}
	}
}

// admitted: a restored CA whose backup had nothing of a generation says so in the one after it.
func (v *verifier) admitted(g uint64) bool {
	next := v.begins[g+1]
	return next != nil && next.Lost != nil && next.Lost.Generation == g && (next.Kept == nil || next.Kept.Generation < g)
}

// gap tells what generation g does not continue.
func (v *verifier) gap(g uint64) {
	begin := v.begins[g]
	if g == 0 {
		return
	}
	if begin.Lost == nil {
		v.differs(KindOther, g, 0, "it does not say which head it does not continue")
		return
	}
	for _, a := range v.history {
		if a.Head.Generation == g && (a.Lost == nil || !a.Lost.Equal(*begin.Lost)) {
			v.differs(KindOther, g, 0, "it begins after %v, and the ledger says that it lost %v", begin.Lost, a.Lost)
			return
		}
	}
	gap := Gap{Before: g, Anchored: begin.Lost.Size}
	if kept := begin.Kept; kept != nil && kept.Generation == g-1 {
		gap.From, gap.Anchored = kept.Size, begin.Lost.Size-min(begin.Lost.Size, kept.Size)
		v.checkKept(kept)
	}
	v.report.Gaps = append(v.report.Gaps, gap)
}

// checkKept: what there was of a generation when the next one began is all that there may be of it now.
func (v *verifier) checkKept(kept *wire.OperatorsHead) {
	p := v.parts[kept.Generation]
	switch {
	case slices.ContainsFunc(v.report.Differences, func(d Difference) bool { return d.Generation == kept.Generation }):
	case p == nil:
		v.differs(KindMissing, kept.Generation, 0, "generation %d says that there were %d records of it, and there is no file of it", kept.Generation+1, kept.Size)
	case p.Records < kept.Size:
		v.differs(KindCut, kept.Generation, p.Records, "the log ends here, and generation %d says that there were %d records of it", kept.Generation+1, kept.Size)
	case p.Records != kept.Size || p.Root != fmt.Sprintf("%x", kept.Root):
		v.differs(KindChanged, kept.Generation, p.Anchored, "it is not what it was when generation %d began: %d records with the root %s, and it had %d with %x",
			kept.Generation+1, p.Records, p.Root, kept.Size, kept.Root)
	}
}

// sorted puts the report in the order of generations.
func (v *verifier) sorted() *Report {
	r := v.report
	for _, g := range slices.Sorted(maps.Keys(v.parts)) {
		r.Parts = append(r.Parts, *v.parts[g])
	}
	slices.SortFunc(r.Gaps, func(a, b Gap) int { return cmp.Compare(a.Before, b.Before) })
	slices.SortStableFunc(r.Differences, func(a, b Difference) int {
		return cmp.Or(cmp.Compare(a.Generation, b.Generation), cmp.Compare(a.Record, b.Record))
	})
	return r
}
