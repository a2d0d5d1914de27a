package cabackup

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/certanchor/certanchor/internal/keyfile"
)

// ErrPassphrase: the passphrase does not open the keys of a backup.
var ErrPassphrase = errors.New("wrong passphrase of the backup's keys (or a damaged backup)")

// wrapped is the file with the keys: AES-256-GCM under a key that PBKDF2-HMAC-SHA-256 derives from the passphrase; the CA's ID is the
// additional data.
type wrapped struct {
	Version    int    `json:"version"`
	KDF        string `json:"kdf"`
	Iterations int    `json:"iterations"`
	Salt       []byte `json:"salt"`
	Nonce      []byte `json:"nonce"`
	Keys       []byte `json:"keys"`
}

const (
	kdfName       = "PBKDF2-HMAC-SHA-256"
	maxIterations = 100 * keyfile.Iterations
)

// secret is a file with a key, as it is in the CA's directory: a private key stays encrypted under its own passphrase, too.
type secret struct {
	Name string      `json:"name"`
	Mode fs.FileMode `json:"mode"`
	Data []byte      `json:"data"`
}

func gcm(passphrase, salt []byte, iterations int) (cipher.AEAD, error) {
	key, err := pbkdf2.Key(sha256.New, string(passphrase), salt, iterations, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func wrap(secrets []secret, caID string, passphrase []byte, iterations int) ([]byte, error) {
	plain, err := json.Marshal(secrets)
	if err != nil {
		return nil, err
	}
	w := wrapped{Version: version, KDF: kdfName, Iterations: iterations, Salt: make([]byte, 16), Nonce: make([]byte, 12)}
	for _, b := range [][]byte{w.Salt, w.Nonce} {
		if _, err := rand.Read(b); err != nil {
			return nil, err
		}
	}
	aead, err := gcm(passphrase, w.Salt, iterations)
	if err != nil {
		return nil, err
	}
	w.Keys = aead.Seal(nil, w.Nonce, plain, []byte(caID))
	return json.Marshal(&w)
}

func unwrap(data []byte, caID string, passphrase []byte) ([]secret, error) {
	var w wrapped
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&w); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrFormat, keysName, err)
	}
	if w.Version != version || w.KDF != kdfName || w.Iterations < 1 || w.Iterations > maxIterations || len(w.Nonce) != 12 || len(w.Salt) < 8 {
		return nil, fmt.Errorf("%w: %s: version %d, %s with %d iterations: must be version %d, %s with at most %d", ErrFormat, keysName, w.Version, w.KDF, w.Iterations, version, kdfName, maxIterations)
	}
	aead, err := gcm(passphrase, w.Salt, w.Iterations)
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, w.Nonce, w.Keys, []byte(caID))
	if err != nil {
		return nil, ErrPassphrase
	}
	var secrets []secret
	if err := json.Unmarshal(plain, &secrets); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrFormat, keysName, err)
	}
	for _, s := range secrets {
		if err := checkName(s.Name); err != nil {
			return nil, err
		}
	}
	return secrets, nil
}

// clientsName is the file of those who may use the API. Of clients with an HMAC key it holds the key itself.
const clientsName = "clients"

// isKeyFile tells whether a small file is, or holds, a private key in a file. The URI of a key in a token is none.
func isKeyFile(name string, data []byte) bool {
	if bytes.Contains(data, []byte("PRIVATE KEY-----")) {
		return true
	}
	return strings.HasSuffix(name, ".key") && !bytes.HasPrefix(bytes.TrimSpace(data), []byte("pkcs11:"))
}

// publicClients is the file of clients without those that have an HMAC key.
func publicClients(data []byte) (public []byte, left bool) {
	var b bytes.Buffer
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 2 && strings.HasPrefix(f[2], "hmac") {
			left = true
			fmt.Fprintf(&b, "# %s: left out of the backup, which has no keys\n", f[0])
			continue
		}
		b.WriteString(line)
	}
	return b.Bytes(), left
}
