package ca

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/certanchor/certanchor/internal/hsm"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/keyid"
)

// Files of a CA directory; doc.go says what they hold.
const (
	certFile     = "ca.pem"
	chainFile    = "chain.pem"
	keyFile      = "ca.key"
	profilesFile = "profiles.json"
	clientsFile  = "clients"
	journalFile  = "journal"

	// OperatorTokenFile holds the bearer token of the client "operator".
	OperatorTokenFile = "operator.token"
)

// initPrefix begins the name of a directory that Init prepares.
const initPrefix = ".ca-init-"

// Limits and defaults of InitOptions.
const (
	DefaultValidity = 10 * 365 * 24 * time.Hour
	minValidity     = 24 * time.Hour
	maxValidity     = 40 * 365 * 24 * time.Hour

	// caBackdate lets clocks that are behind accept the CA from its first minute; it leaves room for the backdating of
	// the certificates under it.
	caBackdate = time.Hour
)

// InitOptions describe a new CA.
type InitOptions struct {
	Dir        string            // must not exist or be empty
	Subject    pkix.Name         // needs a common name
	Algorithm  keyfile.Algorithm // default P256
	Validity   time.Duration     // default DefaultValidity
	PathLen    int               // CA certificates that may stand below this one; default 0: it issues end-entity certificates only
	OCSPURL    string            // goes into the profiles' AIA; may be empty
	CRLURLs    []string          // go into the profiles' CRL distribution point, with {ca} and {shard}; may be empty
	CRLShards  int               // CRLs that certificates are spread over; 0: the complete one is at CRLURLs
	KeyURI     string            // RFC 7512 URI of the key in a PKCS #11 token, where it is made if it is absent; empty: a key file
	Passphrase []byte            // of the key file, at least keyfile.MinPassphrase bytes; not used with KeyURI
	Now        func() time.Time  // default time.Now

	// Request makes a request for a certificate, RequestFile, in place of a self-signed one: for a CA below a root. Finish puts the certificate in. Validity is then that of
	// the profiles.
	Request bool
	By      string // who makes it, for the history of the key; default: the user of this process

	Iterations int // of PBKDF2 in the key file; default keyfile.Iterations. Fewer are for tests, as with iterations

	successor  bool             // a generation that is not in use yet, within another CA's directory, whose clients and profiles it has
	other      crypto.PublicKey // a key that it must not be; may be nil
	rawSubject []byte           // DER of Subject; may be nil
	iterations int              // of PBKDF2 in the key file; default keyfile.Iterations. Fewer are for tests
}

// InitResult says what Init made.
type InitResult struct {
	Certificate   *x509.Certificate // nil with InitOptions.Request
	OperatorToken string            // path of the token file
	KeyMade       bool              // false: the token of InitOptions.KeyURI had the key already
}

// Init makes a self-signed CA in a directory of its own. It refuses a directory that holds anything, and leaves nothing
// behind when it fails: the directory is prepared beside its place and renamed into it.
func Init(o InitOptions) (_ *InitResult, err error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	parent := filepath.Dir(filepath.Clean(o.Dir))
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp(parent, initPrefix) // mode 0700
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tmp))
		}
	}()
	key, made, err := o.makeKey()
	if err != nil {
		return nil, err
	}
	defer func() {
		if inToken, ok := key.(*hsm.Key); ok && made && err != nil {
			err = errors.Join(err, inToken.Destroy())
		}
	}()
	cert, err := o.populate(tmp, key)
	if err != nil {
		return nil, err
	}
	// rename(2) replaces an empty directory and fails on any other, so two Inits cannot both succeed.
	if err := os.Rename(tmp, o.Dir); err != nil {
		return nil, fmt.Errorf("couldn't put the new CA into place: %w", err)
	}
	if err := keyfile.SyncDir(parent); err != nil {
		return nil, err
	}
	return &InitResult{Certificate: cert, OperatorToken: filepath.Join(o.Dir, OperatorTokenFile), KeyMade: made}, nil
}

