package keyfile

import (
	"cmp"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"

	"github.com/youmark/pkcs8"
)

const plainType = "PRIVATE KEY" // RFC 7468 section 10

// ErrSealed: the key is encrypted, and no passphrase is configured.
var ErrSealed = errors.New("the key is encrypted, and no passphrase is configured for it")

// Sealer says how a service keeps the keys that it makes by itself: encrypted under one passphrase; a nil *Sealer leaves them unencrypted. It is safe for
// concurrent use.
type Sealer struct {
	phrase     []byte
	iterations int
}

// NewSealer reads the passphrase of the keys that what names. iterations are of PBKDF2, 0 for DefaultIterations; fewer are for tests.
func NewSealer(source Source, what string, iterations int) (*Sealer, error) {
	phrase, err := source.Passphrase(what)
	if err != nil {
		return nil, err
	}
	if err := CheckNew(phrase); err != nil {
		return nil, err
	}
	return &Sealer{phrase: phrase, iterations: cmp.Or(iterations, DefaultIterations())}, nil
}

// Seal makes the PEM block of a key.
func (s *Sealer) Seal(key crypto.Signer) (*pem.Block, error) {
	if s == nil {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		return &pem.Block{Type: plainType, Bytes: der}, err
	}
	der, err := pkcs8.MarshalPrivateKey(key, s.phrase, &pkcs8.Opts{
		Cipher:  pkcs8.AES256CBC,
		KDFOpts: pkcs8.PBKDF2Opts{SaltSize: saltBytes, IterationCount: s.iterations, HMACHash: crypto.SHA256},
	})
	return &pem.Block{Type: pemType, Bytes: der}, err
}

// Open reads the key of a PEM block. One that is not encrypted is taken, with a warning that names path if s is not nil. Errors: ErrPassphrase, ErrSealed.
func (s *Sealer) Open(path string, block *pem.Block) (crypto.Signer, error) {
	switch {
	case block == nil || block.Type != pemType && block.Type != plainType:
		return nil, fmt.Errorf("must be a PEM block %q or %q", plainType, pemType)
	case block.Type == pemType && s == nil:
		return nil, ErrSealed
	case block.Type == pemType:
		return decrypt(block.Bytes, s.phrase)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%T cannot sign", parsed)
	}
	s.Warn(path)
	return key, nil
}

// Warn says that the key in path is not encrypted, if keys should be.
func (s *Sealer) Warn(path string) {
	if s != nil {
		slog.Warn("a key is not encrypted; certanchor ocsp-bridge encrypt-keys does that", "file", path)
	}
}

// IsSealed reports whether a key file's text begins with an encrypted key.
func IsSealed(text []byte) bool {
	block, _ := pem.Decode(text)
	return block != nil && block.Type == pemType
}

// SealFile encrypts the first PEM block of the file at path, a key, and keeps what follows. done is false for a file without a key, and for one that is encrypted
// already. The file is replaced whole or not at all.
func SealFile(path string, s *Sealer) (done bool, err error) {
	data, err := readPrivate(path)
	if err != nil {
		return false, err
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != plainType {
		return false, nil
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(crypto.Signer)
	if err != nil || !ok {
		return false, fmt.Errorf("%s: must be a PKCS #8 key that can sign: %w", path, err)
	}
	if block, err = s.Seal(key); err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	return true, Replace(path, append(pem.EncodeToMemory(block), rest...), 0o600)
}
