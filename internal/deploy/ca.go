package deploy

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/certanchor/certanchor/ca"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/network/embedded"
	testnetwork "github.com/certanchor/certanchor/test-network"
)

// CA is one organisation's CA bridge.
type CA struct {
	Org    int // who operates it
	CADir  string
	CAURL  string
	CACert *x509.Certificate
}

// CACertFile is the CA's certificate, PEM.
func (c *CA) CACertFile() string { return filepath.Join(c.CADir, "ca.pem") }

// TokenFile is the token of the CA's operator.
func (c *CA) TokenFile() string { return filepath.Join(c.CADir, ca.OperatorTokenFile) }

// CAID names the CA on the ledger.
func (c *CA) CAID() wire.CAID { return wire.CAIDOf(c.CACert.RawSubjectPublicKeyInfo) }

// Client is the CA's operator.
func (c *CA) Client() (*caapi.Client, error) {
	return caapi.New(caapi.Config{URL: c.CAURL, TokenFile: c.TokenFile()})
}

// Key is the CA's signing key.
func (d *Deployment) Key(c *CA) (crypto.Signer, error) {
	text, err := os.ReadFile(d.passphraseFile())
	if err != nil {
		return nil, err
	}
	return ca.LoadKey(c.CADir, []byte(strings.TrimSpace(string(text))))
}

// initCA makes the next organisation's CA, which is to listen at an address.
func (d *Deployment) initCA(o *Options, listen string) error {
	text, err := os.ReadFile(d.passphraseFile())
	if err != nil {
		return err
	}
	c := CA{Org: len(d.CAs) + 1, CAURL: "http://" + listen, CADir: filepath.Join(d.Dir, "ca")}
	subject := pkix.Name{CommonName: o.Subject, Organization: []string{"certanchor"}}
	if c.Org > 1 {
		c.CADir += fmt.Sprint(c.Org)
		subject.CommonName += fmt.Sprintf(" %d", c.Org)
	}
	init := ca.InitOptions{
		Dir: c.CADir, Subject: subject, Algorithm: o.Algorithm, OCSPURL: d.Orgs[c.Org-1].OCSPURL(), Passphrase: bytes.TrimSpace(text),
	}
	name := "full"
	if init.CRLShards = o.CRLShards; o.CRLShards > 0 {
		name = "{shard}"
	}
	for _, u := range d.bridgesOf(c.Org) {
		init.CRLURLs = append(init.CRLURLs, u+"/crl/{ca}/"+name+".crl")
	}
	res, err := ca.Init(init)
	if err != nil {
		return err
	}
	c.CACert = res.Certificate
	d.CAs = append(d.CAs, c)
	d.CA = d.CAs[0]
	return nil
}

// bridgesOf lists all OCSP bridges, an organisation's own first.
func (d *Deployment) bridgesOf(org int) []string {
	urls := []string{d.Orgs[org-1].URL}
	for _, o := range d.Orgs {
		if o.Number != org {
			urls = append(urls, o.URL)
		}
	}
	return urls
}

func (d *Deployment) caSection(c *CA) *config.CA {
	own := d.Orgs[c.Org-1].URL
	return &config.CA{
		Settings: ca.Settings{CRL: &ca.CRLSettings{Contents: own, Publish: d.bridgesOf(c.Org), DeltaURL: own + "/crl/{ca}/delta.crl"}},
		Dir:      c.CADir, Listen: c.CAURL[len("http://"):], Passphrase: keyfile.Source{File: d.passphraseFile()},
		CT: &config.CTSubmission{KeyFile: d.ctKeyFile(c), PublicURL: c.CAURL},
	}
}

// registerOver registers the CA on a one-organisation ledger behind a socket, as soon as that is there.
func (d *Deployment) registerOver(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return Poll(ctx, func() error {
		admin, err := embedded.Dial(ctx, embedded.DialOptions{Socket: socket, Role: wire.RoleAdministrator})
		if err != nil {
			return err
		}
		_, err = ca.Register(ctx, admin, d.CACert.Raw, nil, d.Orgs[0].MSPID)
		return errors.Join(err, admin.Close())
	})
}

// register has as many organisations' administrators assent to a CA as it takes.
func (d *Deployment) register(ctx context.Context, c *CA) error {
	for _, org := range d.Orgs[:len(d.Orgs)/2+1] {
		admin, err := d.Ledger(ctx, org.Number, testnetwork.Admin)
		if err != nil {
			return err
		}
		_, err = ca.Register(ctx, admin, c.CACert.Raw, nil, d.Orgs[c.Org-1].MSPID)
		if err = errors.Join(err, admin.Close()); err != nil {
			return fmt.Errorf("registering the CA for %s: %w", org.MSPID, err)
		}
	}
	return nil
}

// AddCABridge starts another bridge of the first CA, a service of the given name: the same key, profiles, clients and log key, and a
// directory, journal and operators' log of its own, named after it. It makes no CRLs. Besides the organisation's first OCSP bridge, its revocations wait for those at responders.
func (d *Deployment) AddCABridge(ctx context.Context, name string, responders ...string) (*CA, error) {
	addrs, err := freeAddresses(1)
	if err != nil {
		return nil, err
	}
	c := d.CA
	c.CADir, c.CAURL = filepath.Join(d.Dir, name), "http://"+addrs[0]
	if err := os.Mkdir(c.CADir, 0o700); err != nil {
		return nil, err
	}
	for _, file := range []string{"ca.pem", "ca.key", "profiles.json", "clients", ca.OperatorTokenFile} {
		data, err := os.ReadFile(filepath.Join(d.CADir, file))
		if err == nil {
			err = os.WriteFile(filepath.Join(c.CADir, file), data, 0o600)
		}
		if err != nil {
			return nil, err
		}
	}
	section := d.caSection(&c)
	section.CRL = &ca.CRLSettings{Disabled: true} // the first one makes them
	section.OperatorsLog.Name = strings.ReplaceAll(name, ".", "-")
	section.Responders = append([]string{d.Orgs[c.Org-1].URL}, responders...)
	file, err := d.writeConfig(name, &config.File{Ledger: d.ledgerOf(c.Org), CA: section})
	if err != nil {
		return nil, err
	}
	d.add(name, []string{c.CAURL + "/readyz"}, "ca", "serve", "--config", file)
	return &c, d.Start(ctx, name)
}

func (d *Deployment) configureCA(c *CA) error {
	section, name := d.caSection(c), CAName(c.Org)
	section.Responders = []string{d.Orgs[c.Org-1].URL}
	file, err := d.writeConfig(name, &config.File{Ledger: d.ledgerOf(c.Org), CA: section})
	if err != nil {
		return err
	}
	d.add(name, []string{c.CAURL + "/readyz"}, "ca", "serve", "--config", file)
	return nil
}
