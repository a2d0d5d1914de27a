package ocspbridge

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/certanchor/certanchor/internal/metrics"
	"github.com/certanchor/certanchor/internal/policy"
)

// LoadTrust reads a policy file whose version with the given fingerprint is trusted.
func LoadTrust(file []byte, fingerprint string) (*Trust, error) {
	if len(bytes.TrimSpace([]byte(fingerprint))) == 0 {
		return nil, errors.New(`policy_fingerprint: "": must be the fingerprint of a version in the policy file`)
	}
	p, err := policy.Load(file, fingerprint)
	if err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	return &Trust{Policy: p, File: file}, nil
}

// ReloadPolicy puts the newest version in a policy file into force, at any time; fingerprint is that of Config.Trust's pin, which the file must
// still have, as the next start wants it. Errors, after which everything is as it was: no Config.Trust; a file that is malformed or
// without the pin; one that lacks the version in force, or whose versions after it are not signed by their predecessors' quorums, so
// that nobody goes back or aside; a version that this organisation and its peers do not fit (see Config.Peers).
func (b *Bridge) ReloadPolicy(file []byte, fingerprint string) (err error) {
	b.reloading.Lock()
	defer b.reloading.Unlock()
	defer func() { b.policyRefused.Store(err != nil) }()
	if b.cfg.Trust == nil {
		return errors.New("policy: must be configured at the start, with policy_fingerprint")
	}
	old := b.trust()
	if bytes.Equal(file, old.File) {
		return nil
	}
	next, err := LoadTrust(file, fingerprint)
	if err != nil {
		return err
	}
	if next.Policy.Version() < old.Policy.Version() {
		return fmt.Errorf("policy: version %d: must be at least %d, which is in force", next.Policy.Version(), old.Policy.Version())
	}
	if _, err := policy.Load(file, old.Policy.Fingerprint()); err != nil {
		return fmt.Errorf("policy: version %d, which is in force, must be in the file: %w", old.Policy.Version(), err)
	}
	if err := b.checkPolicy(next.Policy); err != nil {
		return err
	}
	b.trusted.Store(next)
	b.log.Info("policy is in force", "version", next.Policy.Version(), "before", old.Policy.Version(), "quorum", next.Policy.Quorum(), "fingerprint", next.Policy.Fingerprint())
	b.heads.QuorumChanged()
	if err := b.heads.Refresh(b.logs(b.index.View())...); err != nil {
		b.log.Warn("checkpoints are not renewed at once", "error", err)
	}
	return nil
}

// policyState is for the metrics.
func (b *Bridge) policyState() metrics.PolicyState {
	s := metrics.PolicyState{Refused: b.policyRefused.Load()}
	if t := b.trust(); t != nil {
		s.Version = t.Policy.Version()
	}
	return s
}
