package verify

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/msp"
	"google.golang.org/protobuf/proto"
)

// memberService decides who belongs to an organisation, as Fabric's X.509 MSP does from version 1.4.3 on.
type memberService struct {
	id            string
	roots         *x509.CertPool
	intermediates *x509.CertPool
	authorities   []*x509.Certificate // all of both
	inner         map[string]bool     // raw certificates of authorities that sign other authorities: they sign no identities
	crls          []*x509.RevocationList
	admins        [][]byte // raw certificates
	units         []unit   // an identity must carry one of them, if there are any
	enforceUnits  bool     // each identity is of exactly one kind
	kinds         map[msp.MSPRole_MSPRoleType]unit
	ed25519       bool
}

// unit is an organisational unit; certifier is empty when any authority of the MSP may certify it.
type unit struct {
	name      string
	certifier []byte
}

func newMemberService(config []byte, withEd25519 bool) (*memberService, error) {
	var c msp.FabricMSPConfig
	if err := proto.Unmarshal(config, &c); err != nil {
		return nil, err
	}
	m := &memberService{id: c.GetName(), roots: x509.NewCertPool(), intermediates: x509.NewCertPool(), inner: map[string]bool{},
		kinds: map[msp.MSPRole_MSPRoleType]unit{}, ed25519: withEd25519}
	if family := c.GetCryptoConfig().GetSignatureHashFamily(); family != "" && family != "SHA2" {
		return nil, fmt.Errorf("MSP %s: signature hash family %q is not supported", m.id, family)
	}
	if err := m.addAuthorities(&c); err != nil {
		return nil, fmt.Errorf("MSP %s: %w", m.id, err)
	}
	if err := m.addUnits(&c); err != nil {
		return nil, fmt.Errorf("MSP %s: %w", m.id, err)
	}
	for _, raw := range c.GetRevocationList() {
		if block, _ := pem.Decode(raw); block != nil {
			raw = block.Bytes
		}
		crl, err := x509.ParseRevocationList(raw)
		if err != nil {
			return nil, fmt.Errorf("MSP %s: CRL: %w", m.id, err)
		}
		m.crls = append(m.crls, crl)
	}
	for _, raw := range c.GetAdmins() {
		cert, err := parsePEM(raw)
		if err != nil {
			return nil, fmt.Errorf("MSP %s: administrator: %w", m.id, err)
		}
		m.admins = append(m.admins, cert.Raw)
	}
	return m, nil
}

func (m *memberService) addAuthorities(c *msp.FabricMSPConfig) error {
	if len(c.GetRootCerts()) == 0 {
		return errors.New("has no root certificate")
	}
	for pool, certs := range map[*x509.CertPool][][]byte{m.roots: c.GetRootCerts(), m.intermediates: c.GetIntermediateCerts()} {
		for _, raw := range certs {
			cert, err := parsePEM(raw)
			if err != nil {
				return fmt.Errorf("authority: %w", err)
			}
			if !cert.IsCA {
				return fmt.Errorf("authority %q is no CA", cert.Subject.CommonName)
			}
			pool.AddCert(cert)
			m.authorities = append(m.authorities, cert)
		}
	}
	for _, raw := range c.GetIntermediateCerts() {
		cert, err := parsePEM(raw)
		if err != nil {
			return err
		}
		chain, err := m.chainOf(cert)
		if err != nil {
			return fmt.Errorf("intermediate %q: %w", cert.Subject.CommonName, err)
		}
		for _, above := range chain[1:] {
			m.inner[string(above.Raw)] = true
		}
	}
	return nil
}

func (m *memberService) addUnits(c *msp.FabricMSPConfig) error {
	for _, ou := range c.GetOrganizationalUnitIdentifiers() {
		u, err := m.unitOf(&msp.FabricOUIdentifier{OrganizationalUnitIdentifier: ou.GetOrganizationalUnitIdentifier(), Certificate: ou.GetCertificate()})
		if err != nil {
			return err
		}
		m.units = append(m.units, u)
	}
	nodes := c.GetFabricNodeOus()
	m.enforceUnits = nodes.GetEnable()
	for role, ou := range map[msp.MSPRole_MSPRoleType]*msp.FabricOUIdentifier{
		msp.MSPRole_CLIENT: nodes.GetClientOuIdentifier(), msp.MSPRole_PEER: nodes.GetPeerOuIdentifier(),
		msp.MSPRole_ADMIN: nodes.GetAdminOuIdentifier(), msp.MSPRole_ORDERER: nodes.GetOrdererOuIdentifier(),
	} {
		if ou == nil {
			continue
		}
		u, err := m.unitOf(ou)
		if err != nil {
			return err
		}
		m.kinds[role] = u
	}
	m.enforceUnits = m.enforceUnits && len(m.kinds) > 0
	return nil
}