func (o *InitOptions) check() error {
	if o.Validity == 0 {
		o.Validity = DefaultValidity
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	var err error
	if o.Algorithm, err = keyfile.ParseAlgorithm(string(o.Algorithm)); err != nil {
		return err
	}
	if o.Dir == "" {
		return errors.New("dir: must name a directory")
	}
	o.By = cmp.Or(o.By, userName())
	entries, err := os.ReadDir(o.Dir)
	switch {
	case err == nil && len(entries) > 0:
		return fmt.Errorf("dir %q: must not exist or be empty; it holds %q: %w", o.Dir, entries[0].Name(), fs.ErrExist)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if o.Subject.CommonName == "" {
		return errors.New("subject: must have a common name")
	}
	if err := checkSubject("subject", o.Subject); err != nil {
		return err
	}
	if o.Validity < minValidity || o.Validity > maxValidity {
		return fmt.Errorf("validity %v: must be %v to %v", o.Validity, minValidity, maxValidity)
	}
	if o.PathLen < 0 {
		return fmt.Errorf("path length %d: must not be negative", o.PathLen)
	}
	if err := checkURL("ocsp_url", o.OCSPURL); err != nil {
		return err
	}
	if o.KeyURI != "" {
		return nil
	}
	return keyfile.CheckNew(o.Passphrase)
}

// makeKey makes the key, or finds it in its token.
func (o *InitOptions) makeKey() (_ crypto.Signer, made bool, err error) {
	if o.KeyURI == "" {
		key, err := keyfile.Generate(o.Algorithm)
		return key, true, err
	}
	key, made, err := hsm.OpenOrCreate("key", o.KeyURI, o.Algorithm)
	if err != nil {
		return nil, false, err // and not a nil *hsm.Key
	}
	return key, made, nil
}

// saveKey writes the key file: the key, or where it is.
func (o *InitOptions) saveKey(path string, key crypto.Signer) error {
	if o.KeyURI != "" {
		return keyfile.WriteNew(path, []byte(o.KeyURI+"\n"), 0o600)
	}
	return keyfile.SaveWith(path, key, o.Passphrase, cmp.Or(o.iterations, o.Iterations, keyfile.DefaultIterations()))
}

// populate writes every file of a new CA into dir.
func (o *InitOptions) populate(dir string, key crypto.Signer) (*x509.Certificate, error) {
	if pub, ok := o.other.(interface{ Equal(crypto.PublicKey) bool }); ok && pub.Equal(key.Public()) {
		return nil, errors.New("key: must be another one than the present, which the URI names")
	}
	cert, err := o.certify(dir, key)
	if err != nil {
		return nil, err
	}
	// The profiles must fit into the CA's own life, or the first request would be refused.
	profiles := defaultProfiles(o, o.Validity-caBackdate)
	if _, err := parseProfiles(profiles); err != nil {
		return nil, err
	}
	if err := o.saveKey(filepath.Join(dir, keyFile), key); err != nil {
		return nil, err
	}
	if err := o.beginLife(dir, key); err != nil {
		return nil, err
	}
	if o.successor {
		return cert, keyfile.WriteNew(filepath.Join(dir, clientsFile), []byte("# The clients are those of the CA in whose directory this one is.\n"), 0o600)
	}
	if err := keyfile.WriteNew(filepath.Join(dir, profilesFile), profiles, 0o644); err != nil {
		return nil, err
	}
	if _, err := AddClient(dir, "operator", RoleOperator); err != nil {
		return nil, err
	}
	return cert, nil
}

// selfSign makes a certificate after RFC 5280 section 4.2: what a conforming CA must have and nothing else.
func selfSign(o *InitOptions, key crypto.Signer) ([]byte, error) {
	serial := make([]byte, 16)
	if _, err := rand.Read(serial); err != nil {
		return nil, err
	}
	serial[0] = serial[0]&0x7f | 0x40 // positive, and 16 octets long: 126 random bits
	ski, err := keyid.Of(key.Public())
	if err != nil {
		return nil, err
	}
	now := o.Now().UTC().Truncate(time.Second)
	template := &x509.Certificate{
		RawSubject:            o.rawSubject,
		SerialNumber:          new(big.Int).SetBytes(serial),
		Subject:               o.Subject,
		NotBefore:             now.Add(-caBackdate),
		NotAfter:              now.Add(o.Validity - time.Second), // both ends count (RFC 5280 section 4.1.2.5)
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLen:            o.PathLen,
		MaxPathLenZero:        o.PathLen == 0,
		SubjectKeyId:          ski,
	}
	return x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
}

// LoadKey decrypts the key of the CA in dir.
func LoadKey(dir string, passphrase []byte) (crypto.Signer, error) {
	return keyfile.Load(filepath.Join(dir, keyFile), passphrase)
}

// KeyURI returns where the key of the CA in dir is, if it is in a PKCS #11 token; else an empty string.
func KeyURI(dir string) string {
	f, err := os.Open(filepath.Join(dir, keyFile))
	if err != nil {
		return ""
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxKeyURI))
	if line := strings.TrimSpace(string(text)); err == nil && hsm.IsURI(line) {
		return line
	}
	return ""
}

// maxKeyURI is more than a URI may have, so that one that is too long is refused and not cut.
const maxKeyURI = 8 << 10

// OpenKey returns the key of the CA in dir, from its token or its file; passphrase is asked for the latter only.
func OpenKey(dir string, passphrase func() ([]byte, error)) (crypto.Signer, error) {
	if key := destroyedKey(dir); key != nil {
		return key, nil
	}
	if uri := KeyURI(dir); uri != "" {
		key, err := hsm.Open(filepath.Join(dir, keyFile), uri)
		if err != nil {
			return nil, err
		}
		return key, nil
	}
	phrase, err := passphrase()
	if err != nil {
		return nil, err
	}
	return LoadKey(dir, phrase)
}

// LoadCertificate reads the certificate of the CA in dir and its chain, which is empty for a self-signed one.
func LoadCertificate(dir string) (cert *x509.Certificate, chain []*x509.Certificate, err error) {
	certs, err := readCerts(filepath.Join(dir, certFile))
	if err != nil {
		return nil, nil, err
	}
	if len(certs) != 1 {
		return nil, nil, fmt.Errorf("%s: must hold one certificate, it holds %d", filepath.Join(dir, certFile), len(certs))
	}
	chain, err = readCerts(filepath.Join(dir, chainFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	return certs[0], chain, nil
}

func readCerts(path string) ([]*x509.Certificate, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for len(bytes.TrimSpace(data)) > 0 {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil || block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("%s: must hold PEM certificates and nothing else", path)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		certs = append(certs, cert)
	}
	return certs, nil
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
