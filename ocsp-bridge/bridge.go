package ocspbridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/logkey"
	"github.com/certanchor/certanchor/internal/lognames"
	"github.com/certanchor/certanchor/internal/ticker"
	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/index"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/responder"
)

// Enroller asks a CA for a delegated responder certificate.
type Enroller = responder.Enroller

// KeyPair names PEM files with a responder certificate and its PKCS #8 key.
type KeyPair = responder.KeyPair

// Config of a Bridge. Dir is required.
type Config struct {
	// Dir holds the index (index/, may be deleted), the responder keys (responder/), the log key (log.key) and what was last
	// signed with it (checkpoints/). One Bridge at a time.
	Dir string

	// Settings; the zero value stands for DefaultSettings().
	Settings Settings

	// Enrollers returns how to get a responder certificate from a CA, nil for a CA this bridge does not answer for.
	Enrollers func(wire.CAID) Enroller

	// Responders are certificates obtained in another way. They are held to the same rules.
	Responders []KeyPair

	// NoTicker leaves the ledger's clock to others.
	NoTicker bool

	Log *slog.Logger // default slog.Default()

	// Now and After are the clock; default time.Now and time.After.
	Now   func() time.Time
	After func(time.Duration) <-chan time.Time
}

// Bridge answers for one ledger. Make it with New, start it with Run, and Close it after Run has returned. All other methods
// are safe for concurrent use, at any time: they answer from what is known, and refuse when that is not enough.
type Bridge struct {
	cfg    Config
	ledger network.Ledger
	log    *slog.Logger

	index      *index.Index
	responders *responder.Manager
	key        *logkey.Key
	answers    answerCache
	heads      checkpoints

	required  atomic.Int64           // the index must reach this height before anything is answered; unknownHeight: not asked yet
	confirmed atomic.Bool            // this stream has delivered the newest block of the index, or a newer one
	limits    atomic.Pointer[limits] // nil until the consortium is known

	haltOnce sync.Once
	haltErr  error         // set before halted is closed
	halted   chan struct{} // closed: nothing is answered any more
}

const unknownHeight = -1

// New opens the bridge's stores under cfg.Dir. It does not need the ledger to be reachable. Errors: settings or responder
// certificates that are refused (naming which and why), a key file that is not safe, an index of another ledger.
func New(ctx context.Context, cfg Config, ledger network.Ledger) (*Bridge, error) {
	if err := cfg.complete(); err != nil {
		return nil, fmt.Errorf("ocsp bridge: %w", err)
	}
	key, err := logkey.LoadOrCreate(filepath.Join(cfg.Dir, "log.key"), lognames.Key(ledger.Channel(), ledger.MSPID()))
	if err != nil {
		return nil, fmt.Errorf("ocsp bridge: %w", err)
	}
	ix, err := index.Open(index.Options{Dir: filepath.Join(cfg.Dir, "index"), Channel: ledger.Channel(), Now: cfg.Now, Log: cfg.Log})
	if err != nil {
		return nil, fmt.Errorf("ocsp bridge: %w", err)
	}
	b := &Bridge{cfg: cfg, ledger: ledger, log: cfg.Log, index: ix, key: key, halted: make(chan struct{})}
	b.required.Store(unknownHeight)
	b.heads.dir = filepath.Join(cfg.Dir, "checkpoints")
	b.responders, err = responder.New(responder.Config{
		Dir: filepath.Join(cfg.Dir, "responder"), MSPID: ledger.MSPID(), Index: ix,
		Enrollers: cfg.Enrollers, Files: cfg.Responders, Now: cfg.Now, After: cfg.After, Log: cfg.Log,
	})
	if err == nil {
		err = b.learn(ix.View())
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("ocsp bridge: %w", err), ix.Close())
	}
	return b, nil
}

func (c *Config) complete() error {
	if c.Dir == "" {
		return errors.New(`dir: "": must name a directory`)
	}
	if c.Settings == (Settings{}) {
		c.Settings = DefaultSettings()
	}
	if err := c.Settings.Validate(); err != nil {
		return err
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.After == nil {
		c.After = time.After
	}
	return nil
}

// Run follows the ledger, keeps the responder certificates and the ledger's clock, until ctx ends (it returns nil then) or the
// bridge must halt (it returns why; every answer is a refusal from then on).
func (b *Bridge) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return b.follow(ctx) })
	group.Go(func() error {
		select {
		case <-b.halted:
			return b.haltErr
		case <-ctx.Done():
			return nil
		}
	})
	group.Go(func() error {
		b.responders.Run(ctx)
		return nil
	})
	if !b.cfg.NoTicker {
		group.Go(func() error {
			ticker.Run(ctx, ticker.Config{
				Submit: b.ledger.Submit, MSPID: b.ledger.MSPID(), View: b.tickView, Changed: b.index.Changed,
				Now: b.cfg.Now, After: b.cfg.After, Log: b.log,
			})
			return nil
		})
	}
	return group.Wait()
}

// Close releases the stores. Run must have returned.
func (b *Bridge) Close() error { return b.index.Close() }

// VKey is the verifier key of this organisation's log key, to be given to relying parties.
func (b *Bridge) VKey() string { return b.key.VKey }

// Handler serves everything over HTTP; routes lists what.
func (b *Bridge) Handler() http.Handler { return b.routes() }

func (b *Bridge) tickView() ticker.View {
	v := b.index.View()
	return ticker.View{Consortium: v.Consortium, Tick: v.Tick}
}

// halt stops every answer for good.
func (b *Bridge) halt(err error) {
	b.haltOnce.Do(func() {
		b.haltErr = err
		close(b.halted)
		b.log.Error("bridge halted: nothing is answered any more", "error", err)
	})
}

// haltReason is nil while the bridge has not halted.
func (b *Bridge) haltReason() error {
	select {
	case <-b.halted:
		return b.haltErr
	default:
		return nil
	}
}
