package client

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// Defaults of a MonitorConfig.
const (
	DefaultInterval = 15 * time.Second
	DefaultParallel = 4
	DefaultPatience = 10 * time.Minute
	DefaultGiveUp   = 2 * time.Minute

	defaultMonitorTimeout = 30 * time.Second
)

// ErrAlarm tells that a log is not what it must be. The Monitor has said so with an Event, and stays where it was in that log.
var ErrAlarm = errors.New("alarm")

var emptyRoot = sha256.Sum256(nil) // RFC 6962 section 2.1

// MonitorConfig says what a Monitor looks for, and where. URL, Match, Deliver and one of Policy and LogKeys are required.
type MonitorConfig struct {
	// URL is the base URL of an organisation's bridge, which serves its logs under /logs.
	URL string

	// Match has domain names, which stand for themselves and all names below; *.domain, for the names below only; e-mail addresses; IP
	// addresses and prefixes. Internationalised names must be given as A-labels (xn--...).
	Match []string

	// Policy says whose signatures make a checkpoint. LogKeys do it for those who have no policy: one of them is then enough, so the
	// organisation that has it is trusted not to show two histories to two people.
	Policy  *Policy
	LogKeys []note.Verifier

	// StateFile remembers what was verified and delivered. Empty: nothing outlives the Monitor.
	StateFile string

	// FromStart reports what is in the logs already. Otherwise a Monitor without state begins at the ends of the logs that are there; a log that
	// appears later is always read from its start. It has no effect on what a StateFile remembers.
	FromStart bool

	// Deliver takes events, never none, in the order of their log. When it returns nil they are done with; they come again, with the same IDs,
	// when the process ends before the state is saved. An error ends the Monitor: who can try again does so in Deliver.
	Deliver func(context.Context, []Event) error

	Interval time.Duration // between polls; default DefaultInterval. A server's Retry-After can make it longer
	Parallel int           // requests at a time; default DefaultParallel
	Timeout  time.Duration // of one request, up to the last octet of the answer; default 30 s
	Patience time.Duration // for which a log may be out of sight before Run raises an alarm; default DefaultPatience
	GiveUp   time.Duration // for which CatchUp tries what fails; default DefaultGiveUp

	Progress func(MonitorProgress) // is told after each batch of entries; default nobody
	HTTP     *http.Client          // default one that follows no redirects
	Log      *slog.Logger          // failures that may pass; default slog.Default

	Now   func() time.Time                           // default time.Now
	Sleep func(context.Context, time.Duration) error // returns early with an error when the context ends; default does that
}

// Monitor follows all logs of a ledger and reports certificates, and changes of their status, for names that somebody cares about. It believes
// nothing that does not hash up to a checkpoint that is signed as the policy wants, and no checkpoint that does not continue the one before.
// Run and CatchUp must not be called at the same time.
type Monitor struct {
	cfg      MonitorConfig
	base     string
	channel  string
	patterns patterns
	http     *http.Client

	state *monitorState
	dirty bool      // state is not saved
	saved time.Time // when it was

	failing map[string]time.Time // by log: since when it cannot be followed

	noStatic map[string]bool // by log: the server has no data tiles

	verified atomic.Uint64 // entries that were verified and delivered

	pause atomic.Int64 // time.Duration that the server asked for in this round

	hook func(step string) error // of tests: an error is the end of the process
}

// NewMonitor checks a configuration and reads the state. Errors name what is wrong.
func NewMonitor(c MonitorConfig) (*Monitor, error) {
	m := &Monitor{cfg: c, base: strings.TrimRight(c.URL, "/"), failing: map[string]time.Time{}, noStatic: map[string]bool{}}
	if u, err := url.Parse(c.URL); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("monitor: URL %q: must be an absolute http or https URL, without query and fragment", c.URL)
	}
	if c.Deliver == nil {
		return nil, errors.New("monitor: Deliver: must be set: without it nobody learns of anything")
	}
	if len(c.Match) == 0 {
		return nil, errors.New("monitor: Match: must have at least one pattern")
	}
	var texts []string
	for _, s := range c.Match {
		p, err := parsePattern(s)
		if err != nil {
			return nil, fmt.Errorf("monitor: %w", err)
		}
		if !slices.Contains(texts, p.text) {
			m.patterns, texts = append(m.patterns, p), append(texts, p.text)
		}
	}
	slices.Sort(texts)
	var err error
	if m.channel, err = channelOf(&c); err != nil {
		return nil, err
	}
	if err := m.cfg.defaults(); err != nil {
		return nil, err
	}
	m.http = noRedirects(c.HTTP)
	if t, ok := http.DefaultTransport.(*http.Transport); ok && c.HTTP == nil {
		t = t.Clone()
		t.MaxIdleConnsPerHost = m.cfg.Parallel // they are all to one
		m.http.Transport = t
	}
	m.saved = m.cfg.Now()
	m.state, err = loadState(c.StateFile, m.channel, texts)
	return m, err
}

