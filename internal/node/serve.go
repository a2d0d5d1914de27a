package node

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/certanchor/certanchor/ca"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/internal/hsm"
	"github.com/certanchor/certanchor/internal/httpserve"
	"github.com/certanchor/certanchor/internal/pemcert"
	"github.com/certanchor/certanchor/internal/sct"
	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/network/embedded"
	ocspbridge "github.com/certanchor/certanchor/ocsp-bridge"
)

// ServeCA runs the CA bridge that conf describes until ctx ends.
func ServeCA(ctx context.Context, conf *config.File) (err error) {
	defaultCRLs(conf, "")
	section, err := conf.NeedCA()
	if err != nil {
		return err
	}
	if section.Responders == nil {
		return &config.Error{File: conf.Path, Key: "ca.responders", Rule: "must list this organisation's OCSP bridges, which revocations wait for; [] if it has none"}
	}
	ledger, err := OpenLedger(ctx, conf, wire.RoleOperator)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ledger.Close()) }()
	server, err := newCA(conf.Path, section, ledger, nil, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	l, err := httpserve.Listen("ca", section.Listen, caOptions(section), server.Handler())
	if err != nil {
		return err
	}
	defer reloadOnHangup(server.Reload)()
	return withStore(ctx, ledger, l.Run)
}

// withStore runs fn, and ends it when the ledger's store is held by this process and has failed.
func withStore(ctx context.Context, ledger network.Ledger, fn func(context.Context) error) error {
	group, ctx := errgroup.WithContext(ctx)
	if o, ok := ledger.(*owned); ok {
		group.Go(func() error { return watchStore(ctx, o.node) })
	}
	ended := errors.New("ended")
	group.Go(func() error {
		if err := fn(ctx); err != nil {
			return err
		}
		return ended // so that the watch ends with it
	})
	if err := group.Wait(); !errors.Is(err, ended) {
		return err
	}
	return nil
}

func newCA(file string, section *config.CA, ledger network.Ledger, responders []ca.Responder, join joiner) (*ca.Server, error) {
	openKey := caKeys(section)
	key, err := openKey(section.Dir)
	if err != nil {
		return nil, err
	}
	crlClient, err := crlHTTP(file, section)
	if err != nil {
		return nil, err
	}
	conf := ca.Config{Dir: section.Dir, Key: key, OpenKey: openKey, Join: join, Settings: section.Settings, Responders: responders, CRLHTTP: crlClient}
	if conf.Fronts, err = caFronts(file, section); err != nil {
		return nil, err
	}
	if conf.WeakKeys, err = weakKeys(file, section); err != nil {
		return nil, err
	}
	if ct := section.CT; ct != nil {
		log, err := openLogKey(ct)
		if err != nil {
			return nil, err
		}
		conf.CT = &ca.Submissions{Key: log, Prefix: cmp.Or(ct.PublicURL, listenURL(section.Listen, section.TLS))}
		conf.NextCT = nextLogKeys(section)
	}
	return ca.New(conf, ledger)
}

// openLogKey opens the log's key, in a file or in a token.
func openLogKey(ct *config.CTSubmission) (*sct.Key, error) {
	const field = "ca.ct.key_file"
	if !hsm.IsURI(ct.KeyFile) {
		seal, err := sealer("ca.ct.key_passphrase", ct.KeyPassphrase)
		if err != nil {
			return nil, err
		}
		key, err := sct.LoadOrCreateSealed(ct.KeyFile, seal)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", field, err)
		}
		return key, nil
	}
	signer, err := hsm.Open(field, ct.KeyFile)
	if err != nil {
		return nil, err
	}
	key, err := sct.NewRandomised(signer, ct.SCTFile)
	if err != nil {
		return nil, fmt.Errorf("ca.ct: %w", err)
	}
	return key, nil
}

// listenURL is the URL of a server, for those on its machine.
func listenURL(listen string, t *httpserve.TLS) string {
	if t != nil {
		return "https://" + listen
	}
	return "http://" + listen
}

