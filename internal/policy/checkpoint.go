package policy

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/certanchor/certanchor/internal/cosign"
	"github.com/certanchor/certanchor/internal/tlogproof"
)

// ErrQuorum tells that a checkpoint lacks signatures that the policy wants.
var ErrQuorum = errors.New("checkpoint is not signed as the policy wants")

// Checkpoint is a checkpoint that satisfies a policy.
type Checkpoint struct {
	tlogproof.Checkpoint
	Servers        []string  // MSP IDs whose log key signed, sorted
	Cosigners      []string  // MSP IDs whose cosigner key signed, sorted
	Oldest, Newest time.Time // of the cosignatures
}

// OpenCheckpoint verifies a checkpoint of origin: the log key of at least one organisation of the policy has signed it, and the
// cosigner keys of at least Quorum organisations have. Errors: ErrQuorum, or a checkpoint that is malformed or of another log.
//
// strict demands that no byte be unauthenticated: every signature is by a key of the policy and verifies, and they are sorted, each there once,
// in canonical base64 (tlogproof.Assemble). Otherwise signatures of other keys are ignored, as C2SP signed-note demands.
func (p *Policy) OpenCheckpoint(signed []byte, origin string, strict bool) (*Checkpoint, error) {
	if strict {
		if err := p.checkStrict(signed); err != nil {
			return nil, err
		}
	}
	n, err := note.Open(signed, note.VerifierList(append(p.LogKeys(), p.cosigners...)...))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrQuorum, err)
	}
	body, err := tlogproof.ParseText(n.Text)
	if err != nil {
		return nil, err
	}
	if body.Origin != origin {
		return nil, fmt.Errorf("checkpoint: origin is %q: must be %q", body.Origin, origin)
	}
	cp := &Checkpoint{Checkpoint: *body}
	if err := p.count(cp, n.Sigs); err != nil {
		return nil, err
	}
	if len(cp.Servers) == 0 {
		return nil, fmt.Errorf("%w: no organisation's log key has signed %s", ErrQuorum, origin)
	}
	if got := len(cp.Cosigners); got < p.quorum {
		return nil, fmt.Errorf("%w: %d organisations have cosigned %s (%q): must be at least %d", ErrQuorum, got, origin, cp.Cosigners, p.quorum)
	}
	return cp, nil
}

// checkStrict looks at all but the signatures themselves: that comes cheaper.
func (p *Policy) checkStrict(signed []byte) error {
	_, n, err := tlogproof.ReadUnverified(signed)
	if err != nil {
		return err
	}
	for _, s := range n.UnverifiedSigs {
		of := func(v note.Verifier) bool { return v.Name() == s.Name && v.KeyHash() == s.Hash }
		if !slices.ContainsFunc(p.logKeys, of) && !slices.ContainsFunc(p.cosigners, of) {
			return fmt.Errorf("%w: signature of %q: must be by a key of the policy", ErrQuorum, s.Name)
		}
	}
	if canonical, err := tlogproof.Assemble(n.Text, n.UnverifiedSigs...); err != nil || !bytes.Equal(canonical, signed) {
		return fmt.Errorf("%w: signatures must be sorted by key name, each key's once, in canonical base64", ErrQuorum)
	}
	return nil
}

// count sorts verified signatures into cp. New made sure that no two keys of a policy share name and hash.
func (p *Policy) count(cp *Checkpoint, sigs []note.Signature) error {
	by := func(v note.Verifier, s note.Signature) bool { return v.Name() == s.Name && v.KeyHash() == s.Hash }
	for i, o := range p.orgs {
		for _, s := range sigs {
			if by(p.logKeys[i], s) {
				cp.Servers = append(cp.Servers, o.MSPID)
			}
			if !by(p.cosigners[i], s) {
				continue
			}
			t, err := cosign.Time(s)
			if err != nil {
				return err
			}
			cp.Cosigners = append(cp.Cosigners, o.MSPID)
			if cp.Oldest.IsZero() || t.Before(cp.Oldest) {
				cp.Oldest = t
			}
			if t.After(cp.Newest) {
				cp.Newest = t
			}
		}
	}
	return nil
}