func (c *MonitorConfig) defaults() error {
	for _, d := range []struct {
		name   string
		value  *time.Duration
		preset time.Duration
	}{
		{"Interval", &c.Interval, DefaultInterval}, {"Timeout", &c.Timeout, defaultMonitorTimeout},
		{"Patience", &c.Patience, DefaultPatience}, {"GiveUp", &c.GiveUp, DefaultGiveUp},
	} {
		if *d.value < 0 {
			return fmt.Errorf("monitor: %s %v: must not be negative", d.name, *d.value)
		}
		if *d.value == 0 {
			*d.value = d.preset
		}
	}
	if c.Parallel == 0 {
		c.Parallel = DefaultParallel
	}
	if c.Parallel < 0 || c.Parallel > 64 {
		return fmt.Errorf("monitor: Parallel %d: must be from 1 to 64", c.Parallel)
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Sleep == nil {
		c.Sleep = sleep
	}
	return nil
}

// channelOf says which ledger it is about: from what is trusted, not from the server.
func channelOf(c *MonitorConfig) (string, error) {
	havePolicy := c.Policy != nil && c.Policy.p != nil
	if havePolicy == (len(c.LogKeys) > 0) {
		return "", errors.New("monitor: exactly one of Policy and LogKeys must be given: without them every checkpoint could be a forged one")
	}
	if havePolicy {
		return c.Policy.Channel(), nil
	}
	var channel string
	for i, k := range c.LogKeys {
		name, _, ok := strings.Cut(k.Name(), "/")
		if !ok || name == "" || i > 0 && name != channel {
			return "", fmt.Errorf("monitor: log key %q: name must be <channel>/<MSP ID>, of one channel for all keys", k.Name())
		}
		channel = name
	}
	return channel, nil
}

// Summary is what a Monitor has done since it was made.
type Summary struct {
	Logs    int    // that it follows
	Entries uint64 // that were read and verified
}

// Summary must not be called while Run or CatchUp is.
func (m *Monitor) Summary() Summary {
	s := Summary{Entries: m.verified.Load()}
	for name := range m.state.Logs {
		if name != listName {
			s.Logs++
		}
	}
	return s
}

// CatchUp reads all logs up to their newest checkpoints, once. What fails is tried again for as long as GiveUp says. Errors:
// ErrAlarm if a log is not what it must be, also if that was reported before; ErrTransport, ErrCheckpoint when a log could not be
// followed; of Deliver, of the state file, of ctx.
func (m *Monitor) CatchUp(ctx context.Context) error {
	began := m.cfg.Now()
	for wait := firstBackoff; ; wait = min(2*wait, m.cfg.Interval) {
		err := m.round(ctx)
		if err == nil && !m.state.complete() {
			continue // the status log told of a CA whose log the server has not listed
		}
		if err == nil || ctx.Err() != nil || errors.Is(err, ErrAlarm) || errors.As(err, new(*fatalError)) {
			return err
		}
		wait := max(wait, m.asked(0))
		if m.cfg.Now().Add(wait).Sub(began) > m.cfg.GiveUp {
			return err
		}
		m.cfg.Log.Warn("logs cannot be followed, trying again", "error", err)
		if err := m.cfg.Sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// Run follows the logs until ctx ends or events cannot be delivered or the state cannot be saved, and returns why. Everything else, alarms
// included, does not end it.
func (m *Monitor) Run(ctx context.Context) error {
	for {
		err := m.round(ctx)
		if ctx.Err() != nil || errors.As(err, new(*fatalError)) {
			return err
		}
		if err != nil {
			m.cfg.Log.Warn("not all logs can be followed", "error", err)
		}
		if err := m.cfg.Sleep(ctx, max(m.cfg.Interval, min(m.asked(0), m.cfg.Patience))); err != nil {
			return err
		}
	}
}

// asked notes how long the server asks to be left alone, and returns the longest of this round.
func (m *Monitor) asked(d time.Duration) time.Duration {
	for {
		old := m.pause.Load()
		if int64(d) <= old {
			return time.Duration(old)
		}
		m.pause.CompareAndSwap(old, int64(d))
	}
}
