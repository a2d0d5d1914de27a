package ocspbridge

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/cosign"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/logkey"
	"github.com/certanchor/certanchor/internal/lognames"
	"github.com/certanchor/certanchor/internal/metrics"
	"github.com/certanchor/certanchor/internal/ticker"
	"github.com/certanchor/certanchor/internal/witness"
	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/answers"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/crls"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/ctfront"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/events"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/heads"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/index"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/responder"
)

// Enroller asks a CA for a delegated responder certificate.
type Enroller = responder.Enroller

// KeyPair names PEM files with a responder certificate and its PKCS #8 key.
type KeyPair = responder.KeyPair

// Config of a Bridge. Dir is required.
type Config struct {
	// Dir holds the index (index/, may be deleted), the responder keys (responder/), the log key (log.key), the cosigner key (cosigner.key)
	// and what was last signed with them (checkpoints/, witness/), evidence of split views (evidence/), and the keys of the certificate
	// transparency logs (ct/). One Bridge at a time.
	Dir string

	// Settings; the zero value stands for DefaultSettings().
	Settings Settings

	CRL CRLSettings

	// Enrollers returns how to get a responder certificate from a CA, nil for a CA this bridge does not answer for.
	Enrollers func(wire.CAID) Enroller

	// Responders are certificates obtained in another way. They are held to the same rules.
	Responders []KeyPair

	// ResponderKey is the key, in a token, that certificates are obtained for; nil: a new one in a file for each.
	ResponderKey crypto.Signer

	// Seal encrypts the keys that are made in Dir; nil: they are not encrypted.
	Seal *keyfile.Sealer

	// LogKeys are keys of certificate transparency logs in tokens, by CA; a log without one has its key in a file.
	LogKeys map[wire.CAID]crypto.Signer

	// NoTicker leaves the ledger's clock to others, NoIntegrator the status log.
	NoTicker, NoIntegrator bool

	// Trust is the consortium's policy. nil: what is served need not be cosigned by others.
	Trust *Trust
	// Peers are the other organisations' bridges.
	Peers []Peer

	// PublicURL is where clients reach Handler; the names of the certificate transparency logs are made of it. Empty: there are none.
	PublicURL string
	// Submit returns the CA in this process that takes submissions for a log, nil for another.
	Submit func(wire.CAID) Submitter
	// Forwards say where submissions to the logs of other CAs go.
	Forwards []Forward

	// MembersOnly restricts the logs and bundles to TLS clients with a verified certificate. OCSP stays open.
	MembersOnly bool

	Metrics *metrics.Registry // default one of its own; no two Bridges may share one
	Log     *slog.Logger      // default slog.Default()

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
	tokens     tokens
	events     *events.Server
	versions   *answers.Versions
	cache      *answers.Cache
	flights    singleflight.Group            // of what is signed for all who wait for it
	signers    *answers.Signers              // of answers that are kept
	live       *answers.Signers              // of others: a flood of them leaves the former alone
	control    []string                      // Cache-Control of an answer that holds for max_age
	dates      atomic.Pointer[dates]         // of this second
	offset     atomic.Pointer[time.Duration] // newest block's transaction time less the local time of its arrival; nil: none yet

	complaints complaints // about requests that fail

	crls     *crls.Store
	crlMaker *crls.Maker
	crlSpool *spool         // CRLs that are offered
	crlAsked chan struct{}  // held while contents are computed for a CA
	crlStray chan struct{}  // held while those are for a base that is not known here
	indirect *crls.Indirect // nil: none is configured

	key      *logkey.Key
	ownKey   note.Verifier // of key
	cosigner *cosign.Signer
	peers    []*peer
	trusted  atomic.Pointer[Trust] // the policy in force
	heads    *heads.Heads
	watch    *witness.Watch
	witness  *witness.Server
	front    *ctfront.Front // nil: no PublicURL
	sight    sight
	alarms   atomic.Int64 // pieces of evidence on disk, and those since the start that there was no room for

	meters meters

	required  atomic.Int64           // the index must reach this height before anything is answered; unknownHeight: not asked yet
	confirmed atomic.Bool            // this stream has delivered the newest block of the index, or a newer one
	limits    atomic.Pointer[limits] // nil until the consortium is known

	reloading     sync.Mutex  // held by ReloadPolicy
	policyRefused atomic.Bool // what it read last is not in force

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
	b := &Bridge{cfg: cfg, ledger: ledger, log: cfg.Log, halted: make(chan struct{})}
	ix, err := index.Open(index.Options{
		Dir: filepath.Join(cfg.Dir, "index"), Channel: ledger.Channel(), Published: b.published, Now: cfg.Now, Log: cfg.Log,
	})
	if err != nil {
		return nil, fmt.Errorf("ocsp bridge: %w", err)
	}
	b.index = ix
	b.required.Store(unknownHeight)
	b.trusted.Store(cfg.Trust)
	b.openAnswers()
	for _, step := range []func() error{
		b.loadKeys, b.readPeers, b.openResponders, b.openWitness, b.openFront, b.openCRLs, func() error { return b.learn(ix.View()) }, ctx.Err,
	} {
		if err := step(); err != nil {
			if b.heads != nil {
				b.heads.Close()
			}
			return nil, errors.Join(fmt.Errorf("ocsp bridge: %w", err), ix.Close())
		}
	}
	b.openEvents()
	b.meters = b.newMeters()
	cfg.Metrics.Policy(b.policyState)
	return b, nil
}

