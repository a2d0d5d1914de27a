package deploy

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/certanchor/certanchor/ca"
	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/internal/logkey"
	"github.com/certanchor/certanchor/internal/lognames"
	"github.com/certanchor/certanchor/internal/policy"
	ocspbridge "github.com/certanchor/certanchor/ocsp-bridge"
)

// PolicyFile is the consortium's policy.
func (d *Deployment) PolicyFile() string { return filepath.Join(d.Dir, "policy") }

// PolicyFingerprint is what relying parties pin.
func (d *Deployment) PolicyFingerprint() string { return d.fingerprint }

// foundConsortium makes every organisation's keys, and the policy that names them: more than half must cosign, which with four is three, and
// what a proof shows may be as old as OCSP's view, three ticks.
func (d *Deployment) foundConsortium(tick time.Duration) error {
	var (
		orgs    []policy.Org
		signers []note.Signer
	)
	for i := range d.Orgs {
		org := &d.Orgs[i]
		log, err := logkey.LoadOrCreate(filepath.Join(org.bridgeDir, logkey.File), lognames.Key(d.Channel, org.MSPID))
		if err != nil {
			return err
		}
		cosigner, err := logkey.LoadOrCreateCosigner(filepath.Join(org.bridgeDir, logkey.CosignerFile), lognames.Cosigner(d.Channel, org.MSPID), time.Now)
		if err != nil {
			return err
		}
		org.LogKey, org.CosignerKey = log.VKey, cosigner.VKey()
		orgs, signers = append(orgs, policy.Org{MSPID: org.MSPID, LogKey: org.LogKey, CosignerKey: org.CosignerKey}), append(signers, log)
	}
	age := max((3*tick + time.Second - 1).Truncate(time.Second), policy.MinMaxAge)
	p, err := policy.New(d.Channel, 1, len(orgs)/2+1, age, orgs...)
	if err != nil {
		return err
	}
	signed := &policy.Signed{Policy: p}
	if err := signed.Sign(signers...); err != nil {
		return err
	}
	text, err := signed.Marshal()
	if err != nil {
		return err
	}
	d.fingerprint = p.Fingerprint()
	return os.WriteFile(d.PolicyFile(), text, 0o600)
}

// ctKeyFile is the key of a CA's log, which its organisation's bridge serves: the CA bridge signs the same SCTs with it.
func (d *Deployment) ctKeyFile(c *CA) string {
	return filepath.Join(d.Orgs[c.Org-1].bridgeDir, "ct", c.CAID().String()+".pem")
}

// bridgeSection configures an organisation's bridge, but for what it needs of the CAs.
func (d *Deployment) bridgeSection(org Org, o *Options) *config.OCSPBridge {
	section := &config.OCSPBridge{
		Dir: org.bridgeDir, Listen: org.URL[len("http://"):], Settings: o.OCSP, PublicURL: org.URL,
		Policy: d.PolicyFile(), PolicyFingerprint: d.fingerprint,
	}
	for _, p := range d.Orgs {
		if p.Number != org.Number {
			section.Peers = append(section.Peers, config.Peer{MSPID: p.MSPID, URL: p.URL, LogKey: p.LogKey, CosignerKey: p.CosignerKey})
		}
	}
	return section
}

func (d *Deployment) configureBridge(org Org, o *Options) error {
	name := BridgeName(org.Number)
	section := d.bridgeSection(org, o)
	for i := range d.CAs {
		token, err := ca.AddClient(d.CAs[i].CADir, name, ca.RoleResponder)
		if err != nil {
			return err
		}
		section.Enrol = append(section.Enrol, config.Enrolment{Issuer: d.CAs[i].CACertFile(), URL: d.CAs[i].CAURL, TokenFile: token})
		section.Submit = append(section.Submit, config.Submission{Issuer: d.CAs[i].CACertFile(), URL: d.CAs[i].CAURL})
	}
	file, err := d.writeConfig(name, &config.File{Ledger: d.ledgerOf(org.Number), OCSPBridge: section})
	if err != nil {
		return err
	}
	d.add(name, []string{org.URL + "/readyz"}, "ocsp-bridge", "serve", "--config", file)
	return nil
}

// AddOCSPBridge starts another OCSP bridge of an organisation, a service of the given name, which answers OCSP and no more: its directory and keys
// are its own, and the policy does not know them.
func (d *Deployment) AddOCSPBridge(ctx context.Context, org Org, name string) (Org, error) {
	addrs, err := freeAddresses(1)
	if err != nil {
		return Org{}, err
	}
	b := Org{Number: org.Number, MSPID: org.MSPID, URL: "http://" + addrs[0], bridgeDir: filepath.Join(d.Dir, name)}
	section := &config.OCSPBridge{Dir: b.bridgeDir, Listen: addrs[0], Settings: ocspbridge.DefaultSettings(), PublicURL: b.URL}
	for i := range d.CAs {
		token := filepath.Join(d.CAs[i].CADir, BridgeName(org.Number)+".token") // a client may be several processes
		section.Enrol = append(section.Enrol, config.Enrolment{Issuer: d.CAs[i].CACertFile(), URL: d.CAs[i].CAURL, TokenFile: token})
	}
	file, err := d.writeConfig(name, &config.File{Ledger: d.ledgerOf(org.Number), OCSPBridge: section})
	if err != nil {
		return Org{}, err
	}
	d.add(name, []string{b.URL + "/readyz"}, "ocsp-bridge", "serve", "--config", file)
	return b, d.Start(ctx, name)
}
