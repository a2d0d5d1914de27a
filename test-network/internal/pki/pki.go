// Package pki issues the certificates of the test network: cryptogen cannot issue the role attribute that the contract checks.
//
// It is for networks that live on one machine: the CA keys lie next to the certificates they signed.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

const (
	caLifetime   = 10 * 365 * 24 * time.Hour
	leafLifetime = 5 * 365 * 24 * time.Hour
	// backdated keeps a certificate valid on a machine whose clock was just set back a little.
	backdated = 5 * time.Minute
)

// attributeOID is where fabric-ca puts an identity's attributes, and where chaincode's cid package looks for them.
var attributeOID = asn1.ObjectIdentifier{1, 2, 3, 4, 5, 6, 7, 8, 1}

// Credential is a certificate and its private key.
type Credential struct {
	Cert *x509.Certificate
	Key  *ecdsa.PrivateKey
}

// Authority is a root CA.
type Authority struct {
	Credential
	now func() time.Time
}

// Request says what an Authority is to certify.
type Request struct {
	CommonName string
	Unit       string            // organisational unit; Fabric's NodeOUs read the kind of node or user from it
	Hosts      []string          // DNS names and IP addresses; with at least one the certificate is for TLS, both sides
	Attributes map[string]string // fabric-ca style attributes; none: no extension
}

// NewAuthority makes a self-signed P-256 root for organization.
func NewAuthority(commonName, organization string, now func() time.Time) (*Authority, error) {
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: commonName, Organization: []string{organization}},
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	credential, err := issue(template, nil, now(), caLifetime)
	if err != nil {
		return nil, fmt.Errorf("root certificate %q: %w", commonName, err)
	}
	return &Authority{Credential: *credential, now: now}, nil
}

// Issue makes a key pair and certifies it.
func (a *Authority) Issue(r Request) (*Credential, error) {
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: r.CommonName, Organization: a.Cert.Subject.Organization},
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
	}
	if r.Unit != "" {
		template.Subject.OrganizationalUnit = []string{r.Unit}
	}
	for _, host := range r.Hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	if len(r.Hosts) > 0 {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	if len(r.Attributes) > 0 {
		value, err := json.Marshal(map[string]any{"attrs": r.Attributes})
		if err != nil {
			return nil, err
		}
		template.ExtraExtensions = []pkix.Extension{{Id: attributeOID, Value: value}}
	}
	credential, err := issue(template, &a.Credential, a.now(), leafLifetime)
	if err != nil {
		return nil, fmt.Errorf("certificate %q: %w", r.CommonName, err)
	}
	return credential, nil
}

// issue completes template and signs it, with itself when there is no parent.
func issue(template *x509.Certificate, parent *Credential, now time.Time, lifetime time.Duration) (*Credential, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	public, err := key.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	// Fabric's MSP requires a subject key identifier; RFC 7093 method 1 is not SHA-1.
	ski := sha256.Sum256(public)
	template.SubjectKeyId = ski[:20]
	template.NotBefore = now.Add(-backdated).UTC()
	template.NotAfter = now.Add(lifetime).UTC()
	if parent == nil {
		parent = &Credential{Cert: template, Key: key}
	}
	template.AuthorityKeyId = parent.Cert.SubjectKeyId
	der, err := x509.CreateCertificate(rand.Reader, template, parent.Cert, &key.PublicKey, parent.Key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &Credential{Cert: cert, Key: key}, nil
}

// Attributes returns the fabric-ca style attributes of cert, nil when it has none.
func Attributes(cert *x509.Certificate) (map[string]string, error) {
	for _, extension := range cert.Extensions {
		if !extension.Id.Equal(attributeOID) {
			continue
		}
		var value struct {
			Attrs map[string]string `json:"attrs"`
		}
		if err := json.Unmarshal(extension.Value, &value); err != nil {
			return nil, fmt.Errorf("attribute extension: %w", err)
		}
		return value.Attrs, nil
	}
	return nil, nil
}

// CertPEM is the certificate in PEM.
func (c *Credential) CertPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Cert.Raw})
}

// Write stores the certificate, and the key as PKCS#8 readable by its owner only, making the directories it needs.
func (c *Credential) Write(certFile, keyFile string) error {
	der, err := x509.MarshalPKCS8PrivateKey(c.Key)
	if err != nil {
		return err
	}
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return errors.Join(writeFile(certFile, c.CertPEM(), 0o644), writeFile(keyFile, key, 0o600))
}

// WriteCert stores the certificate alone.
func (c *Credential) WriteCert(file string) error { return writeFile(file, c.CertPEM(), 0o644) }

func writeFile(file string, content []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, content, mode)
}
