// Package deploy runs certanchor's services as processes on one machine, on either ledger: what the demo shows, the
// integration tests break and the benchmarks measure.
package deploy

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/goccy/go-yaml"
	"golang.org/x/sync/errgroup"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/network/embedded"
	"github.com/certanchor/certanchor/network/fabric"
	ocspbridge "github.com/certanchor/certanchor/ocsp-bridge"
	testnetwork "github.com/certanchor/certanchor/test-network"
)

// Names of the services. Bridges are named by BridgeName.
const (
	AllService    = "certanchor" // the embedded ledger, CA and OCSP bridge in one process
	LedgerService = "ledger"     // the embedded ledger by itself
	CAService     = "org1.ca"    // the first organisation's CA bridge
)

// CAName is the service that is an organisation's CA bridge where it runs apart.
func CAName(org int) string { return testnetwork.OrgName(org) + ".ca" }

// BridgeName is the service that is an organisation's OCSP bridge where it runs apart.
func BridgeName(org int) string { return testnetwork.OrgName(org) + ".ocsp-bridge" }

// Options of a deployment.
type Options struct {
	Dir        string // of everything but the Fabric network; made when absent
	Executable string // the certanchor program; empty: the running one
	Subject    string // common name of the CA; default "certanchor demo CA"
	Algorithm  keyfile.Algorithm
	// CAs is how many organisations operate a CA, the first ones; default 1. OnFabric only.
	CAs int
	// CRLShards is how many CRLs the CAs' certificates are spread over, which every organisation serves; 0: they name the complete one, as those
	// of a CA do by default.
	CRLShards int
	// TickInterval of an embedded ledger; 0: its default. A Fabric network has its own.
	TickInterval time.Duration
	// OCSP is merged into the bridges' settings; the zero value is the default settings.
	OCSP ocspbridge.Settings
}

// Org is one organisation's services.
type Org struct {
	Number int
	MSPID  string
	URL    string // of its OCSP bridge

	LogKey      string // verifier key of its log key
	CosignerKey string // verifier key of its cosigner key

	bridgeDir string
}

// OCSPURL is where the organisation answers OCSP.
func (o Org) OCSPURL() string { return o.URL + "/ocsp" }

// Deployment is a CA, operated by the first organisation, with an OCSP bridge at every organisation.
type Deployment struct {
	*Services
	CA      // the first
	Dir     string
	Channel string
	CAs     []CA                 // all, in the order of the organisations that operate them
	Orgs    []Org                // the first operates the CA; there is one on the embedded ledger
	Network *testnetwork.Network // nil on the embedded ledger

	fingerprint string
	ledgerOf    func(org int) config.Ledger // of services that run apart
}

// Ledger connects to the Fabric network as an identity of an organisation.
func (d *Deployment) Ledger(ctx context.Context, org int, identity string) (network.Ledger, error) {
	return fabric.Open(ctx, d.Network.Connection(org, identity))
}

// Auditor connects to the ledger as an auditor: on Fabric one of the last organisation, through its own peer. On the embedded
// ledger the pieces must run apart.
func (d *Deployment) Auditor(ctx context.Context) (network.Ledger, error) {
	if d.Network != nil {
		return d.Ledger(ctx, len(d.Orgs), testnetwork.Auditor)
	}
	return embedded.Dial(ctx, embedded.DialOptions{Socket: d.ledgerOf(1).Embedded.Socket, Role: wire.RoleAuditor})
}

func prepare(o *Options) (*Deployment, error) {
	var err error
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return nil, err
	}
	if o.Executable == "" {
		if o.Executable, err = os.Executable(); err != nil {
			return nil, err
		}
	}
	if o.Subject == "" {
		o.Subject = "certanchor demo CA"
	}
	if o.TickInterval == 0 {
		o.TickInterval = embedded.DefaultTickInterval
	}
	if o.OCSP == (ocspbridge.Settings{}) {
		o.OCSP = ocspbridge.DefaultSettings()
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	services, err := openServices(o.Dir, o.Executable)
	if err != nil {
		return nil, err
	}
	if len(services.list) > 0 {
		return nil, fmt.Errorf("%s: holds a deployment already; stop it and remove the directory, or choose another", o.Dir)
	}
	return &Deployment{Services: services, Dir: o.Dir}, makePassphrase(passphraseFile(o.Dir))
}

// makePassphrase writes the passphrase that protects every CA's key.
func makePassphrase(file string) error {
	passphrase := make([]byte, 16)
	if _, err := rand.Read(passphrase); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(hex.EncodeToString(passphrase)+"\n"), 0o600)
}

func passphraseFile(dir string) string { return filepath.Join(dir, "passphrase") }

func (d *Deployment) passphraseFile() string { return passphraseFile(d.Dir) }

