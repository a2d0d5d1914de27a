package sct

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/certanchor/certanchor/internal/keyfile"
)

// LogID names a log by its key: the SHA-256 of its SubjectPublicKeyInfo (RFC 6962 section 3.2).
type LogID [sha256.Size]byte

const (
	pemType    = "PRIVATE KEY" // RFC 7468 section 10, PKCS #8; or ENCRYPTED PRIVATE KEY, section 11
	maxKeyFile = 4 << 10
)

// Key is a log's signing key. It is safe for concurrent use.
type Key struct {
	private crypto.Signer
	public  *ecdsa.PublicKey
	kept    *Kept // nil: signatures are deterministic
	spki    []byte
	id      LogID
}

// New takes a key. Errors: a curve other than P-256, which is the one that RFC 6962 section 2.1.4 allows.
func New(private *ecdsa.PrivateKey) (*Key, error) {
	if private == nil || private.Curve != elliptic.P256() {
		return nil, errors.New("log key: must be an ECDSA P-256 key (RFC 6962 section 2.1.4)")
	}
	return newSigner(private, &private.PublicKey)
}

// NewRandomised takes a key that has other signatures each time, as one in a PKCS #11 token, and opens, or makes, the file at path in which its first
// signature of each entry is kept: an entry's SCT stays the same byte for byte. Errors: see New and OpenKept.
func NewRandomised(private crypto.Signer, path string) (*Key, error) {
	public, ok := private.Public().(*ecdsa.PublicKey)
	if !ok || public.Curve != elliptic.P256() {
		return nil, errors.New("log key: must be an ECDSA P-256 key (RFC 6962 section 2.1.4)")
	}
	k, err := newSigner(private, public)
	if err != nil {
		return nil, err
	}
	k.kept, err = OpenKept(path, k.id)
	return k, err
}

func newSigner(private crypto.Signer, public *ecdsa.PublicKey) (*Key, error) {
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("log key: %w", err)
	}
	return &Key{private: private, public: public, spki: spki, id: sha256.Sum256(spki)}, nil
}

// LoadOrCreate reads the log key at path, or makes one and writes it there, PEM PKCS #8 with mode 0600, synced before it is
// returned. When two processes create it at once, both return the same key. Errors: see Load.
func LoadOrCreate(path string) (*Key, error) { return LoadOrCreateSealed(path, nil) }

// LoadOrCreateSealed is LoadOrCreate for a key that seal encrypts.
func LoadOrCreateSealed(path string, seal *keyfile.Sealer) (*Key, error) {
	k, err := LoadSealed(path, seal)
	if !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("log key %s: %w", path, err)
	}
	block, err := seal.Seal(private)
	if err != nil {
		return nil, fmt.Errorf("log key %s: %w", path, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("log key %s: %w", path, err)
	}
	if err := keyfile.WriteNew(path, pem.EncodeToMemory(block), 0o600); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("log key %s: %w", path, err)
	}
	return LoadSealed(path, seal)
}

// Load reads the log key at path. Errors: fs.ErrNotExist; a file that others than its owner may read; one that is not exactly one
// PEM block with a P-256 key.
func Load(path string) (*Key, error) { return LoadSealed(path, nil) }

// LoadSealed is Load for a key that may be encrypted.
func LoadSealed(path string, seal *keyfile.Sealer) (*Key, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("log key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("log key %s: mode is %#o: must not be open to group or others (0600)", path, info.Mode().Perm())
	}
	if info.Size() > maxKeyFile {
		return nil, fmt.Errorf("log key %s: %d bytes: must be at most %d", path, info.Size(), maxKeyFile)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("log key: %w", err)
	}
	block, rest := pem.Decode(text)
	if block == nil || !strings.HasSuffix(block.Type, pemType) || len(rest) > 0 {
		return nil, fmt.Errorf("log key %s: must be one PEM block %s and nothing after it", path, pemType)
	}
	parsed, err := seal.Open(path, block)
	if err != nil {
		return nil, fmt.Errorf("log key %s: must be PKCS #8 (RFC 5958): %w", path, err)
	}
	private, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("log key %s: holds a %T: must be an ECDSA P-256 key (RFC 6962 section 2.1.4)", path, parsed)
	}
	k, err := New(private)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

// ID returns the log ID.
func (k *Key) ID() LogID { return k.id }

// SPKI returns the public key as DER SubjectPublicKeyInfo, the form in which log lists have it.
func (k *Key) SPKI() []byte { return append([]byte(nil), k.spki...) }

// Public returns the public key.
func (k *Key) Public() *ecdsa.PublicKey { return k.public }

// RFC 5246 section 4.7, the beginning of a digitally-signed value: SignatureAndHashAlgorithm sha256, ecdsa.
const (
	hashSHA256     = 4
	signatureECDSA = 3
)

// sign returns the digitally-signed value over message.
func (k *Key) sign(message []byte) ([]byte, error) {
	der, err := k.signDER(message)
	if err != nil {
		return nil, err
	}
	return digitallySigned(der), nil
}

// signEntry is sign of a leaf, which always has the same value.
func (k *Key) signEntry(leaf []byte) ([]byte, error) {
	if k.kept == nil {
		return k.sign(leaf)
	}
	der, err := k.kept.first(k.public, leaf, func() ([]byte, error) { return k.signDER(leaf) })
	if err != nil {
		return nil, err
	}
	return digitallySigned(der), nil
}

func (k *Key) signDER(message []byte) ([]byte, error) {
	digest := sha256.Sum256(message)
	// Without a source of randomness crypto/ecdsa follows RFC 6979.
	der, err := k.private.Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("log key: %w", err)
	}
	return der, nil
}

func digitallySigned(der []byte) []byte {
	return append([]byte{hashSHA256, signatureECDSA, byte(len(der) >> 8), byte(len(der))}, der...)
}

// verify reports whether signed is a digitally-signed value over message, with nothing after it.
func verify(public *ecdsa.PublicKey, message, signed []byte) bool {
	const head = 4
	if len(signed) < head || signed[0] != hashSHA256 || signed[1] != signatureECDSA || int(signed[2])<<8|int(signed[3]) != len(signed)-head {
		return false
	}
	digest := sha256.Sum256(message)
	return ecdsa.VerifyASN1(public, digest[:], signed[head:])
}

// IDOf returns the log ID of a DER SubjectPublicKeyInfo. Errors: it is not one of a P-256 key.
func IDOf(spki []byte) (LogID, error) {
	parsed, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return LogID{}, fmt.Errorf("must be a DER SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7): %w", err)
	}
	if public, ok := parsed.(*ecdsa.PublicKey); !ok || public.Curve != elliptic.P256() {
		return LogID{}, fmt.Errorf("holds a %T: must be an ECDSA P-256 key (RFC 6962 section 2.1.4)", parsed)
	}
	return sha256.Sum256(spki), nil
}
