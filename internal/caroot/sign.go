package caroot

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/certsig"
	"github.com/certanchor/certanchor/internal/keystate"
)

// DefaultSubValidity is how long a subordinate CA is certified.
const DefaultSubValidity = 5 * 365 * 24 * time.Hour

const maxCSR = 64 << 10

// SignOptions say what a subordinate CA may do.
type SignOptions struct {
	CSR          []byte        // PEM
	Validity     time.Duration // default DefaultSubValidity, not past the root's own
	PathLen      int           // CA certificates that may stand below it; less than the root's
	PermitDNS    []string      // name constraints (RFC 5280 section 4.2.1.10): domains that its certificates' names must be in; empty: any
	ExcludeDNS   []string
	PermitIP     []*net.IPNet
	PermitEmail  []string
	Policies     []asn1.ObjectIdentifier // certificate policies; empty: none are named
	CRLURL       string                  // of the root's CRL; may be empty
	IssuerURL    string                  // of the root's certificate; may be empty
	By           string
	Passphrase   func() ([]byte, error)  // of the root's key file
	Confirm      func(plan string) error // shown what is about to be signed; an error ends it
	PolicyNotice func(notice string)     // told what the request asks for and does not get; may be nil
}

// Steps, as Root.step sees them.
const (
	stepReserved = "reserved"
	stepSigned   = "signed"
	stepKept     = "kept"
)

// Sign certifies a subordinate CA and returns its certificate, which is in the register then. Errors: *wire.Error for a request that is at fault; whatever Confirm
// returns, after which nothing has changed.
func (r *Root) Sign(o SignOptions) (*x509.Certificate, error) {
	csr, err := parseCSR(o.CSR)
	if err != nil {
		return nil, err
	}
	template, err := r.template(&o, csr)
	if err != nil {
		return nil, err
	}
	if err := o.Confirm(r.plan(template, csr)); err != nil {
		return nil, err
	}
	key, err := r.key(keystate.Certificates, o.Passphrase)
	if err != nil {
		return nil, err
	}
	entry := Entry{Time: r.now(), By: o.By, Kind: KindReserved, Serial: template.SerialNumber.Text(16), Subject: csr.Subject.String(),
		SPKI: wire.CAIDOf(csr.RawSubjectPublicKeyInfo).String()}
	if err := r.reg.append(entry); err != nil {
		return nil, err
	}
	r.did(stepReserved)
	der, err := x509.CreateCertificate(rand.Reader, template, r.Certificate, csr.PublicKey, key)
	if err != nil {
		return nil, err
	}
	r.did(stepSigned)
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	if err := certsig.Check(cert, r.Certificate); err != nil {
		return nil, fmt.Errorf("the key gave a bad signature: %w", err)
	}
	entry.Time, entry.Kind, entry.Cert = r.now(), KindSigned, der
	if err := r.reg.append(entry); err != nil {
		return nil, err
	}
	r.did(stepKept)
	return cert, nil
}

func bad(field, value, rule string, args ...any) error {
	return wire.Errorf(wire.InvalidArgument, field, value, rule, args...)
}

func parseCSR(text []byte) (*x509.CertificateRequest, error) {
	if len(text) > maxCSR {
		return nil, bad("csr", fmt.Sprintf("%d octets", len(text)), "must have at most %d", maxCSR)
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE REQUEST" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, bad("csr", "", "must be one PEM block CERTIFICATE REQUEST and nothing else")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, bad("csr", "", "must be PKCS #10 (RFC 2986): %v", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, bad("csr.signature", csr.SignatureAlgorithm.String(), "must be by the key in it: %v", err)
	}
	switch pub := csr.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if bits := pub.Params().BitSize; bits < 256 {
			return nil, bad("csr.public_key", pub.Params().Name, "must be P-256, P-384 or P-521")
		}
	case *rsa.PublicKey:
		if pub.N.BitLen() < 2048 || pub.E < 65537 || pub.E%2 == 0 {
			return nil, bad("csr.public_key", fmt.Sprintf("RSA of %d bits, exponent %d", pub.N.BitLen(), pub.E), "must have at least 2048 bits and an odd exponent of at least 65537")
		}
	default:
		return nil, bad("csr.public_key", fmt.Sprintf("%T", csr.PublicKey), "must be ECDSA or RSA")
	}
	if csr.Subject.CommonName == "" || strings.ContainsFunc(csr.Subject.String(), func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return nil, bad("csr.subject", csr.Subject.String(), "must have a common name and no control characters")
	}
	return csr, nil
}

