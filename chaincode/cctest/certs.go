package cctest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"sync"
	"sync/atomic"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// Validity of what the factory makes. It spans both the fixed times of unit tests and the present.
var (
	CANotBefore   = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	CANotAfter    = time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC)
	LeafNotBefore = time.Date(2021, 1, 1, 0, 0, 0, 0, time.UTC)
	LeafNotAfter  = time.Date(2045, 1, 1, 0, 0, 0, 0, time.UTC)
)

// OIDs that tests put into certificates.
var (
	OIDPoison      = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 3} // RFC 6962 section 3.1
	OIDOCSPNoCheck = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}    // RFC 6960 section 4.2.2.2.1
)

// CA is a certificate authority with its key.
type CA struct {
	DER   []byte
	Cert  *x509.Certificate
	Key   crypto.Signer
	ID    wire.CAID
	Chain [][]byte // issuer first, up to the root; empty for a root
}

// CAOption changes how NewCA makes a CA.
type CAOption func(*caSpec)

type caSpec struct {
	parent *CA
	key    crypto.Signer
	tweaks []func(*x509.Certificate)
}

// WithParent has parent sign the CA's certificate. Without it the CA is a self-signed root.
func WithParent(parent *CA) CAOption { return func(s *caSpec) { s.parent = parent } }

// WithKey gives the CA this key. Without it the key is a new P-256 one.
func WithKey(key crypto.Signer) CAOption { return func(s *caSpec) { s.key = key } }

// WithTemplate changes the CA's certificate before it is signed.
func WithTemplate(tweak func(*x509.Certificate)) CAOption {
	return func(s *caSpec) { s.tweaks = append(s.tweaks, tweak) }
}

// NewCA makes a CA with a subject of its own.
func NewCA(t TB, opts ...CAOption) *CA {
	t.Helper()
	var s caSpec
	for _, o := range opts {
		o(&s)
	}
	if s.key == nil {
		s.key = NewKey(t)
	}
	serial := nextSerial()
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "Test CA " + serial.Text(16), Organization: []string{"certanchor"}},
		NotBefore:             CANotBefore,
		NotAfter:              CANotAfter,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		IsCA:                  true,
		BasicConstraintsValid: true,
		SubjectKeyId:          keyID(t, s.key.Public()),
	}
	for _, tweak := range s.tweaks {
		tweak(template)
	}
	ca := &CA{Key: s.key}
	signer, issuer := s.key, template
	if s.parent != nil {
		signer, issuer = s.parent.Key, s.parent.Cert
		ca.Chain = append([][]byte{s.parent.DER}, s.parent.Chain...)
	}
	ca.DER, ca.Cert = sign(t, template, issuer, s.key.Public(), signer)
	ca.ID = wire.CAIDOf(ca.Cert.RawSubjectPublicKeyInfo)
	return ca
}

// Issue signs a certificate for a server with a new serial number. All leaves share one key pair, LeafKey.
func (ca *CA) Issue(t TB, tweaks ...func(*x509.Certificate)) ([]byte, *x509.Certificate) {
	t.Helper()
	serial := nextSerial()
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "leaf " + serial.Text(16)},
		DNSNames:              []string{"host-" + serial.Text(16) + ".example"},
		NotBefore:             LeafNotBefore,
		NotAfter:              LeafNotAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	for _, tweak := range tweaks {
		tweak(template)
	}
	return sign(t, template, ca.Cert, LeafKey().Public(), ca.Key)
}

// IssueMany signs n certificates.
func (ca *CA) IssueMany(t TB, n int) [][]byte {
	t.Helper()
	ders := make([][]byte, n)
	for i := range ders {
		ders[i], _ = ca.Issue(t)
	}
	return ders
}

// Responder is a tweak for Issue: a delegated OCSP responder certificate valid for life from notBefore on.
func Responder(notBefore time.Time, life time.Duration) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
		c.NotBefore, c.NotAfter = notBefore, notBefore.Add(life)
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: OIDOCSPNoCheck, Value: []byte{5, 0}})
	}
}

// Serial returns the ledger's form of c's serial number.
func Serial(t TB, c *x509.Certificate) wire.Serial {
	t.Helper()
	s, err := wire.SerialOf(c.SerialNumber)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// RegisterArg is the encoded argument that registers ca with operatingMSP.
func (ca *CA) RegisterArg(operatingMSP string) []byte {
	return wire.Encode(&wire.RegisterCAArg{V: wire.Version, Cert: ca.DER, Chain: ca.Chain, OperatingMSP: operatingMSP})
}

// IssueArg is the encoded argument that records ders.
func (ca *CA) IssueArg(ders ...[]byte) []byte {
	return wire.Encode(wire.NewIssueArg(ca.ID, ders))
}

// StatusArg is the encoded argument that makes changes.
func (ca *CA) StatusArg(changes ...wire.StatusChange) []byte {
	return wire.Encode(&wire.SetStatusArg{V: wire.Version, CAID: ca.ID, Changes: changes})
}

// NewKey makes a P-256 key.
func NewKey(t TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// LeafKey is the key of every certificate that CA.Issue makes.
var LeafKey = sync.OnceValue(func() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
})

var serialCounter atomic.Uint64

// nextSerial is unique in this process and unlikely to repeat in another, so that tests may share a ledger.
func nextSerial() *big.Int {
	b := make([]byte, 16)
	if _, err := rand.Read(b[:8]); err != nil {
		panic(err)
	}
	b[0] = b[0]&0x7f | 0x40
	n := serialCounter.Add(1)
	for i := range 8 {
		b[8+i] = byte(n >> (56 - 8*i))
	}
	return new(big.Int).SetBytes(b)
}

func sign(t TB, template, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) ([]byte, *x509.Certificate) {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return der, cert
}

// keyID is RFC 7093 section 2 method 1.
func keyID(t TB, pub crypto.PublicKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	var spki struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &spki); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(spki.Key.Bytes)
	return sum[:20]
}
