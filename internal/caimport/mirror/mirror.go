package mirror

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"time"

	"github.com/certanchor/certanchor/internal/caimport"
	"github.com/certanchor/certanchor/network"
)

// Defaults of Config, and the least Interval.
const (
	DefaultInterval    = 5 * time.Minute
	LeastInterval      = 5 * time.Second
	DefaultTimeout     = time.Minute
	DefaultMaxCRLBytes = 128 << 20
	DefaultOCSPRate    = 5
	MaxOCSPRate        = 1000
)

// Config says what is mirrored.
type Config struct {
	Ledger      network.Ledger      // as an operator of the CA's operating organisation
	CA          *caimport.Authority // on the ledger's trust list
	Dir         string              // made when absent; one process at a time has it
	CRL         string              // URL of the CA's complete CRL: http, https or file
	OCSP        string              // URL of its responder: http or https; empty: it is not asked
	OCSPRate    float64             // requests a second, at most; default DefaultOCSPRate
	Interval    time.Duration       // between two looks at the CRL; default DefaultInterval
	Timeout     time.Duration       // for one answer of the CRL's server; default DefaultTimeout
	Patience    time.Duration       // for the ledger to decide; default a minute
	MaxCRLBytes int64               // longer CRLs are refused; default DefaultMaxCRLBytes
	HTTP        *http.Client        // default one of its own
	Now         func() time.Time    // default time.Now
	Log         *slog.Logger        // default slog.Default
}

