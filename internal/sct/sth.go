package sct

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/transparency-dev/formats/log"
	"golang.org/x/mod/sumdb/note"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// STH is a tree head.
type STH struct {
	Size uint64
	Time wire.Millis // not negative
	Root [sha256.Size]byte
}

// message is the TreeHeadSignature of RFC 6962 section 3.5.
func (h STH) message() []byte {
	b := make([]byte, 0, 2+8+8+len(h.Root))
	b = append(b, 0, 1) // v1, tree_hash
	b = binary.BigEndian.AppendUint64(b, uint64(h.Time))
	b = binary.BigEndian.AppendUint64(b, h.Size)
	return append(b, h.Root[:]...)
}

// SignSTH returns the digitally-signed value over a tree head.
func (k *Key) SignSTH(h STH) ([]byte, error) {
	if h.Time < 0 {
		return nil, fmt.Errorf("sct: tree head time %d: must not be negative", h.Time)
	}
	return k.sign(h.message())
}

// noteType is static-ct-api's signature type of RFC6962NoteSignature.
const noteType = 0x05

// noteKeyHash is the key ID that static-ct-api defines.
func noteKeyHash(origin string, id LogID) uint32 {
	h := sha256.New()
	h.Write([]byte(origin))
	h.Write([]byte{'\n', noteType})
	h.Write(id[:])
	return binary.BigEndian.Uint32(h.Sum(nil))
}

// CheckpointSigner signs static-ct-api checkpoints of origin with the time at. A tree head's time is in its signature, not in
// the checkpoint's body, so a signer is good for one time. Its Sign refuses anything but a checkpoint of origin without extension lines.
func (k *Key) CheckpointSigner(origin string, at wire.Millis) note.Signer {
	return &checkpointSigner{key: k, origin: origin, at: at}
}

type checkpointSigner struct {
	key    *Key
	origin string
	at     wire.Millis
}

func (s *checkpointSigner) Name() string    { return s.origin }
func (s *checkpointSigner) KeyHash() uint32 { return noteKeyHash(s.origin, s.key.id) }

func (s *checkpointSigner) Sign(text []byte) ([]byte, error) {
	head, err := parseBody(s.origin, text)
	if err != nil {
		return nil, err
	}
	head.Time = s.at
	signed, err := s.key.SignSTH(head)
	if err != nil {
		return nil, err
	}
	return append(binary.BigEndian.AppendUint64(nil, uint64(s.at)), signed...), nil
}

// parseBody reads a checkpoint's text, in the one encoding that there is for it.
func parseBody(origin string, text []byte) (STH, error) {
	var body log.Checkpoint
	rest, err := body.Unmarshal(text)
	if err != nil {
		return STH{}, fmt.Errorf("checkpoint: %w", err)
	}
	// static-ct-api: a checkpoint signed with this algorithm MUST NOT include any extension lines.
	if len(rest) != 0 || len(body.Hash) != sha256.Size || string(body.Marshal()) != string(text) {
		return STH{}, errors.New("checkpoint: must be three lines: origin, size without leading zeros, and a SHA-256 root")
	}
	if body.Origin != origin {
		return STH{}, fmt.Errorf("checkpoint: origin is %q: must be %q, the key's name", body.Origin, origin)
	}
	return STH{Size: body.Size, Root: [sha256.Size]byte(body.Hash)}, nil
}

// NewVerifier verifies static-ct-api checkpoints of origin.
func NewVerifier(origin string, public *ecdsa.PublicKey) (note.Verifier, error) {
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("log key of %s: %w", origin, err)
	}
	return &verifier{origin: origin, hash: noteKeyHash(origin, sha256.Sum256(spki)), public: public}, nil
}

type verifier struct {
	origin string
	hash   uint32
	public *ecdsa.PublicKey
}

func (v *verifier) Name() string    { return v.origin }
func (v *verifier) KeyHash() uint32 { return v.hash }

func (v *verifier) Verify(text, signature []byte) bool {
	head, err := parseBody(v.origin, text)
	if err != nil || len(signature) < 8 {
		return false
	}
	at := binary.BigEndian.Uint64(signature)
	head.Time = wire.Millis(at)
	return at>>63 == 0 && verify(v.public, head.message(), signature[8:])
}

// SignatureTime returns the time in a verified signature of a static-ct-api checkpoint, one whose key is NewVerifier's.
func SignatureTime(s note.Signature) (wire.Millis, error) {
	const head = 4 + 8 // key ID, time
	b, err := base64.StdEncoding.DecodeString(s.Base64)
	if err != nil || len(b) < head {
		return 0, fmt.Errorf("checkpoint: signature of %q: must be an RFC6962NoteSignature (static-ct-api)", s.Name)
	}
	return wire.Millis(binary.BigEndian.Uint64(b[4:])), nil
}
