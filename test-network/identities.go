package testnetwork

import (
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/certanchor/certanchor/test-network/internal/pki"
)

// Identities every organisation has, for Network.Connection.
const (
	Admin    = "admin"    // administrator: of the Fabric MSP and, by its role attribute, for the contract
	Operator = "operator" // runs the organisation's CA
	Auditor  = "auditor"  // reads
	Nobody   = "nobody"   // a member without a role, for tests
)

// roleAttribute is the attribute the contract reads; its values are operator, auditor and administrator.
const roleAttribute = "certanchor.role"

var users = []struct{ name, unit, role string }{
	{Admin, "admin", "administrator"},
	{Operator, "client", "operator"},
	{Auditor, "client", "auditor"},
	{Nobody, "client", ""},
}

//go:embed templates/mspconfig.yaml
var mspConfig []byte

// issueIdentities makes the keys and certificates of all organisations.
func (l layout) issueIdentities(orgs int, now func() time.Time) error {
	var group errgroup.Group
	for org := 1; org <= orgs; org++ {
		group.Go(func() error {
			if err := l.issueOrganization(org, now); err != nil {
				return fmt.Errorf("identities of %s: %w", OrgName(org), err)
			}
			return nil
		})
	}
	return group.Wait()
}

// authorities are an organisation's roots. The orderer's MSP has its own: with a shared one, every client of the organisation
// could claim to be a member of it.
type authorities struct{ members, orderers, tls *pki.Authority }

func (l layout) issueOrganization(org int, now func() time.Time) error {
	var roots authorities
	for _, root := range []struct {
		authority **pki.Authority
		dir       string
	}{{&roots.members, "ca"}, {&roots.orderers, "ordererca"}, {&roots.tls, "tlsca"}} {
		authority, err := pki.NewAuthority(root.dir+"."+OrgName(org), OrgName(org), now)
		if err != nil {
			return err
		}
		if err := authority.Write(l.org(org, root.dir, "cert.pem"), l.org(org, root.dir, "key.pem")); err != nil {
			return err
		}
		*root.authority = authority
	}
	return errors.Join(
		l.issueNode(org, RolePeer, roots.members, roots.tls),
		l.issueNode(org, RoleOrderer, roots.orderers, roots.tls),
		l.issueChaincode(org, roots.tls),
		l.issueUsers(org, roots),
	)
}

// issueNode makes a peer's or orderer's MSP directory, which is also what the channel's first block is made from, and its
// TLS certificate.
func (l layout) issueNode(org int, role Role, signer, tls *pki.Authority) error {
	name := NodeName(org, role)
	signing, err := signer.Issue(pki.Request{CommonName: name, Unit: string(role)})
	if err != nil {
		return err
	}
	transport, err := tls.Issue(pki.Request{CommonName: name, Hosts: hosts(name)})
	if err != nil {
		return err
	}
	msp := l.msp(org, role)
	return errors.Join(
		signing.Write(filepath.Join(msp, "signcerts", "cert.pem"), filepath.Join(msp, "keystore", "key.pem")),
		signer.WriteCert(filepath.Join(msp, "cacerts", "cert.pem")),
		tls.WriteCert(filepath.Join(msp, "tlscacerts", "cert.pem")),
		os.WriteFile(filepath.Join(msp, "config.yaml"), mspConfig, 0o644),
		transport.Write(l.tls(org, role, "cert.pem"), l.tls(org, role, "key.pem")),
	)
}

// issueChaincode makes both ends of the mutual TLS between the peer and its chaincode server.
func (l layout) issueChaincode(org int, tls *pki.Authority) error {
	name := NodeName(org, RoleChaincode)
	server, err := tls.Issue(pki.Request{CommonName: name, Hosts: hosts(name)})
	if err != nil {
		return err
	}
	client, err := tls.Issue(pki.Request{CommonName: NodeName(org, RolePeer) + " to chaincode", Hosts: hosts(NodeName(org, RolePeer))})
	if err != nil {
		return err
	}
	return errors.Join(
		server.Write(l.tls(org, RoleChaincode, "cert.pem"), l.tls(org, RoleChaincode, "key.pem")),
		client.Write(l.tls(org, RoleChaincode, "client-cert.pem"), l.tls(org, RoleChaincode, "client-key.pem")),
	)
}

// issueUsers makes the client identities, and a TLS client certificate and an orderer administrator for the admin.
func (l layout) issueUsers(org int, roots authorities) error {
	for _, user := range users {
		request := pki.Request{CommonName: user.name + "." + OrgName(org), Unit: user.unit}
		if user.role != "" {
			request.Attributes = map[string]string{roleAttribute: user.role}
		}
		credential, err := roots.members.Issue(request)
		if err != nil {
			return err
		}
		if err := credential.Write(l.user(org, user.name, "cert.pem"), l.user(org, user.name, "key.pem")); err != nil {
			return err
		}
	}
	transport, err := roots.tls.Issue(pki.Request{CommonName: Admin + "." + OrgName(org), Hosts: hosts(Admin + "." + OrgName(org))})
	if err != nil {
		return err
	}
	orderer, err := roots.orderers.Issue(pki.Request{CommonName: Admin + ".orderer." + OrgName(org), Unit: "admin"})
	if err != nil {
		return err
	}
	return errors.Join(
		transport.Write(l.user(org, Admin, "tls-cert.pem"), l.user(org, Admin, "tls-key.pem")),
		orderer.Write(l.user(org, Admin, "orderer-cert.pem"), l.user(org, Admin, "orderer-key.pem")),
	)
}

func hosts(name string) []string { return []string{"127.0.0.1", "localhost", name} }
