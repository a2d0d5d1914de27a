package responder

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/certanchor/certanchor/internal/hsm"
	"github.com/certanchor/certanchor/internal/keyfile"
)

// loadKey reads the PKCS #8 key at path, or opens the one that a PKCS #11 URI names. A missing file is fs.ErrNotExist.
func loadKey(path string) (crypto.Signer, error) {
	if hsm.IsURI(path) {
		key, err := hsm.Open("ocsp_bridge.responders.key", path)
		if err != nil {
			return nil, err
		}
		return key, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("responder key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("responder key %s: mode is %#o: must not be open to group or others (0600)", path, info.Mode().Perm())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("responder key: %w", err)
	}
	key, rest, err := parseKey(data)
	if err == nil && len(bytes.TrimSpace(rest)) != 0 {
		err = errors.New("something follows it")
	}
	if err != nil {
		return nil, fmt.Errorf("responder key %s: must hold one PEM block, PRIVATE KEY (PKCS #8), of a key that can sign: %w", path, err)
	}
	return key, nil
}

// loadEncrypted reads the encrypted PKCS #8 key at path.
func loadEncrypted(path string, source keyfile.Source) (crypto.Signer, error) {
	phrase, err := source.Passphrase("responder key " + path)
	if err != nil {
		return nil, err
	}
	return keyfile.Load(path, phrase)
}

// parseKey reads a PKCS #8 key in PEM and returns what comes after it.
func parseKey(data []byte) (crypto.Signer, []byte, error) {
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, nil, errors.New("no PEM block PRIVATE KEY")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, nil, err
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, nil, fmt.Errorf("%T cannot sign", parsed)
	}
	return key, rest, nil
}

// openKey reads a key that may be encrypted, and returns what comes after it.
func openKey(path string, data []byte, seal *keyfile.Sealer) (crypto.Signer, []byte, error) {
	block, rest := pem.Decode(data)
	key, err := seal.Open(path, block)
	return key, rest, err
}

// saveIdentity writes a key and its certificate into one file, so that they cannot come apart; of one in a token the certificate alone.
func saveIdentity(path string, id *Identity, seal *keyfile.Sealer) error {
	if _, ok := id.Key.(*hsm.Key); ok {
		return replaceFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: id.Cert.Raw}))
	}
	block, err := seal.Seal(id.Key)
	if err != nil {
		return err
	}
	return replaceFile(path, append(pem.EncodeToMemory(block), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: id.Cert.Raw})...))
}

// loadIdentity reads what saveIdentity wrote. own is the key in a token that it must be for, nil if the file has the key. A missing file is
// fs.ErrNotExist.
func loadIdentity(path string, own crypto.Signer, seal *keyfile.Sealer) (*Identity, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	key, rest := own, data
	if own == nil {
		if key, rest, err = openKey(path, data, seal); err != nil {
			return nil, err
		}
	}
	cert, err := parseCert(rest)
	if err != nil {
		return nil, err
	}
	return newIdentity(key, cert)
}

// loadCert reads one certificate in PEM.
func loadCert(path string) (*x509.Certificate, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("responder certificate: %w", err)
	}
	cert, err := parseCert(data)
	if err != nil {
		return nil, fmt.Errorf("responder certificate %s: %w", path, err)
	}
	return cert, nil
}

// parseCert reads a certificate in DER or PEM, with nothing after it.
func parseCert(data []byte) (*x509.Certificate, error) {
	if block, rest := pem.Decode(data); block != nil {
		if block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) != 0 {
			return nil, errors.New("must hold one PEM block, CERTIFICATE")
		}
		data = block.Bytes
	}
	return x509.ParseCertificate(data)
}

// replaceFile writes path with mode 0600, whole or not at all, and syncs it.
func replaceFile(path string, data []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".new-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
