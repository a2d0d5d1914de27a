// Package tlogproof writes and reads inclusion proofs in the format of C2SP tlog-proof, and the checkpoints that they lead to.
//
// A leaf of an issuance log cannot be rebuilt from the certificate alone: its timestamp is in it. The proof's extra data carries it, as 8
// octets, big-endian milliseconds. Extra data is not authenticated; a wrong timestamp gives another leaf, and the proof fails.
// Leaves of the status log and of the map log stand for themselves: their proofs are bare, without extra data.
package tlogproof

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/transparency-dev/formats/proof"
	"github.com/transparency-dev/merkle/rfc6962"

	merkle "github.com/transparency-dev/merkle/proof"

	"github.com/certanchor/certanchor/chaincode/wire"
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

// MarshalBare encodes p without its Time.
func (p *Proof) MarshalBare() []byte {
	return proof.TLogProof{Index: p.Index, Hashes: p.Path, Checkpoint: p.Checkpoint}.Marshal()
}

// Parse reads what Marshal writes. It accepts only that one encoding: no leading zeros, no other base64, no other line ends.
func Parse(text []byte) (*Proof, error) {
	p, err := parse(text)
	if err != nil {
		return nil, err
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

// ParseBare reads what MarshalBare writes, as strictly as Parse.
func ParseBare(text []byte) (*Proof, error) {
	p, err := parse(text)
	if err != nil {
		return nil, err
	}
	if p.ExtraData != nil {
		return nil, errors.New("tlog-proof: has extra data: must have none, the leaf stands for itself")
	}
	return &Proof{Index: p.Index, Path: p.Hashes, Checkpoint: p.Checkpoint}, nil
}

func parse(text []byte) (*proof.TLogProof, error) {
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
	return &p, nil
}

// Verify checks that the leaf with the given hash is at p's index in the tree that cp describes: RFC 6962 section 2.1.1. cp must
// be p's Checkpoint, opened.
func (p *Proof) Verify(leaf [sha256.Size]byte, cp *Checkpoint) error {
	if p.Index >= cp.Size {
		return fmt.Errorf("index %d: must be below the checkpoint's size, %d", p.Index, cp.Size)
	}
	path := make([][]byte, len(p.Path))
	for i := range p.Path {
		path[i] = p.Path[i][:]
	}
	root, err := merkle.RootFromInclusionProof(rfc6962.DefaultHasher, p.Index, cp.Size, leaf[:], path)
	if err != nil {
		return err
	}
	if !bytes.Equal(root, cp.Root[:]) {
		return fmt.Errorf("leaf %x at index %d leads to root %x: must be the checkpoint's, %x", leaf, p.Index, root, cp.Root)
	}
	return nil
}