func (c *Config) fill() error {
	c.Interval, c.Timeout, c.Patience = cmp.Or(c.Interval, DefaultInterval), cmp.Or(c.Timeout, DefaultTimeout), cmp.Or(c.Patience, time.Minute)
	c.MaxCRLBytes, c.OCSPRate = cmp.Or(c.MaxCRLBytes, DefaultMaxCRLBytes), cmp.Or(c.OCSPRate, DefaultOCSPRate)
	if c.HTTP == nil {
		c.HTTP = &http.Client{}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	switch {
	case c.Dir == "":
		return errors.New("dir: must be set")
	case c.Interval < LeastInterval:
		return fmt.Errorf("interval %s: must be at least %s", c.Interval, LeastInterval)
	case c.MaxCRLBytes < 1 || c.MaxCRLBytes > caimport.MaxCRLBytes:
		return fmt.Errorf("max-crl-bytes %d: must be from 1 to %d", c.MaxCRLBytes, caimport.MaxCRLBytes)
	case c.OCSPRate < 0 || c.OCSPRate > MaxOCSPRate:
		return fmt.Errorf("ocsp-rate %v: must be above 0 and at most %d", c.OCSPRate, MaxOCSPRate)
	}
	if err := checkURL("crl", c.CRL, "http", "https", "file"); err != nil {
		return err
	}
	if c.OCSP == "" {
		return nil
	}
	return checkURL("ocsp", c.OCSP, "http", "https")
}

// Report is what a mirror has done since it was opened.
type Report struct {
	Polls     uint64 `json:"polls"`     // looks at the CRL
	Unchanged uint64 `json:"unchanged"` // that found the last one
	Refused   uint64 `json:"refused"`   // that found one that must not be believed
	Failed    uint64 `json:"failed"`    // all that ended in an error
	Imported  uint64 `json:"imported"`  // entries that the ledger was told
	Changed   uint64 `json:"changed"`   // of these, those that it did not know
	Released  uint64 `json:"released"`  // holds
	Retry     int    `json:"retry"`     // entries that the ledger refuses
	Held      int    `json:"held"`      // on hold because the CA says so

	Number     string    `json:"crl_number"` // of the last CRL
	ThisUpdate time.Time `json:"this_update"`
	NextUpdate time.Time `json:"next_update"`

	Known      int    `json:"known"`       // certificates that the responder is asked about
	Asked      uint64 `json:"asked"`       // requests to the responder
	OCSPFailed uint64 `json:"ocsp_failed"` // without an answer that can be believed
	OCSPNews   uint64 `json:"ocsp_news"`   // answers that the ledger did not know
	LastError  string `json:"last_error,omitempty"`
}

// Mirror is open. Its methods are for one goroutine.
type Mirror struct {
	cfg       Config
	lock      *os.File
	state     *state
	submitter *caimport.Submitter
	report    Report

	releaseLeft bool   // of the holds that ended, some may not have been released
	listed      listed // what the CRL has
	known       *known // nil: no responder is asked
	ocspFaults  int    // in a row
}

// Open opens the mirror in cfg.Dir; Close ends it. Errors name the setting that is wrong, or say that another process has the directory.
func Open(cfg Config) (_ *Mirror, err error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	m := &Mirror{cfg: cfg, releaseLeft: true}
	if m.lock, err = lock(cfg.Dir); err != nil {
		return nil, err
	}
	if m.state, err = loadState(cfg.Dir, cfg.Ledger.Channel(), cfg.CA.ID, cfg.CRL); err != nil {
		return nil, errors.Join(err, m.lock.Close())
	}
	m.submitter = &caimport.Submitter{Ledger: cfg.Ledger, CAID: cfg.CA.ID, Patience: cfg.Patience, Log: cfg.Log}
	if cfg.OCSP != "" {
		m.known = newKnown(cfg.CA.ID)
		last, err := m.state.applied()
		if err == nil && last != nil {
			var now map[string]caimport.Status
			if now, err = m.entries(last); err == nil {
				m.listed.replace(now)
			}
		}
		if err != nil {
			m.cfg.Log.Warn("the last CRL cannot be read", "error", err)
		}
	}
	return m, nil
}

// Close lets the directory go.
func (m *Mirror) Close() error { return m.lock.Close() }

// Report returns what was done so far.
func (m *Mirror) Report() Report {
	r := m.report
	r.Retry, r.Held = len(m.state.Retry), len(m.state.Holds)
	if m.state.Number != nil {
		r.Number = m.state.Number.String()
	}
	r.ThisUpdate, r.NextUpdate = m.state.ThisUpdate, m.state.NextUpdate
	if m.known != nil {
		r.Known = m.known.size()
	}
	return r
}

// Once looks at the CRL, and asks the responder once about each certificate.
func (m *Mirror) Once(ctx context.Context) error {
	if err := m.poll(ctx); err != nil {
		return err
	}
	if m.known == nil {
		return nil
	}
	if err := m.known.catchUp(ctx, m.cfg.Ledger); err != nil {
		return err
	}
	every := time.NewTicker(m.ocspPause())
	defer every.Stop()
	failed := m.report.OCSPFailed
	for _, serial := range m.known.round(m.cfg.Now()) {
		if m.listed.has(serial) {
			continue
		}
		select {
		case <-every.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := m.ask(ctx, serial); err != nil {
			return err
		}
	}
	if n := m.report.OCSPFailed - failed; n > 0 {
		return fmt.Errorf("%d of the responder's answers cannot be believed, the last: %s", n, m.report.LastError)
	}
	return nil
}

func (m *Mirror) ocspPause() time.Duration {
	return max(time.Duration(float64(time.Second)/m.cfg.OCSPRate), time.Millisecond)
}

// poll is Poll, counted and logged.
func (m *Mirror) poll(ctx context.Context) error {
	m.report.Polls++
	err := m.Poll(ctx)
	if err != nil {
		m.report.Failed++
		m.report.LastError = err.Error()
		return err
	}
	r := m.Report()
	m.cfg.Log.Info("CRL is mirrored", "number", r.Number, "this_update", stamp(r.ThisUpdate), "next_update", stamp(r.NextUpdate), "imported", r.Imported,
		"changed", r.Changed, "released", r.Released, "held", r.Held, "retry", r.Retry, "known", r.Known, "asked", r.Asked, "ocsp_news", r.OCSPNews)
	return nil
}

// Run goes on until ctx ends, and then returns nil. What fails is logged and tried again, less and less often.
func (m *Mirror) Run(ctx context.Context) error {
	look := time.NewTimer(0)
	defer look.Stop()
	var ask <-chan time.Time
	var following chan error
	if m.known != nil {
		every := time.NewTicker(m.ocspPause())
		defer every.Stop()
		ask = every.C
		following = make(chan error, 1)
		go func() { following <- m.known.follow(ctx, m.cfg.Ledger) }()
	}
	failures, quietUntil := 0, time.Time{}
	for {
		select {
		case <-ctx.Done():
			if following != nil {
				<-following
			}
			return nil
		case err := <-following:
			if ctx.Err() == nil {
				return fmt.Errorf("the ledger's blocks cannot be read: %w", err)
			}
			return nil
		case <-look.C:
			if err := m.poll(ctx); err == nil || ctx.Err() != nil {
				failures = 0
			} else {
				failures++
				m.cfg.Log.Error("the CRL is not mirrored", "error", err, "failures", failures)
			}
			look.Reset(m.wait(failures))
		case <-ask:
			if m.cfg.Now().Before(quietUntil) {
				continue
			}
			if err := m.askNext(ctx); err != nil && ctx.Err() == nil {
				m.cfg.Log.Error("what the responder says is not mirrored", "error", err)
			}
			quietUntil = m.cfg.Now().Add(m.ocspRest())
		}
	}
}

const longestWait = time.Hour

// wait is how long until the next look at the CRL: the interval, less when the CA has promised the next CRL for before, and after failures
// longer each time.
func (m *Mirror) wait(failures int) time.Duration {
	d := m.cfg.Interval
	if failures > 0 {
		d = min(LeastInterval<<min(failures-1, 12), max(longestWait, m.cfg.Interval))
		return d/2 + rand.N(d/2+1) //nolint:gosec // jitter needs no secrecy
	}
	if next := m.state.NextUpdate; !next.IsZero() {
		if until := next.Sub(m.cfg.Now()) + time.Second; until < d {
			d = max(until, LeastInterval)
		}
	}
	return d
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
