package ca

import (
	"crypto"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/certanchor/certanchor/internal/hsm"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/keystate"
)

// eraseKey removes the key of the CA in dir: the objects in its token, or the file, which is overwritten first (a file system that copies
// on write keeps the old blocks all the same: what protects them is the passphrase). It may be repeated.
func eraseKey(dir string) error {
	path := filepath.Join(dir, keyFile)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if uri := KeyURI(dir); uri != "" {
		key, err := hsm.Open(path, uri)
		if err == nil {
			err = key.Destroy()
		}
		if err != nil && !errors.Is(err, hsm.ErrNotFound) {
			return err
		}
	} else if err := overwrite(path, int(info.Size())); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	return keyfile.SyncDir(dir)
}

func overwrite(path string, size int) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	noise := make([]byte, size)
	_, err = rand.Read(noise)
	if err == nil {
		_, err = f.WriteAt(noise, 0)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// destroyedKey is the key of the CA in dir if it is destroyed, else nil.
func destroyedKey(dir string) crypto.Signer {
	cert, _, err := LoadCertificate(dir)
	if err != nil {
		return nil
	}
	history, err := keystate.Read(filepath.Join(dir, keystate.File), keyName(cert))
	if err != nil || keystate.StateOf(history) != keystate.Destroyed {
		return nil
	}
	return absentKey{cert.PublicKey}
}
