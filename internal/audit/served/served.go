package served

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/audit"
	"github.com/certanchor/certanchor/internal/policy"
)

// Defaults of Options.
const (
	DefaultSample      = 200
	DefaultLimit       = 20
	DefaultConcurrency = 8
	DefaultPatience    = 5 * time.Second
)

// Options say what is compared with what.
type Options struct {
	// Audit has what the blocks say. Required.
	Audit *audit.Auditor
	// CatchUp audits the blocks that have come meanwhile: bridges may know them already. Required.
	CatchUp func(context.Context) error
	// Bridges are base URLs, one for each organisation. They are asked at the same time; the report follows this order.
	Bridges []string
	// Dir is the audit's directory: what was seen is remembered there, and evidence kept. Required.
	Dir string

	// Policy is the policy in force, nil if none is known. File is the file that it is from: older versions tell whose a key once was.
	Policy *policy.Policy
	File   []byte

	Sample      int // certificates that are asked about beside those with changes of status; 0: all
	Limit       int // differences that are reported; 0: DefaultLimit
	Concurrency int // requests to each bridge at the same time; 0: DefaultConcurrency

	// Patience is for how long a bridge is asked again that has no answers now; 0: DefaultPatience.
	Patience time.Duration

	HTTP     *http.Client     // nil: one with a timeout that follows no redirects
	Now      func() time.Time // nil: time.Now
	Rand     *rand.Rand       // chooses the sample; nil: another one each time
	Progress func(Progress)   // called now and then, by one goroutine at a time; may be nil
}

// Progress says how far a comparison has come.
type Progress struct {
	Stage string // what is being compared
	Done  uint64
	Of    uint64 // 0: not known
}

// comparison is one run.
type comparison struct {
	Options
	*findings
	bridges []*bridge
	logs    []audit.Log
	claims  map[string][]*claim // by log name
	seen    *Seen
	older   []*policy.Policy // versions before Policy, newest first
	channel string
	sampled []*subject
	report  *Report

	responders map[wire.CAID]bool // CAs with a valid responder certificate; complete once the sample is taken

	inBundles    map[string]*bundleNote // by note; guarded by mu
	newestTick   time.Time              // by the blocks; zero before the first
	tickInterval time.Duration
}

// bridge is one organisation's server.
type bridge struct {
	Bridge
	fetch *fetcher
	index int
	sizes map[string]uint64  // of each log, as its checkpoint says; absent: none was served
	sites []*site            // trees of files to compare
	keys  map[string]*ctKeys // of each issuance log; nil: no log list is served

	missing atomic.Int64 // files
}

// Run compares. Its error says that the comparison itself failed; differences are in the report, which is valid then too.
func Run(ctx context.Context, o Options) (*Report, error) {
	c := &comparison{
		Options: o, findings: newFindings(cmp.Or(o.Limit, DefaultLimit)), claims: map[string][]*claim{}, inBundles: map[string]*bundleNote{}, report: NewReport(),
		responders: map[wire.CAID]bool{},
	}
	c.Concurrency, c.Patience = cmp.Or(o.Concurrency, DefaultConcurrency), cmp.Or(o.Patience, DefaultPatience)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Rand == nil {
		c.Rand = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	}
	if c.HTTP == nil {
		c.HTTP = &http.Client{Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	if report := c.Progress; report != nil {
		var mu sync.Mutex
		c.Progress = func(p Progress) {
			mu.Lock()
			defer mu.Unlock()
			report(p)
		}
	}
	for i, u := range o.Bridges {
		u = strings.TrimRight(u, "/")
		c.bridges = append(c.bridges, &bridge{
			Bridge: Bridge{URL: u}, index: i, fetch: &fetcher{http: c.HTTP, base: u}, sizes: map[string]uint64{},
		})
	}
	var err error
	if c.seen, err = LoadSeen(o.Dir); err != nil {
		return nil, err
	}
	if err := c.loadOlder(); err != nil {
		return nil, err
	}
	for _, step := range []func(context.Context) error{
		c.knownLogs, // those before the bridges are asked: what they serve then must be in the blocks that are read after it
		c.fetchHeads, o.CatchUp, c.knownLogs, c.judgeHeads, c.sample, c.askSample, c.walkLogs,
	} {
		if err := step(ctx); err != nil {
			return c.finish(), err
		}
	}
	c.equivocations()
	return c.finish(), c.remember()
}

func (c *comparison) knownLogs(context.Context) (err error) {
	if c.logs, err = c.Audit.Logs(); err != nil {
		return err
	}
	c.channel = c.Audit.Channel()
	ticks := c.log(audit.MapLog)
	if ticks.Size == 0 {
		return nil
	}
	newest, err := c.Audit.Entry(ticks, ticks.Size-1)
	if err != nil {
		return err
	}
	c.newestTick, c.tickInterval = newest.Time.Time(), time.Duration(c.Audit.Consortium().TickInterval)*time.Millisecond
	return nil
}

func (c *comparison) log(name string) *audit.Log {
	for i := range c.logs {
		if c.logs[i].Name == name {
			return &c.logs[i]
		}
	}
	return nil
}

// NewReport is a report of nothing.
func NewReport() *Report {
	return &Report{Logs: []Log{}, Bridges: []*Bridge{}, Notes: []string{}, Differences: []*Difference{}}
}

func (c *comparison) finish() *Report {
	r := c.report
	for _, l := range c.logs {
		r.Logs = append(r.Logs, Log{Name: l.Name, Origin: l.Origin, Size: l.Size, Root: hex.EncodeToString(l.Root[:])})
	}
	for _, b := range c.bridges {
		r.Bridges = append(r.Bridges, &b.Bridge)
		r.Compared = r.Compared || b.Heads+b.Tiles+b.Bundles+b.OCSP+b.Proofs > 0
		if d := b.fetch.silence(); d != nil {
			c.add(b.index, d)
		}
	}
	r.Differences, r.Notes, r.More = c.result()
	return r
}

// loadOlder reads the versions of the policy before the one in force.
func (c *comparison) loadOlder() error {
	if c.Policy == nil || c.File == nil {
		return nil
	}
	all, err := policy.ParseFile(c.File)
	if err != nil {
		return err
	}
	for _, s := range slices.Backward(all) {
		if s.Policy.Version() < c.Policy.Version() {
			c.older = append(c.older, s.Policy)
		}
	}
	return nil
}

// failed turns an error of a request into what it is a sign of. Requests without an answer are reported once for each bridge, at the end.
func (c *comparison) failed(seq int, where, what, blocks string, err error) {
	if errors.As(err, new(*noAnswer)) {
		return
	}
	c.add(seq, &Difference{Kind: KindMissing, Where: where, What: what, Found: err.Error(), Blocks: blocks})
}

const itIsThere = "it is there"

func (c *comparison) progress(stage string, done, of uint64) {
	if c.Progress != nil {
		c.Progress(Progress{Stage: stage, Done: done, Of: of})
	}
}

func caName(l *audit.Log) string {
	if l.CA == nil {
		return "log " + l.Name
	}
	return fmt.Sprintf("log of CA %s", l.Name)
}

// skew is how far apart organisations' clocks may be, and so a cosignature and the Tick that it covers: the ledger accepts times that
// are off by as much (peer.authentication.timewindow).
const skew = 10 * time.Second

// staleTicks is after how many intervals without a Tick nothing may be said any more.
const staleTicks = 3

func millis(t time.Time) wire.Millis { return wire.MillisOf(t) }
