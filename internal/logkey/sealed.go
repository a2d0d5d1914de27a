package logkey

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/certanchor/certanchor/internal/keyfile"
)

// An encrypted key file is one PEM block ENCRYPTED PRIVATE KEY with the Ed25519 key, whose headers have what else is in signed-note's line: the name, the signature type, and
// the key hash, which tells a wrong passphrase from a right one, and that no header was changed.
const (
	headName = "Name"
	headType = "Signature-Type"
	headHash = "Key-Hash"
)

// sealed is the text of the file of a key in signed-note's form, which ends without a newline.
func sealed(skey string, seal *keyfile.Sealer) ([]byte, error) {
	if seal == nil {
		return []byte(skey + "\n"), nil
	}
	name, alg, seed, err := split(skey)
	if err != nil {
		return nil, err
	}
	block, err := seal.Seal(ed25519.NewKeyFromSeed(seed))
	if err != nil {
		return nil, err
	}
	block.Headers = map[string]string{headName: name, headType: strconv.Itoa(int(alg)), headHash: strings.SplitN(skey, "+", 5)[3]}
	return pem.EncodeToMemory(block), nil
}

// unsealed is the key in signed-note's form that a file holds, encrypted or not.
func unsealed(path string, data []byte, seal *keyfile.Sealer) (string, error) {
	if !keyfile.IsSealed(data) {
		seal.Warn(path)
		return strings.TrimSuffix(string(data), "\n"), nil
	}
	block, rest := pem.Decode(data)
	if len(bytes.TrimSpace(rest)) > 0 {
		return "", errors.New("must hold one PEM block and nothing else")
	}
	key, err := seal.Open(path, block)
	if err != nil {
		return "", err
	}
	private, ok := key.(ed25519.PrivateKey)
	alg, err := strconv.ParseUint(block.Headers[headType], 10, 8)
	if !ok || err != nil {
		return "", fmt.Errorf("must hold an Ed25519 key with the header %s", headType)
	}
	// Whoever takes it checks that the hash is that of name and key.
	return fmt.Sprintf("PRIVATE+KEY+%s+%s+%s", block.Headers[headName], block.Headers[headHash],
		base64.StdEncoding.EncodeToString(append([]byte{byte(alg)}, private.Seed()...))), nil
}

// Encrypt puts the key file at path under seal, whole or not at all. done is false for one that is encrypted already.
func Encrypt(path string, seal *keyfile.Sealer) (done bool, err error) {
	data, err := os.ReadFile(path)
	if err != nil || keyfile.IsSealed(data) {
		return false, err
	}
	text, err := sealed(strings.TrimSuffix(string(data), "\n"), seal)
	if err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	return true, keyfile.Replace(path, text, 0o600)
}

// algLog is the signature type of a log key: signed-note's Ed25519.
const algLog = 1

// Name returns the name of the log key whose file has this text, encrypted or not. Errors: it is no log key.
func Name(text []byte) (name string, err error) {
	var alg byte
	if keyfile.IsSealed(text) {
		block, _ := pem.Decode(text)
		n, perr := strconv.ParseUint(block.Headers[headType], 10, 8)
		name, alg, err = block.Headers[headName], byte(n), perr
	} else {
		name, alg, _, err = split(strings.TrimSuffix(string(text), "\n"))
	}
	if err == nil && alg != algLog {
		err = fmt.Errorf("signature type is %d: must be %d, a log's key", alg, algLog)
	}
	return name, err
}
