// Package session is a whole audit: blocks from a ledger that is not trusted, what follows from them, and what bridges serve.
package session

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/certanchor/certanchor/internal/audit"
	"github.com/certanchor/certanchor/internal/audit/served"
	"github.com/certanchor/certanchor/internal/policy"
	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/network/fabric/verify"
)

// Options say what is audited.
type Options struct {
	Ledger    network.Ledger
	Chaincode string // of the contract, on Fabric
	Dir       string // of the audit's state
	Restart   bool   // begin at the first block again

	Genesis     []byte // hash of the first block; nil: what an earlier audit used, else what the ledger says
	Bridges     []string
	PolicyFile  []byte // nil: what the bridges serve
	Fingerprint string // of a version in PolicyFile
	Sample      int    // 0: all
	Limit       int
	HTTP        *http.Client
	Patience    time.Duration // with bridges that have no answers now; 0: served.DefaultPatience

	Progress func(Progress)
	Now      func() time.Time
	Log      *slog.Logger
}

// Progress says how far an audit has come.
type Progress struct {
	Stage    string
	Done, Of uint64
	Rate     float64       // blocks per second, 0 if it is not about blocks
	Left     time.Duration // 0: not known
}

// Result is the outcome of an audit.
type Result struct {
	Channel       string  `json:"channel"`
	Engine        string  `json:"engine"`
	Genesis       string  `json:"genesis"`
	GenesisPinned bool    `json:"genesis_pinned"` // somebody gave it, now or at an earlier audit
	Blocks        uint64  `json:"blocks"`
	LastHash      string  `json:"last_hash"`
	Txs           uint64  `json:"txs"`
	NewBlocks     uint64  `json:"new_blocks"` // of this run
	Policy        string  `json:"policy,omitempty"`
	PolicyVersion uint64  `json:"policy_version,omitempty"`
	PolicyPinned  bool    `json:"policy_pinned"`
	Endorsement   string  `json:"endorsement,omitempty"`
	LoneWrites    *Lone   `json:"lone_writes,omitempty"` // on Fabric
	Seconds       float64 `json:"seconds"`
	served.Report
}

// Lone counts the transactions in all blocks that were let through because one organisation can make them alone, and they are not about the
// contract's state: writes to collections of private data.
type Lone struct {
	Approvals uint64 `json:"approvals"` // of chaincode definitions
	Others    uint64 `json:"others"`
}

// Engines of a Result.
const (
	Fabric   = "fabric"
	Embedded = "embedded"
)

// session is one run.
type session struct {
	Options
	audit  *audit.Auditor
	seen   *served.Seen
	policy *policy.Policy
	result *Result
	notes  []string
	lone   []verify.LoneWrite // other than approvals, the first shownLone of this run
}

// shownLone is how many lone writes are named.
const shownLone = 5

// Run audits. Differences are in the result; an error says that the audit itself could not be done, and then the result has what was found
// before.
func Run(ctx context.Context, o Options) (_ *Result, err error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	s := &session{Options: o, result: &Result{Channel: o.Ledger.Channel(), Engine: Embedded}}
	s.result.Report = *served.NewReport()
	begun := o.Now()
	if o.Restart {
		if err := audit.Remove(o.Dir); err != nil {
			return s.result, err
		}
	}
	if s.audit, err = audit.Open(audit.Options{
		Dir: o.Dir, Channel: o.Ledger.Channel(), Now: o.Now, Log: o.Log, Progress: func(p audit.Progress) {
			o.Progress(Progress{Stage: "blocks", Done: p.Height, Of: p.Target, Rate: p.BlocksPerSecond(), Left: p.Left()})
		},
	}); err != nil {
		return s.result, err
	}
	defer func() { err = errors.Join(err, s.audit.Close()) }()
	from := s.audit.Height()
	err = s.run(ctx)
	r := s.result
	r.Blocks, r.NewBlocks, r.Txs, r.LastHash = s.audit.Height(), s.audit.Height()-from, s.audit.Txs(), hex.EncodeToString(s.audit.Hash())
	r.Notes = append(s.notes, r.Notes...)
	r.Seconds = o.Now().Sub(begun).Seconds()
	return r, err
}

func (s *session) run(ctx context.Context) (err error) {
	if s.seen, err = served.LoadSeen(s.Dir); err != nil {
		return err
	}
	if s.seen.Channel != "" && s.seen.Channel != s.Ledger.Channel() {
		return fmt.Errorf("audit state %s: is of channel %s, asked for %s", s.Dir, s.seen.Channel, s.Ledger.Channel())
	}
	for _, step := range []func(context.Context) error{s.genesis, s.resume, s.blocks} {
		if err := step(ctx); err != nil || len(s.result.Differences) > 0 {
			return err
		}
	}
	if err := s.loadPolicy(ctx); err != nil {
		return err
	}
	if err := s.seen.Save(); err != nil {
		return err
	}
	report, err := served.Run(ctx, served.Options{
		Audit: s.audit, CatchUp: s.catchUp, Bridges: s.Bridges, Dir: s.Dir, Policy: s.policy, File: s.PolicyFile,
		Sample: s.Sample, Limit: s.Limit, HTTP: s.HTTP, Now: s.Now, Patience: s.Patience,
		Progress: func(p served.Progress) { s.Progress(Progress{Stage: p.Stage, Done: p.Done, Of: p.Of}) },
	})
	if report != nil {
		s.result.Report = *report
	}
	return s.differ(err)
}

func (s *session) note(format string, args ...any) {
	s.notes = append(s.notes, fmt.Sprintf(format, args...))
}