// ServeOCSPBridge runs the OCSP bridge that conf describes until ctx ends.
func ServeOCSPBridge(ctx context.Context, conf *config.File) (err error) {
	section, err := conf.NeedOCSPBridge()
	if err != nil {
		return err
	}
	bridgeConf, err := bridgeConfig(conf.Path, section)
	if err != nil {
		return err
	}
	ledger, err := openBridgeLedger(ctx, conf, &bridgeConf)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ledger.Close()) }()
	bridge, err := ocspbridge.New(ctx, bridgeConf, ledger)
	if err != nil {
		return err
	}
	return withStore(ctx, ledger, func(ctx context.Context) error { return runBridge(ctx, section, bridge) })
}

// runBridge follows the ledger and serves until ctx ends, then closes the bridge. A halted bridge goes on serving refusals and
// the reason, until somebody looks.
func runBridge(ctx context.Context, section *config.OCSPBridge, bridge *ocspbridge.Bridge) (err error) {
	defer func() { err = errors.Join(err, bridge.Close()) }()
	listeners, err := listenBridge(section, bridge)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	polls := time.NewTicker(policyPoll)
	defer polls.Stop()
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		keepFiles(ctx, section, bridge, hangups, polls.C)
	}()
	followed := make(chan error, 1)
	go func() { followed <- bridge.Run(ctx) }()
	group, serving := errgroup.WithContext(ctx)
	for _, l := range listeners {
		group.Go(func() error { return l.Run(serving) })
	}
	err = group.Wait()
	cancel()
	<-kept
	return errors.Join(err, <-followed)
}

// listenBridge opens the bridge's addresses: one for everything, and one, if it is configured, for what clients ask for over plain HTTP.
func listenBridge(section *config.OCSPBridge, bridge *ocspbridge.Bridge) ([]*httpserve.Server, error) {
	all, err := httpserve.Listen("ocsp-bridge", section.Listen, httpserve.Options{TLS: section.TLS, Public: section.InsecureHTTP}, bridge.Handler())
	if err != nil {
		return nil, err
	}
	if section.InsecureHTTP && !httpserve.Loopback(section.Listen) {
		slog.Warn("everything is served over plain HTTP: a proxy with TLS must be in front, and nobody else must reach this address", "address", all.Addr(), "setting", "ocsp_bridge.insecure_http")
	}
	if section.HTTPAddress == "" {
		return []*httpserve.Server{all}, nil
	}
	public, err := httpserve.Listen("ocsp-bridge, OCSP and CRLs", section.HTTPAddress, httpserve.Options{Public: true}, bridge.PublicHandler())
	if err != nil {
		return nil, errors.Join(err, all.Close())
	}
	return []*httpserve.Server{all, public}, nil
}

// httpEnrollers finds, for a CA, the API that certifies this responder; nil for a CA that has none configured.
func httpEnrollers(file string, sources []config.Enrolment) (func(wire.CAID) ocspbridge.Enroller, error) {
	clients := map[wire.CAID]*caapi.Client{}
	for i, s := range sources {
		key := fmt.Sprintf("ocsp_bridge.enrol[%d]", i)
		certs, err := pemcert.Read(s.Issuer)
		if err != nil {
			return nil, &config.Error{File: file, Key: key + ".issuer", Value: s.Issuer, Rule: err.Error()}
		}
		c, err := caapi.New(caapi.Config{URL: s.URL, TokenFile: s.TokenFile})
		if err != nil {
			return nil, &config.Error{File: file, Key: key, Value: s.URL, Rule: err.Error()}
		}
		clients[wire.CAIDOf(certs[0].RawSubjectPublicKeyInfo)] = c
	}
	return func(id wire.CAID) ocspbridge.Enroller {
		if c := clients[id]; c != nil {
			return c
		}
		return nil
	}, nil
}

// SocketFile is the socket that an embedded ledger is served on, in its directory, unless another one is asked for.
const SocketFile = "ledger.sock"

