package caroot

import (
	"cmp"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/hsm"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/keyid"
	"github.com/certanchor/certanchor/internal/keystate"
	"github.com/certanchor/certanchor/internal/pemcert"
)

// Files of a root's directory.
const (
	CertFile     = "root.pem"
	keyFile      = "root.key"
	registerFile = "register"
)

// Limits and defaults of InitOptions.
const (
	DefaultValidity = 20 * 365 * 24 * time.Hour
	minValidity     = 24 * time.Hour
	maxValidity     = 50 * 365 * 24 * time.Hour
	backdate        = time.Hour // a machine without a network has no good clock
)

// InitOptions describe a new root.
type InitOptions struct {
	Dir        string            // must not exist or be empty
	Subject    pkix.Name         // needs a common name
	Algorithm  keyfile.Algorithm // default P384
	Validity   time.Duration     // default DefaultValidity
	PathLen    int               // CA certificates that may stand below one of this root; -1: any number. 0 is refused: the root certifies CAs
	KeyURI     string            // RFC 7512 URI of the key, which is made if it is absent; empty: a key file
	Passphrase []byte            // of the key file
	By         string            // who makes it
	Now        func() time.Time  // default time.Now
	Iterations int               // of PBKDF2; default keyfile.Iterations. Fewer are for tests
}

// Init makes a root in a directory of its own. It leaves nothing behind when it fails: the directory is prepared beside its place and renamed into it.
func Init(o InitOptions) (_ *x509.Certificate, err error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	parent := filepath.Dir(filepath.Clean(o.Dir))
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp(parent, ".root-init-") // mode 0700
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tmp))
		}
	}()
	cert, err := o.populate(tmp)
	if err != nil {
		return nil, err
	}
	if err := os.Rename(tmp, o.Dir); err != nil {
		return nil, fmt.Errorf("couldn't put the new root into place: %w", err)
	}
	return cert, keyfile.SyncDir(parent)
}

func (o *InitOptions) check() error {
	o.Validity = cmp.Or(o.Validity, DefaultValidity)
	o.Algorithm = cmp.Or(o.Algorithm, keyfile.P384)
	o.Iterations = cmp.Or(o.Iterations, keyfile.DefaultIterations())
	if o.Now == nil {
		o.Now = time.Now
	}
	var err error
	if o.Algorithm, err = keyfile.ParseAlgorithm(string(o.Algorithm)); err != nil {
		return err
	}
	entries, err := os.ReadDir(o.Dir)
	switch {
	case o.Dir == "":
		return errors.New("dir: must name a directory")
	case err == nil && len(entries) > 0:
		return fmt.Errorf("dir %q: must not exist or be empty; it holds %q: %w", o.Dir, entries[0].Name(), fs.ErrExist)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	case o.Subject.CommonName == "":
		return errors.New("subject: must have a common name")
	case o.Validity < minValidity || o.Validity > maxValidity:
		return fmt.Errorf("validity %v: must be %v to %v", o.Validity, minValidity, maxValidity)
	case o.PathLen == 0 || o.PathLen < -1:
		return fmt.Errorf("path length %d: must be at least 1, or -1 for none: a root certifies CAs", o.PathLen)
	}
	if o.KeyURI != "" {
		return nil
	}
	return keyfile.CheckNew(o.Passphrase)
}

func (o *InitOptions) populate(dir string) (*x509.Certificate, error) {
	var key crypto.Signer
	var err error
	path := filepath.Join(dir, keyFile)
	if o.KeyURI == "" {
		if key, err = keyfile.Generate(o.Algorithm); err == nil {
			err = keyfile.SaveWith(path, key, o.Passphrase, o.Iterations)
		}
	} else {
		if key, _, err = hsm.OpenOrCreate("key", o.KeyURI, o.Algorithm); err == nil {
			err = keyfile.WriteNew(path, []byte(o.KeyURI+"\n"), 0o600)
		}
	}
	if err != nil {
		return nil, err
	}
	cert, err := o.selfSign(key)
	if err != nil {
		return nil, err
	}
	if err := keyfile.WriteNew(filepath.Join(dir, CertFile), encode("CERTIFICATE", cert.Raw), 0o644); err != nil {
		return nil, err
	}
	change := keystate.Change{To: keystate.Generated, By: o.By, How: "command line", Why: "root init", At: o.Now()}
	states, err := keystate.Create(filepath.Join(dir, keystate.File), caID(cert), change)
	if err != nil {
		return nil, err
	}
	change.To = keystate.Active
	_, err = states.Change(change)
	if err = errors.Join(err, states.Close()); err != nil {
		return nil, err
	}
	reg, err := openRegister(filepath.Join(dir, registerFile))
	if err != nil {
		return nil, err
	}
	err = reg.append(Entry{Time: o.Now(), By: o.By, Kind: KindSigned, Serial: cert.SerialNumber.Text(16), Subject: cert.Subject.String(), SPKI: caID(cert), Cert: cert.Raw})
	return cert, errors.Join(err, reg.file.Close())
}