// template is the certificate that is about to be signed.
func (r *Root) template(o *SignOptions, csr *x509.CertificateRequest) (*x509.Certificate, error) {
	root := r.Certificate
	if o.Validity == 0 {
		o.Validity = DefaultSubValidity
	}
	now := r.now().UTC().Truncate(time.Second)
	t := &x509.Certificate{
		RawSubject: csr.RawSubject, NotBefore: now.Add(-backdate), NotAfter: now.Add(o.Validity - time.Second),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true,
		MaxPathLen: o.PathLen, MaxPathLenZero: o.PathLen == 0,
		PermittedDNSDomains: o.PermitDNS, ExcludedDNSDomains: o.ExcludeDNS, PermittedIPRanges: o.PermitIP, PermittedEmailAddresses: o.PermitEmail,
		PermittedDNSDomainsCritical: true, // RFC 5280 section 4.2.1.10
		PolicyIdentifiers:           o.Policies,
	}
	if t.NotBefore.Before(root.NotBefore) {
		t.NotBefore = root.NotBefore
	}
	pub, _ := root.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	switch {
	case bytes.Equal(csr.RawSubject, root.RawSubject):
		return nil, bad("csr.subject", csr.Subject.String(), "must not be the root's own name")
	case bytes.Equal(csr.RawSubjectPublicKeyInfo, root.RawSubjectPublicKeyInfo), pub != nil && pub.Equal(csr.PublicKey):
		return nil, bad("csr.public_key", "the root's key", "must be the subordinate's own")
	case o.Validity < minValidity || o.Validity > maxValidity:
		return nil, bad("validity", o.Validity.String(), "must be %v to %v", minValidity, maxValidity)
	case t.NotBefore.After(now) || t.NotAfter.After(root.NotAfter):
		return nil, bad("validity", o.Validity.String(), "must lie within the root's own life, %s to %s; this machine's clock says %s",
			root.NotBefore.Format(time.RFC3339), root.NotAfter.Format(time.RFC3339), now.Format(time.RFC3339))
	case o.PathLen < 0 || root.MaxPathLen > 0 && o.PathLen >= root.MaxPathLen:
		return nil, bad("path length", strconv.Itoa(o.PathLen), "must not be negative, and less than the root's, %d", root.MaxPathLen)
	}
	if o.CRLURL != "" {
		t.CRLDistributionPoints = []string{o.CRLURL}
	}
	if o.IssuerURL != "" {
		t.IssuingCertificateURL = []string{o.IssuerURL}
	}
	t.SubjectKeyId = keyIDOf(csr)
	for t.SerialNumber == nil || r.reg.used(t.SerialNumber.Text(16)) {
		serial, err := newSerial()
		if err != nil {
			return nil, err
		}
		t.SerialNumber = serial
	}
	if len(csr.Extensions) > 0 && o.PolicyNotice != nil {
		o.PolicyNotice(fmt.Sprintf("the request has %d extensions, none of which is taken over: the flags decide", len(csr.Extensions)))
	}
	return t, nil
}

// plan is what a custodian reads before the root signs.
func (r *Root) plan(t *x509.Certificate, csr *x509.CertificateRequest) string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-16s "+format+"\n", append([]any{name}, args...)...)
	}
	spki := sha256.Sum256(csr.RawSubjectPublicKeyInfo)
	fmt.Fprintf(&b, "The root %s is about to certify a CA:\n", r.Certificate.Subject)
	line("subject", "%s", csr.Subject)
	line("CA ID", "%x (SHA-256 of its public key: compare it with what its owner says)", spki)
	line("key", "%s", keyName(csr))
	line("serial", "%s", t.SerialNumber.Text(16))
	line("valid", "%s to %s", t.NotBefore.Format(time.RFC3339), t.NotAfter.Format(time.RFC3339))
	line("path length", "%d", t.MaxPathLen)
	line("names", "%s", constraints(t))
	line("policies", "%s", orNone(t.PolicyIdentifiers))
	line("root's CRL at", "%s", orNone(t.CRLDistributionPoints))
	line("root's cert at", "%s", orNone(t.IssuingCertificateURL))
	for i := range r.reg.entries {
		if e := &r.reg.entries[i]; e.Kind == KindSigned && e.SPKI == fmt.Sprintf("%x", spki) {
			line("NOTE", "this key was certified before: entry %d, serial %s, at %s", e.N, e.Serial, e.Time.Format(time.RFC3339))
		}
	}
	return b.String()
}

func constraints(t *x509.Certificate) string {
	var all []string
	for _, d := range t.PermittedDNSDomains {
		all = append(all, "DNS below "+d)
	}
	for _, n := range t.PermittedIPRanges {
		all = append(all, "IP in "+n.String())
	}
	for _, e := range t.PermittedEmailAddresses {
		all = append(all, "e-mail of "+e)
	}
	for _, d := range t.ExcludedDNSDomains {
		all = append(all, "not DNS below "+d)
	}
	switch {
	case len(all) == 0:
		return "any"
	case len(t.PermittedDNSDomains) == 0:
		all = append(all, "any other DNS name")
	}
	if len(t.PermittedIPRanges) == 0 {
		all = append(all, "any IP address")
	}
	return strings.Join(all, ", ")
}

func orNone[T any](list []T) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Trim(fmt.Sprint(list), "[]")
}

func keyName(csr *x509.CertificateRequest) string {
	switch pub := csr.PublicKey.(type) {
	case *ecdsa.PublicKey:
		return "ECDSA " + pub.Params().Name
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA of %d bits", pub.N.BitLen())
	}
	return csr.PublicKeyAlgorithm.String()
}

// Issued returns a certificate of the register again. Errors: none was signed with that serial number.
func (r *Root) Issued(serial *big.Int) (*x509.Certificate, error) {
	e := r.reg.find(KindSigned, serial.Text(16))
	if e == nil {
		return nil, errors.New("serial " + serial.Text(16) + ": is not that of a certificate in the register")
	}
	return x509.ParseCertificate(e.Cert)
}
