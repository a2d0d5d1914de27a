package node

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/internal/policy"
)

// policyPoll is how often the policy file is looked at.
const policyPoll = 5 * time.Second

// reloader is what a bridge reads again while it runs.
type reloader interface {
	Reload() error // the responder certificates that the configuration names
	ReloadPolicy(file []byte, fingerprint string) error
}

// keepFiles has the bridge read the policy file again when it has changed, and that and the responder certificates at each hangup, until
// ctx ends. What is refused is logged once, or at each hangup, and leaves what was in force.
func keepFiles(ctx context.Context, section *config.OCSPBridge, bridge reloader, hangups <-chan os.Signal, polls <-chan time.Time) {
	last, err := readPolicy(section.Policy)
	if err != nil {
		last = nil // it was there a moment ago; the next look says what is wrong
	}
	for {
		asked := false
		select {
		case <-ctx.Done():
			return
		case <-hangups:
			asked = true
			if err := bridge.Reload(); err != nil {
				slog.Error("responder certificates are not reloaded, those that were read before stay", "error", err)
			}
		case <-polls:
		}
		if section.Policy == "" {
			continue
		}
		text, readErr := readPolicy(section.Policy)
		if !asked && readErr == nil && bytes.Equal(text, last) || !asked && readErr != nil && err != nil {
			continue
		}
		last, err = text, readErr
		// An unreadable file is refused like an empty one.
		if refused := bridge.ReloadPolicy(text, section.PolicyFingerprint); refused != nil {
			slog.Error("policy file is refused, the policy stays as it was", "file", section.Policy, "error", errors.Join(readErr, refused))
		}
	}
}

// readPolicy reads no more than it takes to find that a file is too large.
func readPolicy(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, policy.MaxFile+1))
}