func (m *memberService) unitOf(ou *msp.FabricOUIdentifier) (unit, error) {
	u := unit{name: ou.GetOrganizationalUnitIdentifier()}
	if len(ou.GetCertificate()) == 0 {
		return u, nil
	}
	cert, err := parsePEM(ou.GetCertificate())
	if err != nil {
		return u, fmt.Errorf("certifier of unit %s: %w", u.name, err)
	}
	if !slices.ContainsFunc(m.authorities, cert.Equal) {
		return u, fmt.Errorf("certifier of unit %s is none of the MSP's authorities", u.name)
	}
	chain, err := m.chainOf(cert)
	if err != nil {
		return u, fmt.Errorf("certifier of unit %s: %w", u.name, err)
	}
	u.certifier = certifierOf(chain)
	return u, nil
}

// certifierOf names a chain of authorities.
func certifierOf(chain []*x509.Certificate) []byte {
	h := sha256.New()
	for _, c := range chain {
		h.Write(c.Raw)
	}
	return h.Sum(nil)
}

// chainOf finds the one chain to a root. Fabric looks at it as of the certificate's own beginning, so that what was valid when it
// was committed does not become invalid later; strict.go looks at the time of the transaction.
func (m *memberService) chainOf(cert *x509.Certificate) ([]*x509.Certificate, error) {
	chains, err := cert.Verify(x509.VerifyOptions{Roots: m.roots, Intermediates: m.intermediates, CurrentTime: cert.NotBefore.Add(time.Second)})
	if err != nil {
		return nil, err
	}
	if len(chains) != 1 {
		return nil, fmt.Errorf("there are %d chains to a root, must be one", len(chains))
	}
	return chains[0], nil
}

// identify tells who the holder of cert is; the error says why it is none of the MSP's.
func (m *memberService) identify(cert *x509.Certificate) (*identity, error) {
	chain, err := m.chainOf(cert)
	if err != nil {
		return nil, fmt.Errorf("certificate %q is not of MSP %s: %w", cert.Subject.CommonName, m.id, err)
	}
	id := &identity{msp: m, cert: cert, chain: chain}
	id.invalid = m.accept(id)
	return id, nil
}

func (m *memberService) accept(id *identity) error {
	switch {
	case id.cert.PublicKeyAlgorithm != x509.ECDSA && !(m.ed25519 && id.cert.PublicKeyAlgorithm == x509.Ed25519):
		return fmt.Errorf("%s: keys of type %v are not allowed", id, id.cert.PublicKeyAlgorithm)
	case id.cert.IsCA:
		return fmt.Errorf("%s: a CA is no identity", id)
	case len(id.chain) < 2:
		return fmt.Errorf("%s: a root is no identity", id)
	case m.inner[string(id.chain[1].Raw)]:
		return fmt.Errorf("%s: was certified by an authority that certifies authorities", id)
	}
	if m.revoked(id) {
		return fmt.Errorf("%s: its certificate is revoked", id)
	}
	return m.checkUnits(id)
}

func (m *memberService) revoked(id *identity) bool {
	issuer := id.chain[1]
	for _, crl := range m.crls {
		if !bytes.Equal(crl.AuthorityKeyId, issuer.SubjectKeyId) ||
			issuer.CheckSignature(crl.SignatureAlgorithm, crl.RawTBSRevocationList, crl.Signature) != nil {
			continue
		}
		for _, entry := range crl.RevokedCertificateEntries {
			if entry.SerialNumber.Cmp(id.cert.SerialNumber) == 0 {
				return true
			}
		}
	}
	return false
}

func (m *memberService) checkUnits(id *identity) error {
	certifier := certifierOf(id.chain[1:])
	if len(m.units) > 0 && !slices.ContainsFunc(m.units, func(u unit) bool {
		return bytes.Equal(u.certifier, certifier) && slices.Contains(id.cert.Subject.OrganizationalUnit, u.name)
	}) {
		return fmt.Errorf("%s: carries none of the MSP's organisational units", id)
	}
	if !m.enforceUnits {
		return nil
	}
	found := 0
	for _, name := range id.cert.Subject.OrganizationalUnit {
		for _, u := range m.kinds {
			if u.name != name {
				continue
			}
			if len(u.certifier) > 0 && !bytes.Equal(u.certifier, certifier) {
				return fmt.Errorf("%s: unit %s was certified by another authority", id, name)
			}
			found++
			break
		}
	}
	if found != 1 {
		return fmt.Errorf("%s: must be exactly one of client, peer, admin and orderer, is %d of them", id, found)
	}
	return nil
}

// has tells whether id is of a kind.
func (m *memberService) has(id *identity, role msp.MSPRole_MSPRoleType) bool {
	u, ok := m.kinds[role]
	return ok && m.enforceUnits && slices.Contains(id.cert.Subject.OrganizationalUnit, u.name)
}