// Embedded makes a CA and starts one process that serves everything on an embedded ledger. On failure nothing keeps running.
func Embedded(ctx context.Context, o Options) (*Deployment, error) {
	d, err := prepare(&o)
	if err != nil {
		return nil, err
	}
	addrs, err := freeAddresses(2)
	if err != nil {
		return nil, err
	}
	d.Channel = embedded.DefaultChannel
	d.Orgs = []Org{{Number: 1, MSPID: testnetwork.MSPID(1), URL: "http://" + addrs[1], bridgeDir: filepath.Join(d.Dir, "ocsp-bridge")}}
	if err := errors.Join(d.initCA(&o, addrs[0]), d.foundConsortium(o.TickInterval)); err != nil {
		return nil, err
	}
	conf := &config.File{
		Ledger: config.Ledger{Engine: config.EngineEmbedded, Embedded: &config.Embedded{
			Dir: filepath.Join(d.Dir, "ledger"), MSPID: testnetwork.MSPID(1), Channel: d.Channel, TickInterval: o.TickInterval,
		}},
		CA:         d.caSection(&d.CA),
		OCSPBridge: d.bridgeSection(d.Orgs[0], &o),
	}
	file, err := d.writeConfig(AllService, conf)
	if err != nil {
		return nil, err
	}
	d.add(AllService, []string{d.CAURL + "/readyz", d.Orgs[0].URL + "/readyz"}, "serve", "--config", file)
	return d, d.startAll(ctx)
}

// EmbeddedApart is Embedded with a process for each piece: the ledger behind a socket, the CA bridge and the OCSP bridge.
func EmbeddedApart(ctx context.Context, o Options) (*Deployment, error) {
	d, err := prepare(&o)
	if err != nil {
		return nil, err
	}
	addrs, err := freeAddresses(2)
	if err != nil {
		return nil, err
	}
	org := Org{Number: 1, MSPID: testnetwork.MSPID(1), URL: "http://" + addrs[1], bridgeDir: filepath.Join(d.Dir, BridgeName(1))}
	d.Channel, d.Orgs = embedded.DefaultChannel, []Org{org}
	if err := errors.Join(d.initCA(&o, addrs[0]), d.foundConsortium(o.TickInterval)); err != nil {
		return nil, err
	}
	socket := filepath.Join(d.Dir, "ledger.sock")
	d.ledgerOf = func(int) config.Ledger {
		return config.Ledger{Engine: config.EngineEmbedded, Embedded: &config.Embedded{Socket: socket}}
	}
	d.add(LedgerService, nil, "ledger", "serve", "--dir", filepath.Join(d.Dir, "ledger"), "--socket", socket, "--msp-id", org.MSPID,
		"--tick-interval", o.TickInterval.String())
	if err := errors.Join(d.configureCA(&d.CA), d.configureBridge(d.Orgs[0], &o)); err != nil {
		return nil, err
	}
	if err := d.Launch(LedgerService); err != nil {
		return nil, err
	}
	if err := d.registerOver(ctx, socket); err != nil {
		return nil, errors.Join(err, d.StopAll(context.WithoutCancel(ctx)))
	}
	return d, d.startAll(ctx)
}

// OnFabric makes a CA for org1, has a majority of organisations register it, and starts org1's CA bridge and every
// organisation's OCSP bridge. On failure none of them keeps running; the network does.
func OnFabric(ctx context.Context, net *testnetwork.Network, o Options) (*Deployment, error) {
	d, err := prepare(&o)
	if err != nil {
		return nil, err
	}
	if o.CAs == 0 {
		o.CAs = 1
	}
	if o.CAs < 1 || o.CAs > net.Orgs() {
		return nil, fmt.Errorf("CAs: %d: must be 1 to %d, the organisations of the network", o.CAs, net.Orgs())
	}
	addrs, err := freeAddresses(net.Orgs() + o.CAs)
	if err != nil {
		return nil, err
	}
	d.Network, d.Channel = net, testnetwork.Channel
	d.ledgerOf = func(org int) config.Ledger {
		c := net.Connection(org, testnetwork.Operator)
		return config.Ledger{Engine: config.EngineFabric, Fabric: &c}
	}
	for i := range net.Orgs() {
		d.Orgs = append(d.Orgs, Org{
			Number: i + 1, MSPID: testnetwork.MSPID(i + 1), URL: "http://" + addrs[i], bridgeDir: filepath.Join(d.Dir, BridgeName(i+1)),
		})
	}
	if err := d.foundConsortium(net.TickInterval()); err != nil {
		return nil, err
	}
	for i := range o.CAs {
		if err := d.initCA(&o, addrs[net.Orgs()+i]); err != nil {
			return nil, err
		}
		if err := d.register(ctx, &d.CAs[i]); err != nil {
			return nil, err
		}
		if err := d.configureCA(&d.CAs[i]); err != nil {
			return nil, err
		}
	}
	for _, org := range d.Orgs {
		if err := d.configureBridge(org, &o); err != nil {
			return nil, err
		}
	}
	return d, d.startAll(ctx)
}

func (d *Deployment) writeConfig(name string, conf *config.File) (string, error) {
	data, err := yaml.Marshal(conf)
	if err != nil {
		return "", err
	}
	file := filepath.Join(d.Dir, name+".yaml")
	return file, os.WriteFile(file, data, 0o600)
}

// startAll launches every service and waits until all can be used.
func (d *Deployment) startAll(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, d.StopAll(context.WithoutCancel(ctx)))
		}
	}()
	for _, name := range d.Names() {
		if d.Running(name) {
			continue
		}
		if err := d.Launch(name); err != nil {
			return err
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, name := range d.Names() {
		group.Go(func() error { return d.AwaitReady(ctx, name) })
	}
	return group.Wait()
}

// Stop ends the services that another process left running in dir.
func Stop(ctx context.Context, dir string) error {
	s, err := openServices(dir, "")
	if err != nil {
		return err
	}
	if len(s.list) == 0 {
		return fmt.Errorf("%s: holds no deployment: %w", dir, fs.ErrNotExist)
	}
	if err := s.StopAll(ctx); err != nil {
		return err
	}
	return os.Remove(s.file())
}
