// Package tlogproof writes and reads inclusion proofs of issuance logs in the format of C2SP tlog-proof.
//
// A log entry's leaf cannot be rebuilt from the certificate alone: its timestamp is in it. The proof's extra data carries it, as 8
// octets, big-endian milliseconds. Extra data is not authenticated; a wrong timestamp gives another leaf, and the proof fails.
package tlogproof

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/formats/proof"
	"golang.org/x/mod/sumdb/note"
)

// ContentType of a proof and of a checkpoint over HTTP.
const ContentType = "text/plain; charset=utf-8"

// MaxSize bounds a proof: 63 hashes, and a checkpoint with many cosignatures.
const MaxSize = 64 << 10

// Proof is an inclusion proof with the checkpoint it leads to.
type Proof struct {
	Index      uint64
	Time       wire.Millis // the leaf's timestamp
	Path       [][sha256.Size]byte
	Checkpoint []byte // signed note
}

// Marshal encodes p.
func (p *Proof) Marshal() []byte {
	return proof.TLogProof{
		Index: p.Index, Hashes: p.Path, Checkpoint: p.Checkpoint,
		ExtraData: binary.BigEndian.AppendUint64(nil, uint64(p.Time)),
	}.Marshal()
}

// Parse reads a proof. It accepts only the one encoding that Marshal gives: no leading zeros, no other base64, no other line ends.
func Parse(text []byte) (*Proof, error) {
	if len(text) > MaxSize {
		return nil, fmt.Errorf("tlog-proof: %d octets: must be at most %d", len(text), MaxSize)
	}
	var p proof.TLogProof
	if err := p.Unmarshal(text); err != nil {
		return nil, err
	}
	if !bytes.Equal(p.Marshal(), text) {
		return nil, errors.New("tlog-proof: must be in the one encoding of c2sp.org/tlog-proof")
	}
	if len(p.ExtraData) != 8 {
		return nil, fmt.Errorf("tlog-proof: extra is %d octets: must be the leaf's timestamp, 8 octets", len(p.ExtraData))
	}
	t := binary.BigEndian.Uint64(p.ExtraData)
	if t>>63 != 0 {
		return nil, fmt.Errorf("tlog-proof: extra is %#x: must be a timestamp below 2^63", t)
	}
	return &Proof{Index: p.Index, Time: wire.Millis(t), Path: p.Hashes, Checkpoint: p.Checkpoint}, nil
}

// Checkpoint is the head of a log (C2SP tlog-checkpoint).
type Checkpoint struct {
	Origin string
	Size   uint64
	Root   [sha256.Size]byte
}

// Sign returns the signed note of a checkpoint. It has no extension lines.
func (c *Checkpoint) Sign(signers ...note.Signer) ([]byte, error) {
	body := log.Checkpoint{Origin: c.Origin, Size: c.Size, Hash: c.Root[:]}.Marshal()
	return note.Sign(&note.Note{Text: string(body)}, signers...)
}

// OpenCheckpoint verifies a checkpoint of origin: one of keys has signed it. Signatures of other keys are ignored, as
// C2SP signed-note demands. It returns the names of the keys that signed.
func OpenCheckpoint(signed []byte, origin string, keys ...note.Verifier) (*Checkpoint, []string, error) {
	n, err := note.Open(signed, note.VerifierList(keys...))
	if err != nil {
		return nil, nil, fmt.Errorf("checkpoint: no signature of a trusted log key: %w", err)
	}
	var body log.Checkpoint
	rest, err := body.Unmarshal([]byte(n.Text))
	if err != nil {
		return nil, nil, fmt.Errorf("checkpoint: %w", err)
	}
	// Extension lines are allowed by tlog-checkpoint and never written here; a body in any other encoding is not what was meant.
	if len(rest) != 0 || string(body.Marshal()) != n.Text || len(body.Hash) != sha256.Size {
		return nil, nil, errors.New("checkpoint: must be three lines: origin, size without leading zeros, and a SHA-256 root")
	}
	if body.Origin != origin {
		return nil, nil, fmt.Errorf("checkpoint: origin is %q: must be %q", body.Origin, origin)
	}
	var names []string
	for _, s := range n.Sigs {
		names = append(names, s.Name)
	}
	return &Checkpoint{Origin: body.Origin, Size: body.Size, Root: [sha256.Size]byte(body.Hash)}, names, nil
}
