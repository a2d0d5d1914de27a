// Package logkey keeps an organisation's log key: the Ed25519 key that signs its checkpoints, as C2SP signed-note has it.
package logkey

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// Key is a log key.
type Key struct {
	note.Signer
	VKey string // the verifier key to publish: name, hash and public key, in signed-note's form
}

// LoadOrCreate reads the log key at path, or makes one for name and writes it there with mode 0600, synced before it is
// returned. When two processes create it at once, both return the same key. Errors: a file that others may read, that holds
// no Ed25519 key, or that holds one of another name.
func LoadOrCreate(path, name string) (*Key, error) {
	k, err := Load(path, name)
	if !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	skey, _, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		return nil, fmt.Errorf("log key %s: %w", path, err)
	}
	if err := writeNew(path, []byte(skey+"\n")); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("log key %s: %w", path, err)
	}
	return Load(path, name)
}

// Load reads the log key at path; see LoadOrCreate. A missing file is fs.ErrNotExist.
func Load(path, name string) (*Key, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("log key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("log key %s: mode is %#o: must not be open to group or others (0600)", path, info.Mode().Perm())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("log key: %w", err)
	}
	skey := strings.TrimSuffix(string(data), "\n")
	signer, err := note.NewSigner(skey)
	if err != nil {
		return nil, fmt.Errorf("log key %s: must hold one signed-note private key: %w", path, err)
	}
	if signer.Name() != name {
		return nil, fmt.Errorf("log key %s: name is %q: must be %q, this channel and organisation", path, signer.Name(), name)
	}
	vkey, err := verifierKey(skey)
	if err != nil {
		return nil, fmt.Errorf("log key %s: %w", path, err)
	}
	return &Key{Signer: signer, VKey: vkey}, nil
}

// verifierKey derives the public form. skey has passed note.NewSigner: PRIVATE+KEY+<name>+<hash>+<base64 of 1 and the seed>.
func verifierKey(skey string) (string, error) {
	parts := strings.SplitN(skey, "+", 5)
	if len(parts) != 5 {
		return "", errors.New("must have the five parts of a signed-note private key")
	}
	key, err := base64.StdEncoding.DecodeString(parts[4])
	if err != nil || len(key) != 1+ed25519.SeedSize {
		return "", errors.New("must hold an Ed25519 seed")
	}
	pub, ok := ed25519.NewKeyFromSeed(key[1:]).Public().(ed25519.PublicKey)
	if !ok {
		return "", errors.New("must hold an Ed25519 seed")
	}
	return note.NewEd25519VerifierKey(parts[2], pub)
}

// writeNew creates path with all of data or not at all; it is fs.ErrExist when path is there already.
func writeNew(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".logkey-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ignoreMissing(os.Remove(f.Name()))) }()
	if _, err := f.Write(data); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil { // unlike rename, refuses to replace
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
