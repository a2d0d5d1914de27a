package client

import (
	"errors"
	"fmt"
	"time"

	"github.com/certanchor/certanchor/internal/policy"
)

// ErrPolicyFile tells that a policy file is malformed, is not the pinned one, or has a version that a quorum of the one before has not signed.
var ErrPolicyFile = errors.New("policy file is not to be trusted")

// Policy says which organisations a consortium has, how many of them must have cosigned what a bundle shows, and how old that may be.
type Policy struct{ p *policy.Policy }

// LoadPolicy reads a policy file (docs/policy.md) and returns its newest version. fingerprint is that of one of its versions, from a source that is
// trusted: usually the first, once for all. Later versions are trusted because a quorum of the version before has signed each.
//
// A file that lacks the newest version is not noticed: get policies from where your software comes from.
func LoadPolicy(file []byte, fingerprint string) (*Policy, error) {
	p, err := policy.Load(file, fingerprint)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPolicyFile, err)
	}
	return &Policy{p}, nil
}

// Channel names the ledger.
func (p *Policy) Channel() string { return p.p.Channel() }

// Version counts from 1.
func (p *Policy) Version() uint64 { return p.p.Version() }

// Fingerprint is the SHA-256 of this version, in hexadecimal.
func (p *Policy) Fingerprint() string { return p.p.Fingerprint() }

// Quorum is how many organisations must have cosigned.
func (p *Policy) Quorum() int { return p.p.Quorum() }

// Organisations returns the MSP IDs, sorted.
func (p *Policy) Organisations() []string {
	var ids []string
	for _, o := range p.p.Orgs() {
		ids = append(ids, o.MSPID)
	}
	return ids
}

// MaxAge is how old a bundle's view of the ledger may be.
func (p *Policy) MaxAge() time.Duration { return p.p.MaxAge() }
