package ca

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/certanchor/certanchor/internal/certsig"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/keystate"
)

// RequestFile holds the PKCS #10 request of a CA that waits for its certificate.
const RequestFile = "ca.csr"

// commandLine is how those are known who work on the CA's directory.
const commandLine = "command line"

// userName is who runs this process.
func userName() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return "uid " + strconv.Itoa(os.Getuid())
}

// certify writes the new CA's certificate, or its request.
func (o *InitOptions) certify(dir string, key crypto.Signer) (*x509.Certificate, error) {
	if o.Request {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: o.Subject, RawSubject: o.rawSubject}, key)
		if err != nil {
			return nil, err
		}
		return nil, keyfile.WriteNew(filepath.Join(dir, RequestFile), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), 0o644)
	}
	der, err := selfSign(o, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return cert, keyfile.WriteNew(filepath.Join(dir, certFile), encodeCert(der), 0o644)
}

// beginLife writes the key's history. A self-signed CA is in use as soon as it is there.
func (o *InitOptions) beginLife(dir string, key crypto.Signer) error {
	name, err := nameOf(key.Public())
	if err != nil {
		return err
	}
	change := keystate.Change{To: keystate.Generated, By: o.By, How: commandLine, Why: "made", At: o.Now()}
	states, err := keystate.Create(filepath.Join(dir, keystate.File), name, change)
	if err != nil {
		return err
	}
	if !o.Request && !o.successor {
		change.To, change.Why = keystate.Active, "the CA was made"
		_, err = states.Change(change)
	}
	return errors.Join(err, states.Close())
}

// nameOf is keyName of a key that has no certificate yet.
func nameOf(pub crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", err
	}
	return keyName(&x509.Certificate{RawSubjectPublicKeyInfo: der}), nil
}

// FinishOptions bring the certificate of a CA that Init made with Request.
type FinishOptions struct {
	Dir   string
	Cert  *x509.Certificate   // of the CA
	Chain []*x509.Certificate // its issuers up to the root, issuer first
	By    string              // default: the user of this process
	Now   func() time.Time    // default time.Now

	successor bool // see InitOptions
}

// Finish puts the certificate and its chain into the CA's directory, which is a CA from then on, and its key is active. Repeated with the same certificate
// it changes nothing, or finishes what was cut off. Errors say what does not fit.
func Finish(o FinishOptions) error {
	o.By = cmp.Or(o.By, userName())
	if o.Now == nil {
		o.Now = time.Now
	}
	if err := o.check(); err != nil {
		return err
	}
	var chain []byte
	for _, c := range o.Chain {
		chain = append(chain, encodeCert(c.Raw)...)
	}
	// The certificate comes last: without it the directory is no CA.
	if err := writeSame(filepath.Join(o.Dir, chainFile), chain); err != nil {
		return err
	}
	if err := writeSame(filepath.Join(o.Dir, certFile), encodeCert(o.Cert.Raw)); err != nil {
		return err
	}
	if o.successor {
		return nil
	}
	states, err := keystate.Open(filepath.Join(o.Dir, keystate.File), keyName(o.Cert))
	if err != nil {
		return err
	}
	if last := states.Last(); last.To == keystate.Generated {
		_, err = states.Change(keystate.Change{To: keystate.Active, By: o.By, How: commandLine, Why: "certified by " + o.Cert.Issuer.String(), At: o.Now()})
	}
	return errors.Join(err, states.Close())
}

func (o *FinishOptions) check() error {
	text, err := os.ReadFile(filepath.Join(o.Dir, RequestFile))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("dir %q: holds no %s: certanchor ca init --csr-out makes one", o.Dir, RequestFile)
	}
	if err != nil {
		return err
	}
	csr, err := ParseRequest(text)
	if err != nil {
		return fmt.Errorf("%s in %s: %w", RequestFile, o.Dir, err)
	}
	c, now := o.Cert, o.Now()
	refuse := func(rule string, args ...any) error {
		return invalid("cert", c.Subject.String(), rule, args...)
	}
	switch {
	case !bytes.Equal(c.RawSubjectPublicKeyInfo, csr.RawSubjectPublicKeyInfo):
		return refuse("must be for the key of the request in %s", o.Dir)
	case !bytes.Equal(c.RawSubject, csr.RawSubject):
		return refuse("must have the request's subject, %s", csr.Subject)
	case !c.BasicConstraintsValid || !c.IsCA || c.KeyUsage&x509.KeyUsageCertSign == 0:
		return refuse("must be a CA certificate with keyCertSign (RFC 5280 section 4.2.1.9)")
	case len(c.SubjectKeyId) == 0:
		return refuse("must have a subject key identifier (RFC 5280 section 4.2.1.2)")
	case now.After(c.NotAfter) || now.Before(c.NotBefore):
		return refuse("must be valid now: it is from %s to %s", c.NotBefore.Format(time.RFC3339), c.NotAfter.Format(time.RFC3339))
	case len(o.Chain) == 0:
		return invalid("chain", "", "must have the certificate's issuers up to the root, issuer first")
	}
	for i, issuer := range o.Chain {
		if err := certsig.Check(c, issuer); err != nil || !bytes.Equal(c.RawIssuer, issuer.RawSubject) {
			return invalid("chain", issuer.Subject.String(), "certificate %d must have issued %s: %v", i+1, c.Subject, err)
		}
		c = issuer
	}
	if err := c.CheckSignatureFrom(c); err != nil {
		return invalid("chain", c.Subject.String(), "must end with a root, which is self-signed: %v", err)
	}
	return nil
}

// ParseRequest reads a request in PEM.
func ParseRequest(text []byte) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("must hold a PEM block CERTIFICATE REQUEST")
	}
	return x509.ParseCertificateRequest(block.Bytes)
}

// writeSame is keyfile.WriteNew that takes a file with the same contents for its own.
func writeSame(path string, data []byte) error {
	err := keyfile.WriteNew(path, data, 0o644)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if there, rerr := os.ReadFile(path); rerr != nil || !slices.Equal(there, data) {
		return errors.Join(err, rerr)
	}
	return nil
}
