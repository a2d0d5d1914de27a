package dual

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/certanchor/certanchor/internal/hsm"
	"github.com/certanchor/certanchor/internal/keyfile"
)

const minRSA = 2048 // bits

// maxKeyFile is more than a key of any kind here needs, in octets.
const maxKeyFile = 64 << 10

// checkKey refuses keys that no signature here may be made with.
func checkKey(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() || k.Curve == elliptic.P384() {
			return nil
		}
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < minRSA {
			return fmt.Errorf("is an RSA key of %d bits, must have at least %d", n, minRSA)
		}
		return nil
	case ed25519.PublicKey:
		return nil
	}
	return errors.New("must be an ECDSA key on P-256 or P-384, an RSA key or an Ed25519 key")
}

// KeyID is SHA-256 of a SubjectPublicKeyInfo, hexadecimal. It requires a key of a kind that x509 can marshal.
func KeyID(pub crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

// digestOf is what a key of this kind signs of a text: for Ed25519 the text itself.
func digestOf(pub crypto.PublicKey, text []byte) ([]byte, crypto.Hash) {
	switch k := pub.(type) {
	case ed25519.PublicKey:
		return text, 0
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P384() {
			d := sha512.Sum384(text)
			return d[:], crypto.SHA384
		}
	}
	d := sha256.Sum256(text)
	return d[:], crypto.SHA256
}

// Sign signs Bytes or RejectionBytes of an operation: ECDSA in DER with SHA-256 (P-256) or SHA-384 (P-384), RSASSA-PKCS1-v1_5 with SHA-256,
// or Ed25519; what `openssl dgst -sign` and `openssl pkeyutl -sign -rawin` make.
func Sign(key crypto.Signer, text []byte) ([]byte, error) {
	if err := checkKey(key.Public()); err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	digest, hash := digestOf(key.Public(), text)
	return key.Sign(rand.Reader, digest, hash)
}

func verify(pub crypto.PublicKey, text, sig []byte) bool {
	digest, hash := digestOf(pub, text)
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(k, digest, sig)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(k, hash, digest, sig) == nil
	case ed25519.PublicKey:
		return len(sig) == ed25519.SignatureSize && ed25519.Verify(k, text, sig)
	}
	return false
}

// OpenKey opens an operator's key: the PKCS #11 URI of one in a token, or a PEM file that only its owner may read, PKCS#8 (encrypted or
// plain) or SEC 1, as Fabric and openssl write them. passphrase is asked for an encrypted one only.
func OpenKey(field, place string, passphrase func() ([]byte, error)) (crypto.Signer, error) {
	if hsm.IsURI(place) {
		key, err := hsm.Open(field, place)
		if err != nil {
			return nil, err
		}
		return key, nil
	}
	st, err := os.Stat(place)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	if perm := st.Mode().Perm(); perm&0o077 != 0 {
		return nil, fmt.Errorf("%s %q: mode %04o lets others read it, must be 0600 or stricter", field, place, perm)
	}
	data, err := readLimited(place, maxKeyFile)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	key, err := parseKey(place, data, passphrase)
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w", field, place, err)
	}
	return key, checkKey(key.Public())
}

func parseKey(place string, data []byte, passphrase func() ([]byte, error)) (crypto.Signer, error) {
	block, rest := pem.Decode(data)
	if block != nil && block.Type == "EC PARAMETERS" { // openssl ecparam -genkey writes them in front
		block, rest = pem.Decode(rest)
	}
	if block == nil || strings.TrimSpace(string(rest)) != "" {
		return nil, errors.New("must hold one PEM private key and nothing else")
	}
	var k any
	var err error
	switch block.Type {
	case "ENCRYPTED PRIVATE KEY":
		phrase, err := passphrase()
		if err != nil {
			return nil, err
		}
		return keyfile.Load(place, phrase)
	case "PRIVATE KEY":
		k, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		k, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("holds a PEM block %q, must be a private key in PKCS#8", block.Type)
	}
	if err != nil {
		return nil, err
	}
	signer, ok := k.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("holds a %T, which cannot sign", k)
	}
	return signer, nil
}

// readLimited reads a file of at most limit octets.
func readLimited(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s: larger than %d octets", path, limit)
	}
	return data, nil
}
