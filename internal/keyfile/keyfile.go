// Package keyfile keeps private keys in encrypted files.
//
// A key file is one PEM block ENCRYPTED PRIVATE KEY: PKCS#8 (RFC 5958) under PBES2 (RFC 8018) with AES-256-CBC and
// PBKDF2-HMAC-SHA-256, which OpenSSL and every HSM import tool read. PBES2 does not authenticate: whoever loads a key
// compares its public half with the certificate it belongs to.
package keyfile

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/youmark/pkcs8"
)

// Algorithm names a kind of key.
type Algorithm string

// Algorithms of Generate.
const (
	P256    Algorithm = "p256" // the default
	P384    Algorithm = "p384"
	RSA2048 Algorithm = "rsa2048" // what many CAs in use have; the least that the ledger takes
	RSA3072 Algorithm = "rsa3072"
)

const (
	pemType  = "ENCRYPTED PRIVATE KEY"
	maxBytes = 64 << 10

	saltBytes = 16
)

// Iterations of PBKDF2 in what Save writes: OWASP's figure for PBKDF2-HMAC-SHA-256 since 2023; a quarter of a second on one core.
const Iterations = 600_000

// minIterations: RFC 8018 section 4.2.
const minIterations = 1000

// ErrPassphrase: the passphrase does not open the key.
var ErrPassphrase = errors.New("wrong passphrase (or a damaged key file)")

// ParseAlgorithm reads an algorithm's name; an empty one means P256.
func ParseAlgorithm(name string) (Algorithm, error) {
	switch a := Algorithm(strings.ToLower(name)); a {
	case "":
		return P256, nil
	case P256, P384, RSA2048, RSA3072:
		return a, nil
	}
	return "", fmt.Errorf("key algorithm %q: must be p256, p384, rsa2048 or rsa3072", name)
}

// Generate makes a new key.
func Generate(a Algorithm) (crypto.Signer, error) {
	a, err := ParseAlgorithm(string(a))
	if err != nil {
		return nil, err
	}
	switch a {
	case P384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case RSA2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	case RSA3072:
		return rsa.GenerateKey(rand.Reader, 3072)
	default:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
}

// Save encrypts key under passphrase into the new file path, mode 0600, and returns when it is durable. It never replaces
// a file: an existing one gives an error that is fs.ErrExist.
func Save(path string, key crypto.Signer, passphrase []byte) error {
	return SaveWith(path, key, passphrase, DefaultIterations())
}

// SaveWith is Save with another number of iterations, at least 1000. Fewer than Iterations are for tests, whose keys protect nothing.
func SaveWith(path string, key crypto.Signer, passphrase []byte, iterations int) error {
	if iterations < minIterations {
		return fmt.Errorf("iterations: %d, must be at least %d (RFC 8018 section 4.2)", iterations, minIterations)
	}
	if len(passphrase) == 0 {
		return errors.New("passphrase: must not be empty")
	}
	der, err := pkcs8.MarshalPrivateKey(key, passphrase, &pkcs8.Opts{
		Cipher:  pkcs8.AES256CBC,
		KDFOpts: pkcs8.PBKDF2Opts{SaltSize: saltBytes, IterationCount: iterations, HMACHash: crypto.SHA256},
	})
	if err != nil {
		return fmt.Errorf("couldn't encrypt the key for %s: %w", path, err)
	}
	return WriteNew(path, pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der}), 0o600)
}

// Load decrypts the key in path. Errors: ErrPassphrase; fs.ErrNotExist; a file that others than its owner may read; a file
// that is not one encrypted PKCS#8 key.
func Load(path string, passphrase []byte) (crypto.Signer, error) {
	data, err := readPrivate(path)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(data)
	switch {
	case block == nil || len(strings.TrimSpace(string(rest))) != 0:
		return nil, fmt.Errorf("key file %s: must hold one PEM block %q and nothing else", path, pemType)
	case block.Type != pemType:
		return nil, fmt.Errorf("key file %s: holds a PEM block %q, must be %q: keys are kept encrypted", path, block.Type, pemType)
	}
	key, err := decrypt(block.Bytes, passphrase)
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	return key, nil
}

// decrypt contains a library that panics when a ciphertext is not a whole number of blocks.
func decrypt(der, passphrase []byte) (key crypto.Signer, err error) {
	defer func() {
		if recover() != nil {
			key, err = nil, ErrPassphrase
		}
	}()
	if len(passphrase) == 0 {
		return nil, errors.New("passphrase: must not be empty")
	}
	k, _, err := pkcs8.ParsePrivateKey(der, passphrase)
	if err != nil {
		if strings.Contains(err.Error(), "incorrect password") {
			return nil, ErrPassphrase
		}
		return nil, err
	}
	signer, ok := k.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("holds a %T, which cannot sign", k)
	}
	return signer, nil
}

// readPrivate reads a small file that only its owner may read.
func readPrivate(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: must be a regular file", path)
	}
	if perm := st.Mode().Perm(); perm&0o077 != 0 {
		return nil, fmt.Errorf("%s: mode %04o lets others read it, must be 0600 or stricter", path, perm)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxBytes {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, maxBytes)
	}
	return data, nil
}