// selfSign makes a certificate after RFC 5280 section 4.2: what a conforming CA must have and nothing else.
func (o *InitOptions) selfSign(key crypto.Signer) (*x509.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	ski, err := keyid.Of(key.Public())
	if err != nil {
		return nil, err
	}
	now := o.Now().UTC().Truncate(time.Second)
	template := &x509.Certificate{
		SerialNumber: serial, Subject: o.Subject, NotBefore: now.Add(-backdate), NotAfter: now.Add(o.Validity - time.Second),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true, MaxPathLen: o.PathLen, SubjectKeyId: ski,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// Root is one that is open. It is for one goroutine, and one process at a time; Close it.
type Root struct {
	Certificate *x509.Certificate

	dir  string
	reg  *register
	now  func() time.Time
	step func(string) // of tests; nil: none
}

// Open opens the root in dir without its key. now may be nil.
func Open(dir string, now func() time.Time) (*Root, error) {
	certs, err := pemcert.Read(filepath.Join(dir, CertFile))
	if err != nil {
		return nil, fmt.Errorf("root in %s: %w", dir, err)
	}
	reg, err := openRegister(filepath.Join(dir, registerFile))
	if err != nil {
		return nil, fmt.Errorf("root in %s: %w", dir, err)
	}
	if now == nil {
		now = time.Now
	}
	r := &Root{Certificate: certs[0], dir: dir, reg: reg, now: now}
	if e := reg.find(KindSigned, certs[0].SerialNumber.Text(16)); len(certs) != 1 || e == nil || e.N != 1 || e.SPKI != caID(certs[0]) {
		return nil, errors.Join(fmt.Errorf("root in %s: the register must begin with %s", dir, CertFile), r.Close())
	}
	return r, nil
}

// Close closes the register.
func (r *Root) Close() error { return r.reg.file.Close() }

// Entries returns the register.
func (r *Root) Entries() []Entry { return append([]Entry(nil), r.reg.entries...) }

// States returns the history of the root's key.
func (r *Root) States() ([]keystate.Record, error) {
	return keystate.Read(filepath.Join(r.dir, keystate.File), caID(r.Certificate))
}

// KeyURI returns where the root's key is, if it is in a token.
func (r *Root) KeyURI() string {
	text, err := os.ReadFile(filepath.Join(r.dir, keyFile))
	if line := strings.TrimSpace(string(text)); err == nil && hsm.IsURI(line) {
		return line
	}
	return ""
}

// key opens the key, if its state allows u. passphrase is asked for a file only.
func (r *Root) key(u keystate.Use, passphrase func() ([]byte, error)) (crypto.Signer, error) {
	history, err := r.States()
	if err != nil {
		return nil, err
	}
	if n := len(history); n > 0 {
		if err := history[n-1].Usable(u); err != nil {
			return nil, err
		}
	}
	var key crypto.Signer
	path := filepath.Join(r.dir, keyFile)
	if uri := r.KeyURI(); uri != "" {
		token, err := hsm.Open(path, uri)
		if err != nil {
			return nil, err
		}
		key = token
	} else {
		phrase, err := passphrase()
		if err != nil {
			return nil, err
		}
		if key, err = keyfile.Load(path, phrase); err != nil {
			return nil, err
		}
	}
	if pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(r.Certificate.PublicKey) {
		return nil, fmt.Errorf("%s: the key does not belong to %s", path, CertFile)
	}
	return key, nil
}

func (r *Root) did(step string) {
	if r.step != nil {
		r.step(step)
	}
}

// newSerial is a positive number of 126 random bits in 16 octets.
func newSerial() (*big.Int, error) {
	b := make([]byte, 16)
	if _, err := rand.Read(b); err != nil {
		return nil, err
	}
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b), nil
}

// caID is what the ledger calls a CA.
func caID(cert *x509.Certificate) string {
	return wire.CAIDOf(cert.RawSubjectPublicKeyInfo).String()
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
