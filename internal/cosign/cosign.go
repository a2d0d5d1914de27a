// Package cosign signs and verifies Ed25519 cosignatures of checkpoints, as C2SP tlog-cosignature has them.
//
// transparency-dev/formats has them too, and is what the tests compare with. It is not used here because its signer reads the
// system's clock, its verifier accepts a key whose hash is wrong, and it would bring ML-DSA into every relying party.
package cosign

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// Algorithm is the signature type of C2SP signed-note for Ed25519 cosignatures.
const Algorithm = 4

const timestampSize = 8

// Signer makes cosignatures. It is a note.Signer, for texts that are checkpoints.
type Signer struct {
	name string
	hash uint32
	key  ed25519.PrivateKey
	now  func() time.Time
}

// NewSigner returns a signer for the 32 octets of an Ed25519 seed. now dates its cosignatures.
func NewSigner(name string, seed []byte, now func() time.Time) (*Signer, error) {
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("cosigner key %s: seed of %d octets: must be %d", name, len(seed), ed25519.SeedSize)
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	key := ed25519.NewKeyFromSeed(seed)
	return &Signer{name: name, hash: keyID(name, public(key)), key: key, now: now}, nil
}

// Name implements note.Signer.
func (s *Signer) Name() string { return s.name }

// KeyHash implements note.Signer.
func (s *Signer) KeyHash() uint32 { return s.hash }

// VKey is the verifier key to publish, in signed-note's form.
func (s *Signer) VKey() string { return vkey(s.name, public(s.key)) }

// Verifier returns what verifies s's cosignatures.
func (s *Signer) Verifier() note.Verifier {
	return &verifier{name: s.name, hash: s.hash, key: public(s.key)}
}

// Sign implements note.Signer: it cosigns the text of a checkpoint as of now.
func (s *Signer) Sign(text []byte) ([]byte, error) {
	t := s.now().Unix()
	// C2SP tlog-cosignature, Format: the timestamp MUST NOT exceed 2^63 - 1.
	if t < 0 {
		return nil, fmt.Errorf("cosigner key %s: the time %d is before 1970", s.name, t)
	}
	sig := binary.BigEndian.AppendUint64(make([]byte, 0, timestampSize+ed25519.SignatureSize), uint64(t))
	return append(sig, ed25519.Sign(s.key, message(uint64(t), text))...), nil
}

type verifier struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

// NewVerifier reads a verifier key of type Algorithm. It accepts only the one encoding of a key.
func NewVerifier(vk string) (note.Verifier, error) {
	name, rest, _ := strings.Cut(vk, "+")
	_, key64, _ := strings.Cut(rest, "+")
	key, err := base64.StdEncoding.Strict().DecodeString(key64)
	if err != nil || len(key) != 1+ed25519.PublicKeySize || key[0] != Algorithm {
		return nil, fmt.Errorf("cosigner key %.200q: must be a signed-note verifier key of type %d, an Ed25519 cosigner", vk, Algorithm)
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	pub := ed25519.PublicKey(key[1:])
	if vkey(name, pub) != vk {
		return nil, fmt.Errorf("cosigner key %.200q: its hash must be that of its name and key, in 8 lower-case hexadecimal digits", vk)
	}
	return &verifier{name: name, hash: keyID(name, pub), key: pub}, nil
}

func (v *verifier) Name() string    { return v.name }
func (v *verifier) KeyHash() uint32 { return v.hash }

func (v *verifier) Verify(text, sig []byte) bool {
	if len(sig) != timestampSize+ed25519.SignatureSize {
		return false
	}
	t := binary.BigEndian.Uint64(sig)
	return t <= math.MaxInt64 && ed25519.Verify(v.key, message(t, text), sig[timestampSize:])
}

// Time returns when a cosignature says it was made. Requires a signature of a verifier of this package.
func Time(sig note.Signature) (time.Time, error) {
	raw, err := base64.StdEncoding.DecodeString(sig.Base64)
	if err != nil || len(raw) != 4+timestampSize+ed25519.SignatureSize {
		return time.Time{}, fmt.Errorf("signature of %.200q: must be an Ed25519 cosignature", sig.Name)
	}
	return time.Unix(int64(binary.BigEndian.Uint64(raw[4:])), 0).UTC(), nil // a verified one fits
}

// message is what is signed. C2SP tlog-cosignature, Ed25519 signed message.
func message(t uint64, text []byte) []byte {
	var b bytes.Buffer
	b.WriteString("cosignature/v1\ntime ")
	b.WriteString(strconv.FormatUint(t, 10))
	b.WriteByte('\n')
	b.Write(text)
	return b.Bytes()
}

// keyID: C2SP tlog-cosignature, Format.
func keyID(name string, key ed25519.PublicKey) uint32 {
	h := sha256.New()
	h.Write([]byte(name))
	h.Write([]byte{'\n', Algorithm})
	h.Write(key)
	return binary.BigEndian.Uint32(h.Sum(nil))
}

func vkey(name string, key ed25519.PublicKey) string {
	return fmt.Sprintf("%s+%08x+%s", name, keyID(name, key), base64.StdEncoding.EncodeToString(append([]byte{Algorithm}, key...)))
}

func public(key ed25519.PrivateKey) ed25519.PublicKey {
	return ed25519.PublicKey(key[ed25519.SeedSize:])
}

// checkName: C2SP signed-note, Format: a key name is not empty and has no spaces and no plus signs. Control characters would end a line.
func checkName(name string) error {
	if name == "" || len(name) > 255 || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || r == '+' }) {
		return errors.New("cosigner key: name must be 1 to 255 printable ASCII characters, none of them a space or plus sign")
	}
	return nil
}