// ServeAll runs ledger, CA and OCSP bridge of one organisation in this process until ctx ends, and registers the CA on the
// ledger at its first start. conf's ledger must be an embedded one in a directory.
func ServeAll(ctx context.Context, conf *config.File) (err error) {
	defaultCRLs(conf, ownURL(conf.OCSPBridge))
	caSection, err := conf.NeedCA()
	if err != nil {
		return err
	}
	bridgeSection, err := conf.NeedOCSPBridge()
	if err != nil {
		return err
	}
	if err := conf.Ledger.Check(conf.Path); err != nil {
		return err
	}
	if e := conf.Ledger.Embedded; e == nil || e.Dir == "" {
		return &config.Error{File: conf.Path, Key: "ledger.embedded.dir", Rule: "must be set: serve holds the ledger itself; use ca serve and ocsp-bridge serve otherwise"}
	}
	if e := conf.Ledger.Embedded; e.Role != "" {
		return &config.Error{File: conf.Path, Key: "ledger.embedded.role", Value: e.Role, Rule: "must not be set: serve acts as operator, and once as administrator to register its CA"}
	}
	bridgeConf, err := bridgeConfig(conf.Path, bridgeSection)
	if err != nil {
		return err
	}
	cert, chain, err := ca.LoadCertificate(caSection.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		err = &config.Error{File: conf.Path, Key: "ca.dir", Value: caSection.Dir, Rule: "holds no CA; certanchor ca init --dir " + caSection.Dir + " makes one"}
	}
	if err != nil {
		return err
	}
	store, err := openEmbedded(conf)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := registerOwn(ctx, cert, chain, store.Connect(wire.RoleAdministrator)); err != nil {
		return err
	}
	ledger := store.Connect(wire.RoleOperator)

	var authority *ca.Server
	own := func(id wire.CAID) bool { return authority != nil && authority.Generation(id) != nil }
	enrollers := bridgeConf.Enrollers
	bridgeConf.Enrollers = func(id wire.CAID) ocspbridge.Enroller {
		if own(id) {
			return authority
		}
		return enrollers(id)
	}
	bridgeConf.Submit = func(id wire.CAID) ocspbridge.Submitter {
		if own(id) {
			return authority.Generation(id)
		}
		return nil
	}
	bridge, err := ocspbridge.New(ctx, bridgeConf, ledger)
	if err != nil {
		return err
	}
	authority, err = newCA(conf.Path, caSection, ledger, []ca.Responder{localResponder{bridge}}, func(ctx context.Context, cert *x509.Certificate, chain []*x509.Certificate) error {
		return registerOwn(ctx, cert, chain, store.Connect(wire.RoleAdministrator))
	})
	if err != nil {
		return errors.Join(err, bridge.Close())
	}
	defer func() { err = errors.Join(err, authority.Close()) }()
	l, err := httpserve.Listen("ca", caSection.Listen, caOptions(caSection), authority.Handler())
	if err != nil {
		return errors.Join(err, bridge.Close())
	}
	// For certanchor audit, ca suspend and the like: only this process can have the ledger open.
	socket, err := embedded.Listen(filepath.Join(conf.Ledger.Embedded.Dir, SocketFile))
	if err != nil {
		return errors.Join(err, bridge.Close())
	}
	defer reloadOnHangup(authority.Reload)()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return watchStore(ctx, store) })
	group.Go(func() error { return store.Serve(ctx, socket) })
	group.Go(func() error { return l.Run(ctx) })
	group.Go(func() error { return runBridge(ctx, bridgeSection, bridge) })
	return group.Wait()
}

// watchStore returns when the store has failed: then it refuses everything until another process opens it, so this one ends.
func watchStore(ctx context.Context, store *embedded.Node) error {
	select {
	case <-store.Done():
		return fmt.Errorf("embedded ledger failed: %w", cmp.Or(store.Err(), network.ErrClosed))
	case <-ctx.Done():
		return nil
	}
}

// registerOwn puts the CA on a one-organisation ledger's trust list; on a ledger that has it, nothing changes.
func registerOwn(ctx context.Context, cert *x509.Certificate, chain []*x509.Certificate, admin network.Ledger) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	ders := make([][]byte, len(chain))
	for i, c := range chain {
		ders[i] = c.Raw
	}
	res, err := ca.Register(ctx, admin, cert.Raw, ders, admin.MSPID())
	if err != nil {
		return fmt.Errorf("registering the CA: %w", err)
	}
	slog.Info("CA is on the trust list", "ca_id", res.CAID.String(), "subject", cert.Subject.String())
	return nil
}

// localResponder is a bridge in this process, as the CA sees it.
type localResponder struct{ *ocspbridge.Bridge }

// Name stands where a URL stands for others.
func (localResponder) Name() string { return "in this process" }
