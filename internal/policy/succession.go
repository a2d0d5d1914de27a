package policy

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/certanchor/certanchor/internal/tlogproof"
)

// Errors of Load, for errors.Is.
var (
	ErrFingerprint = errors.New("no version of the policy has the pinned fingerprint")
	ErrSuccession  = errors.New("policy is not signed by a quorum of the version before")
)

var sigPrefix = []byte("\u2014 ") // C2SP signed-note, Format

// Signed is a version of a policy with the signatures on it, verified or not.
type Signed struct {
	Policy *Policy
	Sigs   []note.Signature
}

// Marshal returns the note: the text, an empty line and the signatures, in order. A version without signatures, which only the first in a file
// may be, ends with the empty line.
func (s *Signed) Marshal() ([]byte, error) {
	return tlogproof.Assemble(string(s.Policy.Marshal()), s.Sigs...)
}

// Sign adds the signatures of log keys, which come from the version before.
func (s *Signed) Sign(signers ...note.Signer) error {
	if len(signers) == 0 {
		return nil
	}
	signed, err := note.Sign(&note.Note{Text: string(s.Policy.Marshal()), UnverifiedSigs: s.Sigs}, signers...)
	if err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	all, err := ParseFile(signed)
	if err != nil {
		return err
	}
	s.Sigs = all[0].Sigs
	return nil
}

// ParseFile reads the versions in a file: one note after the other. A text has no empty line and no line that begins with a dash, so
// it is plain where a note ends. Signatures are not verified.
func ParseFile(file []byte) ([]*Signed, error) {
	if len(file) > MaxFile {
		return nil, fmt.Errorf("policy file: %d octets: must be at most %d", len(file), MaxFile)
	}
	var all []*Signed
	for len(file) > 0 {
		if len(all) == maxVersions {
			return nil, fmt.Errorf("policy file: more than %d versions", maxVersions)
		}
		end := bytes.Index(file, []byte("\n\n"))
		if end < 0 {
			return nil, errors.New("policy file: a version must end with an empty line and its signatures (C2SP signed-note)")
		}
		text, rest := file[:end+1], file[end+2:]
		sigs := rest
		for bytes.HasPrefix(rest, sigPrefix) {
			line := bytes.IndexByte(rest, '\n')
			if line < 0 {
				return nil, errors.New("policy file: must end with a newline")
			}
			rest = rest[line+1:]
		}
		s, err := parseSigned(text, sigs[:len(sigs)-len(rest)])
		if err != nil {
			return nil, err
		}
		all, file = append(all, s), rest
	}
	if len(all) == 0 {
		return nil, errors.New("policy file: is empty: must hold at least one version")
	}
	return all, nil
}

func parseSigned(text, sigs []byte) (*Signed, error) {
	p, err := Parse(text)
	if err != nil {
		return nil, err
	}
	s := &Signed{Policy: p}
	if len(sigs) > 0 {
		_, err := note.Open(bytes.Join([][]byte{text, sigs}, []byte("\n")), note.VerifierList())
		var unverified *note.UnverifiedNoteError
		if !errors.As(err, &unverified) {
			return nil, fmt.Errorf("policy version %d: signatures: %w", p.version, err)
		}
		s.Sigs = unverified.Note.UnverifiedSigs
	}
	return s, nil
}

// Load returns the newest version in a file. pin is the fingerprint of one version in it, which is trusted for that reason; every version
// must follow the one before it. What is older than the pinned version may be left out. Errors: ErrFingerprint, ErrSuccession, or a
// file that is malformed.
//
// A file that lacks the newest version is not noticed: whoever distributes policies must see to it that they arrive.
func Load(file []byte, pin string) (*Policy, error) {
	all, err := ParseFile(file)
	if err != nil {
		return nil, err
	}
	found := false
	for i, s := range all {
		found = found || s.Policy.Fingerprint() == strings.ToLower(pin)
		if i == 0 {
			continue
		}
		if err := all[i-1].Policy.VerifySuccessor(s); err != nil {
			return nil, err
		}
	}
	if !found {
		return nil, fmt.Errorf("%w: it is %.100q, the first version's in the file (version %d) is %s", ErrFingerprint, pin, all[0].Policy.version, all[0].Policy.Fingerprint())
	}
	return all[len(all)-1].Policy, nil
}

// VerifySuccessor checks that next is the version after p, of the same channel, and signed by the log keys of at least p.Quorum()
// organisations of p. Signatures of other keys are ignored.
func (p *Policy) VerifySuccessor(next *Signed) error {
	n := next.Policy
	if n.channel != p.channel {
		return fmt.Errorf("%w: version %d is of channel %s: must be of %s", ErrSuccession, n.version, n.channel, p.channel)
	}
	if n.version != p.version+1 {
		return fmt.Errorf("%w: version %d comes after version %d", ErrSuccession, n.version, p.version)
	}
	if len(next.Sigs) == 0 {
		return fmt.Errorf("%w: version %d has no signature", ErrSuccession, n.version)
	}
	signed, err := next.Marshal()
	if err != nil {
		return err
	}
	opened, err := note.Open(signed, note.VerifierList(p.logKeys...))
	if err != nil {
		return fmt.Errorf("%w: version %d: %w", ErrSuccession, n.version, err)
	}
	if got := len(opened.Sigs); got < p.quorum { // note.Open counts each key once, and each organisation has one
		return fmt.Errorf("%w: version %d has valid signatures of %d organisations of version %d: must be at least %d", ErrSuccession, n.version, got, p.version, p.quorum)
	}
	return nil
}
