package tlogproof

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/transparency-dev/formats/log"
	"golang.org/x/mod/sumdb/note"
)

// Checkpoint is the head of a log (C2SP tlog-checkpoint).
type Checkpoint struct {
	Origin string
	Size   uint64
	Root   [sha256.Size]byte
}

// Text is the note that is signed. It has no extension lines.
func (c *Checkpoint) Text() string {
	return string(log.Checkpoint{Origin: c.Origin, Size: c.Size, Hash: c.Root[:]}.Marshal())
}

// Sign returns the signed note of a checkpoint.
func (c *Checkpoint) Sign(signers ...note.Signer) ([]byte, error) {
	return note.Sign(&note.Note{Text: c.Text()}, signers...)
}

// ParseText reads a checkpoint's note text, and accepts only what Text writes.
func ParseText(text string) (*Checkpoint, error) {
	var body log.Checkpoint
	rest, err := body.Unmarshal([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	// Extension lines are allowed by tlog-checkpoint and never written here; a body in any other encoding is not what was meant.
	if len(rest) != 0 || string(body.Marshal()) != text || len(body.Hash) != sha256.Size {
		return nil, errors.New("checkpoint: must be three lines: origin, size without leading zeros, and a SHA-256 root")
	}
	return &Checkpoint{Origin: body.Origin, Size: body.Size, Root: [sha256.Size]byte(body.Hash)}, nil
}

// OpenCheckpoint verifies a checkpoint of origin: one of keys has signed it. Signatures of other keys are ignored, as
// C2SP signed-note demands. It returns the names of the keys that signed.
func OpenCheckpoint(signed []byte, origin string, keys ...note.Verifier) (*Checkpoint, []string, error) {
	n, err := note.Open(signed, note.VerifierList(keys...))
	if err != nil {
		return nil, nil, fmt.Errorf("checkpoint: no signature of a trusted log key: %w", err)
	}
	cp, err := ParseText(n.Text)
	if err != nil {
		return nil, nil, err
	}
	if cp.Origin != origin {
		return nil, nil, fmt.Errorf("checkpoint: origin is %q: must be %q", cp.Origin, origin)
	}
	var names []string
	for _, s := range n.Sigs {
		names = append(names, s.Name)
	}
	return cp, names, nil
}

// ReadUnverified reads a checkpoint without looking at its signatures: for those who have it from themselves, or verify it next.
func ReadUnverified(signed []byte) (*Checkpoint, *note.Note, error) {
	_, err := note.Open(signed, note.VerifierList())
	var unverified *note.UnverifiedNoteError
	if !errors.As(err, &unverified) {
		return nil, nil, fmt.Errorf("checkpoint: must be a signed note (C2SP signed-note): %w", err)
	}
	cp, err := ParseText(unverified.Note.Text)
	return cp, unverified.Note, err
}

// Assemble returns the one signed note of a text and signatures: sorted by key name and hash, one of each key, in base64 without
// stray bits. Of several signatures by one key the first stays. Errors: a signature that is not base64 of its Hash and more.
func Assemble(text string, sigs ...note.Signature) ([]byte, error) {
	if text == "" || text[len(text)-1] != '\n' {
		return nil, errors.New("note: text must end with a newline (C2SP signed-note)")
	}
	sigs = slices.Clone(sigs)
	slices.SortStableFunc(sigs, func(a, b note.Signature) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Hash, b.Hash))
	})
	sigs = slices.CompactFunc(sigs, func(a, b note.Signature) bool { return a.Name == b.Name && a.Hash == b.Hash })
	out := append([]byte(text), '\n')
	for _, s := range sigs {
		raw, err := base64.StdEncoding.DecodeString(s.Base64)
		if err != nil || len(raw) < 5 || binary.BigEndian.Uint32(raw) != s.Hash {
			return nil, fmt.Errorf("note: signature of %q: must be base64 of the key's hash and a signature", s.Name)
		}
		out = append(append(append(out, "\u2014 "...), s.Name...), ' ')
		out = append(base64.StdEncoding.AppendEncode(out, raw), '\n')
	}
	return out, nil
}
