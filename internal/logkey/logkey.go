// Package logkey keeps an organisation's two Ed25519 keys for checkpoints, as C2SP signed-note has them: the log key, which signs
// those that it serves, and the cosigner key, which signs any organisation's once it has recomputed the root.
package logkey

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/certanchor/certanchor/internal/cosign"
	"github.com/certanchor/certanchor/internal/keyfile"
)

// Names of the key files within a bridge's directory.
const (
	File         = "log.key"
	CosignerFile = "cosigner.key"
)

// Key is a log key.
type Key struct {
	note.Signer
	VKey string // the verifier key to publish: name, hash and public key, in signed-note's form
}

// LoadOrCreate reads the log key at path, or makes one for name and writes it there with mode 0600, synced before it is
// returned. When two processes create it at once, both return the same key. Errors: a file that others may read, that holds
// no Ed25519 key, or that holds one of another name.
func LoadOrCreate(path, name string) (*Key, error) { return LoadOrCreateSealed(path, name, nil) }

// LoadOrCreateSealed is LoadOrCreate for a key that seal encrypts.
func LoadOrCreateSealed(path, name string, seal *keyfile.Sealer) (*Key, error) {
	k, err := LoadSealed(path, name, seal)
	if !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	skey, _, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		return nil, fmt.Errorf("log key %s: %w", path, err)
	}
	text, err := sealed(skey, seal)
	if err != nil {
		return nil, fmt.Errorf("log key %s: %w", path, err)
	}
	if err := writeNew(path, text); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("log key %s: %w", path, err)
	}
	return LoadSealed(path, name, seal)
}

// Load reads the log key at path; see LoadOrCreate. A missing file is fs.ErrNotExist.
func Load(path, name string) (*Key, error) { return LoadSealed(path, name, nil) }

// LoadSealed is Load for a key that may be encrypted.
func LoadSealed(path, name string, seal *keyfile.Sealer) (*Key, error) {
	skey, err := read("log key", path, seal)
	if err != nil {
		return nil, err
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		return nil, fmt.Errorf("log key %s: must hold one signed-note private key: %w", path, err)
	}
	if signer.Name() != name {
		return nil, fmt.Errorf("log key %s: name is %q: must be %q, this channel and organisation", path, signer.Name(), name)
	}
	_, _, seed, err := split(skey)
	if err != nil {
		return nil, fmt.Errorf("log key %s: %w", path, err)
	}
	pub, ok := ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("log key %s: must hold an Ed25519 seed", path)
	}
	vkey, err := note.NewEd25519VerifierKey(name, pub)
	if err != nil {
		return nil, fmt.Errorf("log key %s: %w", path, err)
	}
	return &Key{Signer: signer, VKey: vkey}, nil
}

// LoadOrCreateCosigner is LoadOrCreate for a cosigner key (C2SP tlog-cosignature, signature type 4). now dates its cosignatures.
func LoadOrCreateCosigner(path, name string, now func() time.Time) (*cosign.Signer, error) {
	return LoadOrCreateCosignerSealed(path, name, now, nil)
}

// LoadOrCreateCosignerSealed is LoadOrCreateCosigner for a key that seal encrypts.
func LoadOrCreateCosignerSealed(path, name string, now func() time.Time, seal *keyfile.Sealer) (*cosign.Signer, error) {
	s, err := LoadCosignerSealed(path, name, now, seal)
	if !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	seed := make([]byte, ed25519.SeedSize)
	if _, err := rand.Read(seed); err != nil {
		return nil, fmt.Errorf("cosigner key %s: %w", path, err)
	}
	if s, err = cosign.NewSigner(name, seed, now); err != nil {
		return nil, fmt.Errorf("cosigner key %s: %w", path, err)
	}
	key := base64.StdEncoding.EncodeToString(append([]byte{cosign.Algorithm}, seed...))
	text, err := sealed(fmt.Sprintf("PRIVATE+KEY+%s+%08x+%s", name, s.KeyHash(), key), seal)
	if err != nil {
		return nil, fmt.Errorf("cosigner key %s: %w", path, err)
	}
	if err := writeNew(path, text); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("cosigner key %s: %w", path, err)
	}
	return LoadCosignerSealed(path, name, now, seal)
}

// LoadCosigner reads the cosigner key at path; see LoadOrCreateCosigner. A missing file is fs.ErrNotExist.
func LoadCosigner(path, name string, now func() time.Time) (*cosign.Signer, error) {
	return LoadCosignerSealed(path, name, now, nil)
}

// LoadCosignerSealed is LoadCosigner for a key that may be encrypted.
func LoadCosignerSealed(path, name string, now func() time.Time, seal *keyfile.Sealer) (*cosign.Signer, error) {
	skey, err := read("cosigner key", path, seal)
	if err != nil {
		return nil, err
	}
	got, alg, seed, err := split(skey)
	if err != nil {
		return nil, fmt.Errorf("cosigner key %s: %w", path, err)
	}
	// One key must not sign as log and as cosigner: the policy counts them apart.
	if alg != cosign.Algorithm {
		return nil, fmt.Errorf("cosigner key %s: signature type is %d: must be %d, an Ed25519 cosigner (C2SP tlog-cosignature)", path, alg, cosign.Algorithm)
	}
	if got != name {
		return nil, fmt.Errorf("cosigner key %s: name is %q: must be %q, this channel and organisation", path, got, name)
	}
	s, err := cosign.NewSigner(name, seed, now)
	if err != nil {
		return nil, fmt.Errorf("cosigner key %s: %w", path, err)
	}
	if want := fmt.Sprintf("PRIVATE+KEY+%s+%08x+", name, s.KeyHash()); !strings.HasPrefix(skey, want) {
		return nil, fmt.Errorf("cosigner key %s: hash of name and key does not match: the file is damaged", path)
	}
	return s, nil
}

// read returns the one line of a private key file. what names it in errors.
func read(what, path string, seal *keyfile.Sealer) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("%s %s: mode is %#o: must not be open to group or others (0600)", what, path, info.Mode().Perm())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	skey, err := unsealed(path, data, seal)
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", what, path, err)
	}
	return skey, nil
}

// split takes PRIVATE+KEY+<name>+<hash>+<base64 of the signature type and the seed> apart.
func split(skey string) (name string, alg byte, seed []byte, err error) {
	parts := strings.SplitN(skey, "+", 5)
	if len(parts) != 5 || parts[0] != "PRIVATE" || parts[1] != "KEY" {
		return "", 0, nil, errors.New("must hold one signed-note private key, PRIVATE+KEY+ and three more parts")
	}
	key, err := base64.StdEncoding.Strict().DecodeString(parts[4])
	if err != nil || len(key) != 1+ed25519.SeedSize {
		return "", 0, nil, errors.New("must hold one signed-note private key, an Ed25519 seed")
	}
	if hash, err := hex.DecodeString(parts[3]); err != nil || len(hash) != 4 {
		return "", 0, nil, errors.New("must hold one signed-note private key with a hash of 8 hexadecimal digits")
	}
	return parts[2], key[0], key[1:], nil
}

// writeNew creates path with all of data or not at all; it is fs.ErrExist when path is there already.
func writeNew(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".key-*") // mode 0600
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