func (b *Bridge) openAnswers() {
	s := b.cfg.Settings
	b.versions = answers.NewVersions(latest(b.index.View().Time.Time(), b.cfg.Now()))
	b.cache = answers.NewCache(b.versions, s.cacheBytes())
	b.signers, b.live = answers.NewSigners(s.signers(), s.queue()), answers.NewSigners(s.signers(), s.queue())
	b.control = cacheControl(s.MaxAge)
}

func (b *Bridge) loadKeys() (err error) {
	channel, mspID := b.ledger.Channel(), b.ledger.MSPID()
	if b.key, err = logkey.LoadOrCreateSealed(filepath.Join(b.cfg.Dir, logkey.File), lognames.Key(channel, mspID), b.cfg.Seal); err != nil {
		return err
	}
	if b.ownKey, err = note.NewVerifier(b.key.VKey); err != nil {
		return err
	}
	b.cosigner, err = logkey.LoadOrCreateCosignerSealed(filepath.Join(b.cfg.Dir, logkey.CosignerFile), lognames.Cosigner(channel, mspID), b.cfg.Now, b.cfg.Seal)
	return err
}

func (b *Bridge) openResponders() (err error) {
	b.responders, err = responder.New(responder.Config{
		Dir: filepath.Join(b.cfg.Dir, "responder"), MSPID: b.ledger.MSPID(), Index: b.index,
		Enrollers: b.cfg.Enrollers, Files: b.cfg.Responders, Key: b.cfg.ResponderKey, Seal: b.cfg.Seal, Now: b.cfg.Now, After: b.cfg.After, Log: b.log,
	})
	return err
}

// witnessWait is how long another organisation's request waits for this organisation's blocks.
const witnessWait = 2 * time.Second

// openWitness opens what compares, cosigns and signs.
func (b *Bridge) openWitness() (err error) {
	b.watch, err = witness.NewWatch(witness.WatchConfig{
		Dir: filepath.Join(b.cfg.Dir, "evidence"), LogKeys: b.logKeys, Cosigners: b.cosigners, Alarm: b.alarm, Now: b.cfg.Now,
	})
	if err != nil {
		return err
	}
	if n := len(b.watch.All()); n > 0 {
		b.alarms.Add(int64(n))
		b.log.Error("ALARM: evidence of a split view is there from earlier runs", "pieces", n, "see", pathAlarms)
	}
	b.witness, err = witness.NewServer(witness.Config{
		Dir: filepath.Join(b.cfg.Dir, "witness"), Signer: b.cosigner, Watch: b.watch, Logs: b.logOf, Wait: b.waitSize, MaxWait: witnessWait, Log: b.log,
	})
	if err != nil {
		return err
	}
	cfg := heads.Config{
		Dir: filepath.Join(b.cfg.Dir, "checkpoints"), Key: b.key, Own: witness.Local{Server: b.witness}, Quorum: b.quorum,
		Changed: b.index.Changed, Halt: b.halt, Now: b.cfg.Now, Logger: b.log,
	}
	for _, p := range b.peers {
		cfg.Peers = append(cfg.Peers, p.witness)
	}
	b.heads = heads.New(cfg)
	return nil
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
	if c.Metrics == nil {
		c.Metrics = metrics.New()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.After == nil {
		c.After = time.After
	}
	return nil
}

// Run follows the ledger, keeps the responder certificates, the ledger's clock, the status log and the cosigned heads, and watches the peers, until ctx ends (it returns nil then) or the
// bridge must halt (it returns why; every answer is a refusal from then on).
func (b *Bridge) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	context.AfterFunc(ctx, b.events.Close)
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
	group.Go(func() error { return b.keepHeads(ctx) })
	group.Go(func() error { return b.keepCRLs(ctx) })
	for _, p := range b.peers {
		group.Go(func() error {
			b.watchPeer(ctx, p)
			return nil
		})
	}
	if !b.cfg.NoIntegrator {
		group.Go(func() error {
			b.integrate(ctx)
			return nil
		})
	}
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
func (b *Bridge) Close() error {
	b.heads.Close()
	return b.index.Close()
}

// VKey is the verifier key of this organisation's log key, to be given to relying parties.
func (b *Bridge) VKey() string { return b.key.VKey }

// CosignerVKey is the verifier key of this organisation's cosigner key.
func (b *Bridge) CosignerVKey() string { return b.cosigner.VKey() }

// Reload reads the configured responder certificates again, which may have been renewed. After an error those that were read before stay.
func (b *Bridge) Reload() error { return b.responders.Reload() }

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
