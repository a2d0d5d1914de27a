package node

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/certanchor/certanchor/ca"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/internal/httpserve"
	"github.com/certanchor/certanchor/network"
	ocspbridge "github.com/certanchor/certanchor/ocsp-bridge"
)

// ServeCA runs the CA bridge that conf describes until ctx ends.
func ServeCA(ctx context.Context, conf *config.File) (err error) {
	section, err := conf.NeedCA()
	if err != nil {
		return err
	}
	ledger, err := OpenLedger(ctx, conf, wire.RoleOperator)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ledger.Close()) }()
	server, err := newCA(section, ledger, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	l, err := httpserve.Listen("ca", section.Listen, section.TLS, server.Handler())
	if err != nil {
		return err
	}
	return l.Run(ctx)
}

func newCA(section *config.CA, ledger network.Ledger, responders []ca.Responder) (*ca.Server, error) {
	passphrase, err := section.Passphrase.Passphrase("the CA key in " + section.Dir)
	if err != nil {
		return nil, err
	}
	key, err := ca.LoadKey(section.Dir, passphrase)
	if err != nil {
		return nil, err
	}
	return ca.New(ca.Config{Dir: section.Dir, Key: key, Settings: section.Settings, Responders: responders}, ledger)
}

// ServeOCSPBridge runs the OCSP bridge that conf describes until ctx ends.
func ServeOCSPBridge(ctx context.Context, conf *config.File) (err error) {
	section, err := conf.NeedOCSPBridge()
	if err != nil {
		return err
	}
	enrollers, err := httpEnrollers(section.Enrol)
	if err != nil {
		return err
	}
	ledger, err := OpenLedger(ctx, conf, wire.RoleOperator)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ledger.Close()) }()
	bridge, err := newBridge(ctx, section, ledger, func(id wire.CAID) ocspbridge.Enroller {
		if c := enrollers[id]; c != nil {
			return c
		}
		return nil
	})
	if err != nil {
		return err
	}
	return runBridge(ctx, section, bridge)
}

func newBridge(ctx context.Context, section *config.OCSPBridge, ledger network.Ledger, enrollers func(wire.CAID) ocspbridge.Enroller) (*ocspbridge.Bridge, error) {
	return ocspbridge.New(ctx, ocspbridge.Config{
		Dir: section.Dir, Settings: section.Settings, Enrollers: enrollers, Responders: section.Responders, NoTicker: section.NoTicker,
	}, ledger)
}

// runBridge follows the ledger and serves until ctx ends, then closes the bridge. A halted bridge goes on serving refusals and
// the reason, until somebody looks.
func runBridge(ctx context.Context, section *config.OCSPBridge, bridge *ocspbridge.Bridge) (err error) {
	defer func() { err = errors.Join(err, bridge.Close()) }()
	l, err := httpserve.Listen("ocsp-bridge", section.Listen, section.TLS, bridge.Handler())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	followed := make(chan error, 1)
	go func() { followed <- bridge.Run(ctx) }()
	err = l.Run(ctx)
	cancel()
	return errors.Join(err, <-followed)
}

// httpEnrollers connects to the CAs that certify this responder.
func httpEnrollers(sources []config.Enrolment) (map[wire.CAID]*caapi.Client, error) {
	m := map[wire.CAID]*caapi.Client{}
	for _, s := range sources {
		pemBytes, err := os.ReadFile(s.Issuer)
		if err != nil {
			return nil, fmt.Errorf("ocsp_bridge.enrol.issuer: %w", err)
		}
		block, _ := pem.Decode(pemBytes)
		if block == nil {
			return nil, fmt.Errorf("ocsp_bridge.enrol.issuer: %s holds no PEM certificate", s.Issuer)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("ocsp_bridge.enrol.issuer: %s: %w", s.Issuer, err)
		}
		client, err := caapi.New(caapi.Config{URL: s.URL, TokenFile: s.TokenFile})
		if err != nil {
			return nil, fmt.Errorf("ocsp_bridge.enrol: %w", err)
		}
		m[wire.CAIDOf(cert.RawSubjectPublicKeyInfo)] = client
	}
	return m, nil
}

// ServeAll runs ledger, CA and OCSP bridge of one organisation in this process until ctx ends, and registers the CA on the
// ledger at its first start. conf's ledger must be an embedded one in a directory.
func ServeAll(ctx context.Context, conf *config.File) (err error) {
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
	store, err := openEmbedded(conf.Ledger.Embedded)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := registerOwn(ctx, caSection.Dir, store.Connect(wire.RoleAdministrator)); err != nil {
		return err
	}
	ledger := store.Connect(wire.RoleOperator)

	var authority *ca.Server
	bridge, err := newBridge(ctx, bridgeSection, ledger, func(id wire.CAID) ocspbridge.Enroller {
		if authority != nil && id == authority.CAID() {
			return authority
		}
		return nil
	})
	if err != nil {
		return err
	}
	authority, err = newCA(caSection, ledger, []ca.Responder{localResponder{bridge}})
	if err != nil {
		return errors.Join(err, bridge.Close())
	}
	defer func() { err = errors.Join(err, authority.Close()) }()
	l, err := httpserve.Listen("ca", caSection.Listen, caSection.TLS, authority.Handler())
	if err != nil {
		return errors.Join(err, bridge.Close())
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return l.Run(ctx) })
	group.Go(func() error { return runBridge(ctx, bridgeSection, bridge) })
	return group.Wait()
}

// registerOwn puts the CA on a one-organisation ledger's trust list; on a ledger that has it, nothing changes.
func registerOwn(ctx context.Context, dir string, admin network.Ledger) error {
	cert, chain, err := ca.LoadCertificate(dir)
	if err != nil {
		return err
	}
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
