package node

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/logkey"
	ocspbridge "github.com/certanchor/certanchor/ocsp-bridge"
)

// sealIterations are of PBKDF2, 0 for the usual number. Tests have fewer.
var sealIterations = 0

// sealer reads the passphrase of key files; nil: they are not encrypted.
func sealer(key string, source *keyfile.Source) (*keyfile.Sealer, error) {
	if source == nil {
		return nil, nil //nolint:nilnil // that is what a nil one stands for
	}
	s, err := keyfile.NewSealer(*source, key, sealIterations)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return s, nil
}

func readSeal(_ string, section *config.OCSPBridge, conf *ocspbridge.Config) (err error) {
	conf.Seal, err = sealer("ocsp_bridge.key_passphrase", section.KeyPassphrase)
	return err
}

// EncryptKeys encrypts the key files of the OCSP bridge that are not, each one whole or not at all, and returns their paths. A bridge that runs keeps what it
// has read.
func EncryptKeys(conf *config.File) (done []string, err error) {
	section, err := conf.NeedOCSPBridge()
	if err != nil {
		return nil, err
	}
	if section.KeyPassphrase == nil {
		return nil, &config.Error{File: conf.Path, Key: "ocsp_bridge.key_passphrase", Rule: "must say what the keys are encrypted under"}
	}
	seal, err := sealer("ocsp_bridge.key_passphrase", section.KeyPassphrase)
	if err != nil {
		return nil, err
	}
	encrypt := func(path string, fn func(string, *keyfile.Sealer) (bool, error)) error {
		did, err := fn(path, seal)
		if did {
			done = append(done, path)
			slog.Info("encrypted", "file", path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	for _, name := range []string{logkey.File, logkey.CosignerFile} {
		if err := encrypt(filepath.Join(section.Dir, name), logkey.Encrypt); err != nil {
			return done, err
		}
	}
	for _, sub := range []string{"ct", "responder"} {
		entries, err := os.ReadDir(filepath.Join(section.Dir, sub))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return done, err
		}
		for _, e := range entries {
			if filepath.Ext(e.Name()) != ".pem" || !e.Type().IsRegular() {
				continue
			}
			if err := encrypt(filepath.Join(section.Dir, sub, e.Name()), keyfile.SealFile); err != nil {
				return done, err
			}
		}
	}
	if x := section.CRL.Indirect; x != nil && x.Key != "" {
		if _, err := os.Stat(x.Key); err == nil { // and not in a token
			return done, encrypt(x.Key, keyfile.SealFile)
		}
	}
	return done, nil
}