// differ turns an error about a block into a difference. Others are returned.
func (s *session) differ(err error) error {
	var (
		broken *verify.Error
		wrong  *audit.Difference
		gone   *network.UnavailableError
	)
	d := &served.Difference{Kind: served.KindBlock, What: fmt.Sprintf("block %d", s.audit.Height())}
	switch {
	case errors.As(err, &wrong):
		d.Where, d.What, d.Found, d.Blocks = place(wrong.Block, wrong.Tx, wrong.TxID), wrong.Function+" "+wrong.Field, wrong.Ledger, wrong.Rules+", by the contract's rules"
	case errors.As(err, &broken):
		d.Where, d.What, d.Found, d.Blocks = place(broken.Block, broken.Tx, broken.TxID), broken.Field, broken.Value, broken.Rule
	case errors.As(err, &gone):
		d.Where, d.Found, d.Blocks = "the ledger", err.Error(), "it can be read, and follows the block before"
	default:
		return err // nil, too
	}
	d.What = strings.TrimSpace(d.What)
	s.result.Differences = append(s.result.Differences, d)
	return nil
}

func place(block uint64, tx int, id string) string {
	if tx < 0 {
		return fmt.Sprintf("block %d", block)
	}
	return fmt.Sprintf("block %d, transaction %d (%s)", block, tx, id)
}

// genesis decides which first block is trusted, and compares the ledger's.
func (s *session) genesis(ctx context.Context) error {
	first, err := s.hashOf(ctx, 0)
	if err != nil {
		return s.differ(err)
	}
	want := s.Genesis
	if want == nil && s.seen.Genesis != "" {
		if want, err = hex.DecodeString(s.seen.Genesis); err != nil {
			return fmt.Errorf("audit state %s: genesis: %w", s.Dir, err)
		}
	}
	s.result.GenesisPinned = s.Genesis != nil || s.seen.Pinned
	if want == nil {
		want = first
		s.note("THE FIRST BLOCK WAS TAKEN FROM THE LEDGER ITSELF (hash %x), and is remembered in %s: trust on first use. Whoever serves another ledger from its first block on is not found out. "+
			"Compare the hash with one from a source that you trust, and give it with --genesis-hash.", first, s.Dir)
	} else if !s.result.GenesisPinned {
		s.note("the first block (hash %x) is the one of the first audit with this state, which took it from the ledger itself; --genesis-hash pins it", want)
	}
	s.result.Genesis = hex.EncodeToString(want)
	if len(want) != sha256.Size || !bytes.Equal(want, first) {
		s.result.Differences = append(s.result.Differences, &served.Difference{
			Kind: served.KindBlock, Where: "block 0", What: "hash", Found: hex.EncodeToString(first), Blocks: hex.EncodeToString(want) + ", which is trusted",
		})
		return nil
	}
	s.seen.Channel, s.seen.Genesis, s.seen.Pinned = s.Ledger.Channel(), s.result.Genesis, s.result.GenesisPinned
	return s.seen.Save()
}

// resume makes sure that the ledger is the one that was audited before.
func (s *session) resume(ctx context.Context) error {
	had := s.audit.Height()
	if had == 0 {
		return nil
	}
	height, err := s.Ledger.Height(ctx)
	if err != nil {
		return s.differ(err)
	}
	d := &served.Difference{Kind: served.KindBlock, Where: fmt.Sprintf("block %d", had-1), What: "hash", Blocks: fmt.Sprintf("%x, as it was audited", s.audit.Hash())}
	if height < had {
		d.Kind, d.Where, d.What = served.KindRollback, "the ledger", "height"
		d.Found, d.Blocks = fmt.Sprintf("%d blocks: it was restored from an old backup, or its end is lost", height), fmt.Sprintf("%d blocks, as they were audited", had)
	} else {
		hash, err := s.hashOf(ctx, had-1)
		if err != nil {
			return s.differ(err)
		}
		if bytes.Equal(hash, s.audit.Hash()) {
			return nil
		}
		d.Found = hex.EncodeToString(hash)
	}
	s.result.Differences = append(s.result.Differences, d)
	return nil
}

// blocks audits all the blocks there are now.
func (s *session) blocks(ctx context.Context) error {
	height, err := s.Ledger.Height(ctx)
	if err == nil {
		err = s.audit.Run(ctx, s.source(), height)
	}
	if err != nil || s.result.Engine != Fabric {
		return s.differ(err)
	}
	v, err := s.verifier(s.audit.VerifierStore())
	if err != nil {
		return err
	}
	says, found, err := v.EndorsementPolicy()
	if found {
		s.result.Endorsement = says
	}
	if err != nil {
		return err
	}
	return s.reportLone(v)
}

// reportLone tells what was let through: it breaks no rule, but somebody may wonder why an organisation does it.
func (s *session) reportLone(v *verify.Verifier) error {
	n, err := v.Lone()
	if err != nil {
		return err
	}
	s.result.LoneWrites = &Lone{Approvals: n.Approvals, Others: n.Others}
	for _, w := range s.lone {
		s.note("%s: a write of %s alone to %s was let through: it is not about the contract's state",
			place(w.Block, w.Tx, w.TxID), strings.Join(w.Endorsers, ", "), strings.Join(w.Collections, ", "))
	}
	return nil
}

// catchUp audits what has come since.
func (s *session) catchUp(ctx context.Context) error {
	height, err := s.Ledger.Height(ctx)
	if err != nil {
		return err
	}
	return s.audit.Follow(ctx, s.source(), height)
}
